"""What was measured, as the part of docs/performance.md between two marks."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from crew import Timing
from ingest import Ingest
from load import Outcome
from network import Wire
from scale import Curves
from series import Series
from workloads import TOLD, Finding, Result, markdown, p99

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADER = f"""# Performance

`make bench` writes what stands between the marks below.

{BEGIN}
{END}
"""
TOLD_OF_RATIOS = """Ratios are taken round by round: the median, with the least and the greatest in brackets; what is of
all rounds together has no brackets. Cold: h5flight was just started; hot: the same slices again. The page cache is warm
for all. Before anything is measured the results are compared with h5py's, and a process that ends writes to much of the
free memory: virtual machines get theirs when it is first written to, and whoever ran first would wait for that. Who is
read first changes from round to round. Every peer
has client processes of its own. Clients and servers share the machine."""
TOLD_OF_SPEEDS = """Medians of the rounds, from the first client's beginning to the last one's end; milliseconds are of
single small reads, p50 and p99 of all rounds. h5py reads the local file without a server. The naive server is h5py
behind pyarrow.flight; the in-memory server is pyarrow's C++ with the slice in memory as batches of 2 MiB; the Redis
recipe unpickles arrays that redis-py gets from a Redis of its own. All Flight servers are read by the same client code.
MB = 1e6 bytes."""


@dataclass(frozen=True)
class Run:
    """All that was found."""

    results: list[Result]
    load: Outcome
    network: Wire
    growth: Curves
    written: Ingest
    worded: Series
    scale: float
    rounds: int


def write(path: Path, run: Run) -> None:
    """Put the tables between the marks; the rest of the page stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = path.read_text() if path.exists() else HEADER
    if BEGIN not in page or END not in page:
        page += f"\n{BEGIN}\n{END}\n"
    before, after = page.split(BEGIN, 1)[0], page.split(END, 1)[1]
    parts = [
        TOLD_OF_RATIOS,
        goals(run),
        TOLD_OF_SPEEDS,
        speeds(run.results),
        run.load.tables(),
        run.network.tables(),
        run.growth.tables(),
        run.written.tables(),
        run.worded.tables(),
        files(run),
        machine(run),
    ]
    path.write_text("\n\n".join([before + BEGIN, *filter(None, parts), END]) + after)


def findings(result: Result) -> Iterator[Finding]:
    """What was to be reached, and what was."""
    for goal in result.workload.goals:
        values = goal.values(result)
        median = statistics.median(values)
        number = "{:.2f}" if goal.bound < 10 else "{:.0f}"
        spread = f" ({number.format(min(values))}-{number.format(max(values))})" if len(values) > 1 else ""
        is_reached = median >= goal.bound if goal.sign == "at least" else median <= goal.bound
        what = f"{result.case.name}, {result.workload.name}: {goal.what}"
        yield Finding(
            what, f"{goal.sign} {goal.bound:g}{goal.unit}", number.format(median) + goal.unit + spread, is_reached
        )


def lines(result: Result) -> list[str]:
    """What the terminal shows of a workload."""
    return [f"  {found.measured} {found.what}, {found.goal}: {found.verdict}" for found in findings(result)]


def goals(run: Run) -> str:
    """Goals, and what came out."""
    rows = [found for result in run.results for found in findings(result)] + run.load.findings + run.growth.findings
    rows += run.written.findings + run.worded.findings
    cells = [[found.what, found.goal, found.measured, found.verdict] for found in rows]
    return markdown(["what", "goal", "measured", ""], cells)


def speeds(results: list[Result]) -> str:
    """Throughput and times of all peers."""
    rows = []
    for result in results:
        told = [speed(result.timings.get(peer)) for peer in TOLD]
        rows.append([result.case.name, result.workload.name, *told, f"{result.server_peak_bytes / 1e6:,.0f} MB"])
    return markdown(["file", "slice", *TOLD.values(), "h5flight's peak memory"], rows) if rows else ""


def speed(timings: list[Timing] | None) -> str:
    """Throughput, and for small reads the times of one."""
    if not timings:
        return ""
    rate = statistics.median(timing.nbytes / timing.wall_s for timing in timings) / 1e6
    times = [seconds for timing in timings for seconds in timing.small_s]
    if not times:
        return f"{rate:,.0f} MB/s"
    return f"{rate:,.0f} MB/s, {milliseconds(statistics.median(times))} / {milliseconds(p99(timings))} ms"


def milliseconds(seconds: float) -> str:
    """Three digits."""
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.1 else f"{seconds * 1e3:.3g}"


def files(run: Run) -> str:
    """What the files are."""
    seen = {result.case.name: result.case for result in run.results}
    return "\n".join(
        f"- {case.name}: {case.about}, shape {case.shape}, {case.nbytes / 1e6:,.0f} MB" for case in seen.values()
    )


def machine(run: Run) -> str:
    """Where and how it was measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    command = [os.environ["H5FLIGHT_BIN"], "--version"]
    binary = subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()
    versions = (
        f"h5py {h5py.__version__} (HDF5 {h5py.version.hdf5_version}), pyarrow {pa.__version__}, numpy {np.__version__}"
    )
    where = f"{model}, {os.cpu_count()} processors, {platform.system()} {platform.release().split('-')[0]}"
    how = f"make bench, or: python bench/run.py --scale {run.scale:g} --rounds {run.rounds}"
    return f"{binary}; {versions}. {where}. `{how}`"
