"""A dataset that grows while others follow it: every row once, in order, also over broken connections and restarts.

`H5FLIGHT_FOLLOW_BLOCKS` says how many blocks are appended; the pace of a rig is measured by ``bench/ingest.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

from server import Server
from services import until
from uploading import Proxy

BLOCKS = int(os.environ.get("H5FLIGHT_FOLLOW_BLOCKS", "30"))
READERS = 4
ROWS, CHANNELS = 300, 64
"""A block: with 64 channels of 16 bits more than the catalogue keeps of small arrays after two of them."""

PATIENCE_S = 60.0
LAG_MAX_S = 10.0
"""From the acknowledgement of a block to its last row at a reader; this only says that nobody stands still."""


def block(number: int) -> np.ndarray:
    """Each row tells its number, so that a gap or a repetition shows."""
    rows = np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.int64)
    channels = np.arange(CHANNELS, dtype=np.int64)
    return ((rows[:, None] * 31 + channels) % 30011).astype(np.int16)


class Reader:
    """Follows until it has all rows, and remembers when each block was complete."""

    def __init__(self, url: str, rows: int, start: int | None = 0) -> None:
        self.rows, self.next, self.pieces = rows, start or 0, 0
        self.complete: dict[int, float] = {}
        self._client = h5flight.connect(url, timeout_s=60)
        self._dataset = self._client["rig"]["live"]["traces"]

    def run(self) -> Reader:
        """Every piece begins where the one before ended, and holds the rows that were appended there."""
        with self._client:
            following = self._dataset.follow(
                self.next, poll_s=0.02, stop=lambda: self.next >= self.rows, patience_s=PATIENCE_S
            )
            for first, rows in following:
                assert first == self.next, f"rows {first} on came after row {self.next}"
                numbers = range(first // ROWS, -(-(first + len(rows)) // ROWS))
                expected = np.concatenate([block(number) for number in numbers])
                np.testing.assert_array_equal(rows, expected[first % ROWS :][: len(rows)], f"rows {first} on")
                assert (first + len(rows)) % ROWS == 0, f"an append was seen in part at row {first + len(rows)}"
                self.next, self.pieces = first + len(rows), self.pieces + 1
                for number in numbers:
                    self.complete[number] = time.monotonic()
        return self


def followed(url: str, write: Callable[[int], None], blocks: int) -> tuple[list[Reader], list[float]]:
    """Write blocks while readers follow; gives the readers and how long each block took to reach each, in seconds."""
    acknowledged: dict[int, float] = {}
    with ThreadPoolExecutor(READERS) as pool:
        running = [pool.submit(Reader(url, blocks * ROWS).run) for _ in range(READERS)]
        for number in range(blocks):
            write(number)
            acknowledged[number] = time.monotonic()
        readers = [reader.result() for reader in running]
    lags = [max(0.0, reader.complete[at] - since) for reader in readers for at, since in acknowledged.items()]
    return readers, lags


def test_appends_are_followed_without_gaps_and_repetitions(server: Server, say: Callable[[str], None]) -> None:
    with h5flight.connect(server.url, timeout_s=60) as client, client.writer("rig", "rig", "live", "traces") as rig:
        readers, lags = followed(server.url, lambda number: rig.append(block(number)), BLOCKS)
        assert [reader.next for reader in readers] == [BLOCKS * ROWS] * READERS
        assert rig.rows == BLOCKS * ROWS
        traces = client["rig"]["live"]["traces"]
        np.testing.assert_array_equal(traces[...], np.concatenate([block(number) for number in range(BLOCKS)]))
    p99 = float(np.percentile(lags, 99))
    say(
        f"follow: {BLOCKS} blocks, {READERS} readers, 0 gaps, 0 duplicates, lag p99 {p99:.2f} s, most {max(lags):.2f} s"
    )
    assert p99 < LAG_MAX_S


def test_a_growing_upload_is_followed(start: Callable[..., Server], tmp_path: Path, say: Callable[[str], None]) -> None:
    server, path, blocks = start({}), tmp_path / "live.h5", 12
    with h5flight.connect(server.url, timeout_s=60) as client:

        def write(number: int) -> None:
            with h5py.File(path, "a") as file:
                if number == 0:
                    file.create_dataset(
                        "traces", (0, CHANNELS), "i2", maxshape=(None, CHANNELS), chunks=(100, CHANNELS)
                    )
                file["traces"].resize((number + 1) * ROWS, axis=0)
                file["traces"][number * ROWS :] = block(number)
            client.ingest(path, animal="rig", experiment="live", replace=True)

        readers, lags = followed(server.url, write, blocks)
    assert [reader.next for reader in readers] == [blocks * ROWS] * READERS
    say(f"follow of an upload that grows: {blocks} versions, lag p99 {np.percentile(lags, 99):.2f} s")


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    running = Proxy()
    yield running
    running.cut()


def test_what_is_followed_goes_on_after_a_restart(start: Callable[..., Server], tmp_path: Path, proxy: Proxy) -> None:
    server, path = start({}), tmp_path / "live.h5"
    proxy.to(server)
    with h5py.File(path, "w") as file:
        made = np.concatenate([block(number) for number in range(4)])
        file.create_dataset("traces", data=made, maxshape=(None, CHANNELS), chunks=(100, CHANNELS))
    with h5flight.connect(server.url) as client:
        client.ingest(path, animal="rig", experiment="live")
    reader = Reader(proxy.url, 6 * ROWS)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(reader.run)
        until(lambda: running.done() or reader.next == 4 * ROWS, "the first rows")
        proxy.cut()
        server.kill()
        server.start()
        proxy.to(server)
        with h5py.File(path, "a") as file:
            file["traces"].resize(6 * ROWS, axis=0)
            file["traces"][4 * ROWS :] = np.concatenate([block(4), block(5)])
        with h5flight.connect(server.url) as client:
            client.ingest(path, animal="rig", experiment="live", replace=True)
        assert running.result().next == 6 * ROWS
