"""Compares what pynwb read twice: all containers, their values and attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from hdmf.build import Builder
from hdmf.container import AbstractContainer, Data
from hdmf.query import HDMFDataset
from hdmf.utils import StrDataset

LAZY = (h5py.Dataset, HDMFDataset, StrDataset)
"""What pynwb leaves unread until it is sliced."""


class Walk:
    """Goes through two trees side by side.

    Parameters
    ----------
    object_ids : frozenset of str
        Identifiers that are in the file.

    Attributes
    ----------
    containers, values, elements : int
        What was compared.
    differences : list of str
        What is not equal, with its place.
    lazy : int
        Datasets that pynwb left unread.
    """

    def __init__(self, object_ids: frozenset[str]) -> None:
        # Of what has none in the file, pynwb makes one up each time.
        self._object_ids = object_ids
        self.containers = self.values = self.elements = self.lazy = 0
        self.differences: list[str] = []
        self._seen: set[tuple[int, int]] = set()
        self._keep: list[Any] = []

    def compare(self, one: Any, other: Any, at: str = "") -> None:
        """Compare two values and all that is below them."""
        if isinstance(one, AbstractContainer):
            self._container(one, other, at)
        elif isinstance(one, Builder):
            self._differ(at, one.get("name"), other.get("name"))
        elif isinstance(one, LAZY):
            self.lazy += 1
            if type(one).__name__ != type(other).__name__ and not isinstance(other, h5py.Dataset):
                self.differences.append(f"{at}: a {type(one).__name__} became a {type(other).__name__}")
            self._array(one, other, at)
        elif isinstance(one, (np.ndarray, np.void)):
            self._array(one, other, at)
        elif isinstance(one, Mapping):
            self._differ(at, sorted(map(str, one)), sorted(map(str, other)))
            for key in one:
                if key in other:
                    self.compare(one[key], other[key], f"{at}[{key!r}]")
        elif isinstance(one, (list, tuple)):
            self._differ(at, len(one), len(other))
            for index, (mine, yours) in enumerate(zip(one, other, strict=False)):
                self.compare(mine, yours, f"{at}[{index}]")
        else:
            self._differ(at, one, other)

    def _container(self, one: AbstractContainer, other: Any, at: str) -> None:
        if (id(one), id(other)) in self._seen:
            return
        self._seen.add((id(one), id(other)))
        self._keep += [one, other]
        self.containers += 1
        self._differ(at, type(one).__name__, type(other).__name__)
        self._differ(f"{at}.name", one.name, other.name)
        if one.object_id in self._object_ids:
            self._differ(f"{at}.object_id", one.object_id, other.object_id)
        self._differ(f"{at}.children", [child.name for child in one.children], [child.name for child in other.children])
        self._differ(f"{at}.fields", sorted(one.fields), sorted(other.fields))
        for name, value in one.fields.items():
            if name in other.fields:
                self.compare(value, other.fields[name], f"{at}.{name}")
        if isinstance(one, Data):
            self.compare(one.data, other.data, f"{at}.data")
        for child, twin in zip(one.children, other.children, strict=False):
            self.compare(child, twin, f"{at}/{child.name}")

    def _array(self, one: Any, other: Any, at: str) -> None:
        self._differ(f"{at}.shape", one.shape, other.shape)
        if hasattr(one, "maxshape"):
            self._differ(f"{at}.maxshape", one.maxshape, other.maxshape)
        mine, yours = _plain(one[...] if one.shape else one[()]), _plain(other[...] if other.shape else other[()])
        if isinstance(mine, list):
            self.compare(mine, yours, at)
            return
        self.values += 1
        self.elements += int(np.size(mine))
        if mine.dtype.kind != yours.dtype.kind or mine.dtype.itemsize != yours.dtype.itemsize:
            self.differences.append(f"{at}: type {mine.dtype} became {yours.dtype}")
        elif mine.dtype.hasobject:
            self.compare(_elements(mine), _elements(yours), at)
        else:
            self._differ(at, mine.tobytes(), yours.astype(mine.dtype).tobytes())

    def _differ(self, at: str, one: Any, other: Any) -> None:
        self.values += 1
        same = type(one) is type(other) and (one == other or (one != one and other != other))
        if not same:
            words = [f"{type(value).__name__} {str(value)[:80]}" for value in (one, other)]
            self.differences.append(f"{at}: {' became '.join(words)}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else np.asarray(value)


def _elements(array: np.ndarray[Any, Any]) -> list[Any]:
    return [row.item() if isinstance(row, np.void) else row for row in array.flat]


def attribute_differences(one: h5py.Group, other: h5py.Group) -> Iterator[str]:
    """Attributes of every object of two files that are not equal."""
    pairs = [("/", one, other)]
    one.visititems(lambda name, found: pairs.append((name, found, other.get(name))))
    for name, mine, yours in pairs:
        if yours is None:
            yield f"{name}: missing"
            continue
        if sorted(mine.attrs) != sorted(yours.attrs):
            yield f"{name}: attributes {sorted(mine.attrs)} became {sorted(yours.attrs)}"
        for key, value in mine.attrs.items():
            found = yours.attrs.get(key)
            if isinstance(value, h5py.Reference):
                same = isinstance(found, h5py.Reference) and one[value].name == other[found].name
            else:
                same = type(value) is type(found) and np.array_equal(value, found)
            if not same:
                yield f"{name}@{key}: {value!r} became {found!r}"


def object_ids(file: h5py.File) -> frozenset[str]:
    """Identifiers of all objects that have one in the file."""
    found = [file.attrs.get("object_id")]
    file.visititems(lambda _, item: found.append(item.attrs.get("object_id")))
    return frozenset(str(identifier) for identifier in found if identifier is not None)
