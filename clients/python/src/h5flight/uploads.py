"""Uploads that survive broken connections: a DoExchange, gone on with from what the server has durable."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import H5FlightError, ServerUnavailableError

if TYPE_CHECKING:
    from .connection import Connection

_MESSAGE_BYTES = 1 << 20
_WAIT_MIN_S, _WAIT_MAX_S = 0.5, 20.0
_PASSING = frozenset(
    {"busy", "catalog_unavailable", "conflict", "draining", "upload_broken", "upload_in_progress", "upload_offset"}
)


class Upload:
    """One file on its way to the server.

    Parameters
    ----------
    connection : Connection
        To which server.
    path : str or path
        The file.
    header : dict
        What `wire.ingest_header` takes, without the offset.
    progress : callable
        Told the bytes sent so far.
    failures_max : int
        Failures in a row, without a byte of progress between them, before it is given up.
    """

    def __init__(
        self,
        connection: Connection,
        path: str | os.PathLike[str],
        header: dict[str, Any],
        *,
        progress: Callable[[int], object],
        failures_max: int,
    ) -> None:
        self._connection, self._path, self._header = connection, Path(path), header
        self._progress, self._failures_max = progress, failures_max

    def run(self) -> dict[str, Any]:
        """Upload, however often the connection breaks; give the server's answer."""
        failures, best = 0, 0
        while True:
            try:
                offset = self._durable_bytes()
                if offset > best:
                    best, failures = offset, 0
                return self._send(offset)
            except H5FlightError as error:
                if not _passes(error) or failures >= self._failures_max:
                    raise
            time.sleep(min(_WAIT_MIN_S * 2**failures, _WAIT_MAX_S))
            failures += 1

    def _durable_bytes(self) -> int:
        asked = {name: self._header[name] for name in ("file_bytes", "blake3", "idempotency_key")}
        durable: int = self._connection.ask("upload-status", **asked)["durable_bytes"]
        return durable

    def _send(self, offset: int) -> dict[str, Any]:
        with self._connection.exchange({**self._header, "offset": offset}) as exchange, self._path.open("rb") as file:
            file.seek(offset)
            left = self._header["file_bytes"] - offset
            while left and (piece := file.read(min(_MESSAGE_BYTES, left))):
                exchange.send(piece)
                left -= len(piece)
                self._progress(self._header["file_bytes"] - left)
            return exchange.answer()


def _passes(error: H5FlightError) -> bool:
    """Whether a repetition may succeed: the connection or the server went away, or something was in the way."""
    if error.reason:
        return error.reason in _PASSING
    return isinstance(error, ServerUnavailableError) or type(error) is H5FlightError
