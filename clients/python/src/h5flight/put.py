"""Writing: rows become a dataset of the server, its next version, or more of it, by a Flight DoPut.

One call is one publication: all of its rows or none. What travels is made in `columns`.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import wire
from .columns import BATCH_BYTES, batches_of
from .errors import H5FlightError, PutError, is_passing

if TYPE_CHECKING:
    from .connection import Connection

_OPTIONS = frozenset(
    {"chunks", "codec", "level", "shuffle", "attrs", "writer", "sequence", "expected_version", "first_row"}
)
_WAIT_MIN_S, _WAIT_MAX_S = 0.2, 10.0


@dataclasses.dataclass(frozen=True)
class Put:
    """What a put made.

    Attributes
    ----------
    version : int
        Number of the version.
    first_row : int
        First row of what was put, within the version.
    rows : int
        Rows that were put.
    total_rows : int
        Rows of the version.
    already : bool
        Whether an earlier put of the same writer and sequence had made it already.
    content : str
        Content address of the file that was made: blake3, lowercase hex.
    """

    version: int
    first_row: int
    rows: int
    total_rows: int
    already: bool
    content: str


def put(connection: Connection, request: wire.PutRequest, data: Any, batch_bytes: int = BATCH_BYTES) -> Put:
    """Send rows, and wait until they are durable and visible.

    With a writer, a connection that breaks is tried again, with waits that double up to 10 s: the server answers a put
    that it has already as it did the first time. What an iterator gave is gone and is not tried again.

    Raises
    ------
    PutError
        When the connection broke and nobody knows whether the rows are there.
    """
    failures = 0
    while True:
        rows = batches_of(data, batch_bytes)
        try:
            return connection.put(request, rows)
        except H5FlightError as error:
            # With a reason the server has refused it, and nothing was taken.
            is_unknown = is_passing(error) and not error.reason
            if is_unknown and not (request.writer and rows.again):
                message = f"the connection broke, and whether the rows were taken is not known: {error}"
                raise PutError(message, error.reason, error.facts) from error
            may_repeat = is_passing(error) and request.writer and rows.again
            if not may_repeat or failures >= request.failures_max:
                raise
        time.sleep(min(_WAIT_MIN_S * 2**failures, _WAIT_MAX_S))
        failures += 1


def request_of(names: Mapping[str, str], mode: str, options: Mapping[str, Any]) -> wire.PutRequest:
    """Make the request of what the methods take.

    Raises
    ------
    ValueError
        For an option that has no such value.
    TypeError
        For an option that there is not.
    """
    if unknown := set(options) - _OPTIONS:
        raise TypeError(f"a put has no option {', '.join(sorted(unknown))}")
    for what, name in names.items():
        if not isinstance(name, str):
            message = f"the {what} is a {type(name).__name__}: the order is animal, experiment, dataset, data"
            raise TypeError(message)
    attrs = options.get("attrs")
    sizes = options.get("chunks")
    chunks: Iterable[int] = sizes if isinstance(sizes, Iterable) else () if sizes is None else (sizes,)
    return wire.PutRequest(
        names["animal"],
        names["experiment"],
        names["dataset"],
        mode=mode,
        chunk_shape=tuple(int(size) for size in chunks),
        codec=options.get("codec"),
        level=options.get("level"),
        shuffle=options.get("shuffle"),
        attributes_json=json.dumps(dict(attrs), default=_plain) if attrs else "",
        writer=options.get("writer", ""),
        sequence=int(options.get("sequence", 0)),
        expected_version=options.get("expected_version"),
        expected_first_row=options.get("first_row"),
    )


def _plain(value: Any) -> Any:
    """What numpy has as an attribute, in JSON."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"an attribute that is a {type(value).__name__} cannot be sent")
