"""How values travel: numpy, pandas and Arrow become record batches that the server makes rows of.

An array is one column ``value``, with the axes of its rows in the field's metadata; a table is the members of a
compound. What HDF5 cannot hold as it is (nulls, texts of any length without a size) is refused before anything is sent,
or given a size. Memory is shared with numpy where Arrow has the same bytes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BATCH_BYTES = 2 << 20
"""Bytes of a batch: what the server takes fastest."""

VALUE = "value"
"""The column of an array."""

_NUMBERS = "iuf"
_TIME_UNITS = {"s", "ms", "us", "ns"}


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
            longest = pc.max(pc.binary_length(column)).as_py() or 1
            field = field.with_metadata({**(field.metadata or {}), b"h5flight.bytes": str(longest).encode()})
        fields.append(field)
        columns.append(column)
    return pa.table(columns, schema=pa.schema(fields, metadata=table.schema.metadata))
