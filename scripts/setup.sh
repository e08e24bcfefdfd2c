#!/usr/bin/env bash
# Installs what building and testing h5flight need on Debian or Ubuntu, and says what. Does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        echo "setup: this needs root: $*" >&2
        exit 1
    fi
}

# command -> package; PostgreSQL's server is not on the PATH.
missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v make >/dev/null || missing+=(make)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v setpriv >/dev/null || missing+=(util-linux)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || {
        echo "setup: please install: ${missing[*]} (only Debian and Ubuntu are done by themselves)" >&2
        exit 1
    }
    echo "setup: installing the packages ${missing[*]}"
    # A new database cluster and running services are not wanted: the tests start their own.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
    if apt-cache show rustup >/dev/null 2>&1; then
        echo "setup: installing rustup from the distribution, and with it the stable toolchain"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq rustup >/dev/null
        rustup default stable
    else
        echo "setup: cargo is missing; install Rust 1.94 or newer as rust-lang.org/tools/install says, then try again" >&2
        exit 1
    fi
fi

wanted=scripts/requirements.txt
# The package is read where it lies, but its extras and entry points are noted when it is installed.
package=clients/python/pyproject.toml
stamp=.venv/.installed
if ! cat "$wanted" "$package" | cmp -s - "$stamp"; then
    echo "setup: making the Python environment .venv (CMake, pyarrow, h5py, pynwb, pytest and others from PyPI)"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement "$wanted"
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --editable clients/python
    cat "$wanted" "$package" > "$stamp"
fi
