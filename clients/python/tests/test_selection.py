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
        np.testing.assert_array_equal(cube[apply(request)], cube[tuple(key)], err_msg=repr(key))
        labels = selection.positions(selection.parse(tuple(key)), cube.shape)
        assert [len(axis) for axis in labels if axis is not None] == list(cube[tuple(key)].shape), key


@pytest.mark.parametrize("key", [None, 1.5, True, np.zeros((2, 2), int), (..., ...), [0.5], object()], ids=repr)
def test_what_selects_nothing_is_refused_before_anything_is_sent(key: object) -> None:
    with pytest.raises(h5flight.SelectionError):
        selection.parse(key)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("0:100, 5, ::2", np.s_[0:100, 5, ::2]),
        ("..., [1, 5, 7]", np.s_[..., [1, 5, 7]]),
        ("'a, b', 0:10", ("a, b", slice(0, 10))),
        ("-1", -1),
        ("", ()),
    ],
)
def test_numpys_text_is_understood_like_the_selection_itself(words: str, key: object) -> None:
    assert selection.parse_text(words) == selection.parse(key)


def test_the_examples_in_the_documentation_run() -> None:
    for module in (selection, dataset):
        assert doctest.testmod(module).failed == 0
