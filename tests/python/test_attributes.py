"""Attributes of every type, shape and name, on every kind of object, against h5py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

import attribute_files
import corpus
from server import Server

Pair = tuple[h5flight.Experiment, h5py.File]


@pytest.fixture(scope="module")
def attributes(server: Server, publish: Callable[..., h5flight.Experiment]) -> Iterator[Pair]:
    path = Path(server.roots["lab"]) / "every_attribute.h5"
    attribute_files.write(path)
    with h5py.File(path) as file:
        yield publish(path), file


def check_all(found: h5flight.Attributes, at: h5py.HLObject) -> tuple[int, list[str]]:
    """Compare all attributes of an object; gives how many are equal, and the rest with reasons."""
    names = attribute_files.names(at)
    equal, not_compared = 0, []
    for name in names:
        shown = attribute_files.shown(name)
        try:
            attribute_files.check(found[shown], at, name)
        except attribute_files.NotComparedError as why:
            not_compared.append(f"{at.name}@{shown}: {why}")
        except (AssertionError, KeyError) as error:
            raise AssertionError(f"{at.name}@{shown}: {error}") from error
        else:
            equal += 1
    assert len(found) == len(names)
    return equal, not_compared


@pytest.mark.parametrize("path", ["", "group", "dataset", "named/type", "many", "of_colour", "named/point"])
def test_every_attribute_of_an_object_is_what_h5py_reads(attributes: Pair, path: str) -> None:
    experiment, file = attributes
    at = file[path or "/"]
    names = attribute_files.names(at)
    collision = b"\xff" in names
    found = experiment.group(path).attrs
    if collision:
        # Its escaped form is the name of another attribute: a NUL, which no name has, tells them apart.
        assert found.pop("%FF%00") == attribute_files.STRANGE_NAMES.index(b"\xff")
        assert found["%FF"] == attribute_files.STRANGE_NAMES.index(b"%FF")
        names.remove(b"\xff")
    for name in names:
        shown = attribute_files.shown(name)
        try:
            attribute_files.check(found[shown], at, name)
        except AssertionError as error:
            raise AssertionError(f"{path}@{shown}: {error}") from error
    assert len(found) == len(names)


def test_a_dataset_and_its_group_give_the_same_attributes(attributes: Pair) -> None:
    experiment, _ = attributes
    assert repr(experiment["dataset"].attrs) == repr(experiment.group("dataset").attrs)
    assert isinstance(experiment.group()["dataset"], h5flight.Dataset)
    assert experiment.attrs.keys() == experiment.group("group").attrs.keys() - {
        "of_colour", "of_colour_one", "of_point", "of_point_one"
    }  # fmt: skip


def test_the_names_of_an_enum_and_the_type_of_nothing_are_told(attributes: Pair) -> None:
    attrs = attributes[0].attrs
    assert attrs.dtype("enum").metadata["enum"] == {"red": -3, "green": 7, "blue": 100}
    assert attrs["enums"].dtype.metadata["enum"] == {"low": 0, "high": 70_000}
    assert attrs["null"] is None
    assert (attrs.dtype("null"), attrs.dtype("text")) == (np.dtype("f4"), np.dtype(object))
    with pytest.raises(KeyError):
        attrs.dtype("nothing of this name")


def test_large_and_many_attributes_of_the_newest_format_are_read(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    path = Path(server.roots["lab"]) / "dense.h5"
    attribute_files.write_dense(path)
    experiment = publish(path)
    with h5py.File(path) as file:
        equal, not_compared = check_all(experiment["data"].attrs, file["data"])
    assert (equal, not_compared) == (502, ["/data@too_large: left out, 3125 KiB"])
    assert experiment["data"].attrs.dtype("too_large") == np.float64


def test_attributes_of_the_corpus_are_what_h5py_reads(start: Callable[..., Server], say: Callable[[str], None]) -> None:
    folder = corpus.find()
    if folder is None:
        reason = "ATTRIBUTES OF THE CORPUS WERE NOT READ: set H5FLIGHT_CORPUS to its folder"
        say(reason)
        pytest.skip(reason)
    server = start({"corpus": folder})
    server.expect(r"worker|quarantine")
    seen: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    wrong: list[str] = []
    with h5flight.connect(server.url, timeout_s=120) as client:
        for name in [file.name for file in corpus.load(folder) if file.group in ("neuro", "general")]:
            (report,) = client.register(f"corpus:{name}", animal="corpus", experiment=name)
            if report["publication"] is None:
                seen["refused files"] += 1
                continue
            seen["files"] += 1
            with h5py.File(folder / name) as file:
                check_file(client["corpus"][name], file, (seen, reasons, wrong))
    told = ", ".join(f"{count} {why}" for why, count in reasons.most_common())
    say(
        f"attributes of the corpus: {seen['equal']} equal to h5py's, {len(wrong)} differ, not compared: {told or 0}; "
        f"{seen['objects']} objects in {seen['files']} files ({seen['refused files']} refused)"
    )
    assert not wrong, "\n".join(wrong[:30])
    assert seen["equal"] > 1000


def check_file(
    experiment: h5flight.Experiment, file: h5py.File, found: tuple[Counter[str], Counter[str], list[str]]
) -> None:
    """Compare the attributes of all objects of a file."""
    seen, reasons, wrong = found
    for path, at in attribute_files.objects_of(file):
        seen["objects"] += 1
        components = [attribute_files.escaped(part) for part in path.split(b"/") if part not in (b"", b".")]
        ours = experiment.group("/".join(components)).attrs
        try:
            equal, not_compared = check_all(ours, at)
        except AssertionError as error:
            wrong.append(f"{experiment.name} {error}"[:400])
            continue
        seen["equal"] += equal
        reasons.update(text.split(": ", 1)[1].split(",")[0] for text in not_compared)
