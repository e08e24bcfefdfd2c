"""Arrow from the wire becomes numpy.

`Element` is the type of an element as the server tells it, and what it is in numpy. `Assembly` has the array of the
whole result from the start and places each batch at the row that its `BatchMetadata` names, so that every value is
copied once and batches may come in any order.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from . import wire
from .errors import H5FlightError

Array = np.ndarray[Any, Any]
"""Any numpy array."""

SHAPE = b"h5flight.shape"
"""Metadata of a schema: shape of the result, a JSON list."""

TYPE = b"h5flight.type"
"""Metadata of a schema: type of the dataset's elements in JSON, all members of a compound included."""

DTYPE = b"h5flight.dtype"
"""Metadata of a schema: numpy's text of the dataset's type."""

RECORD = b"h5flight.record"
"""Metadata of a field: its values are whole compounds, as numpy packs them."""

_NUMBER_BYTES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Element:
    """The type of one element.

    Attributes
    ----------
    kind : str
        ``integer``, ``float``, ``compound``, ...
    dtype : numpy.dtype
        What it is in numpy, native byte order; object where it has no fixed size there.
    dims : tuple of int
        Axes of one element: those of an HDF5 array type.
    items : tuple of Element
        What is inside: the members of a compound, the item of a sequence or array.
    values : tuple of int
        Values of an enum, in the order of its names.
    """

    kind: str
    dtype: np.dtype[Any]
    dims: tuple[int, ...] = ()
    items: tuple[Element, ...] = ()
    values: tuple[int, ...] = ()

    def select(self, names: list[str]) -> Element:
        """Only these members of a compound."""
        by_name = dict(zip(self.dtype.names or (), self.items, strict=True))
        return _compound(names, tuple(by_name[name] for name in names))


def element_of(told: dict[str, Any], strings: str = "fixed") -> Element:
    """Understand the type of an element.

    Parameters
    ----------
    told : dict
        What the server tells.
    strings : str
        The form in which strings were asked for: those in a field are ``S16`` and the like, or objects.

    Examples
    --------
    >>> element_of({"kind": "array", "dims": [3], "item": {"kind": "integer", "bytes": 2, "signed": False}}).dims
    (3,)
    """
    kind = told["kind"]
    if kind == "integer":
        return Element(kind, np.dtype(f"{'i' if told['signed'] else 'u'}{told['bytes']}"))
    if kind == "float":
        return Element(kind, np.dtype(f"f{told['bytes']}"))
    if kind == "bool":
        return Element(kind, np.dtype(bool))
    if kind == "enum":
        base = element_of(told["base"], strings)
        return Element(kind, base.dtype, values=tuple(value for _, value in told["members"]))
    if kind == "complex":
        part = element_of(told["part"], strings)
        return Element(kind, np.dtype(f"c{2 * part.dtype.itemsize}"))
    if kind == "array":
        item = element_of(told["item"], strings)
        return Element(kind, item.dtype, (*told["dims"], *item.dims), (item,))
    if kind == "compound":
        members = told["members"]
        return _compound([m["name"] for m in members], tuple(element_of(m["element"], strings) for m in members))
    if kind == "bitfield" and told["bytes"] in _NUMBER_BYTES:
        return Element(kind, np.dtype(f"u{told['bytes']}"))
    if kind in ("opaque", "bitfield"):
        return Element(kind, np.dtype(f"V{told['bytes']}"))
    if kind == "var_len":
        return Element(kind, np.dtype(object), items=(element_of(told["item"], strings),))
    if kind == "fixed_string" and strings == "fixed":
        return Element(kind, np.dtype(f"S{told['bytes']}"))
    if kind in ("fixed_string", "var_string", "reference"):
        return Element(kind, np.dtype(object))
    raise H5FlightError(f"elements of type {kind!r} are not understood by this version of h5flight")


def _compound(names: list[str], items: tuple[Element, ...]) -> Element:
    members = [(name, item.dtype, item.dims) for name, item in zip(names, items, strict=True)]
    return Element("compound", np.dtype(members), items=items)


def values_of(element: Element, column: pa.Array) -> Array:
    """Values of a column, one after the other, shape (n, *element.dims); shares the column's memory where it can."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    while pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    if element.kind == "array":
        return values_of(element.items[0], column).reshape(-1, *element.dims)
    if element.kind == "compound" and pa.types.is_struct(column.type):
        return _struct_values(element, column)
    if element.kind == "var_len":
        return _list_values(element.items[0], column)
    if element.kind == "enum" and pa.types.is_dictionary(column.type):
        return _enum_values(element, column)
    if element.kind == "bool" and pa.types.is_boolean(column.type):
        bits: Array = column.to_numpy(zero_copy_only=False)
        return bits
    if element.dtype.kind == "O":
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)
    # Straight from the buffer: it may lie at an address that is not a multiple of the element's size.
    buffer, count = column.buffers()[1], len(column)
    if column.null_count or count == 0 or buffer is None:
        _refuse_nulls(column)
        return np.empty(0, element.dtype)
    stored = _stored_bytes(column.type)
    flat = np.frombuffer(buffer, np.uint8, count * stored, column.offset * stored)
    return flat.view(element.dtype)


def _refuse_nulls(column: pa.Array) -> None:
    if column.null_count:
        raise H5FlightError(f"{column.null_count} numbers of {len(column)} are missing")


def _stored_bytes(kind: pa.DataType) -> int:
    width: int = kind.byte_width if pa.types.is_fixed_size_binary(kind) else kind.bit_width // 8
    return width


def _struct_values(element: Element, column: pa.StructArray) -> Array:
    out = np.empty(len(column), element.dtype)
    for name, item, member in zip(element.dtype.names or (), element.items, column.flatten(), strict=True):
        out[name] = values_of(item, member).reshape(out[name].shape)
    return out


def _enum_values(element: Element, column: pa.DictionaryArray) -> Array:
    # Behind the names of the enum the dictionary has, as decimal text, values that are found but have none. Values of
    # all integer types pass through 64 bits without a sign: what does not fit wraps to what is stored.
    unnamed = [int(word) for word in column.dictionary.to_pylist()[len(element.values) :]]
    values = np.array([value % (1 << 64) for value in (*element.values, *unnamed)], np.uint64).astype(element.dtype)
    found: Array = np.take(values, column.indices.to_numpy(zero_copy_only=False))
    return found


def _list_values(item: Element, column: pa.Array) -> Array:
    inner = values_of(item, column.values)
    out = np.empty(len(column), object)
    for row, (start, stop) in enumerate(itertools.pairwise(column.offsets.to_pylist())):
        out[row] = inner[start:stop].copy()
    return out


def shape_of(schema: pa.Schema) -> tuple[int, ...]:
    """Shape of a result, from the metadata of its schema."""
    return tuple(_told(schema, SHAPE))


def _told(schema: pa.Schema, key: bytes) -> Any:
    metadata = schema.metadata or {}
    if key not in metadata:
        raise H5FlightError(f"the answer does not tell its {key.decode()}: this is no h5flight server")
    return json.loads(metadata[key])


class Assembly:
    """The result of a read, filled batch by batch.

    Parameters
    ----------
    schema : pyarrow.Schema
        Schema of the stream in TENSOR layout; its metadata tells the shape of the result and the type of its elements.
    strings : str
        The form in which strings were asked for.
    """

    def __init__(self, schema: pa.Schema, strings: str = "fixed") -> None:
        self.shape = shape_of(schema)
        self._rows = self.shape[0] if self.shape else 1
        self._reached = 0
        self._ahead: dict[int, int] = {}
        element = element_of(_told(schema, TYPE), strings)
        # A member that is made of members may be a record too: the whole one has the type of the dataset.
        record = (schema.field(0).metadata or {}).get(RECORD)
        is_whole = record is not None and record == schema.metadata.get(DTYPE)
        if element.kind == "compound" and not is_whole:
            element = element.select(list(schema.names))
            self._elements = element.items
            self._out = np.empty(self.shape, element.dtype)
            self._columns = [self._by_row(self._out[name]) for name in schema.names]
        else:
            self._elements = (element,)
            self._out = np.empty(self.shape + element.dims, element.dtype)
            self._columns = [self._by_row(self._out)]

    def _by_row(self, array: Array) -> Array:
        """A view whose first axis is the rows, also for a scalar."""
        return array if self.shape else array[np.newaxis]

    def place(self, batch: pa.RecordBatch, metadata: pa.Buffer | None) -> None:
        """Copy one batch to where it belongs."""
        first, rows = self._reached, batch.num_rows
        if metadata is not None:
            first, rows = wire.batch_metadata(metadata.to_pybytes())
        if rows != batch.num_rows or first + rows > self._rows:
            raise H5FlightError(f"a batch of {batch.num_rows} rows at row {first} of {self._rows}")
        for out, element, column in zip(self._columns, self._elements, batch.columns, strict=True):
            target = out[first : first + rows]
            target[...] = values_of(element, column).reshape(target.shape)
        self._ahead[first] = rows
        while self._reached in self._ahead:
            self._reached += self._ahead.pop(self._reached)

    @property
    def rows(self) -> int:
        """Rows of the whole result."""
        return self._rows

    @property
    def nbytes(self) -> int:
        """Bytes of the whole result."""
        return self._out.nbytes

    def rows_in_order(self) -> int:
        """Rows that are there without a gap before them; others are forgotten, to come again."""
        self._ahead.clear()
        return self._reached

    @property
    def placed_bytes(self) -> int:
        """About how many bytes of the result are there."""
        return self.nbytes * (self._reached + sum(self._ahead.values())) // max(self._rows, 1)

    def finish(self) -> Array:
        """Give the result, once every row is there.

        Raises
        ------
        H5FlightError
            When the stream ended early.
        """
        if self._reached != self._rows:
            raise H5FlightError(f"the answer ended after {self._reached} of {self._rows} rows")
        return self._out
