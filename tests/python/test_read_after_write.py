"""What is acknowledged is what is read: with Redis up, away and back, through two servers on one catalogue.

Through the server that took the write a name means the new version at once. Another server trusts a name for
`FRESH_S`: there the version that was acknowledged is read by its number at once, and by name after that time.
`H5FLIGHT_PAIRS` says how many pairs of a write and its reads there are; `make soak` makes 10,000.
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
from services import Postgres, Redis, until

PAIRS = int(os.environ.get("H5FLIGHT_PAIRS", "60"))
"""Writes, in three parts: Redis up, away, back."""

FRESH_S = 1.0
"""Seconds for which a server trusts what a name meant, when another one publishes: FRESH in versions.rs."""

SETTLED_EVERY = 20
"""One write in so many is waited for by name through the other server."""

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
    late_s = 0.0
    phases = {0: "Redis up", PAIRS // 3: "Redis away", 2 * PAIRS // 3: "Redis back"}
    clients = [h5flight.connect(server.url, timeout_s=60) for server in pair]
    one, other = (client["m"]["e"][write.__name__] for client in clients)
    for number in range(PAIRS):
        if phases.get(number) == "Redis away":
            cache.kill()
        elif phases.get(number) == "Redis back":
            cache.start()
        version = write(clients[0], tmp_path, number)
        acknowledged = time.monotonic()
        expected = content(number)
        # The row is read first: whole arrays and parts of them are different entries of a cache.
        np.testing.assert_array_equal(one[number % ROWS], expected[number % ROWS], f"write {number}, by name")
        np.testing.assert_array_equal(one[...], expected, f"write {number}, by name")
        np.testing.assert_array_equal(other.at(version)[...], expected, f"write {number}, by version")
        seen["pairs"] += 1
        seen["by name through the other server"] += by_name(other, number, acknowledged)
        if number % SETTLED_EVERY == SETTLED_EVERY - 1:
            until(lambda: other[0, 0] == expected[0, 0], f"write {number} through the other server", FRESH_S + 0.5)  # noqa: B023
            late_s = max(late_s, time.monotonic() - acknowledged)
            seen["waited for"] += 1
    for client in clients:
        client.close()
    assert seen["pairs"] == PAIRS
    say(f"read after write by {write.__name__}: {dict(seen)}, 0 stale; by name through the other server {late_s:.2f} s")


def by_name(other: h5flight.Dataset, number: int, acknowledged: float) -> int:
    """Read by name through the other server; gives 1 where it has the write already.

    An older one is whole, and within `FRESH_S` of the acknowledgement of the next.
    """
    asked = time.monotonic()
    try:
        found = other[...]
    except h5flight.NotFoundError:
        assert number == 0, f"write {number}: there is no dataset"
        return 0
    got = int(found[0, 0] >> 32)
    np.testing.assert_array_equal(found, content(got), f"write {number}: values of several writes")
    assert got == number or asked - acknowledged <= FRESH_S, f"write {got} instead of {number} after {FRESH_S} s"
    return int(got == number)
