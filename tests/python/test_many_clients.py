"""Many at once: threads, processes, readers that go away, readers that are slow."""

from __future__ import annotations

import multiprocessing
import pickle
import statistics
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pyarrow.flight as flight
import pytest
from h5flight import wire

from server import Server

VALUES = np.random.default_rng(2).integers(0, 4000, (2000, 64, 32), dtype="u2")


@pytest.fixture(scope="module")
def movie(server: Server, publish: Callable[..., h5flight.Experiment]) -> h5flight.Dataset:
    path = Path(server.roots["lab"]) / "shared.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("movie", data=VALUES, chunks=(50, 64, 32), compression="gzip", shuffle=True)
    return publish(path, "many")["movie"]


def boxes(count: int, seed: int) -> list[tuple[slice, ...]]:
    rng = np.random.default_rng(seed)
    ends = [[np.sort(rng.integers(0, size + 1, 2)) for size in VALUES.shape] for _ in range(count)]
    return [tuple(slice(int(a), int(b)) for a, b in box) for box in ends]


def test_eight_threads_share_one_client(movie: h5flight.Dataset) -> None:
    wanted = boxes(120, 1)
    with ThreadPoolExecutor(8) as pool:
        for key, found in zip(wanted, pool.map(movie.__getitem__, wanted), strict=True):
            np.testing.assert_array_equal(found, VALUES[key])


def read_sum(dataset: h5flight.Dataset, key: tuple[slice, ...]) -> int:
    return int(dataset[key].sum(dtype=np.int64))


def test_a_dataset_is_sent_to_other_processes(movie: h5flight.Dataset) -> None:
    wanted = boxes(6, 2)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        sums = list(pool.map(read_sum, [movie] * len(wanted), wanted))
    assert sums == [int(VALUES[key].sum(dtype=np.int64)) for key in wanted]
    assert pickle.loads(pickle.dumps(movie)).shape == VALUES.shape


def test_readers_that_go_away_leave_the_server_well(movie: h5flight.Dataset, server: Server) -> None:
    ticket = flight.Ticket(wire.GetData("many", "shared", "movie", batch_bytes=65536).ticket())
    for _ in range(20):
        with flight.connect(server.url) as bare:
            reader = bare.do_get(ticket)
            reader.read_chunk()
            reader.cancel()
    np.testing.assert_array_equal(movie[5], VALUES[5])
    left = ["h5flight_reads", "h5flight_blocking_queue", "h5flight_read_memory_bytes"]
    deadline = time.monotonic() + 10
    while (gauges := {name: gauge(server, name) for name in left}) != dict.fromkeys(left, 0.0):
        assert time.monotonic() < deadline, f"of readers that went away there is left {gauges}"


def gauge(server: Server, name: str) -> float:
    with urllib.request.urlopen(f"{server.http_url}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_streams_that_nobody_reads_do_not_hold_up_others(movie: h5flight.Dataset, server: Server) -> None:
    ticket = flight.Ticket(wire.GetData("many", "shared", "movie").ticket())
    with flight.connect(server.url) as bare:
        idle = [bare.do_get(ticket) for _ in range(4)]
        np.testing.assert_array_equal(movie[100:300], VALUES[100:300])
        for reader in idle:
            rows = np.concatenate([chunk.data["value"].to_numpy_ndarray() for chunk in reader])
            np.testing.assert_array_equal(rows, VALUES)


def test_registering_again_while_others_read_never_mixes(
    server: Server, client: h5flight.Client, publish: Callable[..., h5flight.Experiment]
) -> None:
    """Each answer is wholly one version, or says that the file changed."""
    path = Path(server.roots["lab"]) / "versions.h5"

    def write(value: int) -> None:
        partial = path.with_suffix(".part")
        with h5py.File(partial, "w") as file:
            file.create_dataset("data", data=np.full((400, 500), value, "i4"), chunks=(40, 500), compression="gzip")
        partial.rename(path)

    write(0)
    data = publish(path, "versions")["data"]

    def read(_: int) -> int:
        try:
            found = np.unique(data[...])
        except h5flight.FileStateError as error:
            assert error.reason == "file_changed"
            return -1
        assert len(found) == 1
        return int(found[0])

    with ThreadPoolExecutor(4) as pool:
        for value in range(1, 6):
            reads = [pool.submit(read, i) for i in range(8)]
            write(value)
            client.register(path, animal="versions", experiment="versions")
            assert {r.result() for r in reads} <= {-1, value - 1, value}
            assert read(0) == value


def test_a_small_read_does_not_wait_for_more_to_send(movie: h5flight.Dataset) -> None:
    """Without TCP_NODELAY on accepted sockets each small answer takes the 40 ms of a delayed acknowledgement."""

    def median_ms() -> float:
        times = []
        for at in range(40):
            began = time.perf_counter()
            movie[at, 0, 0]
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e3

    movie[0:50]
    assert min(median_ms() for _ in range(3)) < 25
