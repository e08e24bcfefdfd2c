"""Following a dataset that grows: new rows as they become visible, each once, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .arrays import Array
from .errors import ConflictError, H5FlightError, NotFoundError, is_passing

if TYPE_CHECKING:
    from .dataset import Dataset

BLOCK_BYTES = 64 << 20
"""Rows that are read at once at most, in bytes: what follows late catches up in pieces of this size."""


def follow(
    dataset: Dataset, start: int, *, poll_s: float, stop: Callable[[], bool] | None, patience_s: float
) -> Iterator[tuple[int, Array]]:
    """See `Dataset.follow`."""
    at, failing_since = start, None
    while not (stop and stop()):
        try:
            for first_row, block in _news(dataset, at):
                yield first_row, block
                at = first_row + len(block)
            failing_since = None
        except H5FlightError as error:
            now = time.monotonic()
            failing_since = failing_since or now
            if not is_passing(error) or now - failing_since > patience_s:
                raise
        time.sleep(poll_s)


def _news(dataset: Dataset, at: int) -> Iterator[tuple[int, Array]]:
    """Rows from `at` on, of the version that is the newest now: one that is appended meanwhile comes the next time."""
    try:
        facts = dataset._now()
    except NotFoundError:
        if at == 0:
            return
        raise
    rows, version = facts.rows, facts.version
    if rows < at:
        raise ConflictError(
            f"{dataset._full_name!r} has {rows} rows in version {version}, but {at} were read: it was replaced",
            "conflict",
            {"current_version": str(version)},
        )
    pinned = dataset.at(version)
    step = max(1, BLOCK_BYTES // max(1, facts.row_bytes))
    while at < rows:
        stop = min(rows, at + step)
        yield at, pinned[at:stop]
        at = stop
