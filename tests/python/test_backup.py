"""Backups: made while people read, brought back elsewhere, damaged and cut off.

The drill of docs/operations.md ("Backup") is `test_the_restore_drill`: its steps are the ones written there.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5flight
import h5py
import numpy as np
import pytest

import files
from server import Server, binary, environment_without_settings
from services import Postgres

SEED = 20261126
PASSWORD = "hunter2-not-to-be-shown"
MANY = 40
"""Uploads of the test that kills: so many places to be cut off at."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, postgres: Postgres) -> Callable[[str], list[str]]:
    """Flags that name a new database of this kind."""

    def flags(name: str) -> list[str]:
        if request.param == "sqlite":
            return []
        url = postgres.database(f"{request.node.name.split('[')[0][5:40]}_{name}")
        return ["--database-url", url.replace("lab@", f"lab:{PASSWORD}@")]

    return flags


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command with settings from its flags only; it never shows the database's password."""
    command = [str(binary()), "backup", *map(str, arguments)]
    done = subprocess.run(command, env=environment_without_settings(), text=True, capture_output=True, timeout=120)
    assert PASSWORD not in done.stdout + done.stderr
    return done


def backup(*arguments: object) -> Any:
    """What a command answers that must succeed."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(*arguments: object) -> tuple[int, str]:
    """Exit code and sentence of a command that must fail."""
    done = run(*arguments)
    assert done.returncode != 0, done.stdout
    return done.returncode, done.stderr.strip().splitlines()[-1].removeprefix("error: ")


def write(path: Path, seed: int, rows: int = 400) -> Path:
    values = np.random.default_rng(seed).integers(0, 4000, (rows, 32), dtype="u2")
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=values, chunks=(50, 32), compression="gzip")
        data.attrs["unit"], data.attrs["gain"] = "µV\t\\N", np.float32(0.1)
        file["note"] = f"file {seed}\nsecond line"
    return path


def ingest(server: Server, path: Path, token: str | None = None) -> None:
    arguments = ["ingest", str(path), "--animal", "m", "--experiment", path.stem, "--replace"]
    done = server.command(*arguments, *(["--token", token] if token else []))
    assert done.returncode == 0, done.stderr


def assert_served(client: h5flight.Client, path: Path) -> None:
    """Everything of a file is served as h5py has it."""
    experiment = client["m"][path.stem]
    with h5py.File(path) as file:
        for name in file:
            files.assert_same(experiment[name][...], files.oracle(file[name]), name)
        attributes = experiment["data"].attrs
        assert attributes["unit"] == file["data"].attrs["unit"]
        assert attributes["gain"] == file["data"].attrs["gain"]


@contextlib.contextmanager
def reading(server: Server, path: Path) -> Iterator[None]:
    """Somebody reads, and gets what h5py has, for as long as the block runs; at least once after it began."""
    failures: list[BaseException] = []
    read, stop = threading.Semaphore(0), threading.Event()

    def work() -> None:
        try:
            with h5flight.connect(server.url) as client:
                while not stop.is_set():
                    assert_served(client, path)
                    read.release()
        except BaseException as failure:
            failures.append(failure)
            read.release()

    thread = threading.Thread(target=work)
    thread.start()
    read.acquire()
    yield
    stop.set()
    thread.join()
    assert not failures, failures


def modes(folder: Path) -> set[int]:
    """Permissions of all files below a folder."""
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_the_restore_drill(start: Callable[..., Server], database: Callable[[str], list[str]], tmp_path: Path) -> None:
    lab, dest = tmp_path / "lab", tmp_path / "backups"
    lab.mkdir()
    uploads = [write(tmp_path / f"up{seed}.h5", seed) for seed in range(3)]
    registered = write(lab / "registered.h5", 9)
    flags = database("old")
    server = start({"lab": lab}, *flags)
    old = ["--data-dir", server.folder / "data", *flags]
    for path in uploads[:2]:
        ingest(server, path)
    with h5flight.connect(server.url) as client:
        client.register(registered, animal="m", experiment=registered.stem)
    with reading(server, uploads[0]):
        first = backup("create", dest, *old)
    assert (first["files"], first["copied_files"], first["kept_files"], first["registered"]) == (2, 2, 0, 1)
    ingest(server, uploads[2])
    (tmp_path / "next").mkdir()
    rewritten = write(tmp_path / "next" / "up0.h5", 77)
    ingest(server, rewritten)
    token = subprocess.run(
        [str(binary()), "token", "create", "--principal", "anna", "--role", "admin", *map(str, old)],
        env=environment_without_settings(),
        text=True,
        capture_output=True,
        check=True,
    ).stdout.strip()
    second = backup("create", dest, *old)
    assert (second["files"], second["copied_files"], second["kept_files"]) == (4, 2, 2)
    assert backup("create", dest, *old)["copied_files"] == 0
    listed = backup("list", dest)
    assert [entry["files"] for entry in listed] == [2, 4, 4]
    assert all(entry["complete"] for entry in listed)
    assert backup("verify", dest)["ok"]
    assert modes(dest) == {0o600}
    assert not [path for path in dest.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]

    server.stop()
    shutil.rmtree(server.folder / "data")
    flags = database("new")
    fresh = Server(server.folder, {"lab": lab}, *flags)
    new = ["--data-dir", fresh.folder / "data", *flags]
    assert backup("restore", dest, second["name"], *new)["files"] == 4
    assert modes(fresh.folder / "data") == {0o600}
    try:
        fresh.start()
        with h5flight.connect(fresh.url, token=token) as client:
            for path in [rewritten, *uploads[1:], registered]:
                assert_served(client, path)
            with h5py.File(uploads[0]) as file:
                files.assert_same(client["m"]["up0"]["data"].at(1)[...], files.oracle(file["data"]), "version 1")
        with pytest.raises(h5flight.H5FlightError, match="token"), h5flight.connect(fresh.url) as client:
            client.server_info()
        ingest(fresh, write(tmp_path / "after.h5", 5), token)
    finally:
        fresh.stop()
    assert not fresh.unexpected()
    code, said = refusal("restore", dest, *new)
    assert (code, said) == (1, f"{fresh.folder / 'data'} is not empty; a backup is restored into a new folder")


def test_an_older_backup_fills_the_other_database(
    start: Callable[..., Server], postgres: Postgres, tmp_path: Path
) -> None:
    upload, dest = write(tmp_path / "up.h5", 1), tmp_path / "backups"
    server = start({})
    ingest(server, upload)
    backup("create", dest, "--data-dir", server.folder / "data")
    url = postgres.database("moved")
    moved = Server(tmp_path / "moved", {}, "--database-url", url)
    backup("restore", dest, "--data-dir", moved.folder / "data", "--database-url", url)
    back = Server(tmp_path / "back", {})
    try:
        moved.start()
        with h5flight.connect(moved.url) as client:
            assert client.server_info()["catalog"] == "postgres"
            assert_served(client, upload)
        moved.stop()
        backup("create", dest, "--data-dir", moved.folder / "data", "--database-url", url)
        backup("restore", dest, "--data-dir", back.folder / "data")
        back.start()
        with h5flight.connect(back.url) as client:
            assert client.server_info()["catalog"] == "sqlite"
            assert_served(client, upload)
    finally:
        moved.stop()
        back.stop()
    code, said = refusal("restore", dest, "--data-dir", tmp_path / "third", "--database-url", url)
    assert (code, said.split(":")[0]) == (1, "the database is not empty")
    assert not list((tmp_path / "third").iterdir())


def test_damage_is_found_by_verify_and_refused_by_restore(start: Callable[..., Server], tmp_path: Path) -> None:
    dest = tmp_path / "backups"
    server = start({})
    for seed in range(2):
        ingest(server, write(tmp_path / f"up{seed}.h5", seed))
    data = ["--data-dir", server.folder / "data"]
    name = backup("create", dest, *data)["name"]
    victims = sorted((dest / "files").rglob("*.h5"))
    for number, victim in enumerate([victims[0], dest / f"catalogues/{name}.dump.zst", dest / f"backups/{name}.json"]):
        whole = victim.read_bytes()
        at = len(whole) // 2
        victim.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        done = run("verify", dest)
        assert done.returncode == 1, done.stdout
        # It is named; a manifest by its backup.
        assert (name if victim.suffix == ".json" else victim.stem) in done.stderr
        new = tmp_path / f"new{number}"
        code, said = refusal("restore", dest, "--data-dir", new)
        assert code == 1
        assert "damaged" in said
        victim.write_bytes(whole)
    # What a refused restore left is no data folder for a server, and the same restore goes on there.
    left = tmp_path / "new0"
    refused = subprocess.run(
        [str(binary()), "serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir", str(left)],
        env=environment_without_settings(),
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert refused.returncode == 1
    assert "was not wholly restored" in refused.stderr
    assert backup("restore", dest, "--data-dir", left)["files"] == 2
    assert not (left / "restore-unfinished").exists()

    victims[1].unlink()
    assert [entry["complete"] for entry in backup("list", dest)] == [False]
    assert run("verify", dest).returncode == 1
    assert backup("create", dest, *data)["copied_files"] == 1
    assert backup("verify", dest)["ok"]


def test_a_file_that_the_catalogue_names_and_nobody_has_is_no_backup(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    dest = tmp_path / "backups"
    server = start({})
    for seed in range(2):
        ingest(server, write(tmp_path / f"up{seed}.h5", seed))
    data = ["--data-dir", server.folder / "data"]
    managed = sorted((server.folder / "data" / "files").rglob("*.h5"))
    whole = managed[0].read_bytes()
    managed[0].unlink()
    code, said = refusal("create", dest, *data)
    assert (code, said) == (1, f"{managed[0]} is named by the catalogue but is not there; no backup was made")
    managed[0].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code, said = refusal("create", dest, *data)
    assert code == 1
    assert "is damaged" in said
    assert backup("list", dest) == []
    managed[0].write_bytes(whole)
    made = backup("create", dest, *data)
    assert (made["copied_files"], made["kept_files"]) == (1, 1)
    assert backup("verify", dest)["ok"]


def test_backups_that_are_made_while_files_arrive_are_whole(
    start: Callable[..., Server], database: Callable[[str], list[str]], tmp_path: Path
) -> None:
    dest = tmp_path / "backups"
    flags = database("busy")
    server = start({}, *flags)
    data = ["--data-dir", server.folder / "data", *flags]
    paths = [write(tmp_path / f"up{seed}.h5", seed) for seed in range(20)]
    ingest(server, paths[0])
    rest = threading.Thread(target=lambda: [ingest(server, path) for path in paths[1:]])
    rest.start()
    made = [backup("create", dest, *data)]
    while rest.is_alive():
        made.append(backup("create", dest, *data))
    rest.join()
    assert backup("verify", dest)["ok"]
    middle = made[len(made) // 2]
    fresh = Server(tmp_path / "fresh", {}, *database("fresh"))
    backup("restore", dest, middle["name"], "--data-dir", fresh.folder / "data", *fresh.flags)
    try:
        fresh.start()
        with h5flight.connect(fresh.url) as client:
            assert len(client["m"].experiments()) == middle["files"] > 0
            for path in paths[: middle["files"]]:
                assert_served(client, path)
    finally:
        fresh.stop()
    assert not fresh.unexpected()


def cut_off(reached: Callable[[], bool], how: signal.Signals, *arguments: object) -> bool:
    """End a command when a state is reached; false if it had ended by itself."""
    command = [str(binary()), "backup", *map(str, arguments)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment_without_settings(), **quiet)
    # No pause between two looks: the states last for milliseconds.
    while process.poll() is None and not reached():
        pass
    process.send_signal(how)
    return process.wait(60) != 0


def count(folder: Path) -> int:
    """Files below a folder, while others come and go."""
    return sum(len(names) for _, _, names in os.walk(folder))


def test_a_backup_that_is_killed_leaves_the_others_and_goes_on(start: Callable[..., Server], tmp_path: Path) -> None:
    dest, moments = tmp_path / "backups", random.Random(SEED)
    server = start({})
    data = ["--data-dir", server.folder / "data"]
    folder = tmp_path / "many"
    folder.mkdir()
    ingest(server, write(folder / "first.h5", 0))
    first = backup("create", dest, *data)
    for seed in range(1, MANY):
        ingest(server, write(folder / f"x{seed}.h5", seed, rows=4000))
    states: list[tuple[str, Callable[[], bool]]] = [("begun", lambda: True)]
    states += [("dump under way", lambda: count(dest / "unfinished") > 0)]
    states += [("dump written", lambda: count(dest / "catalogues") > 1)]
    states += [
        (f"{files} files copied", lambda files=files: count(dest / "files") >= files)
        for files in sorted(moments.sample(range(2, MANY), 8))
    ]
    cut = []
    for name, reached in states:
        if cut_off(reached, moments.choice([signal.SIGKILL, signal.SIGINT]), "create", dest, *data):
            cut.append(name)
        listed = backup("list", dest)
        assert listed[0]["name"] == first["name"], name
        assert all(entry["complete"] for entry in listed), name
        assert backup("verify", dest)["ok"], name
    assert any("copied" in name for name in cut), f"seed {SEED}: cut off at {cut} only"
    last = backup("create", dest, *data)
    assert last["copied_files"] + last["kept_files"] == last["files"] == MANY
    assert backup("verify", dest)["ok"]
    assert count(dest / "unfinished") == 0
    assert count(dest / "catalogues") == count(dest / "backups")


def test_a_restore_that_is_killed_goes_on(
    start: Callable[..., Server], database: Callable[[str], list[str]], tmp_path: Path
) -> None:
    dest, moments = tmp_path / "backups", random.Random(SEED)
    server = start({})
    paths = [write(tmp_path / f"up{seed}.h5", seed, rows=4000) for seed in range(20)]
    for path in paths:
        ingest(server, path)
    backup("create", dest, "--data-dir", server.folder / "data")
    fresh = Server(tmp_path / "fresh", {}, *database("killed"))
    data = fresh.folder / "data"
    new = ["--data-dir", data, *fresh.flags]
    cut = 0
    for wanted in [0, *sorted(moments.sample(range(1, len(paths)), 4)), len(paths)]:
        reached = lambda wanted=wanted: data.exists() and count(data / "files") >= wanted  # noqa: E731
        if not cut_off(reached, signal.SIGKILL, "restore", dest, *new):
            break
        cut += 1
        # Nobody serves what is half there.
        assert (data / "restore-unfinished").exists() or count(data) == 0
    else:
        backup("restore", dest, *new)
    # Cut off when all was done but for taking the mark away.
    name = backup("list", dest)[0]["name"]
    (data / "restore-unfinished").write_text(name)
    assert backup("restore", dest, *new)["name"] == name
    assert not (data / "restore-unfinished").exists()
    assert cut > 1, f"seed {SEED}"
    try:
        fresh.start()
        with h5flight.connect(fresh.url) as client:
            for path in paths:
                assert_served(client, path)
    finally:
        fresh.stop()
    assert not fresh.unexpected()


def test_registered_files_are_copied_on_request(start: Callable[..., Server], tmp_path: Path) -> None:
    lab, dest = tmp_path / "lab", tmp_path / "backups"
    (lab / "day1").mkdir(parents=True)
    paths = [write(lab / "day1" / f"r{seed}.h5", seed) for seed in range(3)]
    server = start({"lab": lab})
    with h5flight.connect(server.url) as client:
        for path in paths:
            client.register(path, animal="m", experiment=path.stem)
    data = ["--data-dir", server.folder / "data"]
    assert backup("create", dest, *data)["registered_copied"] == 0
    os.utime(paths[1], ns=(1, 1))
    paths[2].unlink()
    done = run("create", dest, *data, "--root", f"lab={lab}", "--copy-registered", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["registered"], made["registered_copied"], made["copied_files"]) == (3, 1, 1)
    assert "lab:day1/r1.h5 is not in the backup: it has changed since it was indexed" in done.stderr
    assert "lab:day1/r2.h5 is not in the backup" in done.stderr
    assert backup("verify", dest)["ok"]
    to = tmp_path / "copies"
    answer = backup("restore", dest, "--data-dir", tmp_path / "new", "--registered-to", to)
    assert answer["registered_copied"] == 1
    copy = to / "lab" / "day1" / "r0.h5"
    assert copy.read_bytes() == paths[0].read_bytes()
    assert copy.stat().st_mtime_ns == paths[0].stat().st_mtime_ns
    os.utime(copy, ns=(1, 1))
    code, said = refusal("restore", dest, "--data-dir", tmp_path / "newer", "--registered-to", to)
    assert (code, said) == (1, f"{copy} is there already")


def test_wrong_arguments_are_told_in_one_sentence(tmp_path: Path) -> None:
    full, data, dest = tmp_path / "full", tmp_path / "data", tmp_path / "dest"
    full.mkdir()
    (full / "thesis.txt").write_text("do not touch")
    environment = environment_without_settings()
    token = [str(binary()), "token", "create", "--principal", "a", "--role", "read", "--data-dir", str(data)]
    subprocess.run(token, env=environment, check=True, capture_output=True)
    name = backup("create", dest, "--data-dir", data)["name"]
    new = ["--data-dir", tmp_path / "new"]
    for arguments, expected in [
        (["create", "s3://bucket/x", *new], (2, "backups are kept in a folder; s3:// is none")),
        (["create", "", *new], (2, "DEST is empty; name the folder for the backups")),
        (["create", full, "--data-dir", data], (1, f"{full} is neither empty nor a folder with backups")),
        (
            ["create", dest, *new],
            (1, f"no catalogue at {tmp_path / 'new'}/catalog.sqlite; name it with --data-dir or --database-url"),
        ),
        (["list", full], (1, f"{full} is no folder with backups")),
        (["verify", dest, "../x"], (1, f'no backup "../x"; the newest is {name}')),
        (["restore", dest, "yesterday", *new], (1, f'no backup "yesterday"; the newest is {name}')),
        (["restore", tmp_path / "none", *new], (1, f"{tmp_path / 'none'} is no folder with backups")),
        (["restore", dest, "--data-dir", full], (1, f"{full} is not empty; a backup is restored into a new folder")),
    ]:
        assert refusal(*arguments) == expected
    code, said = refusal("create", dest, "--database-url", f"postgres://lab:{PASSWORD}@127.0.0.1:1/none")
    assert code == 1
    assert said.startswith("the catalogue does not answer")
    assert os.listdir(full) == ["thesis.txt"]
    assert [entry["name"] for entry in backup("list", dest)] == [name]
