"""Memory and leftovers under load: many clients, many open streams, slow readers, large requests, cancelled streams.

The last section of `make bench`, and alone: ``python bench/load.py``. Each scene has a server of its own that was given
1 GiB of memory. Clients are threads of this process, each with a connection that it shares with nobody.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

from data import cases
from peers import ROOT, Server, from_flight, h5flight, until, wire
from workloads import Finding, markdown

CASE = "A"
SEED = 4127
MEMORY_BYTES = 1 << 30
PEAK_BYTES_MAX = MEMORY_BYTES + (128 << 20)
"""What the server may take: what it was told, and its own."""

CLIENTS = 8
CONNECTIONS = 100
STREAMS = 1000
STREAM_ROWS = 32
"""Frames of one of many open streams: 17 MB, more than what lies between server and client."""

REQUESTS = 200
HOLD_S = 15
"""How long slow clients hold their streams. It is a bound of the scene, not a wait for something."""

READ_S = 20
"""How long large requests are read before they are cut short: all of them would be 200 GB."""

TOGETHER_S = 120
"""How long clients wait for each other: one that failed must not hold up the rest for ever."""

CANCELLED = 1000
LEFT_S = 1.0
"""After this nothing may be left of cancelled streams."""

GAUGES = ("h5flight_reads", "h5flight_blocking_queue", "h5flight_read_memory_bytes")
FAULTS = (pa.ArrowException, pa.ArrowCancelled, OSError)
DETAILS = "grpc-status-details-bin"


# What came out


@dataclass(frozen=True)
class Scene:
    """What happened to one server: how its streams ended, by kind, and the most memory that it had."""

    name: str
    ended: Counter[str]
    peak_bytes: int
    seconds: float

    def findings(self) -> Iterator[Finding]:
        """Memory and errors."""
        peak, bound = self.peak_bytes >> 20, PEAK_BYTES_MAX >> 20
        yield Finding(f"peak memory, {self.name}", f"at most {bound:,} MiB", f"{peak:,} MiB", peak <= bound)
        errors = sum(count for kind, count in self.ended.items() if kind not in GOOD)
        yield Finding(f"errors other than busy, {self.name}", "0", str(errors), errors == 0)


GOOD = ("finished", "cut short", "busy")


@dataclass
class Outcome:
    """All scenes, and what was there before and after a thousand cancelled streams."""

    scenes: list[Scene] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """What was to be reached, and what was."""
        found = [finding for scene in self.scenes for finding in scene.findings()]
        if self.before:
            more = [
                f"{name} {now} (was {self.before[name]})" for name, now in exceeding(self.before, self.after).items()
            ]
            what = f"left {LEFT_S:g} s after {CANCELLED:,} cancelled streams"
            found.append(Finding(what, "nothing", ", ".join(more) or "nothing", not more))
        return found

    def tables(self) -> str:
        """Memory and ends of streams; what cancelled streams left."""
        if not self.scenes:
            return ""
        rows = [
            [scene.name, f"{scene.peak_bytes / 2**20:,.0f} MiB", told(scene.ended), f"{scene.seconds:.0f} s"]
            for scene in self.scenes
        ]
        left = [[name, str(was), str(self.after[name])] for name, was in self.before.items()]
        intro = (
            f"Memory: `--memory-bytes 1GiB`, a server for each row; the bound is {PEAK_BYTES_MAX >> 20:,} MiB. "
            "`busy` is RESOURCE_EXHAUSTED with the time after which to try again."
        )
        memory = markdown(["under load", "peak memory", "how streams ended", "took"], rows)
        return "\n\n".join([intro, memory, markdown(["cancelled streams", "before", "after"], left)])


def told(ended: Counter[str]) -> str:
    """Kinds with their counts."""
    return ", ".join(f"{count:,} {kind}" for kind, count in ended.most_common())


# Clients


class Call(flight.ClientMiddleware):
    """Keeps what the server said of the error of one call, which pyarrow drops."""

    def __init__(self) -> None:
        super().__init__()
        self.details: bytes | None = None

    def received_headers(self, headers: dict[str, list[str | bytes]]) -> None:
        """Look for the details."""
        for value in headers.get(DETAILS, []):
            self.details = value.encode("latin-1") if isinstance(value, str) else value


class Calls(flight.ClientMiddlewareFactory):
    """Remembers the last call of each thread."""

    def __init__(self) -> None:
        super().__init__()
        self.last = threading.local()

    def start_call(self, info: flight.CallInfo) -> Call:
        """Make the middleware of one call."""
        self.last.call = Call()
        return self.last.call


class Line:
    """A connection of its own: gRPC would let all clients of a process share one.

    Parameters
    ----------
    url : str
        Where the server is.
    ended : Counter
        Where the ends of streams are counted, by kind.
    """

    def __init__(self, url: str, ended: Counter[str]) -> None:
        self._calls, self._ended = Calls(), ended
        self._client = flight.connect(
            url, middleware=[self._calls], generic_options=[("grpc.use_local_subchannel_pool", 1)]
        )

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def open(self, rows: tuple[int, int] | None = None) -> Stream:
        """Ask for some rows, else for all."""
        parts = f"{rows[0]}:{rows[1]}" if rows else None
        request = wire.GetData("bench", "load", "data", parts=parts)
        stream = Stream(self._ended)
        with stream.faults():
            try:
                stream.reader = self._client.do_get(flight.Ticket(request.ticket()))
            finally:
                stream.call = self._calls.last.call
        return stream


class Stream:
    """One read whose end is counted once."""

    def __init__(self, ended: Counter[str]) -> None:
        self.reader: flight.FlightStreamReader | None = None
        self.call: Call | None = None
        self._ended = ended
        self.is_open = True

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Count an error as the stream's end."""
        try:
            yield
        except FAULTS as error:
            self._end(kind_of(error, self.call.details if self.call else None))

    def _end(self, kind: str) -> None:
        if self.is_open:
            self.is_open = False
            with COUNTING:
                self._ended[kind] += 1

    def take(self, batches: int) -> None:
        """Read some batches and drop them."""
        with self.faults():
            for _ in range(batches):
                if not self.is_open:
                    return
                self._take_one()

    def _take_one(self) -> None:
        try:
            self.reader.read_chunk()
        except StopIteration:
            self._end("finished")

    def drain(self, until_s: float = float("inf")) -> None:
        """Read to the end, or to a time of the monotonic clock."""
        while self.is_open and time.monotonic() < until_s:
            self.take(1)
        self.cancel()

    def cancel(self) -> None:
        """Want no more."""
        if self.is_open:
            self.reader.cancel()
            self._end("cut short")


COUNTING = threading.Lock()


def kind_of(error: Exception, details: bytes | None) -> str:
    """The server's reason; ``busy`` only where it is told as it should be."""
    ours = from_flight(error, details)
    if ours.reason == "busy" and not (
        isinstance(ours, h5flight.LimitError) and b"google.rpc.RetryInfo" in (details or b"")
    ):
        return "busy without RetryInfo"
    return ours.reason or f"{type(error).__name__} without a reason"


# Scenes


@dataclass
class Place:
    """Where a scene plays: the server, the length of the movie, and how its streams ended."""

    server: Server
    frames: int
    ended: Counter[str] = field(default_factory=Counter)

    def line(self) -> Line:
        """Another connection."""
        return Line(self.server.url, self.ended)


def run(path: Path) -> Outcome:
    """All scenes, one after the other.

    Parameters
    ----------
    path : Path
        The file of the case.
    """
    outcome = Outcome()
    scenes: list[tuple[str, Callable[[Place], None]]] = [
        (f"{CLIENTS} clients read the whole movie", whole_movie),
        (f"{STREAMS:,} open streams of {CONNECTIONS} connections", open_streams),
        (f"{CONNECTIONS} clients take one batch and hold for {HOLD_S} s", slow_clients),
        (f"{REQUESTS} requests of the whole movie at once, read for {READ_S} s", large_requests),
        (f"twice {CANCELLED:,} streams cancelled at random", lambda place: cancelled(place, outcome)),
    ]
    for name, play in scenes:
        with staged(path) as place:
            began = time.monotonic()
            play(place)
            scene = Scene(name, place.ended, place.server.peak_bytes(), time.monotonic() - began)
        outcome.scenes.append(scene)
        print(f"{name}: {scene.peak_bytes >> 20:,} MiB, {told(scene.ended)}, {scene.seconds:.0f} s", flush=True)
    return outcome


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Place]:
    """A server of a scene's own that knows the file."""
    with tempfile.TemporaryDirectory(prefix="h5flight-load-") as folder, h5py.File(path) as file:
        server = Server(Path(folder), {"bench": path.parent.resolve()}, "--memory-bytes", str(MEMORY_BYTES)).start()
        try:
            with h5flight.connect(server.url) as client:
                client.register(path.resolve(), animal="bench", experiment="load")
            yield Place(server, len(file["data"]))
        finally:
            server.stop()


def crowd(size: int, act: Callable[[int], None]) -> None:
    """Let clients act at the same time, each with its number."""
    with ThreadPoolExecutor(size) as pool:
        for _ in pool.map(act, range(size)):
            pass


def whole_movie(place: Place) -> None:
    """Each client reads all of it."""

    def act(_: int) -> None:
        with place.line() as line:
            line.open().drain()

    crowd(CLIENTS, act)


def open_streams(place: Place) -> None:
    """Each stream gives its first batch and stays open until all are; then one of ten is read to its end."""
    firsts = np.random.default_rng(SEED).integers(0, place.frames - STREAM_ROWS, STREAMS).tolist()
    all_are_open = threading.Barrier(STREAMS)
    with contextlib.ExitStack() as ends:
        lines = [ends.enter_context(place.line()) for _ in range(CONNECTIONS)]

        def act(number: int) -> None:
            stream = lines[number % CONNECTIONS].open((firsts[number], firsts[number] + STREAM_ROWS))
            stream.take(1)
            all_are_open.wait(TOGETHER_S)
            if number % 10 == 0:
                stream.drain()
            stream.cancel()

        crowd(STREAMS, act)


def slow_clients(place: Place) -> None:
    """Clients that do not read on, as one of 1 kB/s would not for half an hour after a batch of 2 MiB."""
    is_over = threading.Event()
    all_hold = threading.Barrier(CONNECTIONS)

    def act(_: int) -> None:
        with place.line() as line:
            stream = line.open()
            stream.take(1)
            all_hold.wait(TOGETHER_S)
            # Nobody sets it: the time is what is wanted.
            is_over.wait(HOLD_S)
            stream.cancel()

    crowd(CONNECTIONS, act)


def large_requests(place: Place) -> None:
    """More requests than memory could hold results of."""
    together = threading.Barrier(REQUESTS)

    def act(_: int) -> None:
        with place.line() as line:
            together.wait(TOGETHER_S)
            line.open().drain(time.monotonic() + READ_S)

    crowd(REQUESTS, act)


def cancelled(place: Place, outcome: Outcome) -> None:
    """Streams that end anywhere; what they took must come back, the seeds are `SEED` and the next."""
    # The first ones start threads and open the file, which a server keeps for a while.
    cancel_streams(place, SEED)
    with contextlib.suppress(TimeoutError):
        until(lambda: not any(gauges(place.server).values()), "rest", LEFT_S)
    outcome.before = holdings(place.server)
    cancel_streams(place, SEED + 1)

    def is_as_before() -> bool:
        outcome.after = holdings(place.server)
        return not exceeding(outcome.before, outcome.after)

    with contextlib.suppress(TimeoutError):
        until(is_as_before, "what was before", LEFT_S)


def cancel_streams(place: Place, seed: int) -> None:
    """Clients open streams one after the other and leave each after some batches, or before the first."""

    def act(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        with place.line() as line:
            for _ in range(CANCELLED // CLIENTS):
                first, last = np.sort(rng.integers(0, place.frames + 1, 2)).tolist()
                stream = line.open((first, last))
                stream.take(int(rng.integers(0, 6)))
                stream.cancel()

    crowd(CLIENTS, act)


def holdings(server: Server) -> dict[str, int]:
    """What a server holds: descriptors, threads, and what its gauges say of reads, work and memory."""
    process = Path(f"/proc/{server.pid}")
    counts = {"descriptors": len(os.listdir(process / "fd")), "threads": len(os.listdir(process / "task"))}
    return {**counts, **gauges(server)}


def gauges(server: Server) -> dict[str, int]:
    """Gauges of reads under way."""
    with urllib.request.urlopen(f"{server.http_url}/metrics") as page:
        found = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line.startswith(GAUGES))
    return {name: int(float(found.get(name, 0))) for name in GAUGES}


def exceeding(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What there is more of than before."""
    return {name: after[name] for name, was in before.items() if after[name] > was}


def main() -> None:
    """Play the scenes alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "release" / "h5flight")
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--data", type=Path, default=ROOT / "bench-data")
    options = parser.parse_args()
    os.environ["H5FLIGHT_BIN"] = str(options.bin.resolve())
    options.data.mkdir(parents=True, exist_ok=True)
    for finding in run(cases(options.scale)[CASE].write(options.data)).findings:
        print(f"{finding.what}: {finding.measured}, goal {finding.goal}, {finding.verdict}")


if __name__ == "__main__":
    main()
