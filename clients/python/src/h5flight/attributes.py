"""HDF5 attributes: JSON and what the server tells of their types become what h5py gives."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .arrays import Array

Type = str | dict[str, Any]
"""A type as the server tells it: numpy's name, ``"str"``, or an object for what numpy has no name for."""

_ORDERS = {"little": "<", "big": ">"}


class Attributes(dict[str, Any]):
    """Attributes by name, as h5py gives them.

    Numbers are numpy scalars and arrays of the file's type, byte order included. What differs from h5py: texts of fixed
    size are `str` too (`bytes` where they are not UTF-8), references are paths (None where they lead nowhere), a null
    dataspace is None, a long double is the nearest float64. What the server left out or could not read is a dict with
    the one key ``omitted`` (its size in bytes) or ``error``.

    Parameters
    ----------
    values : mapping
        Values as JSON.
    types : mapping
        What JSON does not tell; an attribute of which nothing is told is given as JSON has it.
    """

    def __init__(self, values: Mapping[str, Any], types: Mapping[str, Any] | None = None) -> None:
        self._types = dict(types or {})
        super().__init__({name: value_of(value, self._types.get(name)) for name, value in values.items()})

    def dtype(self, name: str) -> np.dtype[Any]:
        """Type of the elements of an attribute; ``dtype.metadata["enum"]`` has the names of an enum, as in h5py."""
        if name not in self:
            raise KeyError(name)
        told = self._types.get(name, "str")
        return dtype_of(told[0] if isinstance(told, list) else told)


def value_of(value: Any, told: Any) -> Any:
    """Make one attribute's value.

    Examples
    --------
    >>> value_of([1, 2], ["<u2", [2]])
    array([1, 2], dtype=uint16)
    >>> value_of("NaN", "<f4"), value_of("mV", None)
    (np.float32(nan), 'mV')
    """
    if told is None:
        return plain(value)
    kind, shape = (told[0], told[1]) if isinstance(told, list) else (told, [])
    if shape is None or _is_missing(value, kind):
        return value
    elements = _array(_flat(value, len(shape)) if math.prod(shape) else [], kind)
    elements = elements.reshape((*shape, *elements.shape[1:]))
    return elements if elements.ndim else elements[()]


def plain(value: Any) -> Any:
    """Undo what JSON cannot say of an attribute: bytes and references."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {"b64"}:
            return base64.b64decode(value["b64"])
        if value.keys() == {"ref"}:
            return value["ref"]
        return {name: plain(item) for name, item in value.items()}
    return value


def dtype_of(kind: Type) -> np.dtype[Any]:
    """The type in numpy: what h5py calls it, but for texts and references, which are objects."""
    if isinstance(kind, str):
        found = np.dtype(object) if kind == "str" else np.dtype(kind)
        return np.dtype(object) if found.kind == "S" else found
    match kind["kind"]:
        case "integer":
            return np.dtype(f"{_ORDERS[kind['order']]}{'i' if kind['signed'] else 'u'}{kind['bytes']}")
        case "float":
            return np.dtype(f"{_ORDERS[kind['order']]}f{kind['bytes']}")
        case "bool":
            return np.dtype(bool)
        case "complex":
            part = dtype_of(kind["part"])
            return np.dtype(f"{part.byteorder}c{2 * part.itemsize}")
        case "enum":
            return np.dtype(dtype_of(kind["base"]), metadata={"enum": dict(kind["members"])})
        case "array":
            return np.dtype((dtype_of(kind["item"]), tuple(kind["dims"])))
        case "bitfield" if kind["bytes"] in (1, 2, 4, 8):
            return np.dtype(f"{_ORDERS[kind['order']]}u{kind['bytes']}")
        case "opaque" | "bitfield":
            return np.dtype(f"V{kind['bytes']}")
        case "compound":
            return _compound(kind)
    return np.dtype(object)


def _compound(kind: dict[str, Any]) -> np.dtype[Any]:
    members = kind["members"]
    names = [member["name"] for member in members]
    formats = [dtype_of(member["element"]) for member in members]
    if any(part.hasobject for part in formats):
        # Pointers take another room in numpy than in the file.
        return np.dtype({"names": names, "formats": formats})
    offsets = [member["offset"] for member in members]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": kind["bytes"]})


def _is_missing(value: Any, kind: Type) -> bool:
    """Whether in place of the value there is a word about it: a compound may have a member of that name."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    (word,) = value
    is_member = isinstance(kind, dict) and [m["name"] for m in kind.get("members", ()) if isinstance(m, dict)] == [word]
    return word in ("omitted", "error") and not is_member


def _flat(value: Any, depth: int) -> list[Any]:
    flat = [value]
    for _ in range(depth):
        flat = [item for items in flat for item in items]
    return flat


def _array(values: Sequence[Any], kind: Type) -> Array:
    """Values of one type, one after the other; the axes of an array type come behind."""
    dtype = dtype_of(kind)
    of = kind["kind"] if isinstance(kind, dict) else ""
    if isinstance(kind, dict) and of == "array":
        dims = tuple(kind["dims"])
        items = _array([item for value in values for item in _flat(value, len(dims))], kind["item"])
        return items.reshape(len(values), *dims, *items.shape[1:])
    if isinstance(kind, dict) and of == "compound":
        out = np.zeros(len(values), dtype)
        for member in kind["members"]:
            name = member["name"]
            out[name] = _array([value[name] for value in values], member["element"])
        return out
    if dtype.kind == "c":
        parts = [complex(float(value["r"]), float(value["i"])) for value in values]
        return np.array(parts, dtype)
    if dtype.kind == "V" or (any(isinstance(value, dict) and "b64" in value for value in values) and dtype.kind != "O"):
        return np.frombuffer(b"".join(base64.b64decode(value["b64"]) for value in values), dtype).copy()
    if dtype.kind != "O":
        return np.array(values, dtype)
    objects = np.empty(len(values), object)
    for at, value in enumerate(values):
        objects[at] = _array(value, kind["item"]) if isinstance(kind, dict) and of == "var_len" else plain(value)
    return objects
