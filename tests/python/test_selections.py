"""Random selections of every kind, on arrays stored in every way, against numpy on what h5py read."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5flight
import h5py
import numpy as np
import pytest

import files
from server import Server

SELECTIONS_EACH = 60
NAMES = ["contiguous", "chunked", "compound", "words", "scalar", "empty", "rank5", "line", "foreign"]


@pytest.fixture(scope="module")
def opened(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> Iterator[tuple[h5flight.Experiment, h5py.File]]:
    path = Path(server.roots["lab"]) / "selections.h5"
    with h5py.File(path, "w") as file:
        file["contiguous"] = files.numbers("<i4", (211, 190))
        cube = files.numbers(">u2", (57, 23, 19))
        file.create_dataset("chunked", data=cube, chunks=(10, 7, 5), compression="gzip", shuffle=True)
        file.create_dataset("compound", data=files.trials((23, 9)), chunks=(5, 4), compression="gzip")
        words = np.array([["", "ΔF/F", "a" * (i % 40)] for i in range(41)], object)
        file.create_dataset("words", data=words, dtype=h5py.string_dtype(), chunks=(7, 2))
        file["scalar"] = np.float64(2.5)
        file["empty"] = np.zeros((4, 0, 3), "<f8")
        file.create_dataset("rank5", data=files.numbers("<f4", (4, 5, 3, 6, 2)), chunks=(3, 2, 3, 4, 1))
        file["line"] = files.numbers("<i8", (3000,))
        file.create_dataset("foreign", data=np.arange(600).reshape(30, 20), chunks=(7, 6), scaleoffset=0)
    with h5py.File(path) as file:
        yield publish(path), file


def random_axis(rng: random.Random, size: int) -> Any:
    kind = rng.choice(["index", "slice", "slice", "list", "mask", "whole"])
    if kind == "index" and size:
        return rng.choice([int, np.int16, np.array])(rng.randrange(-size, size))
    if kind == "slice":
        ends = [rng.choice([None, rng.randrange(-size - 2, size + 3)]) for _ in range(2)]
        return slice(*ends, rng.choice([None, 1, 2, 3, 7, -1, -2, -5, np.int8(4)]))
    if kind == "list" and size:
        indices = [rng.randrange(-size, size) for _ in range(rng.randrange(6))]
        return rng.choice([list, tuple, lambda entries: np.array(entries, np.int32)])(indices)
    if kind == "mask":
        flags = [rng.random() < 0.5 for _ in range(size)]
        return rng.choice([list, lambda entries: np.array(entries, bool)])(flags)
    return slice(None)


def random_key(rng: random.Random, shape: tuple[int, ...]) -> Any:
    """What stands between the brackets: axes, points, or a mask of all axes."""
    kind = rng.choice(["axes", "axes", "axes", "points", "mask"])
    if kind == "points" and shape and 0 not in shape:
        count = rng.choice([0, 1, 5, 300])
        return h5flight.Points([[rng.randrange(-size, size) for size in shape] for _ in range(count)])
    if kind == "mask" and len(shape) > 1:
        return np.random.default_rng(rng.getrandbits(32)).random(shape) < rng.choice([0, 0.01, 0.4, 1])
    key = [random_axis(rng, size) for size in shape[: rng.randrange(len(shape) + 1)]]
    if rng.random() < 0.3:
        at = rng.randrange(len(key) + 1)
        behind = [random_axis(rng, size) for size in shape[len(shape) - len(key) + at :]]
        key[at:] = [Ellipsis, *behind]
    return key[0] if len(key) == 1 and not isinstance(key[0], tuple) else tuple(key)


def select(whole: np.ndarray, key: Any) -> Any:
    """numpy's indexing; several lists select the outer product of their indices."""
    if isinstance(key, h5flight.Points):
        return whole[tuple(key.coordinates.T)] if len(key) else whole.reshape(-1)[:0]
    if isinstance(key, np.ndarray) and key.dtype == bool:
        return whole[key]
    parts = [as_numpy(part) for part in files.parts_of(key)]
    return files.select(whole, tuple(parts), whole.ndim)


def as_numpy(part: Any) -> Any:
    if isinstance(part, (list, tuple)):
        return np.array(part) if part else np.zeros(0, int)
    return int(part) if np.ndim(part) == 0 and not isinstance(part, slice) and part is not Ellipsis else part


@pytest.mark.parametrize("name", NAMES)
def test_random_selections_are_those_of_numpy(opened: tuple[h5flight.Experiment, h5py.File], name: str) -> None:
    experiment, file = opened
    whole, dataset = files.oracle(file[name]), experiment[name]
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(SELECTIONS_EACH):
        key = random_key(rng, whole.shape)
        files.assert_same(dataset[key], select(whole, key), f"{name}[{key!r}], seed {seed}")


def test_members_of_single_elements_are_read_alone_and_together(
    opened: tuple[h5flight.Experiment, h5py.File],
) -> None:
    experiment, file = opened
    whole, dataset = files.oracle(file["compound"]), experiment["compound"]
    points = [(22, 8), (0, 0), (-1, -9), (7, 3)]
    at = tuple(np.array(points).T)
    files.assert_same(dataset.points(points), whole[at])
    files.assert_same(dataset.points(points, "wave"), whole["wave"][at])
    files.assert_same(dataset.points(points, "tag", "id")["tag"], whole["tag"][at])
    mask = whole["id"] % 5 == 2
    files.assert_same(dataset["where", mask], whole["where"][mask])
    table = dataset.to_arrow(h5flight.Points(points), layout="tidy")
    assert table["dim_0"].to_pylist() == [22, 0, 22, 7]
    assert table["dim_1"].to_pylist() == [8, 0, 0, 3]
    assert table["id"].to_pylist() == whole["id"][at].tolist()


def test_text_says_points_like_python_does(
    opened: tuple[h5flight.Experiment, h5py.File], server: Server, tmp_path: Path
) -> None:
    experiment, file = opened
    text = "points[[0, 1], [-1, 5], [100, 0], [0, 1]]"
    frame = experiment.client.get_data(experiment.animal, experiment.name, "contiguous", text)
    expected = file["contiguous"][...][[0, -1, 100, 0], [1, 5, 0, 1]]
    np.testing.assert_array_equal(frame["value"], expected)
    assert frame.index.tolist() == [(0, 1), (210, 5), (100, 0), (0, 1)]
    saved = tmp_path / "points.npy"
    said = server.command("get", experiment.animal, experiment.name, "contiguous", text, "-o", str(saved))
    assert said.returncode == 0, said.stderr
    np.testing.assert_array_equal(np.load(saved), expected)


@pytest.mark.parametrize(
    ("name", "key", "why"),
    [
        ("contiguous", (0, 190), "index 190 is out of bounds for axis 1 of size 190"),
        ("contiguous", [0, -212], "index -212 is out of bounds for axis 0 of size 211"),
        (
            "contiguous",
            h5flight.Points([(0, 0), (0, 190)]),
            "point 1: index 190 is out of bounds for axis 1 of size 190",
        ),
        ("contiguous", h5flight.Points([(0, 0, 0)]), "points of 3 coordinates for an array of rank 2"),
        ("contiguous", np.zeros((211, 189), bool), "a mask of shape [211, 189] for an array of shape [211, 190]"),
        ("chunked", np.ones((57, 23), bool), "a mask of shape [57, 23] for an array of shape [57, 23, 19]"),
        ("contiguous", np.zeros(5, bool), "a mask of 5 values for axis 0 of size 211"),
        ("contiguous", (0, 0, 0), "3 indices for an array of rank 2"),
        ("scalar", 0, "1 indices for an array of rank 0"),
        ("empty", (0, 0), "index 0 is out of bounds for axis 1 of size 0"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_does_not_fit_is_an_index_error_with_its_numbers(
    opened: tuple[h5flight.Experiment, h5py.File], name: str, key: Any, why: str
) -> None:
    with pytest.raises(IndexError) as refused:
        opened[0][name][key]
    assert why in str(refused.value)


def test_650_000_points_and_as_many_indices_are_read_in_seconds(opened: tuple[h5flight.Experiment, h5py.File]) -> None:
    experiment, file = opened
    whole = file["chunked"][...]
    rng = np.random.default_rng(files.SEED)
    points = np.stack([rng.integers(0, size, 650_000) for size in whole.shape], axis=1)
    files.assert_same(experiment["chunked"].points(points), whole[tuple(points.T)].astype("u2"))
    indices = rng.integers(0, 3000, 650_000)
    files.assert_same(experiment["line"][indices], file["line"][...][indices])
