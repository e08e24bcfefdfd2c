"""A recording is written, served and read back: by bare pyarrow, by the package, by the command line, beside h5py.

Run it by `make demo`. It needs the binary (--bin) and Python with pynwb, pandas and matplotlib, and leaves everything
it made in ./demo-output.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import matplotlib
import numpy as np
import pyarrow.flight as flight

ROOT = Path(__file__).resolve().parents[1]
with contextlib.suppress(ImportError):
    import h5flight
if "h5flight" not in sys.modules:
    sys.path.insert(0, str(ROOT / "clients" / "python" / "src"))
    import h5flight

matplotlib.use("Agg")

ANIMAL, EXPERIMENT = "mouse-017", "2024-03-05"
MOVIE = "acquisition/TwoPhotonSeries/data"
EPHYS = "acquisition/ElectricalSeries/data"
LISTENING = re.compile(r"listening on (\S+?),")
SEED = 17


def main() -> int:
    """Run the demonstration; 0 when every byte that came back is right."""
    options = arguments()
    out: Path = options.out
    shutil.rmtree(out / "server", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    recording = out / "recording.nwb"
    title("1. A recording, as a lab writes it: NWB, gzip, shuffle")
    write_recording(recording, options.scale)
    with serve(options.bin, out) as url:
        title("2. The server indexes it in place: one command")
        command(options.bin, url, "register", str(recording))
        command(options.bin, url, "ls", ANIMAL, EXPERIMENT)
        title("3. Slices")
        wrong = by_pyarrow(url, recording) + by_package(url, recording)
        command(options.bin, url, "get", ANIMAL, EXPERIMENT, EPHYS, "0:3, :4")
        title("4. A picture")
        print(f"  {draw(url, out)}")
    title("5. Beside h5py, which has the file on its own disk: medians of 5; ratios over 1 are faster than h5py")
    wrong += compare(options.bin, out, recording)
    print(f"\n{'Every byte is equal to the file.' if not wrong else f'{wrong} SLICES DIFFER FROM THE FILE'}")
    return 1 if wrong else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "h5flight"
    parser.add_argument("--bin", type=Path, default=default, help="the h5flight binary")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for what is made")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the recording; 1 is about 125 MB")
    options = parser.parse_args()
    if not options.bin.is_file():
        parser.error(f"no binary at {options.bin}: run `make release`, or name one by --bin")
    options.bin, options.out = options.bin.resolve(), options.out.resolve()
    return options


def title(words: str) -> None:
    print(f"\n{words}")


# The recording


def calcium_movie(frames: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cells that flash and fade on an uneven background, with photon noise: 12-bit counts."""
    y, x = np.mgrid[:size, :size].astype("f4") / size
    background = 180 + 120 * np.exp(-((x - 0.4) ** 2 + (y - 0.6) ** 2) * 5) + 25 * np.sin(14 * x + 9 * y)
    movie = np.repeat(background[np.newaxis], frames, axis=0)
    for _ in range(60):
        cy, cx = rng.integers(12, size - 12, 2)
        events = (rng.random(frames) < 0.02) * rng.gamma(3, 60, frames)
        trace = np.convolve(events, np.exp(-np.arange(60) / 12))[:frames].astype("f4") + rng.uniform(10, 60)
        yy, xx = np.mgrid[-8:9, -8:9]
        ring = np.exp(-((np.hypot(yy, xx) - 3.5) ** 2) / 5).astype("f4")
        movie[:, cy - 8 : cy + 9, cx - 8 : cx + 9] += trace[:, None, None] * ring
    movie += rng.standard_normal(movie.shape, dtype="f4") * np.sqrt(movie) * 0.7
    return np.clip(movie, 0, 4095).astype("u2")


def extracellular(samples: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """A slow shared oscillation, noise of each channel, and spikes that spread to neighbours."""
    t = np.arange(samples, dtype="f4")[:, None] / 30_000
    depth = np.arange(channels, dtype="f4")
    signal_ = 70 * np.sin(2 * np.pi * 8 * t + depth / 12) + rng.standard_normal((samples, channels), dtype="f4") * 9
    shape = -140 * np.exp(-np.arange(36) / 7.0) * np.cos(np.arange(36) / 5.0)
    for at, centre in zip(rng.integers(0, samples - 36, samples // 400), rng.integers(0, channels, samples // 400)):
        signal_[at : at + 36] += shape[:, None] * np.exp(-((depth - centre) ** 2) / 4)
    return np.rint(signal_).astype("i2")


def write_recording(path: Path, scale: float) -> None:
    from hdmf.backends.hdf5.h5_utils import H5DataIO
    from pynwb import NWBHDF5IO

    began = time.perf_counter()
    rng = np.random.default_rng(SEED)
    nwb = session()
    movie = calcium_movie(max(40, int(800 * scale)), 256, rng)
    add_imaging(nwb, H5DataIO(movie, compression="gzip", shuffle=True, chunks=(20, 256, 256)))
    signal_ = extracellular(max(30_000, int(300_000 * scale)), 32, rng)
    chunk = min(30_000, len(signal_))
    add_ephys(nwb, H5DataIO(signal_, compression="gzip", shuffle=True, chunks=(chunk, 32)), rng)
    for i in range(40):
        nwb.add_trial(start_time=0.5 * i, stop_time=0.5 * i + 0.4, choice=["left", "right"][int(rng.integers(2))])
    with NWBHDF5IO(str(path), "w") as out:
        out.write(nwb)
    decoded, stored = movie.nbytes + signal_.nbytes, path.stat().st_size
    what = f"movie {movie.shape} {movie.dtype}, ephys {signal_.shape} {signal_.dtype}, trials, units, electrodes"
    print(f"  {path}: {what}")
    print(f"  {decoded / 1e6:.0f} MB of values in {stored / 1e6:.0f} MB, {time.perf_counter() - began:.1f} s")


def session() -> Any:
    from pynwb import NWBFile
    from pynwb.file import Subject

    start = datetime(2024, 3, 5, 9, 30, tzinfo=UTC)
    nwb = NWBFile(
        session_description="licking task, motor cortex",
        identifier="h5flight-demo-0017",
        session_start_time=start,
        session_id=EXPERIMENT,
        lab="demo",
    )
    nwb.subject = Subject(subject_id=ANIMAL, species="Mus musculus", sex="F", age="P92D")
    nwb.add_trial_column(name="choice", description="lick port that the animal chose")
    return nwb


def add_imaging(nwb: Any, movie: Any) -> None:
    from pynwb.ophys import OpticalChannel, TwoPhotonSeries

    scope = nwb.create_device(name="two-photon microscope")
    channel = OpticalChannel(name="green", description="GCaMP8m", emission_lambda=520.0)
    place = {"excitation_lambda": 920.0, "indicator": "GCaMP8m", "location": "M1", "grid_spacing": [1.2, 1.2]}
    plane = nwb.create_imaging_plane(
        name="plane0", optical_channel=channel, description="layer 2/3", device=scope, imaging_rate=30.0, **place
    )
    series = TwoPhotonSeries(name="TwoPhotonSeries", data=movie, imaging_plane=plane, unit="counts", rate=30.0)
    nwb.add_acquisition(series)


def add_ephys(nwb: Any, samples: Any, rng: np.random.Generator) -> None:
    from pynwb.ecephys import ElectricalSeries

    shank = nwb.create_electrode_group(
        name="shank0", description="32 contacts, 25 um apart", location="M1", device=nwb.create_device(name="probe")
    )
    for i in range(32):
        nwb.add_electrode(location="M1", group=shank, x=0.0, y=25.0 * i, z=0.0)
    region = nwb.create_electrode_table_region(region=list(range(32)), description="all contacts")
    about = {"rate": 30_000.0, "conversion": 1.95e-7}
    nwb.add_acquisition(ElectricalSeries(name="ElectricalSeries", data=samples, electrodes=region, **about))
    for _ in range(12):
        nwb.add_unit(spike_times=np.sort(rng.uniform(0, 20, int(rng.integers(50, 200)))))


# The server


@contextlib.contextmanager
def serve(binary: Path, out: Path) -> Iterator[str]:
    """Start the server with its embedded defaults and end it, however this ends."""
    command_ = [str(binary), "serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    command_ += ["--data-dir", str(out / "server"), "--root", f"demo={out}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("H5FLIGHT_")}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with (out / "server.log").open("w") as log:
        process = subprocess.Popen(command_, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        assert process.stdout is not None
        said = next((found for line in process.stdout if (found := LISTENING.search(line))), None)
        if said is None:
            raise SystemExit(f"the server did not start, see {out / 'server.log'}")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield said[1]
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def command(binary: Path, url: str, *words: str) -> None:
    """Run a command as a person would, and show it."""
    print(f"  $ h5flight {' '.join(words)}")
    done = subprocess.run([str(binary), *words, "--url", url], text=True, capture_output=True)
    lines = (done.stdout + done.stderr).splitlines()
    for line in lines[:12]:
        print(f"    {line}")
    if len(lines) > 12:
        print(f"    ... {len(lines) - 12} more lines")
    if done.returncode:
        raise SystemExit(f"that ended with {done.returncode}")


# Reading


def by_pyarrow(url: str, recording: Path) -> int:
    """Bare pyarrow: no package of ours."""
    print("  bare pyarrow:")
    print(f"    flight.connect({url!r}).get_flight_info(FlightDescriptor.for_path(animal, experiment, dataset))")
    with flight.connect(url) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_path(ANIMAL, EXPERIMENT, EPHYS))
        frame = client.do_get(info.endpoints[0].ticket).read_pandas()
    print(f"    -> DataFrame of {frame.shape[0]} rows x {frame.shape[1]} columns, {info.total_bytes / 1e6:.0f} MB")
    with h5py.File(recording) as file:
        return int(not np.array_equal(frame.to_numpy(), file[EPHYS][...]))


def by_package(url: str, recording: Path) -> int:
    """The package: h5py's manners, and frames."""
    with h5flight.connect(url) as client:
        movie = client[ANIMAL][EXPERIMENT][MOVIE]
        print(f"  the package h5flight:\n    {movie!r}\n    movie[10:20, ::2, ::2].mean() = ", end="")
        part = movie[10:20, ::2, ::2]
        print(f"{part.mean():.1f}")
        print(f"    h5flight.get_data({ANIMAL!r}, {EXPERIMENT!r}, {EPHYS!r}, '15000:15004, 0:6'):")
        frame = client.get_data(ANIMAL, EXPERIMENT, EPHYS, "15000:15004, 0:6")
        print("      " + str(frame).replace("\n", "\n      "))
        print(f"      unit {frame.attrs['unit']}, conversion {frame.attrs['attributes']['conversion']}")
        choices = client.get_data(ANIMAL, EXPERIMENT, "intervals/trials/choice")["value"]
        print(f"    trials: {choices.value_counts().to_dict()}")
    with h5py.File(recording) as file:
        same = np.array_equal(part, file[MOVIE][10:20, ::2, ::2])
        same = same and np.array_equal(frame.to_numpy(), file[EPHYS][15000:15004, 0:6])
    return int(not same)


def compare(binary: Path, out: Path, recording: Path) -> int:
    """The same slices by h5py, by a server that was just started, and by the server again."""
    with h5py.File(recording) as file:
        frames, samples = len(file[MOVIE]), len(file[EPHYS])
    cases: list[tuple[str, str, Callable[[int], Any]]] = [
        ("100 frames", MOVIE, lambda i: rows(i, frames, 100)),
        ("64 x 64 pixels, 100 frames", MOVIE, lambda i: (rows(i, frames, 100), slice(96, 160), slice(64, 128))),
        ("1 s of 32 channels", EPHYS, lambda i: rows(i, samples, 30_000)),
    ]
    print("  slice                             h5py          first time               again")
    wrong = 0
    for words, name, key in cases:
        times: dict[str, list[float]] = {"h5py": [], "first": [], "again": []}
        # A new server for each kind of slice: the first time is the first time.
        with serve(binary, out) as url, h5py.File(recording) as file, h5flight.connect(url) as client:
            dataset = client[ANIMAL][EXPERIMENT][name]
            for part in range(5):
                local, took = timed(lambda: file[name][key(part)])
                times["h5py"].append(took)
                for which in ("first", "again"):
                    found, took = timed(lambda: dataset[key(part)])
                    times[which].append(took)
                    wrong += not np.array_equal(found, local)
        local_s, first_s, again_s = (statistics.median(times[which]) for which in ("h5py", "first", "again"))
        first = f"{first_s * 1e3:7.1f} ms ({local_s / first_s:4.1f}x)"
        print(f"  {words:28} {local_s * 1e3:7.1f} ms {first} {again_s * 1e3:7.1f} ms ({local_s / again_s:5.1f}x)")
    return wrong


def rows(part: int, total: int, count: int) -> slice:
    """The first rows of a fifth of an axis: no two parts share a chunk."""
    start = part * total // 5
    return slice(start, start + min(count, total // 5))


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    found = call()
    return found, time.perf_counter() - began


def draw(url: str, out: Path) -> Path:
    """A mean frame and a few channels, from slices of the server."""
    from matplotlib import pyplot

    with h5flight.connect(url) as client:
        experiment = client[ANIMAL][EXPERIMENT]
        frame = experiment[MOVIE][:40].mean(axis=0)
        samples = client.get_data(ANIMAL, EXPERIMENT, EPHYS, "0:3000, ::4")
        spikes = experiment["units/spike_times"][...]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), width_ratios=[1, 1.4])
    left.imshow(frame, cmap="gray", vmax=np.percentile(frame, 99.7))
    left.set_title(f"{MOVIE}[:40].mean(0)", fontsize=9)
    left.axis("off")
    seconds = samples.index.to_numpy() / 30_000
    for place, channel in enumerate(samples.columns):
        right.plot(seconds, samples[channel] + 300 * place, linewidth=0.5)
    right.set_yticks([300 * i for i in range(len(samples.columns))], [f"channel {c}" for c in samples.columns])
    right.set_xlabel(f"seconds ({len(spikes)} sorted spikes in the file)")
    right.set_title(f"get_data(..., '{EPHYS}', '0:3000, ::4')", fontsize=9)
    figure.tight_layout()
    figure.savefig(out / "demo.png", dpi=110)
    return out / "demo.png"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped")
        sys.exit(130)
