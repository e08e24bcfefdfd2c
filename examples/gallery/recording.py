"""Write the recording that the gallery is about: a session of a mouse that sees a flash in each trial.

    python recording.py mouse.nwb

Sixty trials. A flash half a second after the start of each makes a patch of the movie brighter, a wave in the local
field potential of the lower channels, and three of six units fire. What is to be found is known: `FLASH_S` after the
start, at `PATCH`, and in `RESPONDING`.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from hdmf.backends.hdf5.h5_utils import H5DataIO
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries
from pynwb.file import Subject
from pynwb.ophys import OpticalChannel, TwoPhotonSeries

ANIMAL, EXPERIMENT = "mouse-042", "flashes"
MOVIE, LFP = "acquisition/movie/data", "acquisition/lfp/data"
TRIALS, TRIAL_S, FLASH_S = 60, 2.0, 0.5
MOVIE_HZ, LFP_HZ = 20.0, 1000.0
PATCH = slice(20, 36)
"""Rows and columns of the movie that get brighter."""
RESPONDING = (0, 1, 2)
"""Units that fire after a flash."""
SEED = 42


def main(path: Path) -> None:
    """Write the recording."""
    rng = np.random.default_rng(SEED)
    nwb = NWBFile(
        session_description="flashes",
        identifier="gallery-1",
        session_start_time=datetime(2026, 3, 5, 9, 30, tzinfo=UTC),
        session_id=EXPERIMENT,
    )
    nwb.subject = Subject(subject_id=ANIMAL, species="Mus musculus", age="P90D", sex="F")
    for trial in range(TRIALS):
        nwb.add_trial(start_time=trial * TRIAL_S, stop_time=(trial + 1) * TRIAL_S)
    nwb.add_trial_column("outcome", "hit or miss", data=["hit" if trial % 3 else "miss" for trial in range(TRIALS)])
    add_movie(nwb, rng)
    add_lfp(nwb, rng)
    add_units(nwb, rng)
    with NWBHDF5IO(str(path), "w") as out:
        out.write(nwb)


def since_flash(times: np.ndarray) -> np.ndarray:
    """Seconds since the flash of the trial; negative before it."""
    return times % TRIAL_S - FLASH_S


def add_movie(nwb: NWBFile, rng: np.random.Generator) -> None:
    """A movie of 64 by 64 pixels whose patch answers with a decay of 0.3 s."""
    plane = nwb.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel(name="green", description="GCaMP", emission_lambda=510.0),
        description="layer 2/3",
        device=nwb.create_device(name="microscope"),
        excitation_lambda=920.0,
        indicator="GCaMP6f",
        location="V1",
    )
    times = np.arange(int(TRIALS * TRIAL_S * MOVIE_HZ)) / MOVIE_HZ
    frames = rng.poisson(100, (len(times), 64, 64)).astype("u2")
    late = since_flash(times)
    answer = np.where(late >= 0, 80 * np.exp(-np.maximum(late, 0) / 0.3), 0)
    frames[:, PATCH, PATCH] += answer.astype("u2")[:, None, None]
    data = H5DataIO(frames, chunks=(20, 64, 64), compression="gzip", shuffle=True)
    nwb.add_acquisition(TwoPhotonSeries(name="movie", data=data, unit="n.a.", rate=MOVIE_HZ, imaging_plane=plane))


def add_lfp(nwb: NWBFile, rng: np.random.Generator) -> None:
    """A local field potential of 16 channels in steps of 1 uV, with a wave that grows with depth."""
    group = nwb.create_electrode_group(
        name="shank", description="16 sites", location="V1", device=nwb.create_device(name="probe")
    )
    for channel in range(16):
        nwb.add_electrode(location="V1", group=group, y=float(25 * channel))
    region = nwb.create_electrode_table_region(region=list(range(16)), description="all")
    times = np.arange(int(TRIALS * TRIAL_S * LFP_HZ)) / LFP_HZ
    late = since_flash(times)
    wave = -200 * np.exp(-(((late - 0.1) / 0.04) ** 2))
    values = wave[:, None] * np.linspace(0, 1, 16) + rng.normal(0, 30, (len(times), 16))
    data = H5DataIO(values.astype("i2"), chunks=(5000, 16), compression="gzip", shuffle=True)
    nwb.add_acquisition(ElectricalSeries(name="lfp", data=data, rate=LFP_HZ, electrodes=region, conversion=1e-6))


def add_units(nwb: NWBFile, rng: np.random.Generator) -> None:
    """Six units at 5 spikes a second; the responding ones add ten spikes in the 0.2 s after a flash, in the middle."""
    nwb.add_unit_column("quality", "how well it is isolated")
    for unit in range(6):
        spikes = [rng.uniform(0, TRIALS * TRIAL_S, rng.poisson(5 * TRIALS * TRIAL_S))]
        if unit in RESPONDING:
            flashes = np.arange(TRIALS) * TRIAL_S + FLASH_S
            spikes += [flash + rng.uniform(0.03, 0.2, rng.poisson(10)) for flash in flashes]
        nwb.add_unit(spike_times=np.sort(np.concatenate(spikes)), quality="good" if unit != 5 else "poor")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
