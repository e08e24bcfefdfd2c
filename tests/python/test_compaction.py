"""Small files of appends become few in the background: every version stays as it was, whatever breaks meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

from server import Server, binary, environment_without_settings
from services import Postgres, until

SOON = ("--compact-interval-s", "1")
NEVER = ("--compact-interval-s", "0")
AT_ONCE = ("--garbage-grace-hours", "0")
PLACES = (
    "compact::begin",
    "put::batch",
    "put::chunk",
    "put::finish",
    "put::flush",
    "put::hash",
    "upload::seal",
    "upload::keep",
    "upload::kept",
    "compact::publish",
    "compact::committed",
)


@pytest.fixture(params=["sqlite", "postgres"])
def flags(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    if request.param == "sqlite":
        yield ()
        return
    postgres = Postgres()
    yield ("--database-url", postgres.database("compaction"))
    postgres.remove()


def blocks(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng((20261127, seed))
    return [rng.integers(-99, 99, (int(rng.integers(1, 90)), 3, 2), "i2") for _ in range(count)]


def grow(url: str, parts: list[np.ndarray], name: str = "d", **told: object) -> None:
    with h5flight.connect(url) as client:
        for part in parts:
            client.append("m", "e", name, part, **told)


def files_of(server: Server) -> int:
    """Managed files on the disk, after all garbage was removed."""
    done = server.command("gc", "--json")
    assert done.returncode == 0, done.stderr
    return len(list((server.folder / "data").rglob("*.h5")))


def assert_versions(url: str, parts: list[np.ndarray], name: str = "d") -> None:
    """Each version has the rows that it always had."""
    with h5flight.connect(url) as client:
        data = client["m"]["e"][name]
        for number in range(1, len(parts) + 1):
            np.testing.assert_array_equal(data.at(number)[...], np.concatenate(parts[:number]), f"version {number}")
        np.testing.assert_array_equal(data[5:-3], np.concatenate(parts)[5:-3])


def assert_sound(server: Server) -> None:
    verified = server.command("verify", "--deep")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    with h5flight.connect(server.url) as client:
        # A compaction may be between its file and its commit.
        until(
            lambda: len(list((server.folder / "data").rglob("*.h5"))) == client.server_info()["files"],
            "every file to have a name, and every name a file",
        )


def test_a_backup_is_whole_although_files_go_meanwhile(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start({}, *NEVER, *AT_ONCE)
    parts = blocks(20)
    grow(server.url, parts)
    dest = tmp_path / "backups"
    data = ["--data-dir", str(server.folder / "data")]
    # The fault leaves time to stop the process between the dump and the files that it names.
    faults = {**environment_without_settings(), "FAILPOINTS": "backup::dumped=1*sleep(2000)"}
    command = [str(binary()), "backup", "create", str(dest), *data, "--json"]
    making = subprocess.Popen(command, env=faults, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: any(dest.rglob("*.dump.zst")), "the dump of the catalogue")
    making.send_signal(signal.SIGSTOP)
    server.stop()
    again = Server(server.folder, {}, *SOON, *AT_ONCE).start()
    try:
        until(lambda: files_of(again) <= 9, "small files to become few")
        making.send_signal(signal.SIGCONT)
        made, said = making.communicate(timeout=60)
        assert making.returncode == 0, said
        assert "asking it again" in said
        assert json.loads(made)["files"] <= 9
        assert_versions(again.url, parts)
    finally:
        again.stop()
    checked = subprocess.run([str(binary()), "backup", "verify", str(dest)], env=environment_without_settings())
    assert checked.returncode == 0


def test_small_files_become_few_and_every_version_stays(flags: tuple[str, ...], start: Callable[..., Server]) -> None:
    server = start({}, *SOON, *AT_ONCE, *flags)
    parts = blocks(40)
    grow(server.url, parts[:30])
    until(lambda: files_of(server) <= 9, "small files to become few")
    assert_versions(server.url, parts[:30])
    grow(server.url, parts[30:])
    until(lambda: files_of(server) <= 9, "more small files to become few")
    assert_versions(server.url, parts)
    assert_sound(server)
    with h5flight.connect(server.url) as client:
        # What was done with the versions before goes on: a rollback, an append, a tag, a difference.
        data = client["m"]["e"]["d"]
        data.rollback(12)
        client.append("m", "e", "d", parts[0])
        whole = np.concatenate([*parts[:12], parts[0]])
        np.testing.assert_array_equal(client["m"]["e"]["d"][...], whole)
        assert data.at(40).shape[0] == sum(map(len, parts))


def test_the_file_is_a_normal_one_with_the_same_compression(start: Callable[..., Server]) -> None:
    server = start({}, *SOON, *AT_ONCE)
    parts = blocks(25, seed=1)
    grow(server.url, parts, codec="gzip", level=6)
    until(lambda: files_of(server) <= 9, "small files to become few")
    whole, places = np.concatenate(parts), {}
    for path in (server.folder / "data").rglob("*.h5"):
        with h5py.File(path) as file:
            assert file["d"].compression == "gzip"
            assert file["d"].compression_opts == 6
            assert file["d"].shuffle
            found = file["d"][...]
        first = next(at for at in range(len(whole)) if np.array_equal(whole[at : at + len(found)], found))
        places[first] = len(found)
    # Side by side they are all rows; the file that describes the dataset stays as it was.
    assert sorted(places) == [0, *np.cumsum([places[first] for first in sorted(places)])[:-1]]
    assert sum(places.values()) == len(whole)
    assert places[0] == len(parts[0])


@pytest.mark.parametrize(
    "rows",
    [
        np.array([(1, 2.5, b"ab"), (3, 4.5, b"cd")], [("id", "i4"), ("t", "f8"), ("name", "S4")]),
        np.array([True, False, True]),
        np.array([b"one", b"three"], "S5"),
        np.array(["ein", "zwölf"]),
        np.array([1 + 2j, 3 - 4j], "c8"),
        np.arange(6, dtype="f2").reshape(2, 3),
    ],
    ids=["records", "booleans", "bytes", "texts", "complex", "halves"],
)
def test_rows_of_every_kind_are_the_same_afterwards(start: Callable[..., Server], rows: np.ndarray) -> None:
    server = start({}, *NEVER, *AT_ONCE)
    # Of different lengths: equal rows would be one file.
    grow(server.url, [np.concatenate([rows] * (1 + number)) for number in range(12)])
    with h5flight.connect(server.url) as client:
        before = client["m"]["e"]["d"]
        values, dtype = before[...], before.dtype
    assert files_of(server) == 12
    server.stop()
    again = Server(server.folder, {}, *SOON, *AT_ONCE).start()
    try:
        until(lambda: files_of(again) == 2, "small files to become few")
        with h5flight.connect(again.url) as client:
            after = client["m"]["e"]["d"]
            assert after.dtype == dtype
            np.testing.assert_array_equal(after[...], values)
        assert_sound(again)
    finally:
        again.stop()


@pytest.mark.parametrize("place", PLACES)
def test_a_server_that_is_killed_while_it_compacts_loses_nothing(tmp_path: Path, place: str) -> None:
    folder, parts = tmp_path / "server", blocks(12, seed=2)
    server = Server(folder, {}, *NEVER).start()
    grow(server.url, parts)
    server.stop()
    dying = Server(folder, {}, *SOON, environment={"FAILPOINTS": f"{place}=return(kill)"}).start()
    until(lambda: not dying.is_running(), f"the kill at {place}")
    server = Server(folder, {}, *NEVER, *AT_ONCE, "--upload-expiry-hours", "0").start()
    try:
        assert_versions(server.url, parts)
        assert files_of(server) in (12, 2)
        assert_sound(server)
    finally:
        server.stop()
    server = Server(folder, {}, *SOON, *AT_ONCE).start()
    try:
        until(lambda: files_of(server) == 2, "small files to become few")
        assert_versions(server.url, parts)
        assert_sound(server)
    finally:
        assert server.stop() == 0


def test_a_full_disk_leaves_all_as_it_was(tmp_path: Path) -> None:
    folder, parts = tmp_path / "server", blocks(12, seed=3)
    server = Server(folder, {}, *SOON, *AT_ONCE, environment={"FAILPOINTS": "compact::publish=return(disk_full)"})
    server.expect("small files were not compacted.*disk is full")
    server.start()
    try:
        grow(server.url, parts)
        until(lambda: "the disk is full" in server.log(), "the fault")
        assert_versions(server.url, parts)
        assert files_of(server) == 12
        assert_sound(server)
    finally:
        assert server.stop() == 0


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.remove()


def test_another_server_reads_on_when_the_files_it_knows_are_gone(
    postgres: Postgres, start: Callable[..., Server]
) -> None:
    flags = (*AT_ONCE, "--database-url", postgres.database("two"))
    first = start({}, *SOON, *flags)
    folder = first.folder.with_name("server-1")
    folder.mkdir()
    (folder / "data").symlink_to(first.folder / "data")
    second = start({}, *NEVER, *flags)
    parts = blocks(30, seed=4)
    grow(first.url, parts[:7])
    records = np.zeros(20, [("a", "i4"), ("b", "f8")])
    records["a"] = np.arange(20)
    rows = [records[at : at + 1] for at in range(20)]
    grow(first.url, rows[:7], "records")
    with h5flight.connect(second.url) as client:
        old = client["m"]["e"]["d"].at(7)
        np.testing.assert_array_equal(old[...], np.concatenate(parts[:7]))
        table = lambda: client["m"]["e"].table("records", where="a >= 2", version=7)["a"].to_pylist()  # noqa: E731
        assert table() == [2, 3, 4, 5, 6]
        grow(first.url, parts[7:])
        grow(first.url, rows[7:], "records")
        until(lambda: files_of(first) <= 18, "small files to become few")
        np.testing.assert_array_equal(old[...], np.concatenate(parts[:7]))
        assert table() == [2, 3, 4, 5, 6]
    assert_versions(second.url, parts)
