"""What is measured and what it should reach. Nothing here reads anything."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from crew import Timing
from data import Case
from peers import Slice

BULK_BYTES = 64 << 20
CLIENTS = 8
Peer = Literal["h5py", "naive", "redis", "memory", "cold", "hot"]
"""Who is read; ``cold`` and ``hot`` are h5flight just started, and with the slices in its memory."""


@dataclass(frozen=True)
class Goal:
    """A number that a workload should reach: the median of the values."""

    what: str
    sign: Literal["at least", "at most"]
    bound: float
    values: Callable[[Result], list[float]]
    unit: str = "x"


@dataclass(frozen=True)
class Finding:
    """A goal and what came out."""

    what: str
    goal: str
    measured: str
    is_reached: bool

    @property
    def verdict(self) -> str:
        """In words."""
        return "reached" if self.is_reached else "not reached"


@dataclass(frozen=True)
class Workload:
    """What is read, of which case, by whom.

    Attributes
    ----------
    name, case : str
        What it is called, and the file.
    slices : callable
        The slices of one client in one round.
    peers : tuple of str
        Who is measured, in the order of the first round.
    goals : tuple of Goal
        What should come out.
    clients : int
        Processes that read at the same time.
    repeat : int
        How many times the rounds are done: the tail of small reads takes many of them.
    """

    name: str
    case: str
    slices: Callable[[Case, np.random.Generator], list[Slice]]
    peers: tuple[Peer, ...]
    goals: tuple[Goal, ...]
    clients: int = 1
    repeat: int = 1


@dataclass
class Result:
    """What came out of a workload: one timing of each peer and round."""

    workload: Workload
    case: Case
    timings: dict[str, list[Timing]] = field(default_factory=dict)
    server_peak_bytes: int = 0


@dataclass
class Section:
    """What other scenes found: a row of their table for each step, and what was to be reached."""

    rows: list[list[str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def tell(self, what: str, size: str, measured: str, beside: str = "") -> None:
        """Add a row, and show it."""
        self.rows.append([what, size, measured, beside])
        print(f"  {what} ({size}): {measured}; {beside}", flush=True)

    def table(self, intro: str) -> str:
        """The table, with what it is."""
        head = ["what", "size", "h5flight", "beside"]
        return intro + "\n\n" + markdown(head, self.rows) if self.rows else ""


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


# Slices


def box(case: Case, size: tuple[int, ...], rng: np.random.Generator) -> Slice:
    """A box of a size, anywhere."""
    fitting = [min(a, b) for a, b in zip(size, case.shape, strict=True)]
    starts = [int(rng.integers(0, whole - part + 1)) for whole, part in zip(case.shape, fitting, strict=True)]
    return tuple(slice(start, start + part) for start, part in zip(starts, fitting, strict=True))


def bulk(case: Case, rng: np.random.Generator) -> list[Slice]:
    """64 MB of all that there is along the other axes."""
    rows = max(1, min(BULK_BYTES // case.row_bytes, case.shape[0]))
    return [box(case, (rows, *case.shape[1:]), rng)]


def again(count: int) -> Callable[[Case, np.random.Generator], list[Slice]]:
    """The first 64 MB, again and again."""
    return lambda case, rng: [tuple(map(slice, [0] * len(case.shape), (rows_of_bulk(case), *case.shape[1:])))] * count


def rows_of_bulk(case: Case) -> int:
    """Rows of 64 MB."""
    return min(BULK_BYTES // case.row_bytes, case.shape[0])


def whole(case: Case, rng: np.random.Generator) -> list[Slice]:
    """All of it."""
    return [tuple(slice(0, size) for size in case.shape)]


def small(size: tuple[int, ...], count: int) -> Callable[[Case, np.random.Generator], list[Slice]]:
    """Boxes of a size that share no chunk, so that each is cold; fewer where there is no room for so many."""
    return lambda case, rng: apart(case, size, rng)[:count]


def apart(case: Case, size: tuple[int, ...], rng: np.random.Generator) -> list[Slice]:
    """As many boxes as fit without sharing a chunk, in any order."""
    rooms = []
    for part, chunk, all_of_it in zip(size, case.chunks or (1,) * len(size), case.shape, strict=True):
        room = min(-(-(part + chunk - 1) // chunk) * chunk, all_of_it)
        rooms.append([(start, room) for start in range(0, all_of_it - room + 1, room)])
    corners = list(itertools.product(*rooms))
    rng.shuffle(corners)
    boxes = []
    for corner in corners:
        starts = [start + int(rng.integers(0, room - part + 1)) for (start, room), part in zip(corner, size)]
        boxes.append(tuple(slice(start, start + part) for start, part in zip(starts, size)))
    return boxes


def mixed(size: tuple[int, ...]) -> Callable[[Case, np.random.Generator], list[Slice]]:
    """A bulk read among four small ones, all anywhere."""

    def slices(case: Case, rng: np.random.Generator) -> list[Slice]:
        found = [*bulk(case, rng), *(box(case, size, rng) for _ in range(4))]
        return [found[at] for at in rng.permutation(len(found))]

    return slices


# Goals


def by_round(
    peer: Peer, ours: Peer, number: Callable[[Timing], float], direction: Literal["speed", "cost"]
) -> Callable[[Result], list[float]]:
    """Ratios round by round: ``speed`` is over 1 where we take less than the peer, ``cost`` where we take more."""

    def values(result: Result) -> list[float]:
        pairs = zip(result.timings[peer], result.timings[ours], strict=True)
        found = [number(theirs) / number(own) for theirs, own in pairs]
        return found if direction == "speed" else [1 / ratio for ratio in found]

    return values


def faster(bound: float, peer: Peer, number: Callable[[Timing], float], ours: Peer = "cold") -> Goal:
    """To be this many times as fast as a peer."""
    return Goal(f"speed against {TOLD[peer]}", "at least", bound, by_round(peer, ours, number, "speed"))


def wall(timing: Timing) -> float:
    """Seconds of all reads of all clients."""
    return timing.wall_s


def each(timing: Timing) -> float:
    """Seconds of one read, the median."""
    return timing.each_s


def p99(timings: list[Timing]) -> float:
    """Seconds that all small reads of all rounds stay below but one of a hundred."""
    return float(np.percentile([seconds for timing in timings for seconds in timing.small_s], 99))


def tail(result: Result) -> list[float]:
    """p99 of all cold small reads by their median."""
    timings = result.timings["cold"]
    return [p99(timings) / statistics.median(seconds for timing in timings for seconds in timing.small_s)]


def tail_against_naive(result: Result) -> list[float]:
    """p99 of small reads among large ones, by the naive server's."""
    return [p99(result.timings["cold"]) / p99(result.timings["naive"])]


TOLD: dict[Peer, str] = {
    "h5py": "h5py",
    "naive": "the naive server",
    "redis": "the Redis recipe",
    "memory": "the in-memory server",
    "cold": "h5flight, cold",
    "hot": "h5flight, hot",
}
TAIL = Goal("p99 by p50 of single reads", "at most", 4, tail)
LIKE_REDIS = Goal("time against the Redis recipe, p50", "at most", 1.0, by_round("redis", "hot", each, "cost"))
CPU = Goal(
    "server CPU per byte against the in-memory server",
    "at most",
    0.9,
    by_round("memory", "hot", lambda timing: timing.cpu_s / timing.nbytes, "cost"),
)
UNDER_LOAD = Goal("p99 of small reads against the naive server", "at most", 0.2, tail_against_naive)


def milliseconds(bound: float) -> Goal:
    """To take no longer than this, hot."""
    values = lambda result: [timing.each_s * 1e3 for timing in result.timings["hot"]]  # noqa: E731
    return Goal("time of one read, p50", "at most", bound, values, " ms")


def bulk_cold(case: str, name: str, peer: Peer, bound: float) -> Workload:
    """A bulk read from a server that was just started."""
    slices = whole if name.startswith("whole") else bulk
    peers: tuple[Peer, ...] = ("h5py", "cold") if peer == "h5py" else ("h5py", peer, "cold")
    return Workload(name, case, slices, peers, (faster(bound, peer, wall),))


def small_cold(case: str, name: str, size: tuple[int, ...], bound: float) -> Workload:
    """Single small reads of what the server has not decoded yet."""
    return Workload(name, case, small(size, 20), ("h5py", "cold"), (faster(bound, "h5py", each), TAIL), repeat=3)


def small_hot(case: str, name: str, size: tuple[int, ...], goal: Goal) -> Workload:
    """Single small reads of what is in memory."""
    return Workload(name, case, small(size, 20), ("redis", "hot"), (goal,))


def among_many(case: str, size: tuple[int, ...], bound: float) -> Workload:
    """Eight clients that read large and small slices at the same time."""
    goals = (faster(bound, "h5py", wall), faster(4, "naive", wall), UNDER_LOAD)
    name = f"{CLIENTS} clients, each 64 MB and 4 small slices"
    return Workload(name, case, mixed(size), ("h5py", "naive", "cold"), goals, CLIENTS)


ROI, SECOND, TILE = (100, 64, 64), (30_000, 64), (100, 100)
CACHED = (faster(8, "h5py", each, "hot"), faster(1, "memory", each, "hot"), CPU)
WORKLOADS = [
    bulk_cold("A", "whole movie", "h5py", 3.5),
    bulk_cold("A", "64 MB of frames", "h5py", 3.0),
    bulk_cold("B", "whole recording", "h5py", 2.4),
    bulk_cold("B", "64 MB of samples", "h5py", 2.8),
    bulk_cold("C", "whole matrix", "h5py", 2.0),
    bulk_cold("E", "whole table", "h5py", 2.0),
    bulk_cold("B_zstd", "whole recording", "naive", 1.5),
    bulk_cold("B_bslz4", "whole recording", "naive", 1.5),
    bulk_cold("B_lzf", "whole recording", "naive", 1.5),
    bulk_cold("D", "whole movie", "naive", 1.1),
    bulk_cold("D", "64 MB of frames", "naive", 1.2),
    small_cold("A_roi", "64 x 64 pixels, 100 frames", ROI, 2.7),
    small_cold("A", "64 x 64 pixels, 100 frames", ROI, 3.2),
    small_cold("B", "1 s of all channels", SECOND, 1.5),
    small_cold("C", "100 x 100 values", TILE, 1.2),
    small_hot("A_roi", "64 x 64 pixels, 100 frames, hot", ROI, LIKE_REDIS),
    small_hot("B", "1 s of all channels, hot", SECOND, LIKE_REDIS),
    small_hot("C", "100 x 100 values, hot", TILE, milliseconds(0.7)),
    among_many("A", ROI, 1.9),
    among_many("A_roi", ROI, 1.6),
    among_many("B", SECOND, 1.5),
    Workload("the same 64 MB, hot", "A", again(8), ("h5py", "memory", "hot"), CACHED),
]
