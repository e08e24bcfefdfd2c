"""Client processes that read when told and say how long each read took. What is read, others decide."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from peers import Slice, Where, reader

SMALL_BYTES_MAX = 16 << 20
"""Reads up to this size are small ones."""


@dataclass(frozen=True)
class Order:
    """What one client reads: some slices unmeasured, then the measured ones."""

    where: Where
    slices: list[Slice]
    warmup: list[Slice]


@dataclass
class Timing:
    """How one pass over the slices of all clients went.

    Attributes
    ----------
    wall_s : float
        From the first beginning to the last end.
    reads : list of (int, float)
        Bytes and seconds of every read.
    cpu_s : float
        What the server has used meanwhile.
    """

    wall_s: float
    reads: list[tuple[int, float]]
    cpu_s: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of all results."""
        return sum(size for size, _ in self.reads)

    @property
    def small_s(self) -> list[float]:
        """Seconds of each small read."""
        return [seconds for size, seconds in self.reads if size <= SMALL_BYTES_MAX]

    @property
    def each_s(self) -> float:
        """Median of the single reads."""
        return statistics.median(seconds for _, seconds in self.reads)


class Crew:
    """Processes that wait for orders; starting one takes longer than most reads."""

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
        for process in self._processes:
            process.terminate()
            process.join()

    def ready(self, orders: list[Order]) -> None:
        """Open what is to be read, and read what is not measured."""
        for pipe, order in zip(self._pipes, orders):
            pipe.send(order)
        for pipe in self._pipes:
            answer(pipe)

    def read(self) -> Timing:
        """Let all clients begin at the same time."""
        for pipe in self._pipes:
            pipe.send("go")
        told = [answer(pipe) for pipe in self._pipes]
        wall_s = max(end for _, end, _ in told) - min(begin for begin, _, _ in told)
        return Timing(wall_s, [read for *_, reads in told for read in reads])


def answer(pipe: Connection) -> tuple[float, float, list[tuple[int, float]]]:
    """What a client says; its errors become ours."""
    said = pipe.recv()
    if isinstance(said, Exception):
        raise said
    return said


def client(pipe: Connection) -> None:
    """What a process of the crew does."""
    while True:
        order = pipe.recv()
        try:
            serve(pipe, order)
        except Exception as error:
            pipe.send(error)


def serve(pipe: Connection, order: Order) -> None:
    """Carry out one order."""
    opened = reader(order.where)
    for key in order.warmup:
        opened[key]
    pipe.send(None)
    pipe.recv()
    reads = []
    # The clock is the same for all processes.
    began = time.perf_counter()
    for key in order.slices:
        start = time.perf_counter()
        values = opened[key]
        reads.append((values.nbytes, time.perf_counter() - start))
        # Giving memory back is part of no read.
        del values
    pipe.send((began, time.perf_counter(), reads))
    opened.close()
