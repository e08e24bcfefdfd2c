"""Writing: numpy, pandas and Arrow become rows of a dataset of the server, by a Flight DoPut.

`batches_of` says how values travel: an array as one column ``value`` (an ``arrow.fixed_shape_tensor`` where rows have
axes), a table as the members of a compound. What HDF5 cannot hold as it is (nulls, texts of any length without a size)
is refused before anything is sent, or given a size. One call is one publication: all of its rows or none.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from . import wire
from .errors import H5FlightError, PutError, ServerUnavailableError

if TYPE_CHECKING:
    from .connection import Connection

BATCH_BYTES = 2 << 20
"""Bytes of a batch: what the server takes fastest."""

VALUE = "value"
"""The column of an array."""

_WAIT_MIN_S, _WAIT_MAX_S = 0.2, 10.0
_PASSING = frozenset({"busy", "catalog_unavailable", "draining"})
_NUMBERS = "iuf"
_TIME_UNITS = {"s", "ms", "us", "ns"}


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


@dataclasses.dataclass(frozen=True)
class Batches:
    """Rows on their way: their schema, and record batches of it.

    Attributes
    ----------
    schema : pyarrow.Schema
        Of all batches.
    batches : iterator of pyarrow.RecordBatch
        The rows, once.
    again : bool
        Whether the same rows can be had again, for another attempt.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    again: bool


def batches_of(data: Any, batch_bytes: int = BATCH_BYTES) -> Batches:
    """Say how values travel.

    Parameters
    ----------
    data : array_like, pandas.DataFrame, pandas.Series, pyarrow.Table, RecordBatch, Array, or iterator of these
        An array becomes an array with the same axes; a structured array, a frame or a table becomes a compound, one
        member a column. An iterator gives rows piece by piece, all of one form; it is read once, in bounded memory.
    batch_bytes : int
        Bytes that a batch should have.

    Raises
    ------
    TypeError
        For values that have no form in HDF5: objects other than texts, nulls.
    """
    if isinstance(data, Iterator):
        return _streamed(data, batch_bytes)
    table = _table_of(data)
    return Batches(table.schema, _cut(table, batch_bytes), True)


def _streamed(pieces: Iterator[Any], batch_bytes: int) -> Batches:
    tables = map(_table_of, pieces)
    first = next(tables, None)
    if first is None:
        raise TypeError("an iterator that gives nothing has no type: put an empty array")

    def batches() -> Iterator[pa.RecordBatch]:
        for table in itertools.chain([first], tables):
            if not table.schema.equals(first.schema, check_metadata=True):
                raise TypeError(f"a piece of {table.schema} follows pieces of {first.schema}")
            yield from _cut(table, batch_bytes)

    return Batches(first.schema, batches(), False)


def _cut(table: pa.Table, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    row_bytes = max(1, table.nbytes // max(1, table.num_rows))
    yield from table.to_batches(max_chunksize=max(1, batch_bytes // row_bytes))


def _table_of(data: Any) -> pa.Table:
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        return _checked(data)
    if isinstance(data, pa.ChunkedArray | pa.Array):
        return _checked(pa.table({VALUE: data}))
    if hasattr(data, "to_frame") and hasattr(data, "to_numpy") and not hasattr(data, "columns"):
        return _series(data)
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return _frame(data)
    return _array(np.asarray(data))


# numpy


def _array(array: np.ndarray[Any, Any]) -> pa.Table:
    """One column of tensors, or the members of a compound."""
    if array.ndim == 0:
        # One row: a dataset has rows, a scalar is one of them.
        array = array.reshape(1)
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    if array.dtype.names and array.ndim == 1:
        return _structured(array)
    field, storage = _column(VALUE, array)
    return pa.table([storage], schema=pa.schema([field]))


def _structured(array: np.ndarray[Any, Any]) -> pa.Table:
    columns = [_column(name, np.ascontiguousarray(array[name])) for name in array.dtype.names or ()]
    return pa.table([column for _, column in columns], schema=pa.schema([field for field, _ in columns]))


def _column(name: str, array: np.ndarray[Any, Any]) -> tuple[pa.Field, pa.Array]:
    """An array as a column, one value or tensor a row; memory is shared where Arrow has the same bytes."""
    rows, shape = len(array), array.shape[1:]
    flat, metadata = _flat(name, array)
    if metadata.get("h5flight.complex"):
        shape = (*shape, 2)
    if not shape:
        return pa.field(name, flat.type, nullable=False, metadata=metadata), flat
    size = math.prod(shape)
    if size == 0:
        raise TypeError(f"{name!r} has rows of shape {shape}, which hold nothing")
    storage_type = pa.list_(pa.field("item", flat.type, nullable=False), size)
    storage = pa.FixedSizeListArray.from_arrays(flat, type=storage_type)
    metadata = {**metadata, "h5flight.shape": json.dumps(list(shape))}
    assert len(storage) == rows, "a row is a product of its axes"
    return pa.field(name, storage_type, nullable=False, metadata=metadata), storage


def _flat(name: str, array: np.ndarray[Any, Any]) -> tuple[pa.Array, dict[str, str]]:
    """All values one after the other, and what the type of Arrow does not tell."""
    dtype, count = array.dtype, array.size
    kind = dtype.kind
    if kind in _NUMBERS and dtype.itemsize <= 8:
        return _shared(pa.from_numpy_dtype(dtype), array, count), {}
    if kind == "b":
        return _shared(pa.uint8(), array.view(np.uint8), count), {"h5flight.bool": "1"}
    if kind == "c" and dtype.itemsize <= 16:
        parts = array.view(np.dtype(f"f{dtype.itemsize // 2}"))
        return _shared(pa.from_numpy_dtype(parts.dtype), parts, 2 * count), {"h5flight.complex": "1"}
    if kind == "S":
        return _shared(pa.binary(max(1, dtype.itemsize)), _of_some_size(array), count), {"h5flight.text": "ascii"}
    if kind == "V" and not dtype.names and dtype.itemsize:
        return _shared(pa.binary(dtype.itemsize), array, count), {}
    if kind in "mM" and np.datetime_data(dtype)[0] in _TIME_UNITS and np.datetime_data(dtype)[1] == 1:
        if np.isnat(array).any():
            raise TypeError(f"{name!r} has times that are not: HDF5 has no null")
        unit = np.datetime_data(dtype)[0]
        arrow = pa.timestamp(unit) if kind == "M" else pa.duration(unit)
        return _shared(arrow, array.view(np.int64), count), {}
    if kind in "UO":
        return _texts(name, array.reshape(-1).tolist())
    raise TypeError(f"{name!r} has values of type {dtype}, which have no form in HDF5 here")


def _of_some_size(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Texts of no bytes at all get one, which is NUL."""
    return array if array.dtype.itemsize else array.astype("S1")


def _shared(arrow: pa.DataType, array: np.ndarray[Any, Any], count: int) -> pa.Array:
    return pa.Array.from_buffers(arrow, count, [None, pa.py_buffer(array.reshape(-1).view(np.uint8))])


def _texts(name: str, values: list[Any]) -> tuple[pa.Array, dict[str, str]]:
    """Texts in fields of the size of the longest."""
    if not all(isinstance(value, str) for value in values):
        other = next(type(value).__name__ for value in values if not isinstance(value, str))
        raise TypeError(f"{name!r} has a {other} among its values: texts and numbers have a form in HDF5")
    longest = max((len(value.encode()) for value in values), default=1)
    return pa.array(values, pa.utf8()), {"h5flight.bytes": str(max(1, longest))}


# pandas


def _frame(frame: Any) -> pa.Table:
    """One column a member; an index with a name is one of them, the others are dropped."""
    named = [name for name in frame.index.names if name is not None]
    if named:
        frame = frame.reset_index()
    columns = [_column(str(name), _values(frame[name])) for name in frame.columns]
    return pa.table([column for _, column in columns], schema=pa.schema([field for field, _ in columns]))


def _series(series: Any) -> pa.Table:
    return _array(_values(series))


def _values(series: Any) -> np.ndarray[Any, Any]:
    """Values of a column; those of a categorical are what its codes stand for."""
    values: np.ndarray[Any, Any] = np.asarray(series.to_numpy())
    if values.dtype.kind == "O" and len(values) and not isinstance(values[0], str):
        values = np.asarray(values.tolist())
    return np.ascontiguousarray(values)


# Arrow


def _checked(table: pa.Table) -> pa.Table:
    """A table without nulls, its texts with a size."""
    fields, columns = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        if column.null_count:
            raise TypeError(f"column {field.name!r} has {column.null_count} nulls: HDF5 has none")
        if pa.types.is_dictionary(field.type):
            column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], field.type.value_type)
            field = pa.field(field.name, field.type.value_type, metadata=field.metadata)
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        if text and b"h5flight.bytes" not in (field.metadata or {}):
            longest = pa.compute.max(pa.compute.binary_length(column)).as_py() or 1
            field = field.with_metadata({**(field.metadata or {}), b"h5flight.bytes": str(longest).encode()})
        fields.append(field)
        columns.append(column)
    return pa.table(columns, schema=pa.schema(fields, metadata=table.schema.metadata))


# On the way


def put(connection: Connection, request: wire.PutRequest, data: Any, batch_bytes: int = BATCH_BYTES) -> Put:
    """Send rows, and wait until they are durable and visible.

    With a writer, a connection that breaks is tried again: the server answers a put that it has already as it did the
    first time.

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
            broken = isinstance(error, ServerUnavailableError) and error.reason not in _PASSING
            if broken and not request.writer:
                message = f"the connection broke, and whether the rows were taken is not known: {error}"
                raise PutError(message, error.reason, error.facts) from error
            passes = broken or error.reason in _PASSING
            if not (passes and rows.again) or failures >= request.failures_max:
                raise
        time.sleep(min(_WAIT_MIN_S * 2**failures, _WAIT_MAX_S))
        failures += 1


class Writer:
    """Appends to one dataset, block by block, each exactly once: what a rig uses.

    Blocks are counted, and the count goes with each. When the answer to a block is lost the same block is sent again,
    and the server knows it. A writer that is made anew, because its program crashed, asks the server how many rows
    there are: `rows`. Whoever feeds it goes on from there: a block that was acknowledged is among them, and one that
    was not is there completely or not at all. Each block says at which row it belongs, so that a second writer, or
    one that went on from a wrong row, is a `ConflictError` and not data in the wrong place.

    Parameters
    ----------
    connection : Connection
        To which server.
    request : wire.PutRequest
        Names, and how chunks are made.
    rows : int
        Rows that are there already.

    Attributes
    ----------
    rows : int
        Rows that are acknowledged: the next block begins at this one.
    last : Put or None
        The answer to the last block.
    """

    def __init__(self, connection: Connection, request: wire.PutRequest, rows: int) -> None:
        self._connection, self._request = connection, request
        self.rows = rows
        self.last: Put | None = None

    def append(self, data: Any) -> Put:
        """Append a block; it is durable and visible when this returns.

        The first row of a block is its sequence number: it grows, and a program that starts again continues with it.

        Parameters
        ----------
        data : array_like, pandas.DataFrame, pyarrow.Table
            Rows, see `Client.put`.

        Raises
        ------
        ConflictError
            When somebody else has appended meanwhile: ``facts`` tells.
        """
        request = dataclasses.replace(self._request, sequence=self.rows, expected_first_row=self.rows)
        made = put(self._connection, request, data)
        self.rows, self.last = made.first_row + made.rows, made
        return made

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def request_of(names: Mapping[str, str], mode: str, options: Mapping[str, Any]) -> wire.PutRequest:
    """Make the request of what the methods take.

    Raises
    ------
    ValueError
        For an option that has no such value.
    """
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
