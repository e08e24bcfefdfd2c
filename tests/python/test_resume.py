"""Reads over connections that break: they go on at the row that they reached, and give up after a bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

import files
from cutting import CuttingProxy
from server import Server

ROWS, MEGABYTES = 4000, 24


@pytest.fixture(scope="module")
def values(server: Server, publish: Callable[..., h5flight.Experiment]) -> np.ndarray:
    path = Path(server.roots["lab"]) / "long.h5"
    rng = np.random.default_rng(files.SEED)
    values = rng.integers(0, 1 << 40, (ROWS, (MEGABYTES << 20) // ROWS // 8), "i8")
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=values, chunks=(100, values.shape[1]))
    publish(path)
    return values


@pytest.fixture
def through(server: Server) -> Iterator[Callable[[int, int], tuple[h5flight.Client, CuttingProxy]]]:
    open_now: list[h5flight.Client | CuttingProxy] = []

    def through(cuts: int, after_bytes: int) -> tuple[h5flight.Client, CuttingProxy]:
        proxy = CuttingProxy(server.url, cuts, after_bytes)
        client = h5flight.Client(proxy.url, timeout_s=60)
        open_now.extend([client, proxy])
        return client, proxy

    yield through
    for one in open_now:
        one.close()


@pytest.mark.parametrize("key", [np.s_[:], np.s_[3990:10:-1], np.s_[::2, 1:]], ids=str)
def test_a_read_goes_on_at_the_row_that_it_reached(
    values: np.ndarray, through: Callable[[int, int], tuple[h5flight.Client, CuttingProxy]], key: object
) -> None:
    client, proxy = through(3, 5 << 20)
    found = client["m01"]["long"]["data"][key]
    np.testing.assert_array_equal(found, values[key])
    assert proxy.cuts_left < 3
    assert proxy.bytes < found.nbytes + 3 * (6 << 20), "it began again instead of going on"


def test_frames_and_tables_survive_a_connection_that_breaks(
    values: np.ndarray, through: Callable[[int, int], tuple[h5flight.Client, CuttingProxy]]
) -> None:
    client, proxy = through(2, 5 << 20)
    np.testing.assert_array_equal(client.get_data("m01", "long", "data", "100:3000").to_numpy(), values[100:3000])
    assert proxy.cuts_left < 2
    client, proxy = through(1, 5 << 20)
    table = client["m01"]["long"]["data"].to_arrow("100:3000")
    np.testing.assert_array_equal(table.column(7).to_numpy(), values[100:3000, 7])
    assert proxy.cuts_left == 0


def test_a_connection_that_breaks_each_time_without_progress_is_an_error(
    values: np.ndarray, through: Callable[[int, int], tuple[h5flight.Client, CuttingProxy]]
) -> None:
    client, proxy = through(100, 1000)
    with pytest.raises(h5flight.H5FlightError):
        client["m01"]["long"]["data"][:]
    assert values.size
    assert 5 <= proxy.connections <= 20


def test_progress_is_told_to_a_function_and_shown_only_when_it_takes_long(
    values: np.ndarray, client: h5flight.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[int, int]] = []
    frame = client.get_data("m01", "long", "data", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (values.nbytes, values.nbytes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert frame.shape == values.shape
    client.get_data("m01", "long", "data", "0:10", progress=True)
    assert capsys.readouterr().err == ""
