"""The history of a dataset: two files under the same names, versions by number, time and tag, diff, rollback."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

from server import Server
from services import Postgres

MICROSECOND = timedelta(microseconds=1)
DATABASES = itertools.count()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def lab(request: pytest.FixtureRequest, start: Callable[..., Server], tmp_path: Path, postgres: Postgres) -> Server:
    flags = []
    if request.param == "postgres":
        flags = ["--database-url", postgres.database(f"versions_{next(DATABASES)}")]
    (tmp_path / "files").mkdir()
    return start({"lab": tmp_path / "files"}, *flags)


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    """Two files with the same names: another shape, type, chunks, filters, attribute; one dataset that is the same."""
    rng = np.random.default_rng(5)
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    with h5py.File(first, "w") as file:
        file.create_dataset("g/data", data=rng.integers(0, 99, (50, 4), "i4"), chunks=(10, 4)).attrs["unit"] = "V"
        file["same"] = np.arange(10)
    with h5py.File(second, "w") as file:
        values = rng.normal(size=(80, 4))
        file.create_dataset("g/data", data=values, chunks=(16, 4), compression="gzip").attrs["unit"] = "mV"
        file["same"] = np.arange(10)
    return first, second


def ingest(server: Server, path: Path, *flags: str) -> None:
    done = server.command("ingest", str(path), "--animal", "m", "--experiment", "e", *flags)
    assert done.returncode == 0, done.stderr


def values(path: Path, name: str = "g/data") -> np.ndarray:
    with h5py.File(path) as file:
        return file[name][...]


def assert_is(dataset: h5flight.Dataset, path: Path) -> None:
    expected = values(path)
    assert (dataset.shape, dataset.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(dataset[...], expected)
    np.testing.assert_array_equal(dataset[5:30:3, 1], expected[5:30:3, 1])


def refusal(error: type[h5flight.H5FlightError], call: Callable[[], object]) -> h5flight.H5FlightError:
    with pytest.raises(error) as caught:
        call()
    return caught.value


def test_a_dataset_is_read_as_it_was(lab: Server, paths: tuple[Path, Path]) -> None:
    first, second = paths
    ingest(lab, first)
    with h5flight.connect(lab.url, timeout_s=60) as client:
        data = client["m"]["e"]["g/data"]
        between = client["m"]["e"]["g/data"].versions()[0].created
        assert (
            "dataset_exists"
            in lab.command("ingest", str(second), "--animal", "m", "--experiment", "e", "--json").stderr
        )
        ingest(lab, second, "--replace")
        newest, oldest = data.versions()
        assert (newest.number, newest.shape, newest.dtype, newest.source_name) == (2, (80, 4), "<f8", "second.h5")
        assert (oldest.number, oldest.shape, oldest.dtype, oldest.source_name) == (1, (50, 4), "<i4", "first.h5")
        assert oldest.managed
        assert oldest.principal == "anonymous"
        assert oldest.created == between < newest.created
        assert abs(newest.created - datetime.now(UTC)) < timedelta(minutes=1)

        assert_is(data, second)
        assert_is(data.at(1), first)
        assert_is(data.at(2), second)
        assert (data.at(1).attrs["unit"], data.at(1).chunks, data.at(1).filters) == ("V", (10, 4), ())
        assert (data.attrs["unit"], data.chunks, data.filters) == ("mV", (16, 4), ("deflate",))
        assert_is(data.at(as_of=newest.created), second)
        assert_is(data.at(as_of=newest.created - MICROSECOND), first)
        assert_is(data.at(as_of=oldest.created.isoformat()), first)
        assert data.at(as_of=datetime.now(UTC)).version == 2
        frame = client.get_data("m", "e", "g/data", "0:3", as_of=oldest.created)
        assert frame.attrs["version"] == 1
        assert frame.attrs["unit"] == "V"

        early = oldest.created - MICROSECOND
        missing = refusal(h5flight.NotFoundError, lambda: data.at(as_of=early)[0])
        assert missing.reason == "version_not_found"
        assert oldest.created.strftime("%Y-%m-%dT%H:%M:%S.%fZ") in str(missing)
        for absent in (data.at(3), data.at(tag="none")):
            assert refusal(h5flight.NotFoundError, lambda absent=absent: absent[0]).reason == "version_not_found"


def test_tags_name_versions_until_they_are_moved(lab: Server, paths: tuple[Path, Path]) -> None:
    first, second = paths
    ingest(lab, first)
    with h5flight.connect(lab.url, timeout_s=60) as client:
        experiment = client["m"]["e"]
        data = experiment["g/data"]
        assert experiment.tag("paper-2026") == 2
        ingest(lab, second, "--replace")
        assert_is(data.at(tag="paper-2026"), first)
        taken = refusal(h5flight.ConflictError, lambda: data.tag("paper-2026"))
        assert taken.reason == "tag_exists"
        assert_is(data.at(tag="paper-2026"), first)
        data.at(1).tag("paper-2026")
        data.tag("paper-2026", move=True)
        # What was read by the tag before is not what it means now, without waiting for anything.
        assert_is(data.at(tag="paper-2026"), second)
        assert experiment["same"].at(tag="paper-2026").version == 1
        data.at(1).tag("draft")
        assert [version.tags for version in data.versions()] == [("paper-2026",), ("draft",)]
        for bad in ("2026", "a b", "ä"):
            assert refusal(h5flight.InvalidRequestError, lambda bad=bad: data.tag(bad)).reason == "bad_request"
        alike = refusal(h5flight.NotFoundError, lambda: data.at(tag="paper-2025")[0])
        assert 'did you mean "paper-2026"' in str(alike)
        data.untag("draft")
        assert refusal(h5flight.NotFoundError, lambda: data.at(tag="draft")[0]).reason == "version_not_found"
        assert experiment.untag("paper-2026") == 2


def test_a_difference_tells_form_attributes_and_shared_rows(lab: Server, paths: tuple[Path, Path]) -> None:
    first, second = paths
    ingest(lab, first)
    ingest(lab, second, "--replace")
    with h5flight.connect(lab.url, timeout_s=60) as client:
        data = client["m"]["e"]["g/data"]
        found = data.diff(1, 2)
        assert found.versions == (1, 2)
        assert found.changes["shape"] == ([50, 4], [80, 4])
        assert found.changes["dtype"] == ("<i4", "<f8")
        assert found.changes["chunks"] == ([10, 4], [16, 4])
        assert found.changes["filters"] == ([], ["deflate"])
        assert [source[0]["name"] for source in found.changes["source"]] == ["first.h5", "second.h5"]
        assert found.attributes == {"unit": ("V", "mV")}
        assert found.shared == []
        data.rollback(1)
        again = data.diff(1)
        assert (again.versions, again.changes, again.attributes) == ((1, 3), {}, {})
        assert again.shared == [(slice(0, 50), slice(0, 50))]


def test_a_rollback_is_a_new_version_of_the_old_bytes(lab: Server, paths: tuple[Path, Path]) -> None:
    first, second = paths
    ingest(lab, first)
    ingest(lab, second, "--replace")
    with h5flight.connect(lab.url, timeout_s=60) as client:
        data = client["m"]["e"]["g/data"]
        assert data.rollback(1, expected_version=2) == 3
        assert_is(data, first)
        assert data.attrs["unit"] == "V"
        assert_is(data.at(2), second)
        assert [(version.number, version.restored) for version in data.versions()] == [(3, 1), (2, None), (1, None)]
        assert data.rollback(1) == 3, "it is that version already"
        lost = refusal(h5flight.ConflictError, lambda: data.rollback(2, expected_version=2))
        assert lost.reason == "conflict"
        assert lost.facts == {"dataset": "m/e/g/data", "expected_version": "2", "current_version": "3"}
        assert "version 3" in str(lost)
        # Nothing else was touched, and the file that is not served any more can be ingested again.
        assert client["m"]["e"]["same"].version == 2
        ingest(lab, second, "--replace")
        assert data.versions()[0].number == 4
        assert_is(client["m"]["e"]["g/data"], second)
    # The history is in the catalogue, not in a process.
    lab.kill()
    lab.start()
    with h5flight.connect(lab.url, timeout_s=60) as client:
        assert_is(client["m"]["e"]["g/data"].at(3), first)


def test_of_many_rollbacks_from_one_version_one_wins(lab: Server, paths: tuple[Path, Path]) -> None:
    first, second = paths
    ingest(lab, first)
    ingest(lab, second, "--replace")
    outcomes: list[object] = []

    def roll_back() -> None:
        with h5flight.connect(lab.url, timeout_s=60) as client:
            try:
                outcomes.append(client["m"]["e"]["g/data"].rollback(1, expected_version=2))
            except h5flight.ConflictError as error:
                outcomes.append(error.facts["current_version"])

    threads = [threading.Thread(target=roll_back) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcomes.count(3), outcomes.count("3")] == [1, 5]
    with h5flight.connect(lab.url, timeout_s=60) as client:
        assert len(client["m"]["e"]["g/data"].versions()) == 3
        assert_is(client["m"]["e"]["g/data"], first)


def test_the_bytes_of_a_registered_file_that_changed_are_gone(lab: Server, paths: tuple[Path, Path]) -> None:
    at = lab.roots["lab"] / "rec.h5"
    at.write_bytes(paths[0].read_bytes())
    with h5flight.connect(lab.url, timeout_s=60) as client:
        for path in paths:
            at.write_bytes(path.read_bytes())
            (report,) = client.register("lab:rec.h5", animal="m", experiment="r")
            assert report["publication"], report
        data = client["m"]["r"]["g/data"]
        assert_is(data, paths[1])
        assert [version.managed for version in data.versions()] == [False, False]
        assert refusal(h5flight.FileStateError, lambda: data.at(1)[0]).reason == "file_changed"
        assert refusal(h5flight.FileStateError, lambda: data.rollback(1)).reason == "file_changed"
        assert data.versions()[0].number == 2
        assert_is(data, paths[1])


def test_the_command_line_knows_versions(lab: Server, paths: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = paths

    def run(*arguments: str, code: int = 0) -> str:
        done = lab.command(*arguments)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def array(*flags: str) -> np.ndarray:
        run("get", "m", "e", "g/data", *flags, "-o", str(tmp_path / "x.npy"))
        return np.load(tmp_path / "x.npy")

    ingest(lab, first)
    assert "1 dataset at the tag draft" in run("tag", "set", "draft", "m", "e", "g/data")
    ingest(lab, second, "--replace")
    newest, oldest = json.loads(run("versions", "m", "e", "g/data", "--json"))
    assert (newest["version"], oldest["tags"]) == (2, ["draft"])
    assert newest["created_at"] in run("versions", "m", "e", "g/data")
    np.testing.assert_array_equal(array(), values(second))
    for flags in (["--version", "1"], ["--as-of", oldest["created_at"]], ["--tag", "draft"]):
        np.testing.assert_array_equal(array(*flags), values(first))
    assert "its first is of " + oldest["created_at"] in run(
        "get", "m", "e", "g/data", "--as-of", "2001-01-01T00:00:00+02:00", code=1
    )
    assert "expected something like" in run("get", "m", "e", "g/data", "--as-of", "yesterday", code=2)
    run("get", "m", "e", "g/data", "--tag", "a", "--version", "1", code=2)
    assert "shape: [50,4] -> [80,4]" in run("diff", "m", "e", "g/data", "draft", "2")
    assert '"tag_exists"' in run("tag", "set", "draft", "m", "e", "--json", code=1)
    assert "2 datasets" in run("tag", "set", "draft", "m", "e", "--force")
    assert "version 3 is version 1 again" in run("rollback", "m", "e", "g/data", "1", "--expect", "2")
    assert '"conflict"' in run("rollback", "m", "e", "g/data", "2", "--expect", "2", "--json", code=1)
    np.testing.assert_array_equal(array(), values(first))
    assert "2 datasets" in run("tag", "rm", "draft", "m", "e")
    run("tag", "rm", "draft", "m", "e", code=1)


def test_whoever_may_only_read_changes_nothing(lab: Server, paths: tuple[Path, Path]) -> None:
    ingest(lab, paths[0])
    ingest(lab, paths[1], "--replace")
    made = lab.command("token", "create", "--principal", "reader", "--role", "read", "--json", *database(lab))
    assert made.returncode == 0, made.stderr
    token = json.loads(made.stdout)["token"]
    with h5flight.connect(lab.url, token, timeout_s=60) as client:
        data = client["m"]["e"]["g/data"]
        assert [version.number for version in data.versions()] == [2, 1]
        assert data.diff(1, 2).changes
        for change in (lambda: data.rollback(1), lambda: data.tag("x"), lambda: data.untag("x")):
            assert refusal(h5flight.PermissionDeniedError, change).reason == "permission_denied"
        assert len(data.versions()) == 2


def database(server: Server) -> list[str]:
    """Flags by which a command finds the server's catalogue."""
    flags = list(server.flags)
    return flags if "--database-url" in flags else ["--data-dir", str(server.folder / "data")]
