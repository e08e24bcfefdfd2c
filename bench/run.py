"""h5flight over the wire beside h5py on the same files, in the same run. Run it by `make bench`.

Each round starts the server anew, so that its first read of a slice is cold; the second is hot. h5py reads the same
slice before or between, in turn. The page cache is warm for both. What is told is the
median of the rounds' ratios, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "clients" / "python" / "src"), str(ROOT / "tests" / "python")]

import h5flight  # noqa: E402
from server import Server  # noqa: E402

import report  # noqa: E402
from data import Case, cases  # noqa: E402

Slice = tuple[slice, ...]
BULK_BYTES = 64 << 20
CLIENTS = 8


@dataclass(frozen=True)
class Workload:
    """What is read, of which case."""

    name: str
    case: str
    slices: Callable[[Case, np.random.Generator], list[Slice]]
    clients: int = 1


@dataclass
class Result:
    """What came out of a workload."""

    workload: Workload
    case: Case
    bytes_read: int = 0
    reads: int = 0
    local_s: list[float] = field(default_factory=list)
    cold_s: list[float] = field(default_factory=list)
    hot_s: list[float] = field(default_factory=list)
    server_peak_bytes: int = 0


def box(case: Case, size: tuple[int, ...], rng: np.random.Generator) -> Slice:
    """A box of a size, anywhere."""
    fitting = [min(a, b) for a, b in zip(size, case.shape, strict=True)]
    starts = [int(rng.integers(0, whole - part + 1)) for whole, part in zip(case.shape, fitting, strict=True)]
    return tuple(slice(start, start + part) for start, part in zip(starts, fitting, strict=True))


def bulk(case: Case, rng: np.random.Generator) -> list[Slice]:
    rows = max(1, min(BULK_BYTES // case.row_bytes, case.shape[0]))
    return [box(case, (rows, *case.shape[1:]), rng)]


def small(size: tuple[int, ...], count: int) -> Callable[[Case, np.random.Generator], list[Slice]]:
    return lambda case, rng: [box(case, size, rng) for _ in range(count)]


def whole(case: Case, rng: np.random.Generator) -> list[Slice]:
    return [tuple(slice(0, size) for size in case.shape)]


WORKLOADS = [
    Workload("64 MB of frames", "A", bulk),
    Workload("64 MB of samples", "B", bulk),
    Workload("64 MB of frames", "D", bulk),
    Workload("whole matrix", "C", whole),
    Workload("64 x 64 pixels, 100 frames", "A", small((100, 64, 64), 3)),
    Workload("64 x 64 pixels, 100 frames", "A_roi", small((100, 64, 64), 20)),
    Workload("1 s of all channels", "B", small((30_000, 64), 10)),
    Workload("100 x 100 values", "C", small((100, 100), 50)),
    Workload("64 x 64 pixels, 100 frames", "D", small((100, 64, 64), 20)),
    Workload(f"{CLIENTS} clients, 64 x 64 pixels", "A_roi", small((100, 64, 64), 10), CLIENTS),
    Workload(f"{CLIENTS} clients, 1 s of all channels", "B", small((30_000, 64), 5), CLIENTS),
]


def main() -> None:
    """Make the files, run all workloads, write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "release" / "h5flight")
    parser.add_argument("--scale", type=float, default=0.25, help="1 makes movies of 2.1 GB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT / "bench-data", help="folder of the files; kept")
    parser.add_argument("--only", default="", help="workloads whose case or name contains this")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    os.environ["H5FLIGHT_BIN"] = str(options.bin.resolve())
    options.data.mkdir(parents=True, exist_ok=True)
    known = cases(options.scale)
    chosen = [w for w in WORKLOADS if options.only in f"{w.case} {w.name}"]
    paths = {name: known[name].write(options.data) for name in sorted({w.case for w in chosen})}
    results = [measure(workload, known[workload.case], paths[workload.case], options) for workload in chosen]
    report.write(options.out, results, options)
    print(f"written to {options.out}")


def measure(workload: Workload, case: Case, path: Path, options: argparse.Namespace) -> Result:
    """All rounds of one workload."""
    result = Result(workload, case)
    server = Server(options.data / "server", {"bench": options.data.resolve()})
    with Crew(workload.clients) as crew:
        try:
            for turn in range(options.rounds):
                one_round(result, server, crew, path, turn)
        finally:
            server.stop()
    print(f"{case.name:6} {workload.name:36} {report.ratios(result)}", flush=True)
    return result


def one_round(result: Result, server: Server, crew: Crew, path: Path, turn: int) -> None:
    workload, case = result.workload, result.case
    rng = np.random.default_rng([turn, workload.clients, len(workload.name)])
    slices = [workload.slices(case, rng) for _ in range(workload.clients)]
    warm(path)
    server.stop()
    server.start()
    with h5flight.connect(server.url) as client:
        client.register(path.resolve(), animal="bench", experiment=path.stem)
    remote = (server.url, path.stem)
    times = {"local": result.local_s, "cold": result.cold_s, "hot": result.hot_s}
    for which in ("local", "cold", "hot") if turn % 2 == 0 else ("cold", "local", "hot"):
        times[which].append(crew.read(str(path) if which == "local" else remote, slices))
    if turn == 0:
        check(path, remote, slices[0])
        result.reads = sum(map(len, slices))
        sizes = (int(np.prod([part.stop - part.start for part in one])) for each in slices for one in each)
        result.bytes_read = sum(sizes) * np.dtype(case.dtype).itemsize
    result.server_peak_bytes = max(result.server_peak_bytes, peak_bytes(server.pid))


def warm(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(64 << 20):
            pass


class Remote:
    """A dataset of the server with its client."""

    def __init__(self, url: str, experiment: str) -> None:
        self.client = h5flight.connect(url)
        self.dataset = self.client["bench"][experiment]["data"]

    def __getitem__(self, key: Slice) -> np.ndarray:
        return self.dataset[key]

    def close(self) -> None:
        self.client.close()


class Local:
    """The same dataset in the file."""

    def __init__(self, path: str) -> None:
        self.file = h5py.File(path)
        self.dataset = self.file["data"]

    def __getitem__(self, key: Slice) -> np.ndarray:
        return self.dataset[key]

    def close(self) -> None:
        self.file.close()


Where = str | tuple[str, str]
"""A file, or a server's URL and an experiment."""


def source(where: Where) -> Local | Remote:
    return Local(where) if isinstance(where, str) else Remote(*where)


class Crew:
    """Client processes that wait with an open file or connection, read when told, and say when they began and ended."""

    def __init__(self, clients: int) -> None:
        context = get_context("spawn")
        pairs = [context.Pipe() for _ in range(clients)]
        self._pipes = [ours for ours, _ in pairs]
        self._processes = [context.Process(target=client, args=(theirs,), daemon=True) for _, theirs in pairs]
        for process in self._processes:
            process.start()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell([None] * len(self._pipes))
        for process in self._processes:
            process.join()

    def _tell(self, words: list[Any]) -> None:
        for pipe, word in zip(self._pipes, words):
            pipe.send(word)

    def read(self, where: Where, slices: list[list[Slice]]) -> float:
        """Seconds from the first beginning to the last end."""
        self._tell([where] * len(self._pipes))
        for pipe in self._pipes:
            pipe.recv()
        self._tell(slices)
        times = [pipe.recv() for pipe in self._pipes]
        return max(end for _, end in times) - min(begin for begin, _ in times)


def client(pipe: Connection) -> None:
    """What a process of the crew does."""
    while (where := pipe.recv()) is not None:
        opened = source(where)
        pipe.send("ready")
        slices = pipe.recv()
        # The clock is the same for all processes.
        began = time.perf_counter()
        for one in slices:
            opened[one]
        pipe.send((began, time.perf_counter()))
        opened.close()


def check(path: Path, remote: tuple[str, str], slices: list[Slice]) -> None:
    """A measurement of wrong bytes is none."""
    found, expected = Remote(*remote), Local(str(path))
    for one in slices:
        if not np.array_equal(found[one], expected[one]):
            raise SystemExit(f"{path.name} {one}: the server's values differ from the file's")
    found.close()
    expected.close()


def peak_bytes(pid: int) -> int:
    """Greatest resident memory of a process so far."""
    with open(f"/proc/{pid}/status") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()
