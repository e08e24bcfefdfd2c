"""The same slices through every catalogue and cache, and through their failures."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest
import redis

import files
from server import Server
from services import Postgres, Redis, free_port, until

NAMES = ["filter/shuffle_gzip", "filter/lzf", "fill/sparse", "mask/skipped", "slabs/columns", "contiguous"]
SMALL_MEMORY = ("--memory-bytes", "16MiB")
"""So that blocks leave memory soon and come from Redis or the file."""


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


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    files.write_storages(folder / "one.h5")
    values = np.random.default_rng(files.SEED).integers(0, 4000, (1600, 128, 64), dtype="u2")
    with h5py.File(folder / "movie.h5", "w") as file:
        file.create_dataset("movie", data=values, chunks=(16, 128, 64), compression="gzip", compression_opts=1)
    return folder


def register(server: Server, name: str) -> h5flight.Experiment:
    client = h5flight.connect(server.url, timeout_s=60)
    (report,) = client.register(f"lab:{name}.h5", animal="m", experiment=name)
    assert report["publication"] is not None, report
    return client["m"][name]


def assert_all_same(experiment: h5flight.Experiment, path: Path) -> None:
    with h5py.File(path) as file:
        for name in NAMES:
            whole = files.oracle(file[name])
            for key in files.keys(whole.shape):
                files.assert_same(experiment[name][key], files.select(whole, key, whole.ndim), f"{name}[{key!r}]")


@pytest.mark.parametrize("catalog", ["sqlite", "postgres"])
@pytest.mark.parametrize("tier", ["memory", "redis"])
def test_slices_are_the_same_through_every_catalogue_and_cache(
    start: Callable[..., Server], lab: Path, postgres: Postgres, cache: Redis, catalog: str, tier: str
) -> None:
    flags = ["--database-url", postgres.database(f"matrix_{tier}")] if catalog == "postgres" else []
    flags += ["--redis-url", cache.url] if tier == "redis" else []
    server = start({"lab": lab}, *flags)
    experiment = register(server, "one")
    info = experiment.client.server_info()
    assert (info["catalog"], info["redis"]) == (catalog, "up" if tier == "redis" else "off")
    for _ in range(2):
        assert_all_same(experiment, lab / "one.h5")


def test_a_server_that_starts_anew_finds_what_it_knew(start: Callable[..., Server], lab: Path) -> None:
    server = start({"lab": lab})
    register(server, "one")
    server.kill()
    server.start()
    with h5flight.connect(server.url) as client:
        assert_all_same(client["m"]["one"], lab / "one.h5")


def test_two_servers_share_a_catalogue_and_a_cache(
    start: Callable[..., Server], lab: Path, postgres: Postgres, cache: Redis
) -> None:
    flags = ("--database-url", postgres.database("shared"), "--redis-url", cache.url)
    first, second = start({"lab": lab}, *flags), start({"lab": lab}, *flags)
    assert_all_same(register(first, "one"), lab / "one.h5")
    with h5flight.connect(second.url) as client:
        assert_all_same(client["m"]["one"], lab / "one.h5")


class Readers:
    """Threads that read one movie frame by frame and compare, until they are stopped."""

    def __init__(self, movie: h5flight.Dataset, expected: np.ndarray, threads: int = 4) -> None:
        self.reads = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._movie, self._expected = movie, expected
        self._threads = [threading.Thread(target=self._read, args=(seed,)) for seed in range(threads)]

    def _read(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not self._stop.is_set():
            at = int(rng.integers(0, len(self._expected) - 20))
            try:
                if not np.array_equal(self._movie[at : at + 20], self._expected[at : at + 20]):
                    self.failures.append(f"frames {at} to {at + 20} differ")
            except h5flight.H5FlightError as error:
                self.failures.append(f"{error.reason}: {error}")
            self.reads += 1

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, reads: int) -> None:
        """Wait until so many more reads are done."""
        goal = self.reads + reads
        until(lambda: self.reads >= goal, f"{reads} more reads", 120)


def test_redis_serves_a_replica_where_the_disk_is_slow(
    start: Callable[..., Server], lab: Path, postgres: Postgres, cache: Redis
) -> None:
    values = np.arange(1 << 20, dtype="u2").reshape(1024, 1024)
    with h5py.File(lab / "stored.h5", "w") as file:
        file.create_dataset("stored", data=values, chunks=(256, 1024))
    held = redis.from_url(cache.url)
    together = ["--redis-url", cache.url, "--database-url", postgres.database("replicas")]
    tiers = []
    for _ in range(2):
        server = start({"lab": lab}, *together, environment={"FAILPOINTS": "file::read=sleep(100)"})
        np.testing.assert_array_equal(register(server, "stored")["stored"][:], values)
        # Never, where the binary has no places for faults (`make build`).
        until(lambda: held.dbsize() == 4, "that the blocks are in Redis")
        tiers.append(blocks_by_tier(server))
    assert tiers == [{"file": 4}, {"redis": 4}]


def blocks_by_tier(server: Server) -> dict[str, int]:
    with urllib.request.urlopen(f"{server.http_url}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    counted = re.compile(r'h5flight_blocks_total\{tier="(\w+)"\} (\d+)')
    found = {
        tier: int(count) for tier, count in (counted.match(line).groups() for line in lines if counted.match(line))
    }
    return {tier: count for tier, count in found.items() if count}


def test_reads_go_on_while_redis_dies_and_comes_back(start: Callable[..., Server], lab: Path, cache: Redis) -> None:
    server = start({"lab": lab}, "--redis-url", cache.url, *SMALL_MEMORY)
    server.expect(r"(?i)redis")
    movie = register(server, "movie")["movie"]
    with h5py.File(lab / "movie.h5") as file, Readers(movie, file["movie"][...]) as readers:
        readers.go_on(100)
        cache.kill()
        readers.go_on(200)
        cache.start()
        until(lambda: movie.client.server_info()["redis"] == "up", "Redis in the server's eyes")
        readers.go_on(100)
    assert readers.failures == []


def test_a_redis_that_was_never_there_fails_no_read(start: Callable[..., Server], lab: Path) -> None:
    server = start({"lab": lab}, "--redis-url", f"redis://127.0.0.1:{free_port()}", *SMALL_MEMORY)
    server.expect(r"(?i)redis")
    experiment = register(server, "one")
    assert_all_same(experiment, lab / "one.h5")
    until(lambda: experiment["contiguous"][0, 0] is not None and _redis_state(experiment) == "down", "Redis down")


def _redis_state(experiment: h5flight.Experiment) -> str:
    return str(experiment.client.server_info()["redis"])


def test_what_somebody_else_wrote_into_redis_is_not_believed(
    start: Callable[..., Server], lab: Path, cache: Redis
) -> None:
    server = start({"lab": lab}, "--redis-url", cache.url)
    with h5py.File(lab / "movie.h5") as file:
        frames = file["movie"][:160]
    # Its chunks take longer to inflate than Redis to answer: what does not is not stored.
    experiment = register(server, "movie")
    np.testing.assert_array_equal(experiment["movie"][:160], frames)
    with redis.Redis.from_url(cache.url) as connection:
        until(lambda: connection.dbsize() > 0, "blocks in Redis")
        keys = connection.keys("*")
        values = [connection.get(key) for key in keys]
        for at, key in enumerate(keys):
            other = values[(at + 1) % len(values)]
            damaged = [other, values[at][:-1] + bytes([values[at][-1] ^ 1]), values[at][:-5], b"", b"x" * 10]
            connection.set(key, damaged[at % len(damaged)])
    server.stop()
    server.start()
    server.expect(r"(?i)redis|cache")
    with h5flight.connect(server.url) as client:
        np.testing.assert_array_equal(client["m"]["movie"]["movie"][:160], frames)


def test_without_its_database_a_server_reads_what_it_knows_and_recovers(
    start: Callable[..., Server], lab: Path
) -> None:
    own = Postgres()
    try:
        server = start({"lab": lab}, "--database-url", own.database("h5flight"))
        # The database ends at once: pools and logs of calls say so.
        server.expect(r"(?i)database|catalog|postgres|connection|access log|pool|sqlx")
        experiment = register(server, "one")
        register(server, "movie")
        assert_all_same(experiment, lab / "one.h5")
        own.stop()
        assert_all_same(experiment, lab / "one.h5")
        with pytest.raises(h5flight.ServerUnavailableError) as caught:
            experiment.client["m"]["movie"]["movie"][0]
        assert caught.value.reason == "catalog_unavailable"
        with pytest.raises(h5flight.ServerUnavailableError):
            experiment.client.animals()
        own.start()
        until(lambda: _answers(experiment.client), "the catalogue")
        assert experiment.client["m"]["movie"]["movie"][0].shape == (128, 64)
    finally:
        own.remove()


def _answers(client: h5flight.Client) -> bool:
    try:
        return bool(client.animals())
    except h5flight.ServerUnavailableError:
        return False
