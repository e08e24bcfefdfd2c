"""Searches by words and conditions: the same text in Python, at the command line and over gRPC."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import grpc
import h5flight
import pytest

from server import Server
from test_nwb import write_recording


@pytest.fixture(scope="module")
def recorded(server: Server, client: h5flight.Client) -> h5flight.Client:
    path = Path(server.roots["lab"]) / "searched.nwb"
    write_recording(path)
    (report,) = client.register(path)
    assert report["publication"] is not None, report
    return client


CASES = [
    ("mouse-017 speed", {"acquisition/speed/data", "acquisition/speed/timestamps"}),
    ("unit = 'volts'", {"acquisition/raw/data"}),
    ("neurodata_type = 'ElectricalSeries' AND rank = 2", {"acquisition/raw/data"}),
    ("rate > 20000 AND unit = 'volts'", {"acquisition/raw/data"}),
    ("unit like 'M/S'", {"acquisition/speed/data"}),
    ("attr.conversion < 0.001 and animal = 'mouse-017'", {"acquisition/raw/data"}),
    ("dataset contains 'SPIKE_TIMES' species = 'Mus musculus'", {"units/spike_times", "units/spike_times_index"}),
    ("rank = 2 OR dataset = 'units/id'", {"acquisition/raw/data", "units/id"}),
    ("start_time >= '2024-03-05' AND start_time < '2024-03-06' AND unit = 'm/s'", {"acquisition/speed/data"}),
    ("unit = 'volts' AND NOT session_id = 'day1'", set()),
    ("sex = 'F' AND unit_count >= 5 AND unit = 'volts'", {"acquisition/raw/data"}),
    (
        "keywords = 'ΔF/F' AND experimenter contains 'doe' AND devices = 'probe' AND unit = 'm/s'",
        {"acquisition/speed/data"},
    ),
    ("keywords = 'visual' AND unit = 'volts'", set()),
]

EXPERIMENTS = [
    ("sex = 'F' AND lab = 'the lab' AND neurodata_type = 'ElectricalSeries'", [("mouse-017", "day1")]),
    ("motor cortex", [("mouse-017", "day1")]),
    ("trial_count > 12", []),
]


@pytest.mark.parametrize(("query", "expected"), CASES)
def test_conditions_find_what_has_them(
    recorded: h5flight.Client, server: Server, contract: SimpleNamespace, query: str, expected: set[str]
) -> None:
    found = {dataset.name for dataset in recorded.search(query)}
    assert found == expected
    told = server.command("search", query, "--json")
    assert told.returncode == 0, told.stderr
    assert {entry["dataset"] for entry in json.loads(told.stdout)} == expected
    with grpc.insecure_channel(server.url.removeprefix("grpc://")) as channel:
        service = contract.service.DataServiceStub(channel)
        answer = service.Search(contract.data.SearchRequest(query=query), timeout=60)
    assert {dataset.dataset for dataset in answer.datasets} == expected


@pytest.mark.parametrize(("query", "expected"), EXPERIMENTS)
def test_experiments_are_found_by_what_is_in_them(
    recorded: h5flight.Client,
    server: Server,
    contract: SimpleNamespace,
    query: str,
    expected: list[tuple[str, str]],
) -> None:
    found = recorded.search_experiments(query)
    assert [(experiment.animal, experiment.name) for experiment in found] == expected
    assert all(experiment.facts["details"]["sex"] == "F" for experiment in found)
    told = server.command("search", "--experiments", query, "--json")
    assert told.returncode == 0, told.stderr
    assert [(entry["animal"], entry["experiment"]) for entry in json.loads(told.stdout)] == expected
    with grpc.insecure_channel(server.url.removeprefix("grpc://")) as channel:
        service = contract.service.DataServiceStub(channel)
        asked = contract.data.SearchRequest(query=query, search_for=contract.data.SEARCH_FOR_EXPERIMENTS)
        answer = service.Search(asked, timeout=60)
    assert [(experiment.animal, experiment.experiment) for experiment in answer.experiments] == expected
    assert not answer.datasets


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("specis = 'Mus musculus'", 'did you mean "species"?'),
        ("rate = 'fast'", "is a number"),
        ("unit = volts", "character 8"),
        ("(unit = 'volts'", "expected ')'"),
        ("unit_count = 'many'", "is a number"),
        ("keywords > 5", "is a text"),
    ],
)
def test_what_cannot_be_asked_is_told(recorded: h5flight.Client, server: Server, query: str, told: str) -> None:
    with pytest.raises(h5flight.H5FlightError) as refused:
        recorded.search(query)
    assert refused.value.reason == "bad_expression"
    assert told in str(refused.value)
    command = server.command("search", query)
    assert command.returncode == 1
    assert told in command.stderr


def test_a_table_is_shown_and_written(recorded: h5flight.Client, server: Server, tmp_path: Path) -> None:
    names = ("mouse-017", "day1", "intervals/trials")
    shown = server.command("table", *names, "--where", "choice = 'left'", "--columns", "id,choice", "--json")
    assert shown.returncode == 0, shown.stderr
    rows = json.loads(shown.stdout)["rows"]
    assert rows == [{"id": str(i), "choice": "left"} for i in range(0, 12, 2)]
    out = tmp_path / "trials.parquet"
    written = server.command("table", *names, "--where", "start_time >= 3", "-o", str(out))
    assert written.returncode == 0, written.stderr
    import pyarrow.parquet as pq

    expected = recorded.table(*names, where="start_time >= 3")
    assert pq.read_table(out).to_pylist() == expected.to_pylist()
    assert len(expected) == 9
    refused = server.command("table", *names, "--where", "start_time >")
    assert (refused.returncode, "character 13" in refused.stderr) == (1, True), refused.stderr
