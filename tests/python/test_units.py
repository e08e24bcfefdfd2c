"""Rows by time, channels by id, values in units: against numpy on what pynwb wrote."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.file import Subject

from server import Server

HZ = 29.97
FIRST_S = 1.3
IDS = [3, 1, 2, 0]
FACTORS = np.array([1.0, 0.5, 2.0, 4.0])


@pytest.fixture(scope="module")
def series(server: Server, client: h5flight.Client) -> tuple[h5flight.Experiment, np.ndarray]:
    path = Path(server.roots["lab"]) / "units.nwb"
    nwb = NWBFile("d", "units-1", datetime(2024, 3, 5, tzinfo=UTC), session_id="units")
    nwb.subject = Subject(subject_id="mouse-u", species="Mus musculus", age="P90D", sex="F")
    probe = nwb.create_device(name="probe")
    shank = nwb.create_electrode_group(name="s", description="s", location="M1", device=probe)
    for _ in range(4):
        nwb.add_electrode(location="M1", group=shank)
    region = nwb.create_electrode_table_region(region=IDS, description="all")
    data = np.random.default_rng(7).integers(-200, 200, (500, 4), dtype="i2")
    nwb.add_acquisition(
        ElectricalSeries(
            name="raw",
            data=data,
            electrodes=region,
            rate=HZ,
            starting_time=FIRST_S,
            conversion=1e-6,
            offset=0.25,
            channel_conversion=FACTORS,
        )
    )
    nwb.add_acquisition(TimeSeries(name="words", data=["a", "b"], unit="n/a", rate=1.0))
    with NWBHDF5IO(str(path), "w") as out:
        out.write(nwb)
    with h5py.File(path, "a") as file:
        file["plain"] = np.arange(5)
    client.register(f"lab:{path.name}")
    return client["mouse-u"]["units"], data


def test_rows_by_time_are_those_that_numpy_finds(series: tuple[h5flight.Experiment, np.ndarray]) -> None:
    experiment, data = series
    raw = experiment["acquisition/raw/data"]
    times = FIRST_S + np.arange(len(data)) / HZ
    edges = [times[7], np.nextafter(times[7], 9e9), np.nextafter(times[7], 0), 5.0, None]
    for start in edges:
        for stop in [times[9], np.nextafter(times[9], 9e9), 1e9, 0.0, None]:
            kept = (times >= (-np.inf if start is None else start)) & (times < (np.inf if stop is None else stop))
            np.testing.assert_array_equal(raw.read(time=(start, stop)), data[kept], err_msg=f"{start} {stop}")


def test_channels_are_found_by_the_ids_of_their_electrodes(series: tuple[h5flight.Experiment, np.ndarray]) -> None:
    experiment, data = series
    raw = experiment["acquisition/raw/data"]
    np.testing.assert_array_equal(raw.read("3:9", channels=[0, 3]), data[3:9][:, [IDS.index(0), IDS.index(3)]])


@pytest.mark.parametrize("units", ["float32", "float64"])
@pytest.mark.parametrize("selection", ["", "5", ":, 2", "5, :", "::-7, [3, 1]"])
def test_values_in_units_are_scaled_by_channel(
    series: tuple[h5flight.Experiment, np.ndarray], units: str, selection: str
) -> None:
    experiment, data = series
    found = experiment["acquisition/raw/data"].read(selection, units=units)
    wanted = data * 1e-6 * FACTORS + 0.25
    picked = {"": np.s_[:], "5": 5, ":, 2": np.s_[:, 2], "5, :": np.s_[5, :], "::-7, [3, 1]": np.s_[::-7, [3, 1]]}
    assert found.dtype == units
    np.testing.assert_array_equal(found, wanted[picked[selection]].astype(units))


def test_layouts_carry_the_same_values_and_the_axes(series: tuple[h5flight.Experiment, np.ndarray]) -> None:
    import dataclasses
    import json

    from h5flight import units

    experiment, data = series
    raw = experiment["acquisition/raw/data"]
    times = FIRST_S + np.arange(len(data)) / HZ
    kept = np.flatnonzero((times >= 5) & (times < 6))
    wanted = (data * 1e-6 * FACTORS + 0.25)[kept][:, ::-1]
    asked = units.encode((5, 6), IDS[::-1], "float64")
    for layout in ["columns", "tidy"]:
        table = raw.client._connection.table(dataclasses.replace(raw._request(None, layout), series=asked))
        columns = table.column_names[2:] if layout == "tidy" else table.column_names
        values = np.stack([table[name].to_numpy() for name in columns], axis=1)
        np.testing.assert_array_equal(values.reshape(wanted.shape), wanted)
        told = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        time = json.loads(told["h5flight.time"])
        assert time == {"start_s": FIRST_S, "hz": HZ, "first_row": int(kept[0]), "step": 1}
        assert json.loads(told["h5flight.channels"]) == IDS[::-1]
        assert json.loads(told["h5flight.unit"]) == "volts"


@pytest.mark.parametrize(
    ("name", "selection", "asked", "reason"),
    [
        ("acquisition/raw/data", "0:5", {"time": (0, 1)}, "bad_selection"),
        ("acquisition/raw/data", ":, 1", {"channels": [0]}, "bad_selection"),
        ("acquisition/raw/data", "", {"channels": [9]}, "bad_selection"),
        ("acquisition/raw/data", "", {"time": (float("nan"), 1)}, "bad_request"),
        ("acquisition/words/data", "", {"units": True}, "bad_request"),
        ("plain", "", {"time": (0, 1)}, "bad_selection"),
    ],
)
def test_what_a_series_does_not_have_is_refused(
    series: tuple[h5flight.Experiment, np.ndarray], name: str, selection: str, asked: dict[str, object], reason: str
) -> None:
    with pytest.raises(h5flight.H5FlightError) as refused:
        series[0][name].read(selection, **asked)
    assert refused.value.reason == reason
