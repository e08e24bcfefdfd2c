"""h5flight over the wire beside h5py and other servers on the same files, in the same run. Run it by `make bench`.

Each round starts h5flight anew, so that its first read of a slice is cold; hot is what it reads again. Who is read
first changes from round to round, and the page cache is warm for all. What is told is the median of the rounds' ratios,
with the least and the greatest.
"""

from __future__ import annotations

import argparse
import os
import time
import zlib
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil

import ingest
import load
import network
import report
import scale
import series
from data import Case, cases
from peers import ROOT, Where, reader
from stage import Scene, Stage
from workloads import WORKLOADS, Result, Workload

NETWORK_CASES = ("A", "B", "E")
TOUCHED_BYTES_MAX = 12_000_000_000


def main() -> None:
    """Make the files, run all workloads, write the report."""
    options = parse()
    os.environ["H5FLIGHT_BIN"] = str(options.bin.resolve())
    options.data.mkdir(parents=True, exist_ok=True)
    known = cases(options.scale)
    chosen = [workload for workload in WORKLOADS if options.only in f"{workload.case} {workload.name}"]
    with_load = options.only in "load"
    names = sorted({workload.case for workload in chosen} | ({load.CASE} if with_load else set()))
    paths = {name: known[name].write(options.data) for name in names}
    touch_memory()
    with Stage(options.data) as stage:
        results = [measure(w, known[w.case], paths[w.case], (stage, options.rounds)) for w in chosen]
    loads = load.run(paths[load.CASE]) if with_load else load.Outcome()
    networks = [name for name in NETWORK_CASES if options.only in f"network {name}"]
    seen = network.run({name: (known[name], known[name].write(options.data)) for name in networks})
    growth = scale.run() if options.only in "scale" else scale.Curves()
    written = ingest.run(options.scale, options.data) if options.only in "ingest" else ingest.Ingest()
    worded = series.run(options.scale, options.data) if options.only in "series" else series.Series()
    run = report.Run(results, loads, seen, growth, written, worded, options.scale, options.rounds)
    report.write(options.out, run)
    print("\n" + report.goals(run))


def parse() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "release" / "h5flight")
    parser.add_argument("--scale", type=float, default=0.5, help="1 makes movies of 2.1 GB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT / "bench-data", help="folder of the files; kept")
    parser.add_argument(
        "--only",
        default="",
        help="workloads whose name contains this; the last are 'network', 'load', 'scale', 'ingest' and 'series'",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    return parser.parse_args()


def touch_memory() -> None:
    """Let a process that ends write to much of the free memory.

    Virtual machines get their memory when it is first written to, and whoever runs first would wait for that.
    """
    nbytes = min(psutil.virtual_memory().available * 6 // 10, TOUCHED_BYTES_MAX)
    child = get_context("spawn").Process(target=fill, args=(nbytes,))
    child.start()
    child.join()


def fill(nbytes: int) -> None:
    """Write to memory."""
    np.empty(nbytes, np.uint8).fill(1)


def measure(workload: Workload, case: Case, path: Path, how: tuple[Stage, int]) -> Result:
    """All rounds of one workload."""
    stage, rounds = how
    began = time.monotonic()
    result = Result(workload, case, {peer: [] for peer in workload.peers})
    with Scene(stage, result, path) as scene:
        for turn in range(rounds * workload.repeat):
            one_round(result, scene, turn)
    print(
        f"{case.name}, {workload.name}: {time.monotonic() - began:.0f} s", *report.lines(result), sep="\n", flush=True
    )
    return result


def one_round(result: Result, scene: Scene, turn: int) -> None:
    """Read the same slices from all peers; the next one begins in the next round."""
    workload = result.workload
    rng = np.random.default_rng([turn, zlib.crc32(f"{workload.case} {workload.name}".encode())])
    slices = [workload.slices(result.case, rng) for _ in range(workload.clients)]
    scene.begin()
    if "redis" in workload.peers:
        scene.keep(slices[0])
    if turn == 0:
        check(slices[0], [scene.where(peer) for peer in workload.peers], scene.where("h5py"))
        scene.begin()
    first = turn % len(workload.peers)
    for peer in workload.peers[first:] + workload.peers[:first]:
        result.timings[peer].append(scene.read(peer, slices))
    result.server_peak_bytes = max(result.server_peak_bytes, scene.peak_bytes())


def check(slices: list, peers: list[Where], local: Where) -> None:
    """A measurement of wrong values is none."""
    expected = reader(local)
    for peer in set(peers) - {local}:
        found = reader(peer)
        for key in slices:
            if not is_same(found[key], expected[key]):
                raise SystemExit(f"{local[1]} {key}: the values of {peer[0]} differ from the file's")
        found.close()
    expected.close()


def is_same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal bytes; texts may come as Python's."""
    if expected.dtype.names:
        return all(is_same(found[name], expected[name]) for name in expected.dtype.names)
    return np.array_equal(found.astype(expected.dtype) if found.dtype == object else found, expected)


if __name__ == "__main__":
    main()
