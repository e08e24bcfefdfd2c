"""Random selections of random arrays against numpy: what hypothesis finds wrong is made as small as it can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5flight
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import files
from server import Server

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]] = {
    "line": ((97,), (10,)),
    "plane": ((31, 23), (7, 5)),
    "flat": ((31, 23), None),
    "cube": ((9, 8, 7), (2, 8, 3)),
    "four": ((5, 4, 3, 6), (5, 1, 2, 6)),
}

FIXED = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""The same examples in every run, so that CI does not fail at random."""


@pytest.fixture(scope="module")
def arrays(server: Server, publish: Callable[..., h5flight.Experiment]) -> dict[str, tuple[Any, np.ndarray]]:
    path = Path(server.roots["lab"]) / "random.h5"
    rng = np.random.default_rng(files.SEED)
    values = {name: rng.integers(-99, 99, shape, "i4") for name, (shape, _) in SHAPES.items()}
    with h5py.File(path, "w") as file:
        for name, (_, chunks) in SHAPES.items():
            packed = {"compression": "gzip"} if chunks else {}
            file.create_dataset(name, data=values[name], chunks=chunks, **packed)
    experiment = publish(path)
    with h5py.File(path) as file:
        return {name: (experiment[name], file[name][...]) for name in SHAPES}


def bounds(size: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(-2 * size, 2 * size)


def axes(size: int) -> st.SearchStrategy[Any]:
    """What may stand for one axis."""
    steps = st.none() | st.integers(1, size + 1) | st.integers(-size - 1, -1)
    lists = st.lists(st.integers(-size, size - 1), max_size=6)
    masks = st.lists(st.booleans(), min_size=size, max_size=size).map(lambda flags: np.array(flags))
    return st.integers(-size, size - 1) | st.builds(slice, bounds(size), bounds(size), steps) | lists | masks


@st.composite
def selections(draw: st.DrawFn) -> tuple[str, tuple[Any, ...]]:
    """An array, and a selection of it: some of its axes, perhaps an Ellipsis between them."""
    name = draw(st.sampled_from(sorted(SHAPES)))
    shape = SHAPES[name][0]
    named = draw(st.integers(0, len(shape)))
    front = draw(st.integers(0, named))
    first = [draw(axes(size)) for size in shape[:front]]
    if named == len(shape) or draw(st.booleans()):
        last = [draw(axes(size)) for size in shape[len(shape) - (named - front) :]] if named > front else []
        return name, (*first, Ellipsis, *last)
    return name, tuple(first)


def by_numpy(values: np.ndarray, key: tuple[Any, ...]) -> np.ndarray:
    """h5py's meaning of a selection: every axis for itself, so that several lists are an outer product."""
    at = next((at for at, part in enumerate(key) if part is Ellipsis), len(key))
    rest = key[at + 1 :]
    full = [*key[:at], *[slice(None)] * (values.ndim - at - len(rest)), *rest]
    for axis in reversed(range(values.ndim)):
        part = np.array(full[axis], int) if isinstance(full[axis], list) else full[axis]
        values = values[(slice(None),) * axis + (part,)]
    return values


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=selections())
def test_a_selection_is_what_numpy_says(
    arrays: dict[str, tuple[Any, np.ndarray]], asked: tuple[str, tuple[Any, ...]]
) -> None:
    name, key = asked
    dataset, values = arrays[name]
    wanted = by_numpy(values, key)
    found = dataset[key]
    assert np.shape(found) == wanted.shape
    np.testing.assert_array_equal(found, wanted)
    assert np.asarray(found).dtype == values.dtype


@settings(FIXED, max_examples=60)
@given(asked=selections())
def test_a_frame_has_the_values_of_the_selection(
    arrays: dict[str, tuple[Any, np.ndarray]], asked: tuple[str, tuple[Any, ...]]
) -> None:
    name, key = asked
    dataset, values = arrays[name]
    wanted = by_numpy(values, key)
    frame = dataset.to_pandas(key)
    np.testing.assert_array_equal(frame.to_numpy().reshape(wanted.shape), wanted)
    np.testing.assert_array_equal(dataset.to_numpy(key), wanted)


@settings(FIXED, max_examples=60)
@given(data=st.data())
def test_single_elements_are_what_numpy_says(arrays: dict[str, tuple[Any, np.ndarray]], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SHAPES)))
    dataset, values = arrays[name]
    coordinates = st.tuples(*(st.integers(-size, size - 1) for size in values.shape))
    points = data.draw(st.lists(coordinates, max_size=20))
    picked = np.array(points, int).reshape(-1, values.ndim)
    np.testing.assert_array_equal(dataset.points(picked), values[tuple(picked.T)])
    mask = np.zeros(values.shape, bool)
    mask[tuple(picked.T)] = True
    np.testing.assert_array_equal(dataset[mask], values[mask])
