"""What nobody needs is removed from the data folder, and nothing else, whatever happens at the same time."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import h5flight
import numpy as np
import pytest

import uploading
from server import Server
from services import Postgres, until
from test_upload import PARTIAL, RUNNING, assert_served, kept, uploads
from uploading import PIECE, Uploader

SEED = 20261127
AT_ONCE = ("--garbage-grace-hours", "0", "--upload-expiry-hours", "0")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.remove()


def collect(server: Server, *flags: str) -> list[dict]:
    done = server.command("gc", "--json", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["count"] == len(found["garbage"])
    return found["garbage"]


def refused(server: Server, path: Path, name: str, experiment: str = "e") -> str:
    """Upload what cannot be published: the bytes stay, and nothing names them. Gives their address."""
    content = path.read_bytes()
    path.with_name(name).write_bytes(content)
    with h5flight.connect(server.url) as client, pytest.raises(h5flight.H5FlightError) as caught:
        client.ingest(path.with_name(name), animal="m", experiment=experiment)
    assert caught.value.reason == "dataset_exists"
    return uploading.blake3(content)


def test_what_nothing_names_and_nobody_goes_on_with_is_removed(
    start: Callable[..., Server], tmp_path: Path, contract: SimpleNamespace
) -> None:
    server = start({}, *AT_ONCE)
    uploading.write(tmp_path / "a.h5", 1, 1)
    with h5flight.connect(server.url) as client:
        client.ingest(tmp_path / "a.h5", animal="m", experiment="e")
    uploading.write(tmp_path / "b.h5", 2, 1)
    orphan = refused(server, tmp_path / "b.h5", "other.h5")
    broken = Uploader(contract, uploading.write(tmp_path / "c.h5", 3, 1), file_name="broken.h5")
    running = Uploader(contract, uploading.write(tmp_path / "d.h5", 4, 1), file_name="running.h5")
    for uploader in (broken, running):
        uploader.connect(server)
    with broken.held(0, PIECE) as go_on:
        go_on()
        until(lambda: broken.status() == (PIECE, RUNNING), "the acknowledgement")
    until(lambda: broken.status() == (PIECE, PARTIAL), "the end of the stream")
    with running.held(0, PIECE) as go_on:
        go_on()
        until(lambda: running.status() == (PIECE, RUNNING), "the acknowledgement")
        expected = [("file", orphan), ("upload", "broken.h5")]
        for flags in (["--dry-run"], []):
            before = (kept(server), uploads(server))
            found = [(piece["kind"], piece["name"]) for piece in collect(server, *flags)]
            assert found == expected
            assert ((kept(server), uploads(server)) == before) == bool(flags)
    assert len(kept(server)) == 1
    assert_served(server.url, "m", "e", 1, 1)
    until(lambda: running.status() == (PIECE, PARTIAL), "the end of the stream")
    running.send(PIECE)
    assert collect(server) == []


def test_what_is_young_is_left_alone(start: Callable[..., Server], tmp_path: Path, contract: SimpleNamespace) -> None:
    server = start({})
    uploading.write(tmp_path / "a.h5", 1, 1)
    with h5flight.connect(server.url) as client:
        client.ingest(tmp_path / "a.h5", animal="m", experiment="e")
    uploading.write(tmp_path / "b.h5", 2, 1)
    refused(server, tmp_path / "b.h5", "other.h5")
    broken = Uploader(contract, uploading.write(tmp_path / "c.h5", 3, 1))
    broken.connect(server)
    with broken.held(0, PIECE) as go_on:
        go_on()
        until(lambda: broken.status() == (PIECE, RUNNING), "the acknowledgement")
    until(lambda: broken.status() == (PIECE, PARTIAL), "the end of the stream")
    assert collect(server) == []
    assert broken.status() == (PIECE, PARTIAL)
    assert len(kept(server)) == 2


def test_the_folder_of_another_catalogue_is_left_alone(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start({}, *AT_ONCE)
    uploading.write(tmp_path / "a.h5", 1, 1)
    with h5flight.connect(server.url) as client:
        client.ingest(tmp_path / "a.h5", animal="m", experiment="e")
    server.stop()
    (tmp_path / "server-1").mkdir()
    (tmp_path / "server-1" / "data").symlink_to(server.folder / "data")
    other = start({}, *AT_ONCE, "--database-url", f"sqlite://{tmp_path / 'other.sqlite'}")
    other.expect("garbage was not collected.*belongs to another catalogue")
    done = other.command("gc")
    assert done.returncode == 1
    assert "belongs to another catalogue" in done.stderr
    assert len(kept(server)) == 1


def test_only_administrators_collect(start: Callable[..., Server], contract: SimpleNamespace) -> None:
    server = start({})
    made = server.command(
        "token", "create", "--principal", "p", "--role", "ingest", "--data-dir", str(server.folder / "data")
    )
    assert made.returncode == 0, made.stderr
    refusal = server.command("gc", "--token", made.stdout.strip().splitlines()[0])
    assert refusal.returncode == 1
    assert "admin" in refusal.stderr


def test_garbage_and_publications_of_two_servers_never_lose_a_file(
    start: Callable[..., Server], tmp_path: Path, postgres: Postgres
) -> None:
    flags = (*AT_ONCE, "--database-url", postgres.database("garbage"))
    first = start({}, *flags)
    (tmp_path / "server-1").mkdir()
    (tmp_path / "server-1" / "data").symlink_to(first.folder / "data")
    servers = (first, start({}, *flags))
    uploading.write(tmp_path / "taken.h5", 0, 1)
    with h5flight.connect(first.url) as client:
        client.ingest(tmp_path / "taken.h5", animal="m", experiment="e")
    stop, removed, failures = threading.Event(), [], []

    def sweep(server: Server) -> None:
        while not stop.is_set():
            removed.extend(collect(server))

    def publish(seed: int) -> None:
        """Leave the bytes without a name, then name them, by either server."""
        rng = random.Random(SEED + seed)
        path = tmp_path / f"{seed}.h5"
        uploading.write(path, seed, 1)
        for round_ in range(3):
            refused(rng.choice(servers), path, f"refused-{seed}.h5")
            with h5flight.connect(rng.choice(servers).url) as client:
                client.ingest(path, animal=f"m{seed}", experiment=f"e{round_}")
                found = client[f"m{seed}"][f"e{round_}"]["data"][...]
                if not np.array_equal(found, uploading.values(seed, 1)):
                    failures.append(f"{seed} differs (seed {SEED})")

    def run(work: Callable[[int], None], seed: int) -> None:
        try:
            work(seed)
        except Exception as error:
            failures.append(f"{seed}: {error!r} (seed {SEED})")

    sweepers = [threading.Thread(target=run, args=(lambda at: sweep(servers[at]), at)) for at in range(2)]
    publishers = [threading.Thread(target=run, args=(publish, seed)) for seed in range(1, 5)]
    for thread in sweepers + publishers:
        thread.start()
    for thread in publishers:
        thread.join()
    stop.set()
    for thread in sweepers:
        thread.join()
    assert failures == []
    assert removed, "the collector never met anything: the test proves nothing"
    assert len(kept(first)) == 5
    for seed in range(1, 5):
        for round_ in range(3):
            assert_served(first.url, f"m{seed}", f"e{round_}", seed, 1)
