"""How writing fares: uploads, puts, the index of a large file, verification, and readers who follow a rig.

A section of `make bench`, and alone: ``python bench/ingest.py``. What is compared takes turns, and medians are told.
All files lie in one temporary folder, which is removed; clients and server share the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np

from data import probe
from peers import ROOT, Server, h5flight
from scale import memory_bytes
from workloads import Finding, Section

ROUNDS = 3
UPLOAD_BYTES = 2_000_000_000
"""Of the uploaded file at scale 1."""

PUT_BYTES = 1_000_000_000
"""Values of a put at scale 1."""

PUT_CHUNK = (1024, 384)
LARGE_BYTES = 10_000_000_000
LARGE_CHUNK = (1 << 20,)
"""Of the file that is only indexed, at any scale: its chunks are places without content."""

RATE_HZ, CHANNELS = 30_000, 384
FOLLOW_S = 240
"""Seconds that the rig writes at scale 1: a block a second."""

READERS = 4
PATTERNS = 4
"""Blocks of different values; each block's first channel tells its number."""

PUT_RATIO_MIN = 3.0
LAG_MAX_S = 1.5
GROWTH_MAX = 1.25
"""What the server may hold at the end of the rig's run, against a quarter of it."""

FLAT_FROM_S = 30
"""Runs of fewer seconds do not tell whether memory is flat."""


class Ingest(Section):
    """What came out of writing."""

    def tables(self) -> str:
        """The table, with what it is."""
        intro = (
            "Writing. The upload is `h5flight ingest` of a file that is not compressed, from hashing to the "
            "acknowledgement; beside it the same file is copied and flushed. A put is `client.put` of int16 by "
            f"{CHANNELS} channels with gzip 4 and shuffle in chunks of {PUT_CHUNK}, durable when it returns; h5py "
            f"writes and flushes the same. The large file has {LARGE_BYTES / 1e9:.0f} GB in chunks of 1 MiB that were "
            f"never written. The rig appends blocks of {RATE_HZ:,} x {CHANNELS} int16 (23 MB), one a second, and "
            f"{READERS} processes follow; the lag is from the acknowledgement of a block to its last row at a reader. "
            f"Medians of {ROUNDS}."
        )
        return self.table(intro)


@dataclass(frozen=True)
class Place:
    """Where it is measured."""

    folder: Path
    server: Server
    scale: float
    found: Ingest


def run(scale: float, folder: Path | None = None) -> Ingest:
    """Measure all steps, in a folder below `folder`."""
    found = Ingest()
    with tempfile.TemporaryDirectory(dir=folder, prefix="ingest-") as name:
        lab = Path(name) / "lab"
        lab.mkdir()
        server = Server(Path(name) / "server", {"lab": lab}).start()
        place = Place(Path(name), server, scale, found)
        try:
            for step in (uploads, verifications, large_index, puts, rig):
                step(place)
        finally:
            server.stop()
    return found


def seconds(step: Callable[[], object]) -> float:
    """How long a step takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def speed(nbytes: int, times: list[float]) -> str:
    """Throughput of the median."""
    return f"{nbytes / statistics.median(times) / 1e6:,.0f} MB/s"


def flushed(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def uploads(place: Place) -> None:
    """`h5flight ingest` against a copy that is flushed."""
    nbytes = int(UPLOAD_BYTES * place.scale)
    path, copy = place.folder / "upload.h5", place.folder / "copy.h5"
    rng = np.random.default_rng(1)
    sent: list[float] = []
    copied: list[float] = []
    for number in range(ROUNDS):
        # Other values each time: what the server has it does not take again.
        with h5py.File(path, "w") as file:
            data = file.create_dataset("data", (nbytes,), "u1", chunks=(1 << 20,))
            for first in range(0, nbytes, 1 << 26):
                data[first : first + (1 << 26)] = np.frombuffer(rng.bytes(min(1 << 26, nbytes - first)), "u1")
        flushed(path)

        def copy_file() -> None:
            shutil.copyfile(path, copy)
            flushed(copy)

        def send(number: int = number) -> None:
            named = ("--animal", "bench", "--experiment", f"upload{number}", "--json")
            place.server.command("ingest", str(path), *named, check=True)

        # Whoever comes first changes from round to round.
        for step, times in [(send, sent), (copy_file, copied)][:: 1 if number % 2 else -1]:
            times.append(seconds(step))
        copy.unlink()
    path.unlink()
    place.found.tell(
        "upload", f"{nbytes / 1e6:,.0f} MB", speed(nbytes, sent), f"copy and fsync {speed(nbytes, copied)}"
    )


def verifications(place: Place) -> None:
    """What was uploaded, by its places and by its bytes."""
    nbytes = int(UPLOAD_BYTES * place.scale)
    for name, flags in [("verify", ()), ("verify --deep", ("--deep",))]:
        times = [
            seconds(lambda at=at: place.server.command("verify", "bench", f"upload{at}", *flags, check=True))
            for at in range(ROUNDS)
        ]
        place.found.tell(name, f"{nbytes / 1e6:,.0f} MB", speed(nbytes, times), f"{statistics.median(times):.2f} s")


def large_index(place: Place) -> None:
    """Register a file of 10 GB."""
    path = place.folder / "lab" / "large.h5"
    with h5py.File(path, "w", libver="latest") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(LARGE_CHUNK)
        # Allocated and never filled: the file system keeps a hole.
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((LARGE_BYTES,), (h5py.h5s.UNLIMITED,))
        h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U8LE, space, plist)
    if path.stat().st_size < LARGE_BYTES:
        raise SystemExit(f"the large file has {path.stat().st_size} bytes instead of {LARGE_BYTES}")
    named = ("--animal", "bench", "--experiment", "large")
    took = seconds(lambda: place.server.command("register", str(path), *named, check=True))
    with h5flight.connect(place.server.url) as client:
        shape = client["bench"]["large"]["data"].shape
    if shape != (LARGE_BYTES,):
        raise SystemExit(f"the large file is served with shape {shape}")
    path.unlink()
    chunks = -(-LARGE_BYTES // LARGE_CHUNK[0])
    place.found.tell("index", f"{LARGE_BYTES / 1e9:.0f} GB, {chunks:,} chunks", f"{took:.2f} s")


def puts(place: Place) -> None:
    """`client.put` against h5py: the same values, chunks and filters."""
    rows = int(PUT_BYTES * place.scale) // (2 * CHANNELS)
    values = probe(0, rows, (CHANNELS,), np.random.default_rng(2)).astype("<i2")
    path = place.folder / "h5py.h5"
    ours: list[float] = []
    theirs: list[float] = []

    def h5py_writes() -> None:
        with h5py.File(path, "w") as file:
            filters = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
            file.create_dataset("data", data=values, chunks=PUT_CHUNK, **filters)
        flushed(path)

    with h5flight.connect(place.server.url) as client:
        for number in range(ROUNDS):

            def put(number: int = number) -> None:
                how = {"codec": "gzip", "level": 4, "shuffle": True, "chunks": PUT_CHUNK}
                client.put("bench", "puts", f"data{number}", values, **how)

            for step, times in [(put, ours), (h5py_writes, theirs)][:: 1 if number % 2 else -1]:
                times.append(seconds(step))
        if not np.array_equal(client["bench"]["puts"]["data0"][...], values):
            raise SystemExit("the values of a put differ")
    path.unlink()
    ratio = statistics.median(theirs) / statistics.median(ours)
    place.found.tell(
        "put", f"{values.nbytes / 1e6:,.0f} MB", speed(values.nbytes, ours), f"h5py {speed(values.nbytes, theirs)}"
    )
    place.found.findings.append(
        Finding("put against h5py", f"at least {PUT_RATIO_MIN:g}x", f"{ratio:.2f}x", ratio >= PUT_RATIO_MIN)
    )


def patterns() -> list[np.ndarray]:
    """Blocks, the same in every process."""
    rng = np.random.default_rng(3)
    return [probe(0, RATE_HZ, (CHANNELS,), rng).astype("<i2") for _ in range(PATTERNS)]


def follow(url: str, blocks: int, ready: object) -> dict[int, float]:
    """Follow the rig; gives when each block was complete, on the clock that all processes of a machine share."""
    made, complete, at = patterns(), {}, 0
    with h5flight.connect(url) as client:
        ready.release()  # type: ignore[attr-defined]
        for first, rows in client["bench"]["rig"]["live"].follow(0, stop=lambda: at >= blocks * RATE_HZ):
            if first != at or len(rows) % RATE_HZ:
                raise AssertionError(f"{len(rows)} rows from {first} on instead of whole blocks from {at} on")
            at += len(rows)
            arrived = time.monotonic()
            for number, block in enumerate(rows.reshape(-1, RATE_HZ, CHANNELS), first // RATE_HZ):
                complete[number] = arrived
                expected = made[number % PATTERNS]
                if not ((block[:, 0] == number).all() and np.array_equal(block[:, 1:], expected[:, 1:])):
                    raise AssertionError(f"wrong values in block {number}")
    return complete


def follow_into(url: str, blocks: int, ready: object, answers: object) -> None:
    """What a reader's process runs: the answer is its times, or its error."""
    try:
        answers.put(follow(url, blocks, ready))  # type: ignore[attr-defined]
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")  # type: ignore[attr-defined]


def rig(place: Place) -> None:
    """A block a second, and readers who follow."""
    blocks = max(3, int(FOLLOW_S * place.scale))
    context = get_context("spawn")
    ready, answers = context.Semaphore(0), context.Queue()
    told = (place.server.url, blocks, ready, answers)
    readers = [context.Process(target=follow_into, args=told, daemon=True) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    for _ in readers:
        if not ready.acquire(timeout=60):
            raise SystemExit("a reader did not start within 60 s")
    acknowledged, took, held = append(place, blocks)
    completes = []
    for _ in readers:
        answer = answers.get(timeout=60)
        if isinstance(answer, str):
            raise SystemExit(f"a reader ended: {answer}")
        completes.append(answer)
    for reader in readers:
        reader.join(60)
    lags = [max(0.0, complete[at] - since) for complete in completes for at, since in enumerate(acknowledged)]
    report(place, blocks, (lags, took, held))


def append(place: Place, blocks: int) -> tuple[list[float], list[float], list[int]]:
    """The rig; gives when each block was acknowledged, how long that took, and what the server held."""
    made, pace = patterns(), threading.Event()
    acknowledged, took, held = [], [], []
    with h5flight.connect(place.server.url) as client, client.writer("rig", "bench", "rig", "live") as rig:
        began = time.monotonic()
        for number in range(blocks):
            pace.wait(max(0.0, began + number - time.monotonic()))
            block = made[number % PATTERNS]
            block[:, 0] = number
            sent = time.monotonic()
            rig.append(block)
            acknowledged.append(time.monotonic())
            took.append(acknowledged[-1] - sent)
            held.append(memory_bytes(place.server))
    return acknowledged, took, held


def report(place: Place, blocks: int, measured: tuple[list[float], list[float], list[int]]) -> None:
    """A row of the rig, and its goals."""
    lags, took, held = measured
    p99 = float(np.percentile(lags, 99))
    growth = held[-1] / held[len(held) // 4]
    place.found.tell(
        "follow",
        f"{blocks} s, {READERS} readers",
        f"lag p50 {statistics.median(lags):.2f} s, p99 {p99:.2f} s, 0 gaps, 0 duplicates",
        f"append p50 {statistics.median(took):.2f} s, most {max(took):.2f} s; server {max(held) / 1e6:,.0f} MB",
    )
    place.found.findings += goals(blocks, p99, growth)


def goals(blocks: int, p99: float, growth: float) -> Iterator[Finding]:
    """What was to be reached by the rig and its readers."""
    yield Finding("lag of readers who follow, p99", f"at most {LAG_MAX_S:g} s", f"{p99:.2f} s", p99 <= LAG_MAX_S)
    if blocks >= FLAT_FROM_S:
        what = "the server's memory at the end of the rig, against a quarter of it"
        yield Finding(what, f"at most {GROWTH_MAX:g}x", f"{growth:.2f}x", growth <= GROWTH_MAX)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "release" / "h5flight")
    parser.add_argument("--scale", type=float, default=0.5, help="1 uploads 2 GB and follows for four minutes")
    parser.add_argument("--data", type=Path, default=None, help="folder for the files; else that of temporary files")
    options = parser.parse_args()
    os.environ["H5FLIGHT_BIN"] = str(options.bin.resolve())
    if options.data is not None:
        options.data.mkdir(parents=True, exist_ok=True)
    found = run(options.scale, options.data)
    print(found.tables())
    for goal in found.findings:
        print(f"{goal.measured} {goal.what}, {goal.goal}: {goal.verdict}")


if __name__ == "__main__":
    main()
