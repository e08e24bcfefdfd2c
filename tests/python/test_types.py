"""Every element type, by every kind of selection, against h5py and numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

import files
from server import Server

Pair = tuple[h5flight.Experiment, h5py.File]


@pytest.fixture(scope="module")
def types(server: Server, publish: Callable[..., h5flight.Experiment]) -> Iterator[Pair]:
    path = Path(server.roots["lab"]) / "types.h5"
    files.write_types(path)
    with h5py.File(path) as file:
        yield publish(path), file


@pytest.mark.parametrize("name", files.names_of(files.write_types))
def test_every_type_is_read_as_h5py_reads_it(types: Pair, name: str) -> None:
    experiment, file = types
    whole, dataset = files.oracle(file[name]), experiment[name]
    rank = len(file[name].shape)
    assert dataset.shape == file[name].shape
    assert dataset.dtype.base == (whole.dtype if not whole.dtype.names else dataset.dtype)
    for key in files.keys(file[name].shape):
        found, expected = dataset[key], files.select(whole, key, rank)
        files.assert_same(found, expected, f"{name}[{key!r}]")
        wants_array = np.ndim(expected) > 0 or any(part is Ellipsis for part in files.parts_of(key))
        # A sequence is an array, also when it is a single value.
        assert name.startswith("vlen") or isinstance(found, np.ndarray) is wants_array, f"{name}[{key!r}]"


def test_members_of_a_compound_are_read_alone_and_together(types: Pair) -> None:
    experiment, file = types
    whole, dataset = files.oracle(file["compound/line"]), experiment["compound/line"]
    files.assert_same(dataset["wave"], whole["wave"])
    files.assert_same(dataset["tag", 2:5], whole["tag"][2:5])
    files.assert_same(dataset["where", -1], whole["where"][-1])
    two = dataset[["phase", "id"], ::2]
    assert two.dtype.names == ("phase", "id")
    files.assert_same(two["phase"], whole["phase"][::2])
    files.assert_same(experiment["compound/value"][...], files.oracle(file["compound/value"]))
    files.assert_same(experiment["compound/value"]["value"], file["compound/value"]["value"])
    with pytest.raises(h5flight.SelectionError, match="no field"):
        dataset["nothing"]


def test_a_mask_of_the_datasets_shape_selects_single_elements(types: Pair) -> None:
    experiment, file = types
    whole = file["number/cube"][...]
    mask = whole > 0.3
    files.assert_same(experiment["number/cube"][mask], whole[mask])


def test_a_null_dataspace_says_that_it_has_no_value(types: Pair) -> None:
    experiment, _ = types
    with pytest.raises(h5flight.H5FlightError) as caught:
        experiment["null/float"][...]
    assert caught.value.reason == "null_dataspace"
    assert "no value" in repr(experiment["null/float"])


def test_times_are_the_numbers_they_are_stored_as(server: Server, publish: Callable[..., h5flight.Experiment]) -> None:
    # h5py has no numpy type for them.
    path = Path(server.roots["lab"]) / "times.h5"
    with h5py.File(path, "w") as file:
        files.low(file, "short", h5py.h5t.UNIX_D32LE, np.array([1, -2, 1_700_000_000], "<i4"))
        files.low(file, "long", h5py.h5t.UNIX_D64BE, np.array([[1, -(2**40)]], ">i8"))
    experiment = publish(path)
    files.assert_same(experiment["short"][...], np.array([1, -2, 1_700_000_000], "i4"))
    files.assert_same(experiment["long"][...], np.array([[1, -(2**40)]], "i8"))


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_records_beside_texts_are_read(
    server: Server, publish: Callable[..., h5flight.Experiment], shape: tuple[int, ...]
) -> None:
    """A member of fixed size, made of members itself, in an element that has none."""
    point = np.dtype([("x", "<f8"), ("n", "<i2"), ("tag", "S3")])
    kind = np.dtype([("point", point), ("name", h5py.string_dtype()), ("swapped", [("y", ">f4")])])
    path = Path(server.roots["lab"]) / f"records-{len(shape)}.h5"
    values = np.zeros(shape, kind)
    for at in np.ndindex(shape):
        number = sum(at)
        values[at] = ((number + 0.5, -number, f"t{number}".encode()), f"n{number}é", (number * 2,))
    with h5py.File(path, "w") as file:
        file["records"] = values
        # All of fixed size, and numpy keeps one member otherwise.
        file["numbers"] = np.ones(shape, [("point", point), ("swapped", [("y", ">f4")])])
    experiment = publish(path)
    with h5py.File(path) as file:
        expected = files.oracle(file["records"])
    files.assert_same(experiment["records"][...], expected, "records")
    point = experiment["records"]["point"]
    for member in ("x", "n", "tag"):
        np.testing.assert_array_equal(point[member], expected["point"][member])
    with h5py.File(path) as file:
        files.assert_same(experiment["numbers"][...], files.oracle(file["numbers"]), "numbers")
    np.testing.assert_array_equal(experiment["numbers"]["point"]["x"], np.ones(shape))


def test_texts_of_rank_32_are_read(server: Server, publish: Callable[..., h5flight.Experiment]) -> None:
    # h5py's own libhdf5 divides by zero over these: it needs one axis more than it has room for.
    path = Path(server.roots["lab"]) / "rank.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("texts", (1,) * 31 + (2,), h5py.string_dtype())
    files.assert_same(publish(path)["texts"][...], np.array(["", ""], object).reshape((1,) * 31 + (2,)))


def test_complex_numbers_of_halves_are_delivered_as_float32(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    # numpy has no such type, so neither has h5py.
    path = Path(server.roots["lab"]) / "halves.h5"
    stored = np.array([1, -2, 0.5, 65504], "<f2")
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((2,))
        kind = h5py.h5t.COMPLEX_IEEE_F16LE
        contiguous = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        contiguous.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        dataset = h5py.h5d.create(file.id, b"halves", kind, space, contiguous)
        offset = dataset.get_offset()
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(stored.tobytes())
    files.assert_same(publish(path)["halves"][...], stored.astype("f4").view("c8"))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (17, "out_of_bounds"),
        (-18, "out_of_bounds"),
        ([0, 17], "out_of_bounds"),
        (np.zeros(3, bool), "bad_selection"),
        ((0, 0), "bad_selection"),
        (slice(None, None, 0), "bad_selection"),
        ("field", "bad_selection"),
    ],
    ids=str,
)
def test_a_selection_that_does_not_fit_is_an_index_error_with_its_reason(types: Pair, key: object, reason: str) -> None:
    with pytest.raises(IndexError) as caught:
        types[0]["number/line"][key]
    assert isinstance(caught.value, h5flight.SelectionError)
    assert caught.value.reason == reason
    assert not str(caught.value)[0].isupper()
