"""Reads in the words of a recording: windows around events, seconds by timestamps, spike times by unit.

A section of `make bench`, and alone: ``python bench/series.py``. What is compared takes turns, medians are told; what
is read is compared with the file first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
from pynwb import NWBHDF5IO, NWBFile
from pynwb.file import Subject

from data import cases
from peers import ROOT, Server, h5flight
from workloads import Finding, Section

ROUNDS = 3
RATE_HZ = 30_000.0
WINDOWS, BEFORE_S, AFTER_S = 500, 0.5, 1.0
WINDOWS_RATIO_MIN = 10.0
STAMPS_HZ, STAMPS_HOURS = 1_000, 24
STAMPS_CHUNK = 65_536
STAMPS_CHUNKS_MAX = 3
SECONDS_ASKED = 20
UNITS, SPIKES = 2_000, 5_600_000
UNITS_RATIO_MIN = 1.0


class Series(Section):
    """What came out."""

    def tables(self) -> str:
        """The table, with what it is."""
        return self.table(
            f"In the words of a recording. Windows of {BEFORE_S + AFTER_S:g} s and 64 channels around events at any "
            "time, in one call; beside it a loop of h5py over the local file that reads each window. A second by "
            f"`timestamps` is taken from {STAMPS_HOURS} h at {STAMPS_HZ:,} Hz with jitter, in chunks of "
            f"{STAMPS_CHUNK:,}, from a server that was just started: how many chunks of timestamps were read. The "
            f"spike times are of {UNITS:,} units, as Arrow lists, against pynwb's `units.to_dataframe()` of the local "
            f"file. Medians of {ROUNDS}."
        )


def run(scale: float, folder: Path) -> Series:
    """Measure all steps."""
    found = Series()
    windows(scale, folder, found)
    with tempfile.TemporaryDirectory(dir=folder, prefix="series-") as name:
        timestamps(Path(name), found)
        units(Path(name), found)
    return found


def ratio(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """Seconds of both, and how many times faster ours is: medians of rounds that take turns."""
    ours_s, theirs_s = [], []
    for _ in range(ROUNDS):
        for times, step in [(ours_s, ours), (theirs_s, theirs)]:
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
    speedups = [b / a for a, b in zip(ours_s, theirs_s, strict=True)]
    return statistics.median(ours_s), statistics.median(theirs_s), statistics.median(speedups)


def windows(scale: float, folder: Path, found: Series) -> None:
    """One call against a loop of h5py."""
    case = cases(scale)["B"]
    source = case.write(folder)
    count = max(20, int(WINDOWS * scale))
    with tempfile.TemporaryDirectory(dir=folder, prefix="windows-") as name:
        lab = Path(name) / "lab"
        lab.mkdir()
        path = lab / "ephys.h5"
        with h5py.File(path, "w") as file, h5py.File(source) as there:
            file.create_group("raw")
            there.copy("data", file["raw"], "data")
            start = file["raw"].create_dataset("starting_time", data=0.0)
            start.attrs["rate"] = RATE_HZ
        events = np.random.default_rng(2).uniform(1, case.shape[0] / RATE_HZ - 2, count)
        rows = round((BEFORE_S + AFTER_S) * RATE_HZ)
        firsts = np.searchsorted(np.arange(case.shape[0]) / RATE_HZ, events - BEFORE_S)

        def loop() -> np.ndarray:
            with h5py.File(path) as file:
                data = file["raw/data"]
                return np.stack([data[first : first + rows] for first in firsts])

        server = Server(Path(name) / "server", {"lab": lab}).start()
        try:
            with h5flight.Client(server.url) as client:
                client.register(path, animal="a", experiment="e")
                raw = client["a"]["e"]["raw/data"]

                def call() -> np.ndarray:
                    return raw.windows(events, (-BEFORE_S, AFTER_S)).values

                if not np.array_equal(call(), loop()):
                    raise SystemExit("windows differ from what h5py reads")
                ours, theirs, faster = ratio(call, loop)
        finally:
            server.stop()
    nbytes = count * rows * case.row_bytes
    found.tell(f"{count} windows", f"{nbytes / 1e6:,.0f} MB", f"{ours:.2f} s", f"h5py {theirs:.2f} s, {faster:.1f}x")
    what = f"{count} windows of {BEFORE_S + AFTER_S:g} s against a loop of h5py"
    is_reached = faster >= WINDOWS_RATIO_MIN
    found.findings.append(Finding(what, f"at least {WINDOWS_RATIO_MIN:g}x", f"{faster:.1f}x", is_reached))


def file_blocks(server: Server) -> int:
    """Blocks that the server has read from files so far."""
    with urllib.request.urlopen(f"{server.http_url}/metrics") as page:
        lines = page.read().decode().splitlines()
    return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith('h5flight_blocks_total{tier="file"'))


def timestamps(folder: Path, found: Series) -> None:
    """A second out of a day: which chunks of the timestamps are read for it."""
    lab = folder / "day"
    lab.mkdir()
    path = lab / "day.h5"
    rows = STAMPS_HOURS * 3_600 * STAMPS_HZ
    rng = np.random.default_rng(5)
    with h5py.File(path, "w") as file:
        group = file.create_group("day")
        how = {"chunks": (STAMPS_CHUNK,), "compression": "gzip", "compression_opts": 1, "shuffle": True}
        stamps = group.create_dataset("timestamps", (rows,), "f8", **how)
        # The values lie in one piece, so that every other block that is read is one of timestamps.
        group.create_dataset("data", (rows,), "i2", fillvalue=0)
        step_s = 1.00002 / STAMPS_HZ
        for first in range(0, rows, STAMPS_CHUNK):
            place = np.arange(first, min(first + STAMPS_CHUNK, rows))
            stamps[first : first + STAMPS_CHUNK] = 12.5 + place * step_s + rng.uniform(0, step_s / 3, len(place))
        times = stamps[:]
    touched, millis = [], []
    for number, start in enumerate(rng.uniform(times[0], times[-1] - 1, SECONDS_ASKED)):
        server = Server(folder / f"server-{number}", {"lab": lab}).start()
        try:
            with h5flight.Client(server.url) as client:
                client.register(path, animal="a", experiment="e")
                data = client["a"]["e"]["day/data"]
                before, began = file_blocks(server), time.perf_counter()
                found_rows = len(data.read(time=(start, start + 1)))
                millis.append((time.perf_counter() - began) * 1e3)
                touched.append(file_blocks(server) - before)
        finally:
            server.stop()
        if found_rows != int(((times >= start) & (times < start + 1)).sum()):
            raise SystemExit(f"{found_rows} rows in the second from {start}")
    most = max(touched)
    chunks = -(-rows // STAMPS_CHUNK)
    found.tell(
        "a second by timestamps",
        f"{rows / 1e6:.0f} M rows",
        f"{statistics.median(millis):.1f} ms cold",
        f"{statistics.median(touched):g} chunks of {chunks:,}, at most {most}",
    )
    what = "chunks of timestamps that one second of a day takes"
    found.findings.append(Finding(what, f"at most {STAMPS_CHUNKS_MAX}", f"{most}", most <= STAMPS_CHUNKS_MAX))


def units(folder: Path, found: Series) -> None:
    """Spike times as lists against pynwb's frame."""
    lab = folder / "units"
    lab.mkdir()
    path = lab / "units.nwb"
    rng = np.random.default_rng(6)
    nwb = NWBFile("units", "units", datetime(2024, 3, 5, tzinfo=UTC))
    nwb.subject = Subject(subject_id="a")
    nwb.add_unit_column("quality", "how well it is isolated")
    cuts = np.sort(rng.choice(SPIKES, UNITS - 1, replace=False))
    for spikes in np.split(np.round(rng.uniform(0, 7_200, SPIKES), 5), cuts):
        nwb.add_unit(spike_times=np.sort(spikes), quality="good" if len(spikes) % 2 else "mua")
    with NWBHDF5IO(str(path), "w") as out:
        out.write(nwb)

    def frame() -> object:
        with NWBHDF5IO(str(path), "r") as opened:
            return opened.read().units.to_dataframe()

    server = Server(folder / "server-units", {"lab": lab}).start()
    try:
        with h5flight.Client(server.url) as client:
            client.register(path, animal="a", experiment="e")
            table, wanted = client.table("a", "e", "units"), frame()
            for mine, theirs in zip(table["spike_times"].to_numpy(), wanted["spike_times"], strict=True):
                if not np.array_equal(mine, theirs):
                    raise SystemExit("spike times differ from what pynwb reads")
            ours, local, faster = ratio(lambda: client.table("a", "e", "units"), frame)
    finally:
        server.stop()
    found.tell(
        f"{UNITS:,} units",
        f"{SPIKES / 1e6:.1f} M spikes",
        f"{ours * 1e3:.0f} ms",
        f"pynwb {local * 1e3:.0f} ms, {faster:.1f}x",
    )
    what = "all units with their spike times against pynwb's frame"
    is_reached = faster >= UNITS_RATIO_MIN
    found.findings.append(Finding(what, f"at least {UNITS_RATIO_MIN:g}x", f"{faster:.1f}x", is_reached))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "release" / "h5flight")
    parser.add_argument("--scale", type=float, default=0.5, help="1 reads 500 windows, 2.9 GB")
    parser.add_argument("--data", type=Path, default=ROOT / "bench-data", help="folder of the files")
    options = parser.parse_args()
    os.environ["H5FLIGHT_BIN"] = str(options.bin.resolve())
    options.data.mkdir(parents=True, exist_ok=True)
    found = run(options.scale, options.data)
    print(found.tables())
    for goal in found.findings:
        print(f"{goal.measured} {goal.what}, {goal.goal}: {goal.verdict}")


if __name__ == "__main__":
    main()
