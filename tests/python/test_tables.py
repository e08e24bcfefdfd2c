"""Tables as one stream: equal to what pynwb and h5py give, filtered as pandas filters, and never a wrong row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5flight
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries

import corpus
import files
from server import Server

START = datetime(2024, 3, 5, 9, 30, tzinfo=UTC)
UNITS, TRIALS = 40, 300

Publish = Callable[..., h5flight.Experiment]


def write_session(path: Path) -> None:
    rng = np.random.default_rng(files.SEED)
    nwb = NWBFile(session_description="tables", identifier=path.stem, session_start_time=START)
    probe = nwb.create_device(name="probe")
    shank = nwb.create_electrode_group(name="shank0", description="a shank", location="M1", device=probe)
    nwb.add_electrode_column(name="label", description="a text")
    for i in range(16):
        nwb.add_electrode(location="M1", group=shank, x=0.0, y=float(i), z=0.0, label=f"ch{i}")
    speed = TimeSeries(name="speed", data=rng.random(1000), unit="m/s", rate=10.0)
    nwb.add_acquisition(speed)
    nwb.add_trial_column(name="choice", description="text")
    nwb.add_trial_column(name="correct", description="bool")
    nwb.add_trial_column(name="difficulty", description="int")
    for i in range(TRIALS):
        facts = {"choice": ["left", "right", "größe"][i % 3], "correct": bool(rng.integers(2))}
        nwb.add_trial(
            start_time=float(i), stop_time=i + 0.5, difficulty=int(rng.integers(5)), timeseries=[speed], **facts
        )
    nwb.add_unit_column(name="quality", description="a number with gaps")
    for i in range(UNITS):
        spikes = 0 if i == 3 else int(rng.integers(1, 50))
        nwb.add_unit(
            spike_times=np.sort(rng.random(spikes)) * 10,
            electrodes=[int(e) for e in rng.choice(16, i % 3 + 1, replace=False)],
            waveforms=[[rng.random(8) for _ in range(2)] for _ in range(max(spikes, 1))],
            quality=float("nan") if i % 7 == 0 else i / UNITS,
        )
    with NWBHDF5IO(str(path), "w") as out:
        out.write(nwb)


@pytest.fixture(scope="module")
def session(server: Server, client: h5flight.Client) -> tuple[h5flight.Experiment, Path]:
    path = Path(server.roots["lab"]) / "tables.nwb"
    write_session(path)
    (report,) = client.register(path, animal="m01", experiment="tables")
    assert report["publication"] is not None, report
    return client["m01"]["tables"], path


def plain(value: Any) -> Any:
    """A value of either side in one form."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, float) and np.isnan(value):
        return "NaN"
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def naive(group: h5py.Group, name: str) -> list[Any]:
    """A column by h5py, row by row, as the format says it."""

    def values(at: str, dataset: h5py.Dataset) -> list[Any]:
        if h5py.check_ref_dtype(dataset.dtype) is not None:
            return [group.file[ref].name for ref in dataset[()]]
        if dataset.dtype.names is not None:
            rows = dataset[()]
            return [
                {
                    key: group.file[row[key]].name if isinstance(row[key], h5py.Reference) else plain(row[key])
                    for key in dataset.dtype.names
                }
                for row in rows
            ]
        found = plain(dataset[()])
        if f"{at}_elements" in group:
            labels = plain(group[f"{at}_elements"][()])
            return [labels[number] for number in found]
        return found

    found, index = values(name, group[name]), f"{name}_index"
    while index in group:
        ends = [0, *plain(group[index][()])]
        found = [found[start:stop] for start, stop in pairwise(ends)]
        index += "_index"
    return found


def assert_table(found: pa.Table, group: h5py.Group) -> None:
    names = ["id", *(name for name in plain(np.atleast_1d(group.attrs["colnames"])) if name != "id")]
    assert found.column_names == names
    for name in names:
        assert plain(found[name].to_pylist()) == naive(group, name), name


@pytest.mark.parametrize("name", ["units", "intervals/trials", "general/extracellular_ephys/electrodes"])
def test_a_table_is_what_the_file_has(session: tuple[h5flight.Experiment, Path], name: str) -> None:
    experiment, path = session
    with h5py.File(path) as file:
        assert_table(experiment.table(name), file[name])


def test_a_table_is_what_pynwb_makes_of_it(session: tuple[h5flight.Experiment, Path]) -> None:
    experiment, path = session
    with NWBHDF5IO(str(path), "r") as opened:
        nwb = opened.read()
        expected = nwb.trials.to_dataframe()
        found = experiment.table("intervals/trials").to_pandas()
        for name in ("start_time", "stop_time", "choice", "correct", "difficulty"):
            assert found[name].tolist() == expected[name].tolist(), name
        spikes = experiment.table("units", ["spike_times"])["spike_times"].to_pylist()
        assert spikes == [list(nwb.units["spike_times"][i]) for i in range(UNITS)]


def test_types_are_those_of_arrow(session: tuple[h5flight.Experiment, Path]) -> None:
    experiment, _ = session
    schema = experiment.table("units").schema
    assert pa.types.is_list(schema.field("spike_times").type)
    assert pa.types.is_list(schema.field("waveforms").type.value_type)
    assert pa.types.is_integer(schema.field("electrodes").type.value_type)
    trials = experiment.table("intervals/trials").schema
    assert trials.field("correct").type == pa.bool_()
    assert trials.field("choice").type == pa.string()
    assert pa.types.is_struct(trials.field("timeseries").type.value_type)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("start_time >= 10 AND start_time < 20", lambda t: (t.start_time >= 10) & (t.start_time < 20)),
        ("choice IN ('left', 'größe') and not correct = true", lambda t: t.choice.isin(["left", "größe"]) & ~t.correct),
        ("difficulty between 2 and 3 or id = 7", lambda t: t.difficulty.between(2, 3) | (t.id == 7)),
        ("choice contains 'IGH'", lambda t: t.choice == "right"),
        ("choice like 'l%'", lambda t: t.choice == "left"),
        ("difficulty = 99", lambda t: t.difficulty == 99),
        ("start_time is not null", lambda t: t.start_time.notna()),
    ],
)
def test_rows_are_those_that_pandas_selects(
    session: tuple[h5flight.Experiment, Path], where: str, expected: Callable[[pd.DataFrame], pd.Series]
) -> None:
    experiment, _ = session
    whole = experiment.table("intervals/trials")
    assert experiment.table("intervals/trials", where=where).equals(whole.filter(pa.array(expected(whole.to_pandas()))))
    only = experiment.table("intervals/trials", ["stop_time", "choice"], where)
    assert only.column_names == ["stop_time", "choice"]
    assert only.num_rows == int(expected(whole.to_pandas()).sum())


def test_lists_of_selected_rows_are_their_own(session: tuple[h5flight.Experiment, Path]) -> None:
    experiment, _ = session
    whole = experiment.table("units")
    for where, ids in [
        ("id in (0, 3, 4, 39)", [0, 3, 4, 39]),
        ("quality is null", [i for i in range(UNITS) if i % 7 == 0]),
        ("quality > 0.5", [i for i in range(UNITS) if i % 7 and i / UNITS > 0.5]),
        ("not quality > 0.5", [i for i in range(UNITS) if i % 7 and i / UNITS <= 0.5]),
    ]:
        found = experiment.table("units", where=where)
        expected = whole.take(pa.array(ids, pa.int64()))
        # As texts: a gap is not equal to itself.
        assert plain(found.to_pylist()) == plain(expected.to_pylist()) or str(found.to_pylist()) == str(
            expected.to_pylist()
        ), where
    part = experiment.table("units", ["id", "spike_times"], rows=(5, 9))
    assert part.equals(whole.select(["id", "spike_times"]).slice(5, 4).combine_chunks()) or part.to_pylist() == (
        whole.select(["id", "spike_times"]).slice(5, 4).to_pylist()
    )


def test_a_region_is_expanded_to_the_rows_it_names(session: tuple[h5flight.Experiment, Path]) -> None:
    experiment, _ = session
    numbers = experiment.table("units", ["electrodes"])["electrodes"].to_pylist()
    electrodes = experiment.table("general/extracellular_ephys/electrodes").to_pylist()
    found = experiment.table("units", ["electrodes"], expand=["electrodes"])["electrodes"].to_pylist()
    assert found == [[electrodes[number] for number in row] for row in numbers]


def test_random_records_are_filtered_as_pandas_does(server: Server, publish: Publish) -> None:
    rng = np.random.default_rng(files.SEED)
    rows = np.zeros(20_000, [("n", "i4"), ("x", "f4"), ("s", "S4"), ("flag", "u1")])
    rows["n"], rows["flag"] = rng.integers(-50, 50, len(rows)), rng.integers(0, 2, len(rows))
    rows["x"], rows["s"] = rng.normal(size=len(rows)), rng.choice([b"a", b"bb", b"ccc"], len(rows))
    path = Path(server.roots["lab"]) / "records.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("records", data=rows, chunks=(1000,), compression="gzip")
    experiment = publish(path)
    frame = experiment.table("records").to_pandas()
    assert frame["n"].tolist() == rows["n"].tolist()
    for at in range(20):
        low, x = int(rng.integers(-50, 50)), float(rng.normal())
        where = f"(n >= {low} AND x < {x!r}) OR s = 'bb' AND flag != 1"
        expected = frame[((frame.n >= low) & (frame.x < np.float32(x))) | ((frame.s == "bb") & (frame.flag != 1))]
        found = experiment.table("records", ["n", "s"], where).to_pandas()
        pd.testing.assert_frame_equal(found, expected[["n", "s"]].reset_index(drop=True), obj=f"case {at}: {where}")


def hostile(path: Path, change: Callable[[h5py.Group], None]) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("table")
        group.attrs["colnames"] = ["x", "y"]
        group["id"], group["x"] = np.arange(3), np.arange(3.0)
        group["y"], group["y_index"] = np.arange(6), np.array([2, 4, 6], "u1")
        change(group)


def put(group: h5py.Group, name: str, values: Any) -> None:
    if name in group:
        del group[name]
    group[name] = values


HOSTILE: dict[str, tuple[Callable[[h5py.Group], None], str, str]] = {
    "missing": (lambda g: g.__delitem__("x"), "malformed_table", 'column "x" is missing'),
    "no-id": (lambda g: g.__delitem__("id"), "malformed_table", 'column "id" is missing'),
    "backwards": (lambda g: put(g, "y_index", [4, 2, 6]), "malformed_table", "goes back from 4 to 2 at row 1"),
    "beyond": (lambda g: put(g, "y_index", [2, 4, 7]), "malformed_table", "ends at 7 of 6 values"),
    "negative": (lambda g: put(g, "y_index", [-1, 4, 6]), "malformed_table", "negative"),
    "floats": (lambda g: put(g, "y_index", [2.0, 4.0, 6.0]), "malformed_table", "whole numbers"),
    "short": (lambda g: put(g, "x", np.arange(2)), "malformed_table", 'has 2 rows, "id" has 3'),
    "short-index": (lambda g: put(g, "y_index", [2, 6]), "malformed_table", "has 2 rows"),
    "scalar": (lambda g: put(g, "x", 5), "malformed_table", "is a single value"),
    "group": (lambda g: (g.__delitem__("x"), g.create_group("x")), "malformed_table", "no dataset"),
    "twice": (lambda g: g.attrs.__setitem__("colnames", ["x", "x"]), "malformed_table", "twice"),
    "no-names": (lambda g: g.attrs.__delitem__("colnames"), "not_a_table", "colnames"),
    "numbers": (lambda g: g.attrs.__setitem__("colnames", [1, 2]), "not_a_table", "colnames"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_table_that_contradicts_itself_is_refused(server: Server, publish: Publish, name: str) -> None:
    change, reason, told = HOSTILE[name]
    path = Path(server.roots["lab"]) / f"hostile-{name}.h5"
    hostile(path, change)
    experiment = publish(path)
    with pytest.raises(h5flight.H5FlightError) as refused:
        experiment.table("table")
    assert refused.value.reason == reason
    assert told in str(refused.value)
    server.expect("malformed_table")


def test_tables_that_say_they_are_enormous_cost_nothing(server: Server, publish: Publish) -> None:
    """Rows that were never written take no room in a file, and must take none in the server."""
    path = Path(server.roots["lab"]) / "enormous.h5"
    with h5py.File(path, "w") as file:
        table = file.create_group("electrodes")
        table.attrs["colnames"] = np.array([], h5py.string_dtype())
        table.create_dataset("id", shape=(1 << 40,), chunks=(1024,), dtype="i8")
        series = file.create_group("series")
        series["data"] = np.arange(6, dtype="i2").reshape(3, 2)
        series["starting_time"] = 0.0
        series["starting_time"].attrs["rate"] = 10.0
        series["electrodes"] = np.array([0, 1])
        series["electrodes"].attrs["table"] = table.ref
        trials = file.create_group("trials")
        trials.attrs["colnames"] = ["where"]
        trials["id"] = trials["where"] = np.arange(3)
        trials["where"].attrs["table"] = table.ref
        trials["where"].attrs["neurodata_type"] = "DynamicTableRegion"
    experiment = publish(path)
    before = server.peak_bytes()
    with pytest.raises(h5flight.H5FlightError, match="read it by itself") as refused:
        experiment.table("trials", expand=["where"])
    assert refused.value.reason == "result_too_large"
    with pytest.raises(h5flight.H5FlightError, match="no list of up to"):
        experiment["series/data"].read(channels="id = 0")
    assert server.peak_bytes() - before < 256 << 20


def test_what_is_asked_wrongly_is_told(session: tuple[h5flight.Experiment, Path]) -> None:
    experiment, _ = session
    for table, how, reason, told in [
        ("intervals/trials", {"columns": ["chioce"]}, "column_not_found", 'did you mean "choice"?'),
        ("intervals/trials", {"where": "chioce = 'left'"}, "bad_expression", 'did you mean "choice"?'),
        ("intervals/trials", {"where": "choice = 5"}, "bad_expression", "cannot be compared with a number"),
        ("intervals/trials", {"where": "choice == 'left'"}, "bad_expression", "character 9"),
        ("units", {"where": "spike_times > 5"}, "bad_expression", "is a list"),
        ("units", {"expand": ["quality"]}, "bad_request", "is no region"),
        ("acquisition/speed", {}, "not_a_table", "colnames"),
        ("acquisition/speed/data", {}, "not_a_table", "single values"),
        ("no/such/table", {}, "dataset_not_found", "no/such/table"),
    ]:
        with pytest.raises(h5flight.H5FlightError) as refused:
            experiment.table(table, **how)
        assert (refused.value.reason, told in str(refused.value)) == (reason, True), (table, how, str(refused.value))


def test_groups_of_the_corpus_are_tables_or_refused(server: Server, client: h5flight.Client) -> None:
    folder = corpus.find()
    if folder is None:
        pytest.skip("no corpus: set H5FLIGHT_CORPUS")
    groups = 0
    for path in sorted(folder.rglob("*.nwb")):
        copy = Path(server.roots["lab"]) / path.name
        copy.write_bytes(path.read_bytes())
        (report,) = client.register(copy, animal="corpus", experiment=path.stem)
        if report["publication"] is None:
            continue
        with h5py.File(copy) as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Group) else None)  # noqa: B023
            for name in names:
                groups += 1
                if "colnames" in file[name].attrs:
                    assert_table(client["corpus"][path.stem].table(name), file[name])
                    continue
                with pytest.raises(h5flight.H5FlightError) as refused:
                    client["corpus"][path.stem].table(name)
                assert refused.value.reason == "not_a_table", (path.name, name)
    assert groups > 50
