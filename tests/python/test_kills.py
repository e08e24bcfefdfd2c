"""Servers that are killed while they take uploads and appends: what was acknowledged is there, and nothing in part.

Each round uploads a file, or appends a block, to a server that dies at a place that the seed chooses, or at any time,
starts it anew, looks, and does the same again; a quarter as many rounds append until a server dies while it compacts.
``H5FLIGHT_KILLS`` is the number of rounds of each catalogue, ``H5FLIGHT_SEED`` the seed; ``make soak`` does a thousand.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

from server import Server
from services import Postgres

ROUNDS = int(os.environ.get("H5FLIGHT_KILLS", "24"))
SEED = int(os.environ.get("H5FLIGHT_SEED", "20261126"))
PLACES = (
    "upload::append",
    "upload::flush",
    "upload::mark",
    "upload::seal",
    "upload::keep",
    "upload::kept",
    "publish::begin",
    "publish::committed",
)
PUT_PLACES = (
    "put::begin",
    "put::batch",
    "put::chunk",
    "put::finish",
    "put::flush",
    "put::hash",
    "upload::seal",
    "upload::keep",
    "upload::kept",
    "publish::begin",
    "publish::committed",
)
COMPACTION_PLACES = ("compact::begin", "compact::publish", "compact::committed")
ANY_TIME_S = 0.25
"""Servers that no place kills die within this time: an upload of one of our files takes about as long."""

EXPERIMENTS = 5
ROWS = 64
SERVER_GONE = (h5flight.ServerUnavailableError, h5flight.H5FlightError)


@dataclass
class Ledger:
    """What was acknowledged, what may be there beside it, and what happened."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    attempted: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


@pytest.fixture(params=["sqlite", "postgres"])
def flags(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    if request.param == "sqlite":
        yield ()
        return
    postgres = Postgres()
    yield ("--database-url", postgres.database("kills"))
    postgres.remove()


def content(number: int) -> np.ndarray:
    """The values of a file: no two files share a row."""
    return np.random.default_rng((SEED, number)).integers(0, 1 << 16, (ROWS, 2048), "u2")


def write(folder: Path, number: int) -> Path:
    path = folder / f"file{number}.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=content(number), chunks=(16, 2048), compression="gzip", compression_opts=1)
        file.create_dataset("number", data=number)
    return path


def upload(server: Server, path: Path, experiment: str, number: int) -> None:
    with h5flight.connect(server.url, timeout_s=60) as client:
        key = f"{experiment}-{number}"
        client.ingest(path, animal="kills", experiment=experiment, replace=True, key=key, failures_max=1)


def seen(client: h5flight.Client, experiment: str) -> tuple[int, int] | None:
    """Which file is visible, compared as a whole, and the version that it is."""
    try:
        data = client["kills"][experiment]["data"]
        number = int(client["kills"][experiment]["number"][()])
    except h5flight.NotFoundError:
        return None
    np.testing.assert_array_equal(data[:], content(number), f"{experiment} has file {number} in part")
    return number, data.versions()[0].number


def test_nothing_acknowledged_is_lost_and_nothing_is_there_in_part(tmp_path: Path, flags: tuple[str, ...]) -> None:
    rng = np.random.default_rng(SEED)
    ledger = Ledger()
    folder = tmp_path / "server"
    for number in range(ROUNDS):
        experiment = f"e{rng.integers(EXPERIMENTS)}"
        place = [*PLACES, "any time"][rng.integers(len(PLACES) + 1)]
        killed(ledger, tmp_path, (folder, flags), (number, experiment, place), float(rng.uniform(0, ANY_TIME_S)))
        again(ledger, tmp_path, Server(folder, {}, *flags).start(), (number, experiment))
    settled(ledger, Server(folder, {}, *flags, environment={"H5FLIGHT_GARBAGE_GRACE_HOURS": "0"}).start(), folder)
    print(f"\nseed {SEED}, {ROUNDS} kills: {dict(sorted(ledger.counts.items()))}, 0 lost, 0 in part, 0 orphans")


def killed(
    ledger: Ledger,
    files: Path,
    where: tuple[Path, tuple[str, ...]],
    what: tuple[int, str, str],
    after_s: float,
) -> None:
    """Upload to a server that dies on the way, or just after."""
    (folder, flags), (number, experiment, place) = where, what
    faults = {} if place == "any time" else {"FAILPOINTS": f"{place}=return(kill)"}
    server = Server(folder, {}, *flags, environment=faults).start()
    timer = threading.Timer(after_s, server.kill) if place == "any time" else None
    if timer:
        timer.start()
    ledger.attempted[experiment] = number
    try:
        upload(server, write(files, number), experiment, number)
    except SERVER_GONE:
        ledger.counts[f"killed at {place}"] += 1
    else:
        ledger.acknowledged[experiment] = number
        ledger.counts["acknowledged before the kill"] += 1
        # A binary without places for faults would take every upload.
        assert place == "any time", f"nothing happened at {place}: the binary needs the feature failpoints (make build)"
    finally:
        if timer:
            timer.join()
        server.kill()


def again(ledger: Ledger, files: Path, server: Server, what: tuple[int, str]) -> None:
    """Look at what is there, upload the same again, and see that it made one version, not two."""
    number, experiment = what
    try:
        with h5flight.connect(server.url, timeout_s=60) as client:
            for name, last in ledger.acknowledged.items():
                found = seen(client, name)
                assert found is not None, f"{name} with the acknowledged file {last} is gone"
                assert found[0] in (last, ledger.attempted[name]), (
                    f"{name} has file {found[0]}, acknowledged was {last}"
                )
            before = seen(client, experiment)
        upload(server, files / f"file{number}.h5", experiment, number)
        ledger.acknowledged[experiment] = number
        with h5flight.connect(server.url, timeout_s=60) as client:
            after = seen(client, experiment)
        assert after is not None
        assert after[0] == number
        if before is not None and before[0] == number:
            ledger.counts["visible before it was acknowledged"] += 1
            assert after == before, "the same upload again made another version"
    finally:
        server.kill()


def settled(ledger: Ledger, server: Server, folder: Path) -> None:
    """What nothing names goes, and what is left is what the catalogue names."""
    try:
        assert server.command("gc", "--json").returncode == 0
        known = {path.name for path in (folder / "data").rglob("*.h5") if path.is_file()}
        with h5flight.connect(server.url, timeout_s=60) as client:
            for name, last in ledger.acknowledged.items():
                found = seen(client, name)
                assert found is not None
                assert found[0] == last
            info = client.server_info()
        assert len(known) == info["files"], "files that nothing names, or names without a file"
        assert not list((folder / "data").rglob("*.part")), "parts of uploads that ended"
    finally:
        assert server.stop() == 0


# Appends


def block(number: int) -> np.ndarray:
    """The rows of an append: of changing length, no two blocks alike."""
    rng = np.random.default_rng((SEED, number))
    return rng.integers(0, 1 << 15, (int(rng.integers(1, 200)), 64), "u2")


def append(server: Server, first_row: int, number: int) -> h5flight.Put:
    with h5flight.connect(server.url, timeout_s=60) as client:
        told = {"writer": "rig", "sequence": number, "first_row": first_row, "chunks": (50, 64)}
        # One attempt: each further one waits for a server that does not come back.
        request = h5flight.put.request_of(NAMES, "append", told)
        return client._connection.put(request, h5flight.put.batches_of(block(number)))


NAMES = {"animal": "kills", "experiment": "rig", "dataset": "traces"}


def rows_seen(server: Server) -> np.ndarray:
    with h5flight.connect(server.url, timeout_s=60) as client:
        try:
            return client["kills"]["rig"]["traces"][...]
        except h5flight.NotFoundError:
            return np.zeros((0, 64), "u2")


def test_no_acknowledged_rows_are_lost_and_no_append_is_there_in_part(tmp_path: Path, flags: tuple[str, ...]) -> None:
    rng = np.random.default_rng(SEED)
    counts: Counter[str] = Counter()
    folder, whole = tmp_path / "server", np.zeros((0, 64), "u2")
    for number in range(ROUNDS):
        place = [*PUT_PLACES, "any time"][rng.integers(len(PUT_PLACES) + 1)]
        counts[killed_append(Server(folder, {}, *flags), len(whole), number, (place, rng.uniform(0, ANY_TIME_S)))] += 1
        server = Server(folder, {}, *flags).start()
        try:
            more = np.concatenate([whole, block(number)])
            found = rows_seen(server)
            visible = len(found) == len(more)
            np.testing.assert_array_equal(found, more if visible else whole, f"seed {SEED}, append {number}")
            made = append(server, len(whole), number)
            assert (made.first_row, made.total_rows, made.already) == (len(whole), len(more), visible)
            counts["visible before it was repeated"] += visible
            whole = more
        finally:
            server.kill()
    assert_settled(folder, flags, whole)
    told = dict(sorted(counts.items()))
    print(f"\nseed {SEED}, {ROUNDS} kills of appends: {told}, {len(whole)} rows, 0 lost, 0 in part, 0 orphans")


def test_no_rows_are_lost_while_their_files_are_compacted(tmp_path: Path, flags: tuple[str, ...]) -> None:
    rng = np.random.default_rng(SEED)
    counts: Counter[str] = Counter()
    folder, whole, number = tmp_path / "server", np.zeros((0, 64), "u2"), 0
    for turn in range(max(2, ROUNDS // 4)):
        place = COMPACTION_PLACES[rng.integers(len(COMPACTION_PLACES))]
        faults = {"FAILPOINTS": f"{place}=return(kill)", "H5FLIGHT_COMPACT_INTERVAL_S": "1"}
        dying = Server(folder, {}, *flags, environment=faults).start()
        # It dies once there are enough small files, within an append or between two.
        with contextlib.suppress(*SERVER_GONE):
            while dying.is_running():
                append(dying, len(whole), number)
                whole, number = np.concatenate([whole, block(number)]), number + 1
                assert number < (turn + 1) * 500, f"nothing happened at {place}"
        dying.kill()
        counts[f"killed at {place}"] += 1
        server = Server(folder, {}, *flags, environment={"H5FLIGHT_COMPACT_INTERVAL_S": "0"}).start()
        try:
            more = np.concatenate([whole, block(number)])
            found = rows_seen(server)
            visible = len(found) == len(more)
            np.testing.assert_array_equal(found, more if visible else whole, f"seed {SEED}, turn {turn}")
            made = append(server, len(whole), number)
            assert (made.first_row, made.total_rows, made.already) == (len(whole), len(more), visible)
            whole, number = more, number + 1
        finally:
            server.kill()
    assert_settled(folder, flags, whole)
    told = dict(sorted(counts.items()))
    print(f"\nseed {SEED}, kills of compactions: {told}, {number} appends, {len(whole)} rows, 0 lost, 0 orphans")


def assert_settled(folder: Path, flags: tuple[str, ...], whole: np.ndarray) -> None:
    """All rows are there, every file is sound, and garbage leaves nothing that the catalogue does not name."""
    told = {"GARBAGE_GRACE_HOURS": "0", "UPLOAD_EXPIRY_HOURS": "0", "COMPACT_INTERVAL_S": "0"}
    server = Server(folder, {}, *flags, environment={f"H5FLIGHT_{name}": value for name, value in told.items()}).start()
    try:
        assert server.command("gc", "--json").returncode == 0
        verified = server.command("verify", "--deep")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        np.testing.assert_array_equal(rows_seen(server), whole)
        known = {path.name for path in (folder / "data").rglob("*.h5") if path.is_file()}
        with h5flight.connect(server.url) as client:
            assert len(known) == client.server_info()["files"], "files that nothing names, or names without a file"
        # Nobody can go on with a put that was killed: what is left of it goes an hour later, with the garbage.
        assert {path.suffix for path in (folder / "data" / "uploads").iterdir()} <= {".tmp"}
    finally:
        assert server.stop() == 0


def killed_append(server: Server, first_row: int, number: int, where: tuple[str, float]) -> str:
    """Append to a server that dies on the way, or just after; tells what happened."""
    place, after_s = where
    if place != "any time":
        server.environment["FAILPOINTS"] = f"{place}=return(kill)"
    server.start()
    timer = threading.Timer(after_s, server.kill) if place == "any time" else None
    if timer:
        timer.start()
    try:
        append(server, first_row, number)
    except SERVER_GONE:
        return f"killed at {place}"
    else:
        assert place == "any time", f"nothing happened at {place}: the binary needs the feature failpoints (make build)"
        return "acknowledged before the kill"
    finally:
        if timer:
            timer.join()
        server.kill()
