"""numpy's and h5py's selections, translated into the request's own form.

Nothing here looks at an array: which selections fit is decided by the server, which knows the shape. What has no form
on the wire (a mask over several axes) is left to `Dataset`.
"""

from __future__ import annotations

import ast
import operator
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np

from . import wire
from .errors import SelectionError

Axis = int | slice | list[int] | np.ndarray[Any, Any] | EllipsisType
"""What is selected along one axis, after `parse`: arrays are boolean masks."""


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
    """

    axes: tuple[Axis, ...] = ()
    fields: tuple[str, ...] = ()
    bare_field: bool = False

    @property
    def wants_array(self) -> bool:
        """Whether a result without axes stays an array, as numpy has it for selections with an Ellipsis."""
        return any(axis is Ellipsis for axis in self.axes)

    def encode(self) -> bytes | None:
        """Encode for the wire; None is everything."""
        if all(axis is Ellipsis for axis in self.axes) and not self.fields:
            return None
        return wire.selection([_encode_axis(axis) for axis in self.axes], self.fields)


def parse(key: Any) -> Selection:
    """Understand what stands between the brackets of ``dataset[...]``.

    Parameters
    ----------
    key : int, slice, Ellipsis, list, ndarray, str or tuple of these
        As in h5py; slices may run backwards and lists may be in any order. ``()`` is everything.

    Raises
    ------
    SelectionError
        For what cannot select: None, floats, arrays of several dimensions.

    Examples
    --------
    >>> parse((slice(0, 10), [1, 5])).axes
    (slice(0, 10, None), [1, 5])
    >>> parse("x").fields
    ('x',)
    """
    axes: list[Axis] = []
    fields: list[str] = []
    in_list = False
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, str):
            fields.append(part)
        elif isinstance(part, list) and part and all(isinstance(name, str) for name in part):
            fields += part
            in_list = True
        else:
            axes.append(_axis(part))
    if sum(axis is Ellipsis for axis in axes) > 1:
        raise SelectionError("a selection has at most one Ellipsis", "bad_selection")
    return Selection(tuple(axes), tuple(fields), len(fields) == 1 and not in_list)


def _axis(part: Any) -> Axis:
    if part is Ellipsis:
        return part
    if isinstance(part, slice):
        return slice(*(None if bound is None else _index(bound) for bound in (part.start, part.stop, part.step)))
    if isinstance(part, (list, tuple, range, np.ndarray)) and np.ndim(part) > 0:
        return _indices(np.asarray(part))
    return _index(part)


def _indices(array: np.ndarray[Any, Any]) -> Axis:
    if array.ndim != 1:
        raise SelectionError(f"a list of indices has one dimension, not {array.ndim}", "bad_selection")
    if array.dtype == np.bool_:
        return array
    if array.size == 0:
        return []
    if array.dtype.kind not in "iu":
        raise SelectionError(f"indices are integers or booleans, not {array.dtype}", "bad_selection")
    indices: list[int] = array.tolist()
    return indices


def _index(value: Any) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise SelectionError("a single boolean selects nothing", "bad_selection")
    try:
        return operator.index(value)
    except TypeError:
        raise SelectionError(f"{type(value).__name__} {value!r} is not an index", "bad_selection") from None


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
    >>> parse_text("..., [1, 5]").axes
    (Ellipsis, [1, 5])
    """
    if not words.strip():
        return Selection()
    try:
        (part,) = [
            node.slice for node in [ast.parse(f"_[{words}]", mode="eval").body] if isinstance(node, ast.Subscript)
        ]
        nodes = part.elts if isinstance(part, ast.Tuple) else [part]
        return parse(tuple(_literal(node) for node in nodes))
    except (SyntaxError, ValueError) as error:
        if isinstance(error, SelectionError):
            raise
        raise SelectionError(f"selection {words!r} is not understood", "bad_selection") from None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Slice):
        return slice(
            *(None if bound is None else ast.literal_eval(bound) for bound in (node.lower, node.upper, node.step))
        )
    return ast.literal_eval(node)


def positions(selection: Selection, shape: tuple[int, ...]) -> list[range | list[int] | None]:
    """Which indices of each axis are selected; None for an axis that disappears.

    Parameters
    ----------
    selection : Selection
        What is selected.
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
