"""What was measured, as the part of docs/performance.md between two marks."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from run import Result

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADER = f"""# Performance

`make bench` writes what stands between the marks below.

{BEGIN}
{END}
"""


def ratio(local: list[float], remote: list[float]) -> str:
    """h5py's time by ours, round by round: median (least-greatest). Over 1 the server is faster."""
    found = [a / b for a, b in zip(local, remote, strict=True)]
    return f"{statistics.median(found):.2f}x ({min(found):.2f}-{max(found):.2f})"


def ratios(result: Result) -> str:
    """One line for the terminal."""
    return f"cold {ratio(result.local_s, result.cold_s)}, hot {ratio(result.local_s, result.hot_s)}"


def speed(result: Result, seconds: list[float]) -> str:
    """Throughput, and for several reads the time of one."""
    took = statistics.median(seconds)
    each = took / (result.reads / result.workload.clients)
    rate = f"{result.bytes_read / took / 1e6:,.0f} MB/s"
    return rate if result.reads == 1 else f"{rate}, {each * 1e3:.3g} ms"


def write(path: Path, results: list[Result], options: argparse.Namespace) -> None:
    """Put the tables between the marks; the rest of the page stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = path.read_text() if path.exists() else HEADER
    if BEGIN not in page or END not in page:
        page += f"\n{BEGIN}\n{END}\n"
    before, after = page.split(BEGIN, 1)[0], page.split(END, 1)[1]
    path.write_text(f"{before}{BEGIN}\n{table(results)}\n{files(results)}\n{machine(options)}\n{END}{after}")


def table(results: list[Result]) -> str:
    rows = [
        "| file | slice | h5py, local file | h5flight, cold | ratio | h5flight, hot | ratio | server's peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = [
            result.case.name,
            result.workload.name,
            speed(result, result.local_s),
            speed(result, result.cold_s),
            ratio(result.local_s, result.cold_s),
            speed(result, result.hot_s),
            ratio(result.local_s, result.hot_s),
            f"{result.server_peak_bytes / 1e6:.0f} MB",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    told = (
        "Medians; ratios are taken round by round against h5py, which reads the local file without a server "
        "(over 1: the server is faster), with the least and the greatest in brackets. Milliseconds are of one read. "
        "Cold: the server was just started; hot: the same slice again. The page cache is warm for both. Client and "
        "server share the machine. MB = 1e6 bytes.\n"
    )
    return "\n".join([told, *rows, ""])


def files(results: list[Result]) -> str:
    """What the files are."""
    seen = {result.case.name: result.case for result in results}
    lines = [f"- {case.name}: {case.about}, shape {case.shape}, {case.nbytes / 1e6:,.0f} MB" for case in seen.values()]
    return "\n".join([*lines, ""])


def machine(options: argparse.Namespace) -> str:
    """Where and how it was measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    binary = subprocess.run([str(options.bin), "--version"], text=True, capture_output=True, check=True).stdout.strip()
    versions = (
        f"h5py {h5py.__version__} (HDF5 {h5py.version.hdf5_version}), pyarrow {pa.__version__}, numpy {np.__version__}"
    )
    where = f"{model}, {os.cpu_count()} processors, {platform.system()} {platform.release().split('-')[0]}"
    command = f"make bench, or: python bench/run.py --scale {options.scale:g} --rounds {options.rounds}"
    return f"{binary}; {versions}. {where}. `{command}`"
