"""How the index grows: datasets of up to a million chunks, files of up to 100,000 datasets.

A section of `make bench`, and alone: ``python bench/scale.py``. Each size has a server of its own, told to keep nothing
beyond what is asked for; times are medians where something is asked more than once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import psutil

from peers import ROOT, Connection, Server, h5flight
from workloads import Finding, markdown

CHUNKS = (1_000, 10_000, 100_000, 1_000_000)
DATASETS = (100, 1_000, 10_000, 100_000)
REPEATS = 200
PAGE = 100
NOTHING_AHEAD = {"H5FLIGHT_TOUCH_MEMORY": "false"}
GROWTH_MAX = 2.0
"""What a small read of the largest may take of that of the smallest, once the index is in memory."""

POINTER_BYTES_MAX = 32
"""What a chunk pointer may take in memory, in bytes: 24 and what the table has spare."""


@dataclass(frozen=True)
class Growth:
    """One size: how many, and what each step took, in the unit that its name ends with."""

    count: int
    took: dict[str, float]


@dataclass
class Curves:
    """What came out."""

    chunks: list[Growth] = field(default_factory=list)
    datasets: list[Growth] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        """What was to be reached, and what was."""
        return list(self._found()) if self.chunks else []

    def _found(self) -> Iterator[Finding]:
        first, last = (self.chunks[at].took["small read, ms"] for at in (0, -1))
        grown = last / first
        what = f"small read of {self.chunks[-1].count:,} chunks against {self.chunks[0].count:,}"
        yield Finding(what, f"at most {GROWTH_MAX:g}x", f"{grown:.2f}x", grown <= GROWTH_MAX)
        size = self.chunks[-1].took["memory, bytes a chunk"]
        what = "memory of the index"
        yield Finding(what, f"at most {POINTER_BYTES_MAX} bytes a chunk", f"{size:.0f}", size <= POINTER_BYTES_MAX)

    def tables(self) -> str:
        """The curves as tables."""
        if not self.chunks:
            return ""
        intro = (
            "How the index grows. `first read` resolves the dataset and unpacks its chunk pointers; `small read` is "
            f"one chunk of it afterwards, anywhere, median of {REPEATS}; a page has {PAGE} entries. Python, gRPC and "
            "one decoded chunk are in all times."
        )
        return "\n\n".join([intro, table("chunks", self.chunks), table("datasets", self.datasets)])


def table(what: str, curve: list[Growth]) -> str:
    """A row for each size."""
    names = list(curve[0].took)
    return markdown([what, *names], [[f"{at.count:,}", *(f"{at.took[name]:,.3g}" for name in names)] for at in curve])


def run(chunks: tuple[int, ...] = CHUNKS, datasets: tuple[int, ...] = DATASETS) -> Curves:
    """Measure all sizes."""
    curves = Curves()
    for count in chunks:
        curves.chunks.append(Growth(count, measured(count, with_chunks, of_chunks)))
        print("  " + table("chunks", curves.chunks[-1:]).splitlines()[-1], flush=True)
    for count in datasets:
        curves.datasets.append(Growth(count, measured(count, with_datasets, of_datasets)))
        print("  " + table("datasets", curves.datasets[-1:]).splitlines()[-1], flush=True)
    return curves


Steps = Callable[[Server, int, "Clock"], None]


class Clock:
    """Times of steps by their name."""

    def __init__(self) -> None:
        self.took: dict[str, float] = {}

    def once(self, name: str, step: Callable[[], object]) -> None:
        """How long a step takes, in seconds or milliseconds as the name says."""
        self.often(name, [step])

    def often(self, name: str, steps: list[Callable[[], object]]) -> None:
        """The median of several."""
        times = []
        for step in steps:
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        self.took[name] = statistics.median(times) * (1e3 if name.endswith(", ms") else 1)


def measured(count: int, write: Callable[[Path, int], None], steps: Steps) -> dict[str, float]:
    """Write a file and go through the steps with a server that never saw it."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder) / "lab"
        lab.mkdir()
        path = lab / "grown.h5"
        write(path, count)
        server = Server(Path(folder) / "server", {"lab": lab}, "--memory-bytes", "256MiB", environment=NOTHING_AHEAD)
        server.start()
        clock = Clock()
        command = [os.environ["H5FLIGHT_BIN"], "register", str(path), "--url", server.url]
        command += ["--animal", "grown", "--experiment", "grown"]
        try:
            clock.once("register, s", lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
            steps(server, count, clock)
        finally:
            server.stop()
        return clock.took


def with_chunks(path: Path, count: int) -> None:
    """One dataset of chunks of 64 bytes, compressed."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("other", data=np.arange(8.0), chunks=(8,), compression="gzip")
        made = file.create_dataset("data", (count * 8,), "f8", chunks=(8,), compression="gzip")
        piece = 80_000
        for first in range(0, count * 8, piece):
            last = min(first + piece, count * 8)
            made[first:last] = np.arange(first, last, dtype="f8")


def of_chunks(server: Server, count: int, clock: Clock) -> None:
    """The first read, small reads, a page of pointers, and the memory of the index."""
    with h5flight.connect(server.url) as client:
        data = client["grown"]["grown"]["data"]
        # What the first read of all brings along is not the index.
        for _ in range(REPEATS):
            client["grown"]["grown"]["other"][:]
        before = memory_bytes(server)
        clock.once("first read, ms", lambda: data[0:8])
        clock.took["memory, bytes a chunk"] = max(memory_bytes(server) - before, 0) / count
        picks = np.random.default_rng(1).integers(0, count, REPEATS) * 8

        def check(first: int) -> None:
            if data[first : first + 8][3] != first + 3:
                raise AssertionError(f"wrong values at {first}")

        clock.often("small read, ms", [lambda first=int(first): check(first) for first in picks])
    page = {"animal": "grown", "experiment": "grown", "dataset": "data", "page_size": PAGE}
    ask = Connection(server.url).ask
    clock.often("pointers by page, ms", [lambda: ask("list-chunks", **page)] * 5)


def with_datasets(path: Path, count: int) -> None:
    """Small datasets in groups of a hundred."""
    with h5py.File(path, "w", libver="latest") as file:
        for at in range(count):
            made = file.create_dataset(f"group{at // 100:04}/trace{at:06}", data=np.arange(at, at + 4))
            if at % 10 == 0:
                made.attrs["unit"] = "volts"


def of_datasets(server: Server, count: int, clock: Clock) -> None:
    """A first read, small reads, a page of the list, and searches."""
    with h5flight.connect(server.url) as client:
        experiment = client["grown"]["grown"]

        def check(at: int) -> None:
            if experiment[f"group{at // 100:04}/trace{at:06}"][0] != at:
                raise AssertionError(f"wrong values of dataset {at}")

        picks = np.random.default_rng(1).permutation(count)[:REPEATS]
        clock.often("first read, ms", [lambda at=int(at): check(at) for at in picks])
        clock.often("small read, ms", [lambda at=int(at): check(at) for at in picks])
    page = {"animal": "grown", "experiment": "grown", "page_size": PAGE}
    ask = Connection(server.url).ask
    clock.often("page of the list, ms", [lambda: ask("list-datasets", **page)] * 5)
    search = {"query": f"trace{count - 1:06}", "page_size": PAGE}
    clock.often("search, one hit, ms", [lambda: ask("search", **search)] * 5)


def memory_bytes(server: Server) -> int:
    """What the server's process holds."""
    return psutil.Process(server.pid).memory_info().rss


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "release" / "h5flight")
    os.environ["H5FLIGHT_BIN"] = str(parser.parse_args().bin.resolve())
    print(run().tables())


if __name__ == "__main__":
    main()
