"""Windows around events, rows by timestamps, channels by a condition: against numpy on what pynwb wrote."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5flight
import h5py
import numpy as np
import pytest
from hdmf.backends.hdf5 import H5DataIO
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries
from pynwb.file import Subject
from pynwb.ophys import OpticalChannel, TwoPhotonSeries

from server import Server

HZ = 300.0
FIRST_S = 2.5
ROWS = 40_000
SHANKS = ["CA1", "CA3", "CA1", "DG", "CA1", "CA3"]
REGION = [4, 1, 0, 5, 2]
GAP_ROW, GAP_S = 25_000, 30.0


def timestamps() -> np.ndarray:
    """Not quite even, with a pause."""
    steps = np.random.default_rng(1).normal(1 / HZ, 0.02 / HZ, ROWS)
    steps[GAP_ROW] += GAP_S
    return 7.0 + np.cumsum(steps)


def spike_times() -> list[np.ndarray]:
    """Of fifteen units; one is silent."""
    rng = np.random.default_rng(12)
    return [np.sort(rng.uniform(0, 141, 40 * number)) for number in range(15)]


@pytest.fixture(scope="module")
def lab(server: Server, client: h5flight.Client) -> tuple[h5flight.Experiment, dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    path = Path(server.roots["lab"]) / "windows.nwb"
    nwb = NWBFile("d", "windows-1", datetime(2024, 3, 5, tzinfo=UTC), session_id="windows")
    nwb.subject = Subject(subject_id="mouse-w", species="Mus musculus", age="P90D", sex="F")
    probe = nwb.create_device(name="probe")
    shank = nwb.create_electrode_group(name="s", description="s", location="hippocampus", device=probe)
    for location in SHANKS:
        nwb.add_electrode(location=location, group=shank)
    data = {
        "raw": rng.integers(-200, 200, (ROWS, len(REGION)), dtype="i2"),
        "uneven": rng.integers(-200, 200, (ROWS, len(REGION)), dtype="i2"),
        "movie": rng.integers(0, 4000, (900, 6, 5), dtype="u2"),
    }
    region = nwb.create_electrode_table_region(region=REGION, description="some")
    chunked = H5DataIO(data["raw"], chunks=(512, 2), compression="gzip")
    nwb.add_acquisition(
        ElectricalSeries(name="raw", data=chunked, electrodes=region, rate=HZ, starting_time=FIRST_S, conversion=1e-6)
    )
    region = nwb.create_electrode_table_region(region=REGION, description="some")
    stamps = H5DataIO(timestamps(), chunks=(300,))
    nwb.add_acquisition(ElectricalSeries(name="uneven", data=data["uneven"], electrodes=region, timestamps=stamps))
    plane = nwb.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel(name="o", description="o", emission_lambda=500.0),
        description="p",
        device=probe,
        excitation_lambda=600.0,
        indicator="GFP",
        location="V1",
    )
    nwb.add_acquisition(TwoPhotonSeries(name="movie", data=data["movie"], imaging_plane=plane, rate=29.97, unit="a.u."))
    nwb.add_trial_column("outcome", "what came of it")
    nwb.add_trial_column("cue_s", "when the cue was shown; none in some")
    data["starts"] = np.sort(rng.uniform(0.0, 140.0, 120))
    data["hit"] = rng.random(120) < 0.4
    data["cue"] = np.where(rng.random(120) < 0.2, np.nan, data["starts"] + 0.25)
    for start, hit, cue in zip(data["starts"], data["hit"], data["cue"], strict=True):
        nwb.add_trial(start_time=start, stop_time=start + 1, outcome="hit" if hit else "miss", cue_s=cue)
    nwb.add_unit_column("quality", "how well it is isolated")
    for number, spikes in enumerate(spike_times()):
        nwb.add_unit(spike_times=spikes, quality="good" if number % 3 else "mua")
    with NWBHDF5IO(str(path), "w") as out:
        out.write(nwb)
    with h5py.File(path, "a") as file:
        file["plain"] = np.arange(5)
        for name, stamps in [("back", [0.0, 2.0, 1.0, 3.0]), ("nan", [0.0, np.nan, 1.0, 2.0]), ("few", [0.0, 1.0])]:
            group = file.create_group(name)
            group["data"], group["timestamps"] = np.arange(4.0), np.array(stamps)
    client.register(f"lab:{path.name}")
    return client["mouse-w"]["windows"], data


def naive(
    data: np.ndarray, times: np.ndarray, events: np.ndarray, window: tuple[float, float], hz: float
) -> tuple[list[int], list[np.ndarray]]:
    """The windows that are there as a whole, with the places of their events."""
    rows = round((window[1] - window[0]) * hz)
    found = [
        (place, data[first : first + rows])
        for place, event in enumerate(events)
        if not np.isnan(event)
        for first in [int(np.argmax(times >= event + window[0]))]
        if (times >= event + window[0]).any() and first + rows <= len(data)
        if times[0] - 1 / hz < event + window[0]
        if abs(times[first + rows - 1] - (event + window[1])) < 0.1
    ]
    return [place for place, _ in found], [part for _, part in found]


@pytest.mark.parametrize("window", [(-0.5, 1.0), (0.0, 0.1), (-3.0, -1.01)])
def test_windows_around_events_are_those_that_a_loop_over_the_file_finds(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]], window: tuple[float, float]
) -> None:
    experiment, data = lab
    times = FIRST_S + np.arange(ROWS) / HZ
    raw = experiment["acquisition/raw/data"]
    events = np.random.default_rng(4).permutation(np.concatenate([data["starts"], times[[50, 51, 3000]]]))
    found = raw.windows(events, window)
    places, parts = naive(data["raw"], times, events, window, HZ)
    assert len(places) > 90
    np.testing.assert_array_equal(found.event, places)
    np.testing.assert_array_equal(found.event_s, events[places])
    np.testing.assert_array_equal(found.values, np.stack(parts))
    assert found.present.all()
    assert found.values.dtype == "i2"
    np.testing.assert_allclose(found.time_s, window[0] + np.arange(found.values.shape[1]) / HZ)


def test_events_come_from_the_rows_of_a_table_that_a_condition_leaves(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]],
) -> None:
    experiment, data = lab
    times = FIRST_S + np.arange(ROWS) / HZ
    raw = experiment["acquisition/raw/data"]
    hits = raw.windows(
        "intervals/trials", (-0.5, 1.0), where="outcome = 'hit'", channels="location = 'CA1'", units=True
    )
    ca1 = [at for at, row in enumerate(REGION) if SHANKS[row] == "CA1"]
    events = np.where(data["hit"], data["starts"], np.nan)
    places, parts = naive(data["raw"][:, ca1] * 1e-6, times, events, (-0.5, 1.0), HZ)
    np.testing.assert_array_equal(hits.event, places)
    np.testing.assert_array_equal(hits.values, np.stack(parts))
    assert hits.channels == [REGION[at] for at in ca1]
    assert hits.unit == "volts"
    labelled = hits.to_xarray()
    assert labelled.dims == ("event", "time", "channel")
    np.testing.assert_array_equal(labelled["channel"], hits.channels)
    cues = raw.windows(("intervals/trials", "cue_s"), (0.0, 0.2))
    places, parts = naive(data["raw"], times, data["cue"], (0.0, 0.2), HZ)
    np.testing.assert_array_equal(cues.event, places)
    np.testing.assert_array_equal(cues.values, np.stack(parts))


def test_a_movie_has_its_frames_around_events(lab: tuple[h5flight.Experiment, dict[str, np.ndarray]]) -> None:
    experiment, data = lab
    found = experiment["acquisition/movie/data"].windows([3.0, 29.5, 10.01], (-0.2, 0.7))
    places, parts = naive(data["movie"], np.arange(900) / 29.97, np.array([3.0, 29.5, 10.01]), (-0.2, 0.7), 29.97)
    assert list(found.event) == places == [0, 2]
    np.testing.assert_array_equal(found.values, np.stack(parts))


@pytest.mark.parametrize("units", [None, "float32"])
def test_clipped_windows_have_the_rows_that_there_are(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]], units: str | None
) -> None:
    experiment, data = lab
    end_s = FIRST_S + (ROWS - 1) / HZ
    events = np.array([FIRST_S, 50.0, end_s, end_s + 5, -10.0])
    found = experiment["acquisition/raw/data"].windows(events, (-0.5, 1.0), edge="clip", units=units, fill=-7)
    assert found.values.shape == (5, 450, len(REGION))
    for place, event in enumerate(events):
        first = int(np.ceil(np.round((event - 0.5 - FIRST_S) * HZ, 6)))
        assert found.first_row[place] == first
        rows = np.arange(first, first + 450)
        inside = (rows >= 0) & (rows < ROWS)
        np.testing.assert_array_equal(found.present[place], inside)
        wanted = data["raw"][rows[inside]]
        wanted = (wanted * 1e-6).astype("f4") if units else wanted
        np.testing.assert_array_equal(found.values[place][inside], wanted)
        assert (found.values[place][~inside] == -7).all()


def test_rows_by_timestamps_are_those_that_numpy_finds(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]],
) -> None:
    experiment, data = lab
    times = timestamps()
    uneven = experiment["acquisition/uneven/data"]
    edges: list[Any] = [None, 0.0, times[7], np.nextafter(times[7], 9e9), times[GAP_ROW - 1] + 1, times[-1], 1e9]
    edges += list(np.random.default_rng(9).uniform(times[0], times[-1], 12))
    for start in edges:
        for stop in [times[9], edges[-1], edges[-4], times[GAP_ROW] + 0.1, None]:
            kept = (times >= (-np.inf if start is None else start)) & (times < (np.inf if stop is None else stop))
            np.testing.assert_array_equal(
                uneven.read(time=(start, stop)), data["uneven"][kept], err_msg=f"{start} {stop}"
            )


def test_windows_by_timestamps_do_not_reach_over_a_pause(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]],
) -> None:
    experiment, data = lab
    times = timestamps()
    hz = 1 / np.median(np.diff(times[:8193]))
    window = (-0.5, 1.0)
    rows = round(1.5 * hz)
    pause = (times[GAP_ROW - 1] + times[GAP_ROW]) / 2
    beside = [times[GAP_ROW - 1] - 0.2, pause, times[GAP_ROW] + 0.2]
    events = np.array([10.0, *beside, times[GAP_ROW] + 5, 20.0, 40.5])
    found = experiment["acquisition/uneven/data"].windows(events, window)
    assert list(found.event) == [0, 4, 5, 6]
    clipped = experiment["acquisition/uneven/data"].windows(events, window, edge="clip")
    for place, event in enumerate(events):
        first = int(np.argmax(times >= event + window[0]))
        count = int(((times >= event + window[0]) & (times < event + window[1])).sum())
        # A window without a gap has as many rows as all others, be its samples a little closer or wider.
        count = min(count, rows) if event in beside else rows
        assert clipped.first_row[place] == first
        assert clipped.present[place].sum() == count
        np.testing.assert_array_equal(clipped.values[place][:count], data["uneven"][first : first + count])
    np.testing.assert_array_equal(found.values, clipped.values[found.event])


def test_frames_have_times_and_channels(lab: tuple[h5flight.Experiment, dict[str, np.ndarray]]) -> None:
    experiment, data = lab
    client = experiment.client
    times = FIRST_S + np.arange(ROWS) / HZ
    kept = (times >= 15) & (times < 15.5)
    frame = client.get_data(
        "mouse-w", "windows", "acquisition/raw/data", time=(15, 15.5), channels="location = 'CA1'", units=True
    )
    ca1 = [at for at, row in enumerate(REGION) if SHANKS[row] == "CA1"]
    assert list(frame.columns) == [REGION[at] for at in ca1]
    np.testing.assert_array_equal(frame.index, times[kept])
    np.testing.assert_array_equal(frame.to_numpy(), data["raw"][kept][:, ca1] * 1e-6)
    times = timestamps()
    kept = (times >= 15) & (times < 15.5)
    frame = experiment["acquisition/uneven/data"].to_pandas(":, 1", time=(15, 15.5))
    np.testing.assert_array_equal(frame.index, times[kept])
    np.testing.assert_array_equal(frame["value"], data["uneven"][kept, 1])


def test_frames_of_a_version_have_the_timestamps_of_then(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]],
) -> None:
    """Datasets count their versions each on its own."""
    client = lab[0].client
    times = [np.arange(5) + begin for begin in (0.0, 100.0, 200.0)]
    names = ("mouse-w", "rewritten")
    for begin in times[:2]:
        client.put(*names, "speed/timestamps", begin, mode="replace")
    client.put(*names, "speed/data", np.arange(5))
    client.put(*names, "speed/timestamps", times[2], mode="replace")
    client.put(*names, "speed/data", np.arange(5, 10), mode="replace")
    for version, expected in [(1, times[1]), (2, times[2])]:
        frame = client.get_data(*names, "speed/data", time=(0, 1000), version=version)
        np.testing.assert_array_equal(frame.index, expected)


def test_spikes_with_wide_columns_come_in_small_batches(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]], server: Server
) -> None:
    client = lab[0].client
    path = Path(server.roots["lab"]) / "wide.h5"
    with h5py.File(path, "w") as file:
        units = file.create_group("units")
        units.attrs["colnames"] = ["waveform", "spike_times"]
        units["id"] = np.arange(2)
        units["waveform"] = np.arange(2 * 20_000, dtype="f8").reshape(2, -1)
        units["spike_times"], units["spike_times_index"] = np.arange(4.0), np.array([2, 4])
    client.register(path, animal="mouse-w", experiment="wide")
    before = server.peak_bytes()
    table = client["mouse-w"]["wide"].spikes(np.arange(1000.0), (0, 1), columns=["id", "waveform"])
    # 320 MB, in batches of a few.
    assert len(table) == 2000
    assert table["spike_times"].slice(0, 3).to_pylist() == [[0.0], [0.0], []]
    assert server.peak_bytes() - before < 200 << 20


@pytest.mark.parametrize("where", [None, "outcome = 'hit'"])
def test_spikes_around_events_are_those_that_numpy_finds(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]], where: str | None
) -> None:
    experiment, data = lab
    table = experiment.spikes(
        "intervals/trials", (-0.5, 1.0), where=where, units_where="quality = 'good'", columns=["id", "quality"]
    )
    trials = np.flatnonzero(data["hit"]) if where else np.arange(120)
    good = [number for number in range(15) if number % 3]
    assert table.column_names == ["id", "quality", "event", "event_s", "spike_times"]
    np.testing.assert_array_equal(table["id"], np.repeat(good, len(trials)))
    np.testing.assert_array_equal(table["event"], np.tile(trials, len(good)))
    np.testing.assert_array_equal(table["event_s"], np.tile(data["starts"][trials], len(good)))
    wanted = [
        spikes[(spikes >= event - 0.5) & (spikes < event + 1.0)] - event
        for spikes in map(spike_times().__getitem__, good)
        for event in data["starts"][trials]
    ]
    assert sum(map(len, wanted)) > 400
    assert [found.as_py() for found in table["spike_times"]] == [part.tolist() for part in wanted]
    listed = experiment.spikes([50.0, 10.0], (0, 5), columns=[])
    assert listed.num_rows == 30
    assert listed["event"].to_pylist() == [0, 1] * 15
    spikes = spike_times()[7]
    assert listed["spike_times"][14].as_py() == (spikes[(spikes >= 50) & (spikes < 55)] - 50.0).tolist()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"column": "quality"}, "bad_request"),
        ({"column": "spikes"}, "column_not_found"),
        ({"columns": ["id", "id"]}, "bad_request"),
        ({"table": "intervals/trials", "column": "start_time"}, "bad_request"),
        ({"events": "intervals/none"}, "dataset_not_found"),
        ({"events": ("intervals/trials", "outcome")}, "bad_request"),
        ({"window": (1, 0)}, "bad_request"),
    ],
)
def test_spikes_that_mean_nothing_are_refused(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]], asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(h5flight.H5FlightError) as refused:
        lab[0].spikes(**{"events": "intervals/trials", **asked})
    assert refused.value.reason == reason


def test_tickets_and_parts_of_windows_give_the_same_rows(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]],
) -> None:
    import dataclasses

    from h5flight import units
    from pyarrow import flight

    raw = lab[0]["acquisition/raw/data"]
    around = units.Around(("intervals/trials", "start_time"), -0.5, 1.0, "outcome = 'hit'")
    request = dataclasses.replace(raw._request(None), series=units.encode(around=around))
    whole, metadata = raw.client._connection.array(request)
    told = json.loads(metadata["h5flight.windows"])
    assert sum(told["present"]) == len(whole)
    connection = raw.client._connection
    part = connection.table(dataclasses.replace(request, rows=(301, 1207), layout="columns"))
    np.testing.assert_array_equal(np.stack([column.to_numpy() for column in part], axis=1), whole[301:1207])
    info = connection._flight().get_flight_info(
        flight.FlightDescriptor.for_command(request.ticket()), connection._options()
    )
    assert info.total_records == len(whole)
    table = connection._flight().do_get(info.endpoints[0].ticket, connection._options()).read_all()
    assert table.schema.metadata[b"h5flight.windows"].decode() == metadata["h5flight.windows"]
    assert table.num_rows == len(whole)


@pytest.mark.parametrize(
    ("name", "asked", "reason"),
    [
        ("plain", {"events": [1.0]}, "bad_selection"),
        ("back/data", {"events": [1.0]}, "bad_selection"),
        ("nan/data", {"events": [1.0]}, "bad_selection"),
        ("few/data", {"events": [1.0]}, "bad_selection"),
        ("acquisition/raw/data", {"events": [1.0], "window": (1.0, -0.5)}, "bad_request"),
        ("acquisition/raw/data", {"events": [1.0], "window": (0.0, 1e-9)}, "bad_selection"),
        ("acquisition/raw/data", {"events": [float("nan")]}, "bad_request"),
        ("acquisition/raw/data", {"events": np.zeros(70_000)}, "bad_request"),
        ("acquisition/raw/data", {"events": ("intervals/trials", "outcome")}, "bad_request"),
        ("acquisition/raw/data", {"events": ("intervals/trials", "missing")}, "column_not_found"),
        ("acquisition/raw/data", {"events": "intervals/none"}, "dataset_not_found"),
        ("acquisition/raw/data", {"events": "intervals/trials", "where": "outcome ="}, "bad_expression"),
        ("acquisition/raw/data", {"events": [1.0], "channels": "depth > 5"}, "bad_expression"),
        ("acquisition/movie/data", {"events": [1.0], "channels": "location = 'CA1'"}, "bad_selection"),
    ],
)
def test_windows_that_mean_nothing_are_refused(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]], name: str, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(h5flight.H5FlightError) as refused:
        lab[0][name].windows(**asked)
    assert refused.value.reason == reason


def test_windows_that_would_take_too_long_to_plan_are_refused(
    lab: tuple[h5flight.Experiment, dict[str, np.ndarray]],
) -> None:
    with pytest.raises(h5flight.H5FlightError) as refused:
        # 65,536 times all rows, in chunks of 512: 5 million rows of chunks.
        lab[0]["acquisition/raw/data"].windows(np.full(65_536, FIRST_S), (0, ROWS / HZ))
    assert refused.value.reason == "result_too_large"


def test_events_that_are_no_list_are_told(lab: tuple[h5flight.Experiment, dict[str, np.ndarray]]) -> None:
    for events in [5.0, np.zeros((2, 2))]:
        with pytest.raises(ValueError, match="are no list of seconds"):
            lab[0]["acquisition/raw/data"].windows(events)


def test_no_events_give_no_windows(lab: tuple[h5flight.Experiment, dict[str, np.ndarray]]) -> None:
    raw = lab[0]["acquisition/raw/data"]
    for found in [raw.windows([]), raw.windows([1e6, -1e6]), raw.windows("intervals/trials", where="start_time > 1e9")]:
        assert found.values.shape == (0, 450, len(REGION))
        assert found.present.shape == (0, 450)
