"""Appends of the Python client to a real server: rows stay in order, each is there once, whatever breaks.

`H5FLIGHT_SEED` repeats a run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import h5flight
import numpy as np
import pytest

from server import Server
from uploading import Proxy


def seeded() -> np.random.Generator:
    seed = int(os.environ.get("H5FLIGHT_SEED", np.random.default_rng().integers(1 << 32)))
    print(f"seed {seed}: H5FLIGHT_SEED repeats it")
    return np.random.default_rng(seed)


def test_appends_grow_what_is_there(client: h5flight.Client) -> None:
    rng, whole = seeded(), np.zeros((0, 3), "i4")
    for number in range(12):
        rows = rng.integers(-9, 9, (int(rng.integers(1, 200)), 3)).astype("i4")
        made = client.append("m", "grown", "d", rows, first_row=len(whole))
        assert (made.version, made.first_row, made.total_rows) == (number + 1, len(whole), len(whole) + len(rows))
        whole = np.concatenate([whole, rows])
        np.testing.assert_array_equal(client["m"]["grown"]["d"][...], whole)
        first = int(rng.integers(len(whole)))
        np.testing.assert_array_equal(client["m"]["grown"]["d"][first : first + 99], whole[first : first + 99])
    with pytest.raises(h5flight.ConflictError):
        client.append("m", "grown", "d", rows, first_row=1)
    with pytest.raises(h5flight.H5FlightError) as caught:
        client.append("m", "grown", "d", np.zeros((2, 4), "i4"))
    assert caught.value.reason == "put_mismatch"
    with pytest.raises(h5flight.ConflictError) as caught:
        client.put("m", "grown", "d", rows)
    assert caught.value.reason == "dataset_exists"
    np.testing.assert_array_equal(client["m"]["grown"]["d"][...], whole)
    client.put("m", "grown", "d", rows, mode="replace", expected_version=12)
    np.testing.assert_array_equal(client["m"]["grown"]["d"][...], rows)
    np.testing.assert_array_equal(client["m"]["grown"]["d"].at(12)[...], whole)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    running = Proxy()
    running.to(server)
    yield running
    running.cut()


def test_a_rig_behind_a_bad_line_writes_each_block_once(
    client: h5flight.Client, proxy: Proxy, say: Callable[[str], None]
) -> None:
    """The line breaks at random places, and acknowledgements are lost."""
    rng, blocks, breaks = seeded(), 25, 0
    with h5flight.connect(proxy.url) as line, line.writer("rig", "m", "rig", "traces") as rig:
        for number in range(blocks):
            if number % 3 == 1:
                proxy.break_after(int(rng.integers(1, 30_000)))
            elif number % 3 == 2:
                # All of the block is through, and its acknowledgement is lost.
                proxy.break_before(b"[0-9a-f]{64}")
            breaks += number % 3 > 0
            made = rig.append(np.full((250, 64), number, "i2"))
            assert (made.first_row, made.rows) == (number * 250, 250)
    found = client["m"]["rig"]["traces"][:, 5]
    np.testing.assert_array_equal(found, np.repeat(np.arange(blocks), 250))
    say(f"rig behind a bad line: {blocks} blocks, {breaks} breaks, 0 lost, 0 twice")


RIG = """
import sys, h5flight, numpy as np
with h5flight.connect(sys.argv[1]) as client, client.writer("rig", "m", "killed", "traces") as rig:
    while True:
        first = rig.rows
        made = rig.append(np.arange(first, first + 100 + first % 7))
        print(made.first_row, made.rows, flush=True)
"""


def test_a_rig_that_is_killed_goes_on_where_the_server_is(client: h5flight.Client, server: Server) -> None:
    acknowledged = 0
    for _ in range(4):
        rig = subprocess.Popen([sys.executable, "-c", RIG, server.url], stdout=subprocess.PIPE, text=True)
        try:
            assert rig.stdout is not None
            for _ in range(5):
                first, rows = map(int, rig.stdout.readline().split())
                assert first >= acknowledged
                acknowledged = first + rows
        finally:
            rig.kill()
            rig.wait()
    found = client["m"]["killed"]["traces"][...]
    assert len(found) >= acknowledged
    np.testing.assert_array_equal(found, np.arange(len(found)))


def test_of_two_rigs_one_is_told(client: h5flight.Client) -> None:
    one, other = (client.writer(name, "m", "two", "d") for name in ("one", "other"))
    barrier = threading.Barrier(2)
    ended: list[str] = []

    def run(rig: h5flight.Writer, value: int) -> None:
        barrier.wait()
        try:
            for _ in range(5):
                rig.append(np.full(10, value))
            ended.append("done")
        except h5flight.ConflictError:
            ended.append("conflict")

    threads = [threading.Thread(target=run, args=told) for told in ((one, 1), (other, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "conflict" in ended
    found = client["m"]["two"]["d"][...]
    assert len(found) == max(one.rows, other.rows)
    assert (found.reshape(-1, 10) == found.reshape(-1, 10)[:, :1]).all(), "blocks are whole"
