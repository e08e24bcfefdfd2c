"""Selections: what is sent means to numpy what was asked for."""

from __future__ import annotations

import doctest
import random
from types import SimpleNamespace

import numpy as np
import pytest
from counterpart import apply

import h5flight
from h5flight import dataset, selection


def random_axis(rng: random.Random, size: int) -> object:
    kind = rng.choice(["index", "slice", "list", "whole"])
    if kind == "index":
        return rng.randrange(-size, size)
    if kind == "slice":
        ends = [rng.choice([None, rng.randrange(-size - 2, size + 3)]) for _ in range(2)]
        return slice(*ends, rng.choice([None, 1, 2, 3, -1, -2]))
    return slice(None)


def test_random_selections_mean_the_same_to_numpy_after_the_wire(contract: SimpleNamespace) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    cube = np.arange(5**3).reshape(5, 5, 5)
    for _ in range(500):
        key = [random_axis(rng, size) for size in cube.shape[: rng.randrange(4)]]
        if rng.random() < 0.3:
            key.insert(rng.randrange(len(key) + 1), Ellipsis)
        request = contract.data.GetDataRequest.FromString(
            h5flight.wire.GetData("a", "e", "d", selection.parse(tuple(key)).encode()).encode()
        )
        np.testing.assert_array_equal(cube[apply(request, cube.shape)], cube[tuple(key)], err_msg=repr(key))
        labels = selection.positions(selection.parse(tuple(key)), cube.shape)
        assert [len(axis) for axis in labels if axis is not None] == list(cube[tuple(key)].shape), key


class RegionReference:
    """Stands for h5py's, which needs a file."""


REFUSED = [
    (None, "item 0 of the selection: None"),
    ((0, np.newaxis), "item 1 of the selection: None"),
    (1.5, "float 1.5 is not an index"),
    (np.float32(2), "is not an index"),
    (True, "a single boolean"),
    (np.bool_(False), "a single boolean"),
    (np.array(True), "a single boolean"),
    (np.zeros((2, 2), int), "one dimension, not 2"),
    ((0, [[0, 1], [2, 3]]), "item 1 of the selection: a list of indices has one dimension, not 2"),
    ([[0], [1, 2]], "different lengths"),
    ((..., ...), "2 Ellipses"),
    ([0.5], "float 0.5 is not an index"),
    ([1, None], "NoneType None is not an index"),
    ([1, "x"], "str 'x' is not an index"),
    ([True, 1], "a list of booleans and other things"),
    (np.array([]), "not float64"),
    (np.array([0, 1.0]), "not float64"),
    (slice(0, 2.5), "float 2.5 is no bound of a slice"),
    ((0, slice(None, None, "a")), "item 1 of the selection: str 'a' is no bound"),
    (slice(True, None), "bool True is no bound"),
    (1 << 63, "index 9223372036854775808 does not fit"),
    (-(1 << 64), "does not fit"),
    ([0, 1 << 63], "index 9223372036854775808 does not fit"),
    ([-1, 1 << 63], "does not fit"),
    ([0, 1 << 70], "does not fit"),
    (np.array([0, 1 << 63], np.uint64), "item 0 of the selection: index 9223372036854775808 does not fit"),
    ((0, np.eye(3, dtype=bool)), "they take the place of all axes"),
    ((h5flight.Points([[0]]), h5flight.Points([[1]])), "they take the place of all axes"),
    (RegionReference(), "region reference"),
    (object(), "is not an index"),
    ({0, 1}, "is not an index"),
]


@pytest.mark.parametrize(("key", "why"), REFUSED, ids=[repr(key)[:40] for key, _ in REFUSED])
def test_what_selects_nothing_is_refused_before_anything_is_sent(key: object, why: str) -> None:
    with pytest.raises(IndexError) as refused:
        selection.parse(key)
    assert isinstance(refused.value, h5flight.SelectionError)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "points",
    [[1, 2], 5, [[0.5]], [[True, False]], [[0], [1, 2]], [["a"]], [[1 << 63]], np.zeros((1, 1, 1), int)],
    ids=repr,
)
def test_what_are_no_points_is_refused(points: object) -> None:
    with pytest.raises(h5flight.SelectionError, match=r"points|index"):
        h5flight.Points(points)


@pytest.mark.parametrize(
    ("key", "axes"),
    [
        (np.int8(-3), (-3,)),
        (np.uint64(7), (7,)),
        (np.array(4), (4,)),
        (([1, 2], (3, 4), range(2)), ([1, 2], [3, 4], [0, 1])),
        (np.array([255, 0], np.uint8), ([255, 0],)),
        (([], (), np.zeros(0, int)), ([], [], [])),
        (slice(np.int16(1), -(1 << 70), 1 << 70), (slice(1, -(1 << 63), (1 << 63) - 1),)),
    ],
    ids=repr,
)
def test_integers_of_every_kind_are_indices(key: object, axes: tuple[object, ...]) -> None:
    assert selection.parse(key).axes == axes


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("0:100, 5, ::2", np.s_[0:100, 5, ::2]),
        ("..., [1, 5, 7]", np.s_[..., [1, 5, 7]]),
        ("'a, b', 0:10", ("a, b", slice(0, 10))),
        ("-1", -1),
        ("[true, false]", [True, False]),
        ("points[[0, 1], [5, -2]]", h5flight.Points([(0, 1), (5, -2)])),
        ("'x', points [[3, 1]]", ("x", h5flight.Points([(3, 1)]))),
        ("points[]", h5flight.Points([])),
        ("", ()),
    ],
)
def test_numpys_text_is_understood_like_the_selection_itself(words: str, key: object) -> None:
    assert repr(selection.parse_text(words)) == repr(selection.parse(key))


def test_the_examples_in_the_documentation_run() -> None:
    for module in (selection, dataset):
        assert doctest.testmod(module).failed == 0
