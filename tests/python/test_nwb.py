"""A recording written by pynwb: names from the file, links, tables, strings, references."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest
from hdmf.backends.hdf5.h5_utils import H5DataIO
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.file import Subject

import files
from server import Server

START = datetime(2024, 3, 5, 9, 30, tzinfo=UTC)


def write_recording(path: Path) -> None:
    rng = np.random.default_rng(files.SEED)
    nwb = NWBFile(
        session_description="motor cortex, day one",
        identifier="session-0017-1",
        session_start_time=START,
        session_id="day1",
        keywords=["motor", "ΔF/F"],
        experimenter=["Doe, Jane", "Roe, Richard"],
        lab="the lab",
    )
    nwb.subject = Subject(subject_id="mouse-017", species="Mus musculus", age="P90D", sex="F")
    probe = nwb.create_device(name="probe")
    shank = nwb.create_electrode_group(name="shank0", description="a shank", location="M1", device=probe)
    for i in range(8):
        nwb.add_electrode(location="M1", group=shank, x=0.0, y=float(i), z=0.0)
    region = nwb.create_electrode_table_region(region=list(range(8)), description="all")
    signal = rng.integers(-200, 200, (5000, 8), dtype="i2")
    wrapped = H5DataIO(signal, compression="gzip", shuffle=True, chunks=(1000, 8))
    nwb.add_acquisition(ElectricalSeries(name="raw", data=wrapped, electrodes=region, rate=30_000.0, conversion=1e-6))
    times = np.arange(300) / 30
    nwb.add_acquisition(TimeSeries(name="speed", data=rng.random(300), unit="m/s", timestamps=times))
    for i in range(12):
        nwb.add_trial(start_time=float(i), stop_time=i + 0.5)
    nwb.add_trial_column(name="choice", description="which side", data=[["left", "right"][i % 2] for i in range(12)])
    for i in range(5):
        nwb.add_unit(spike_times=np.sort(rng.random(20 + i)) * 10)
    with NWBHDF5IO(str(path), "w") as out:
        out.write(nwb)


@pytest.fixture(scope="module")
def recording(server: Server, client: h5flight.Client) -> Iterator[tuple[h5flight.Experiment, h5py.File]]:
    path = Path(server.roots["lab"]) / "recording.nwb"
    write_recording(path)
    (report,) = client.register(f"lab:{path.name}")
    (made,) = report["publication"]["experiments"]
    assert made == {"animal": "mouse-017", "experiment": "day1"}
    with h5py.File(path) as file:
        yield client["mouse-017"]["day1"], file


def test_every_dataset_of_the_recording_is_read_as_h5py_reads_it(
    recording: tuple[h5flight.Experiment, h5py.File],
) -> None:
    experiment, file = recording
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    assert len(names) > 40
    for name in names:
        files.assert_same(experiment[name][...], files.oracle(file[name]), name)
    listed = {dataset.name for dataset in experiment.datasets()}
    assert set(names) <= listed


def test_links_lead_to_the_same_data(recording: tuple[h5flight.Experiment, h5py.File]) -> None:
    experiment, file = recording
    link = "general/extracellular_ephys/shank0/device"
    assert file.get(link, getlink=True).path == "/general/devices/probe"
    assert experiment.describe(link)["kind"] == "group"


def test_who_and_when_come_from_the_file(
    recording: tuple[h5flight.Experiment, h5py.File], client: h5flight.Client
) -> None:
    (animal,) = [found for found in client.animals() if found.name == "mouse-017"]
    assert animal.facts["species"] == "Mus musculus"
    (day,) = animal.experiments()
    assert day.facts["identifier"] == "session-0017-1"
    assert day.facts["start_time"].startswith("2024-03-05T09:30")
    assert day.facts["nwb_version"].startswith("2.")
    assert day.attrs["neurodata_type"] == "NWBFile"
    assert (day.facts["session_id"], day.facts["species"]) == ("day1", "Mus musculus")
    assert day.facts["details"] == {
        "age": "P90D",
        "devices": ["probe"],
        "electrode_count": 8,
        "experimenter": ["Doe, Jane", "Roe, Richard"],
        "keywords": ["motor", "ΔF/F"],
        "lab": "the lab",
        "session_description": "motor cortex, day one",
        "sex": "F",
        "trial_count": 12,
        "unit_count": 5,
    }


def test_frames_have_units_and_labels(
    recording: tuple[h5flight.Experiment, h5py.File], client: h5flight.Client
) -> None:
    _, file = recording
    frame = client.get_data("mouse-017", "day1", "acquisition/raw/data", "100:200, [0, 5]")
    assert frame.attrs["unit"] == "volts"
    assert frame.attrs["attributes"]["conversion"] == 1e-6
    assert (frame.index[0], frame.index[-1], list(frame.columns)) == (100, 199, [0, 5])
    np.testing.assert_array_equal(frame.to_numpy(), file["acquisition/raw/data"][100:200, [0, 5]])
    trials = client.get_data("mouse-017", "day1", "intervals/trials/choice")
    assert trials["value"].tolist() == ["left", "right"] * 6


def test_words_find_the_recording(recording: tuple[h5flight.Experiment, h5py.File], client: h5flight.Client) -> None:
    names = [dataset.name for dataset in client.search("mouse-017 speed")]
    assert "acquisition/speed/data" in names
    assert client.search("mouse-017 nothing-like-this") == []
