#!/usr/bin/env bash
# Invariants that Cargo's dependencies hold, checked: which crate may not depend on what (ARCHITECTURE.md).
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
forbid() { # crate, what it must not reach, why
    if cargo tree --package "$1" --edges normal --prefix none --format '{p}' | grep -qE "^($2) v"; then
        echo "check-layers: $1 depends on $2: $3" >&2
        failed=1
    fi
}
forbid h5flight-array 'tokio|sqlx|tonic|hdf5-metno|hdf5-metno-sys' 'planning and decoding are synchronous and pure'
forbid h5flight-catalog 'tonic|hdf5-metno|hdf5-metno-sys|moka' 'the catalogue knows SQL only'
forbid h5flight-hdf5 'tokio|sqlx|tonic' 'the worker is a small synchronous process'
forbid h5flight-server 'hdf5-metno|hdf5-metno-sys' 'libhdf5 never runs in the serving process'
if grep -rnE 'sqlx::' crates --include='*.rs' | grep -v '^crates/h5flight-catalog/'; then
    echo 'check-layers: SQL outside the catalogue' >&2
    failed=1
fi
if grep -rnE 'spawn_blocking|block_in_place' crates --include='*.rs' | grep -vE '^crates/(h5flight-server/src/blocking.rs|h5flight-catalog/|h5flight/)'; then
    echo 'check-layers: blocking work outside crates/h5flight-server/src/blocking.rs' >&2
    failed=1
fi
exit $failed
