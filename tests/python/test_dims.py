"""What the axes of datasets mean: dimension scales and labels, against h5py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import h5flight
import h5py
import pytest

import attribute_files
import corpus
import name_files
from server import Server

Pair = tuple[h5flight.Experiment, h5py.File]


@pytest.fixture(scope="module")
def scales(server: Server, publish: Callable[..., h5flight.Experiment]) -> Iterator[Pair]:
    path = Path(server.roots["lab"]) / "scales.h5"
    name_files.write_scales(path)
    with h5py.File(path) as file:
        yield publish(path), file


def check(found: h5flight.Dataset, at: h5py.Dataset) -> None:
    """Compare labels, scales in their order, and sizes of all axes."""
    dims = found.dims
    assert [dim.label for dim in dims] == [dim.label for dim in at.dims], at.name
    assert [dim.size for dim in dims] == list(at.shape or ())
    for ours, theirs in zip(dims, at.dims, strict=True):
        attached = [h5py.h5o.get_info(scale.id).addr for scale in theirs.values()]
        named = [h5py.h5o.get_info(at.file[attribute_files.raw_path(scale.name)].id).addr for scale in ours.scales]
        assert named == attached, f"{at.name}: {[scale.name for scale in ours.scales]}"


@pytest.mark.parametrize("path", ["grid/movie", "labelled", "plain", "scalar", "time", "grid/n", "alias"])
def test_axes_are_described_as_h5py_describes_them(scales: Pair, path: str) -> None:
    check(scales[0][path], scales[1][path])


def test_the_coordinates_of_an_axis_are_those_of_the_first_scale_with_values(scales: Pair) -> None:
    experiment, file = scales
    movie = experiment["grid/movie"]
    names = [dim.coordinate.name if dim.coordinate else None for dim in movie.dims]
    assert names == ["time", "grid/x", None]
    assert movie.dims[0][1].name == "frame"
    assert len(movie.dims[0]) == 2
    assert movie.dims[1].coordinate is not None
    assert movie.dims[1].coordinate[...].tolist() == file["grid/x"][...].tolist()
    (time,) = experiment["time"].dims
    assert time.coordinate is not None
    assert (time.coordinate.name, time.scales) == ("time", [])
    row, letter = experiment["netcdf/row"].dims
    assert [scale.name for scale in letter.scales] == ["netcdf/letter"]
    assert row.coordinate is not None
    assert row.coordinate.name == "netcdf/row"


def test_a_result_tells_the_meaning_of_the_axes_that_are_left(scales: Pair) -> None:
    experiment, _ = scales
    told = json.loads(experiment["grid/movie"].to_arrow("0, :, 1:").schema.metadata[b"h5flight.dims"])
    assert told == [
        {"label": "", "scales": ["grid/x"], "coordinate": "grid/x"},
        {"label": "colour ß", "scales": ["grid/n"], "coordinate": None},
    ]
    assert b"h5flight.dims" not in experiment["plain"].to_arrow().schema.metadata


def test_axes_are_shown_to_people(scales: Pair, server: Server) -> None:
    shown = server.command("ls", "m01", scales[0].name, "grid/movie").stdout
    assert "0 time, 4: coordinates time; scales time, frame" in shown


def test_axes_of_the_corpus_are_described_as_h5py_describes_them(
    start: Callable[..., Server], say: Callable[[str], None]
) -> None:
    folder = corpus.find()
    if folder is None:
        reason = "AXES OF THE CORPUS WERE NOT READ: set H5FLIGHT_CORPUS to its folder"
        say(reason)
        pytest.skip(reason)
    server = start({"corpus": folder})
    server.expect(r"worker|quarantine")
    datasets = attached = 0
    with h5flight.connect(server.url, timeout_s=120) as client:
        for name in [file.name for file in corpus.load(folder) if file.group in ("neuro", "general")]:
            with h5py.File(folder / name) as file:
                named = [at for _, at in attribute_files.objects_of(file) if is_said(at)]
                if not named:
                    continue
                (report,) = client.register(f"corpus:{name}", animal="corpus", experiment=name)
                assert report["publication"] is not None, report
                for at in named:
                    path = "/".join(attribute_files.escaped(part.encode()) for part in at.name.strip("/").split("/"))
                    check(client["corpus"][name][path], at)
                    datasets += 1
                    attached += sum(len(dim) for dim in at.dims)
    say(f"axes of the corpus: {datasets} datasets with {attached} attached scales, all as h5py has them")
    assert attached > 10


def is_said(at: h5py.HLObject) -> bool:
    return isinstance(at, h5py.Dataset) and any(name in at.attrs for name in ("DIMENSION_LIST", "DIMENSION_LABELS"))
