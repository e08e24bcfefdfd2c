"""When a read is tried again, and how it goes on where it broke off.

Only what changes nothing is repeated: reads, and questions about what there is. What is repeated is what may pass: the
connection broke, the server is away for now, or it is busy and says so.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TypeVar

from . import wire
from .errors import H5FlightError, is_passing

Answer = TypeVar("Answer")

ATTEMPTS_MAX = 5
"""Failures in a row, without a row of progress between them, before the error is raised."""

WAIT_MIN_S, WAIT_MAX_S = 0.1, 5.0
"""Seconds before the second attempt, doubled for each one after it, and at most; a busy server may ask for others."""


PATIENCE_S = 10.0
"""Seconds without a row of progress after which nothing is tried again: a server may be slow to say that it cannot."""


class Patience:
    """Failures in a row of one read, and since when."""

    def __init__(self) -> None:
        self._failures = 0
        self._best = 0
        self._since = time.monotonic()

    def wait(self, error: H5FlightError, rows: int = 0) -> None:
        """Wait before the next attempt.

        Parameters
        ----------
        error : H5FlightError
            What went wrong.
        rows : int
            Rows that are there so far: more of them than the last time is progress.

        Raises
        ------
        H5FlightError
            The error itself, when a repetition is of no use or there were enough.
        """
        if rows > self._best:
            self._best, self._failures, self._since = rows, 0, time.monotonic()
        self._failures += 1
        asked_for = error.retry_after_s or WAIT_MIN_S * 2.0 ** (self._failures - 1)
        wait_s = min(asked_for, WAIT_MAX_S)
        is_late = time.monotonic() + wait_s - self._since > PATIENCE_S
        if not is_passing(error) or self._failures >= ATTEMPTS_MAX or is_late:
            raise error
        time.sleep(wait_s)


def repeated(ask: Callable[[], Answer]) -> Answer:
    """Ask until there is an answer, or an error that stays."""
    patience = Patience()
    while True:
        try:
            return ask()
        except H5FlightError as error:  # noqa: PERF203, this is what the loop is for
            patience.wait(error)


def rest_of(request: wire.GetData, first_row: int, rows: int, version: int) -> wire.GetData:
    """The request for the rows from `first_row` on, of the version that the first rows came from."""
    rest = dataclasses.replace(request, rows=(first_row, rows))
    return dataclasses.replace(rest, version=version, as_of_us=None, tag="") if version else rest
