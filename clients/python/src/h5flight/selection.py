"""numpy's and h5py's selections, translated into the request's own form.

Nothing here looks at an array: which selections fit is decided by the server, which knows the shape.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any, NoReturn

import numpy as np

from . import wire
from .errors import SelectionError

Array = np.ndarray[Any, Any]
Axis = int | slice | list[int] | Array | EllipsisType
"""What is selected along one axis, after `parse`: arrays are boolean masks."""

INT64 = np.iinfo(np.int64)
WINDOW = 1 << 21
"""Flags or elements of a mask in one request: half of what a server takes, and a few MB at most."""


class Points:
    """Single elements by their coordinates: the result has one axis, the points in this order.

    Parameters
    ----------
    coordinates : array_like of int, shape (points, axes)
        One row per point with an index for every axis; negative ones count from the end, duplicates are allowed.

    Examples
    --------
    >>> Points([(0, 1), (5, -2)])
    Points([[0, 1], [5, -2]])
    """

    def __init__(self, coordinates: Any) -> None:
        found = coordinates if isinstance(coordinates, np.ndarray) else _as_array(coordinates, "points")
        if found.size == 0 and found.ndim in (1, 2):
            found = np.zeros((0, 0), np.int64)
        if found.ndim != 2:
            _refuse(
                f"points are rows of coordinates, one for each axis of the dataset, not an array of shape {found.shape}"
            )
        self.coordinates = _integers(found, coordinates, "points")

    def __len__(self) -> int:
        return len(self.coordinates)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Points) and np.array_equal(self.coordinates, other.coordinates)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown, more = self.coordinates[:10].tolist(), len(self) - 10
        return f"Points({shown})" if more <= 0 else f"Points({shown[:-1]} and {more + 1} more)"

    def encode(self) -> bytes:
        """Encode as the elements of a selection."""
        return wire.points(self.coordinates.shape[1], self.coordinates.reshape(-1))

    def indices(self, shape: tuple[int, ...]) -> Array:
        """The coordinates counted from the front."""
        if not len(self):
            return np.zeros((0, len(shape)), np.int64)
        return np.where(self.coordinates < 0, self.coordinates + np.array(shape), self.coordinates)

    def order(self) -> Array | None:
        """The permutation that brings them into C order, where neighbours share chunks; None where they are."""
        order = np.lexsort(self.coordinates.T[::-1]) if len(self) else np.arange(0)
        return None if np.array_equal(order, np.arange(len(self))) else order


class ElementMask:
    """A boolean array as large as the dataset: the result has one axis, the elements at which it is true in C order.

    Parameters
    ----------
    flags : ndarray of bool
        The mask, of rank 2 or more.
    """

    def __init__(self, flags: Array) -> None:
        self.flags = flags

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ElementMask) and np.array_equal(self.flags, other.flags)

    __hash__ = None  # type: ignore[assignment]

    def windows(self) -> Iterator[bytes]:
        """Encode as the elements of selections: few elements by what lies between them, many as bits."""
        shape, flags = self.flags.shape, self.flags.reshape(-1)
        chosen = np.flatnonzero(flags)
        if len(chosen) * 16 <= flags.size:
            for start in range(0, max(len(chosen), 1), WINDOW):
                part = chosen[start : start + WINDOW]
                yield wire.element_mask(shape, skips=np.diff(part, prepend=-1) - 1)
            return
        for first in range(0, flags.size, WINDOW):
            part = flags[first : first + WINDOW]
            if part.any():
                bits = np.packbits(part, bitorder="little").tobytes()
                yield wire.element_mask(shape, bits=bits, length=len(part), first=first)

    def indices(self, shape: tuple[int, ...]) -> Array:  # noqa: ARG002, the same for all elements
        """Indices of the elements."""
        return np.argwhere(self.flags)


@dataclass(frozen=True)
class Selection:
    """A selection in parts.

    Attributes
    ----------
    axes : tuple
        One entry per axis that is named: int, slice, list of int, boolean array, Ellipsis.
    fields : tuple of str
        Members of a compound; empty is all.
    bare_field : bool
        Whether the one field was named alone, so that its values are wanted and no structure around them.
    elements : Points, ElementMask or None
        Single elements, in place of axes.
    """

    axes: tuple[Axis, ...] = ()
    fields: tuple[str, ...] = ()
    bare_field: bool = False
    elements: Points | ElementMask | None = None

    @property
    def wants_array(self) -> bool:
        """Whether a result without axes stays an array, as numpy has it for selections with an Ellipsis."""
        return any(axis is Ellipsis for axis in self.axes)

    def encode(self) -> bytes | None:
        """Encode for the wire; None is everything.

        Raises
        ------
        SelectionError
            For a mask that takes more than one request.
        """
        parts = list(self.windows())
        if len(parts) != 1:
            _refuse(f"a mask of {len(parts)} times {WINDOW} elements takes as many requests: read it as an array")
        return parts[0]

    def windows(self) -> Iterator[bytes | None]:
        """Encode for the wire: the requests whose results are one after the other the result, mostly one."""
        if isinstance(self.elements, ElementMask):
            for elements in self.elements.windows():
                yield wire.selection([], self.fields, elements)
        elif isinstance(self.elements, Points):
            yield wire.selection([], self.fields, self.elements.encode())
        elif all(axis is Ellipsis for axis in self.axes) and not self.fields:
            yield None
        else:
            yield wire.selection([_encode_axis(axis) for axis in self.axes], self.fields)

    def in_storage_order(self) -> tuple[Selection, Array | None]:
        """The same elements so that each chunk is passed once, and where each of them goes in the result."""
        order = self.elements.order() if isinstance(self.elements, Points) else None
        if order is None or not isinstance(self.elements, Points):
            return self, None
        return replace(self, elements=Points(self.elements.coordinates[order])), order


def parse(key: Any) -> Selection:
    """Understand what stands between the brackets of ``dataset[...]``.

    Parameters
    ----------
    key : int, slice, Ellipsis, list, ndarray, str, Points or tuple of these
        As in h5py; slices may run backwards and lists may be in any order. A boolean array of several axes selects
        single elements, as `Points` do. ``()`` is everything.

    Raises
    ------
    SelectionError
        For what cannot select: None, floats, integer arrays of several dimensions.

    Examples
    --------
    >>> parse((slice(0, 10), [1, 5])).axes
    (slice(0, 10, None), [1, 5])
    >>> parse("x").fields
    ('x',)
    >>> parse(np.eye(2, dtype=bool)).elements.indices((2, 2)).tolist()
    [[0, 0], [1, 1]]
    """
    axes: list[Axis] = []
    fields: list[str] = []
    elements: list[Points | ElementMask] = []
    in_list = False
    for position, part in enumerate(key if isinstance(key, tuple) else (key,)):
        if isinstance(part, str):
            fields.append(part)
        elif isinstance(part, list) and part and all(isinstance(name, str) for name in part):
            fields += part
            in_list = True
        else:
            found = _item(part, f"item {position} of the selection")
            if isinstance(found, (Points, ElementMask)):
                elements.append(found)
            else:
                axes.append(found)
    if sum(axis is Ellipsis for axis in axes) > 1:
        _refuse(f"{sum(axis is Ellipsis for axis in axes)} Ellipses in a selection, the most is one")
    if elements and len(elements) + len(axes) > 1:
        others = len(elements) + len(axes) - 1
        _refuse(
            f"single elements (points or a mask of several axes) and {others} more: they take the place of all axes"
        )
    return Selection(tuple(axes), tuple(fields), len(fields) == 1 and not in_list, elements[0] if elements else None)


def _refuse(what: str) -> NoReturn:
    raise SelectionError(what, "bad_selection") from None


def _item(part: Any, where: str) -> Axis | Points | ElementMask:
    if part is Ellipsis or isinstance(part, (Points, ElementMask)):
        return part
    if part is None:
        _refuse(f"{where}: None (newaxis) is not supported, new axes are made of the result")
    if isinstance(part, slice):
        return slice(*(_bound(bound, where) for bound in (part.start, part.stop, part.step)))
    if isinstance(part, (list, tuple, range)) or (isinstance(part, np.ndarray) and part.ndim > 0):
        return _list(part, where)
    return _index(part, where)


def _list(part: Any, where: str) -> Axis | ElementMask:
    array = part if isinstance(part, np.ndarray) else _as_array(part, where)
    if array.dtype == np.bool_:
        return array if array.ndim == 1 else ElementMask(array)
    if array.ndim != 1:
        _refuse(f"{where}: a list of indices has one dimension, not {array.ndim}; single elements are Points")
    if array.size == 0 and not isinstance(part, np.ndarray):
        return []
    indices: list[int] = _integers(array, part, where).tolist()
    return indices


def _as_array(part: Any, where: str) -> Array:
    """An array of a list or of lists; empty ones are integers."""
    try:
        part = part if isinstance(part, range) else list(part)
    except TypeError:
        _refuse(f"{where}: {type(part).__name__} {part!r} is no list")
    kinds = {isinstance(entry, (bool, np.bool_)) for entry in part} if isinstance(part, list) else set()
    if len(kinds) > 1:
        _refuse(f"{where}: a list of booleans and other things")
    try:
        array: Array = np.asarray(part)
    except ValueError:
        _refuse(f"{where}: lists of different lengths within a list")
    except OverflowError:
        _refuse(f"{where}: an index that does not fit 64 bits")
    return array.astype(np.int64) if array.size == 0 else array


def _integers(array: Array, given: Any, where: str) -> Array:
    """Indices as 64 bits."""
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.size and int(array.max()) > INT64.max:
        _refuse(f"{where}: index {array.max()} does not fit 64 bits with a sign")
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if isinstance(given, (list, tuple)):
        # numpy has made something else of it: the entry to blame is looked for.
        for entry in np.asarray(given, object).reshape(-1):
            _index(entry, where)
    _refuse(f"{where}: indices are integers or booleans, not {array.dtype}")


def _bound(value: Any, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        _refuse(f"{where}: {type(value).__name__} {value!r} is no bound of a slice")
    # What lies beyond 64 bits lies beyond every axis.
    return int(min(max(operator.index(value), INT64.min), INT64.max))


def _index(value: Any, where: str) -> int:
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, np.ndarray) and value.dtype == np.bool_):
        _refuse(f"{where}: a single boolean selects nothing")
    if type(value).__name__ == "RegionReference":
        _refuse(f"{where}: a region reference belongs to its file; read the region by slices or points")
    try:
        found = operator.index(value)
    except TypeError:
        _refuse(f"{where}: {type(value).__name__} {value!r} is not an index")
    if not INT64.min <= found <= INT64.max:
        _refuse(f"{where}: index {found} does not fit 64 bits")
    return found


def _encode_axis(axis: Axis) -> bytes:
    if isinstance(axis, int):
        return wire.index(axis)
    if isinstance(axis, slice):
        return wire.slice_(axis)
    if isinstance(axis, list):
        return wire.index_list(axis)
    if isinstance(axis, np.ndarray):
        return wire.mask(np.packbits(axis, bitorder="little").tobytes(), len(axis))
    return wire.ELLIPSIS


def parse_text(words: str) -> Selection:
    """Understand numpy's text of a selection.

    The server understands it too; this is for the labels of a frame.

    Examples
    --------
    >>> parse_text("0:100, 5, ::2").axes
    (slice(0, 100, None), 5, slice(None, None, 2))
    >>> parse_text("points[[0, 1], [5, -2]]").elements
    Points([[0, 1], [5, -2]])
    """
    if not words.strip():
        return Selection()
    try:
        (part,) = [
            node.slice
            for node in [ast.parse(f"_[{re.sub(NO_POINTS, 'points[()]', words)}]", mode="eval").body]
            if isinstance(node, ast.Subscript)
        ]
        nodes = part.elts if isinstance(part, ast.Tuple) else [part]
        return parse(tuple(_literal(node) for node in nodes))
    except (SyntaxError, ValueError) as error:
        if isinstance(error, SelectionError):
            raise
        _refuse(f"selection {words!r} is not understood")


NO_POINTS = r"points\s*\[\s*\]"


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Slice):
        return slice(
            *(None if bound is None else ast.literal_eval(bound) for bound in (node.lower, node.upper, node.step))
        )
    if isinstance(node, ast.List):
        return [_truth(entry) for entry in node.elts]
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "points":
        points = ast.literal_eval(node.slice)
        return Points([points] if isinstance(points, list) else points)
    return ast.literal_eval(node)


def _truth(node: ast.expr) -> Any:
    """An entry of a list: the text knows `true` as well as `True`."""
    if isinstance(node, ast.Name) and node.id in ("true", "false"):
        return node.id == "true"
    return ast.literal_eval(node)


def positions(selection: Selection, shape: tuple[int, ...]) -> list[range | list[int] | None]:
    """Which indices of each axis are selected; None for an axis that disappears.

    Parameters
    ----------
    selection : Selection
        What is selected, by axes.
    shape : tuple of int
        Shape of the array it applies to.

    Examples
    --------
    >>> positions(parse((slice(2, None, 3), 1)), (10, 4))
    [range(2, 10, 3), None]
    """
    axes = list(selection.axes)
    ellipsis = next((at for at, axis in enumerate(axes) if axis is Ellipsis), len(axes))
    named = axes[:ellipsis] + axes[ellipsis + 1 :]
    axes = named[:ellipsis] + [slice(None)] * (len(shape) - len(named)) + named[ellipsis:]
    return [_positions_of(axis, size) for axis, size in zip(axes, shape, strict=False)]


def _positions_of(axis: Axis, size: int) -> range | list[int] | None:
    if isinstance(axis, int):
        return None
    if isinstance(axis, slice):
        return range(*axis.indices(size))
    if isinstance(axis, np.ndarray):
        chosen: list[int] = np.flatnonzero(axis).tolist()
        return chosen
    if isinstance(axis, list):
        return [at + size if at < 0 else at for at in axis]
    return range(size)
