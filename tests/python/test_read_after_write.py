"""What is acknowledged is what is read: with Redis up, away and back, through two servers on one catalogue.

A name means the new version at once, through whichever server it is read. `H5FLIGHT_PAIRS` says how many pairs of a
write and its reads there are; `make soak` makes 10,000.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

from server import Server
from services import Postgres, Redis

PAIRS = int(os.environ.get("H5FLIGHT_PAIRS", "60"))
"""Writes, in three parts: Redis up, away, back."""

ROWS, COLUMNS = 16, 4096
"""More than the catalogue keeps of small arrays: the values come through the caches and from the file."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.remove()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Redis]:
    running = Redis(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def pair(tmp_path: Path, postgres: Postgres, cache: Redis) -> Iterator[tuple[Server, Server]]:
    """Two servers with one catalogue, one data folder and one Redis."""
    flags = ("--database-url", postgres.database(f"pairs_{time.monotonic_ns()}"), "--redis-url", cache.url)
    servers = [Server(tmp_path / "shared", {}, *flags) for _ in range(2)]
    for number, server in enumerate(servers):
        server.log_file = tmp_path / f"server-{number}.log"
        server.expect("(?i)redis")
        server.start()
    yield servers[0], servers[1]
    for server in servers:
        server.stop()
    loud = [line for server in servers for line in server.unexpected()]
    assert not loud, loud[:20]


def content(number: int) -> np.ndarray:
    """The values of one write: no two writes share one."""
    return np.arange(ROWS * COLUMNS, dtype=np.int64).reshape(ROWS, COLUMNS) + (number << 32)


def upload(client: h5flight.Client, folder: Path, number: int) -> int:
    """Write by uploading a file; gives the version. We are the only writer, so versions count our writes."""
    path = folder / "write.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("upload", data=content(number), chunks=(4, COLUMNS), compression="gzip", compression_opts=1)
    answer = client.ingest(path, animal="m", experiment="e", replace=True)
    assert answer["publication"]["datasets"] == 1, answer
    return number + 1


def put(client: h5flight.Client, folder: Path, number: int) -> int:
    """Write by a put."""
    return client.put("m", "e", "put", content(number), mode="replace", chunks=(4, COLUMNS), codec="gzip").version


@pytest.mark.parametrize("write", [upload, put], ids=lambda write: write.__name__)
def test_an_acknowledged_write_is_never_missed(
    pair: tuple[Server, Server],
    cache: Redis,
    tmp_path: Path,
    say: Callable[[str], None],
    write: Callable[[h5flight.Client, Path, int], int],
) -> None:
    seen: Counter[str] = Counter()
    phases = {0: "Redis up", PAIRS // 3: "Redis away", 2 * PAIRS // 3: "Redis back"}
    clients = [h5flight.connect(server.url, timeout_s=60) for server in pair]
    one, other = (client["m"]["e"][write.__name__] for client in clients)
    for number in range(PAIRS):
        if phases.get(number) == "Redis away":
            cache.kill()
        elif phases.get(number) == "Redis back":
            cache.start()
        version = write(clients[0], tmp_path, number)
        expected = content(number)
        # The row is read first: whole arrays and parts of them are different entries of a cache.
        np.testing.assert_array_equal(one[number % ROWS], expected[number % ROWS], f"write {number}, by name")
        np.testing.assert_array_equal(one[...], expected, f"write {number}, by name")
        np.testing.assert_array_equal(other.at(version)[...], expected, f"write {number}, by version")
        np.testing.assert_array_equal(other[...], expected, f"write {number}, by name through the other server")
        seen["pairs"] += 1
    for client in clients:
        client.close()
    assert seen["pairs"] == PAIRS
    say(f"read after write by {write.__name__}: {PAIRS} pairs, 0 stale through either of two servers")
