"""Datasets as dask and xarray arrays and polars frames, against h5py; the package's version against the server's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

from server import Server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def experiment(server: Server, publish: Callable[..., h5flight.Experiment]) -> h5flight.Experiment:
    path = Path(server.roots["lab"]) / "exports.h5"
    with h5py.File(path, "w") as file:
        movie = np.arange(50 * 301 * 701, dtype="u2").reshape(50, 301, 701)
        file.create_dataset("movie", data=movie, chunks=(7, 100, 701))
        file["trace"] = np.linspace(0, 1, 1000)
        file["scalar"] = 3.5
        file["time"] = np.linspace(0, 5, 50)
        file["time"].make_scale("time")
        file["movie"].dims[0].attach_scale(file["time"])
        file["movie"].dims[1].label = "y"
        file["movie"].attrs["unit"] = "counts"
    return publish(path)


def test_a_dask_array_has_the_values_and_blocks_of_whole_chunks(experiment: h5flight.Experiment) -> None:
    pytest.importorskip("dask.array")
    movie = experiment["movie"]
    lazy, values = movie.to_dask(), movie[...]
    assert lazy.shape == values.shape
    assert lazy.dtype == values.dtype
    assert lazy.npartitions > 1
    assert all(size % 7 == 0 for size in lazy.chunks[0][:-1])
    assert all(size % 100 == 0 for size in lazy.chunks[1][:-1])
    np.testing.assert_array_equal(lazy.compute(scheduler="threads", num_workers=4), values)
    np.testing.assert_array_equal(lazy[3:40:5, [7, 2], ::-1].compute(), values[3:40:5, [7, 2], ::-1])
    assert experiment["scalar"].to_dask().compute() == 3.5


def test_an_xarray_array_has_names_coordinates_and_attributes(experiment: h5flight.Experiment) -> None:
    pytest.importorskip("xarray")
    movie = experiment["movie"]
    found = movie.to_xarray()
    assert found.dims == ("time", "y", "dim_2")
    assert found.chunks is not None, "values are lazy"
    assert found.attrs["unit"] == "counts"
    np.testing.assert_array_equal(found["time"].values, np.linspace(0, 5, 50))
    np.testing.assert_array_equal(found.sel(time=slice(1, 2)).isel(y=3).values, movie[10:20, 3])


def test_numpy_and_polars_have_the_values_of_the_selection(experiment: h5flight.Experiment) -> None:
    pytest.importorskip("polars")
    trace = experiment["trace"]
    wanted = np.linspace(0, 1, 1000)[10:20]
    np.testing.assert_array_equal(trace.to_numpy(slice(10, 20)), wanted)
    assert trace.to_numpy(5).shape == ()
    frame = trace.to_polars(slice(10, 20), layout="columns")
    np.testing.assert_array_equal(frame[frame.columns[-1]].to_numpy(), wanted)


def test_a_missing_library_is_told_with_its_extra(
    experiment: h5flight.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match=r"polars is not installed: pip install 'h5flight\[polars\]'"):
        experiment["trace"].to_polars()


def test_the_package_has_the_version_of_the_server() -> None:
    lines = [
        next(line for line in (ROOT / file).read_text().splitlines() if line.startswith("version = "))
        for file in ("Cargo.toml", "clients/python/pyproject.toml")
    ]
    assert lines == [f'version = "{h5flight.__version__}"'] * 2
