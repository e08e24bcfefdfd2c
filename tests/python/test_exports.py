"""Datasets as dask and xarray arrays and polars frames, against h5py; the package's version against the server's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

import files
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


def test_xarray_opens_groups_lazily_and_reads_what_is_selected(
    server: Server, publish: Callable[..., h5flight.Experiment], client: h5flight.Client
) -> None:
    xr = pytest.importorskip("xarray")
    path = Path(server.roots["lab"]) / "grouped.h5"
    rng = np.random.default_rng(files.SEED)
    with h5py.File(path, "w") as file:
        for number in range(2):
            group = file.create_group(f"plane{number}")
            group.attrs["depth"] = 100 * number
            group["time"] = np.linspace(0, 5, 50)
            group["time"].make_scale("time")
            group.create_dataset("movie", data=rng.integers(0, 99, (50, 30, 40), "u2"), chunks=(5, 30, 40))
            group["movie"].dims[0].attach_scale(group["time"])
            group["movie"].attrs["unit"] = "counts"
            group["names"] = ["a", "b", "c"]
    experiment = publish(path)
    with h5py.File(path) as file:
        movie = file["plane1/movie"][...]
        where = f"h5flight://m01/{path.stem}"
        opened = xr.open_dataset(where, engine="h5flight", group="plane1", client=client)
        assert dict(opened.sizes) == {"time": 50, "dim_1": 30, "dim_2": 40, "dim_0": 3}
        assert list(opened.coords) == ["time"]
        assert (opened.attrs["depth"], opened["movie"].attrs["unit"]) == (100, "counts")
        assert opened["names"].values.tolist() == ["a", "b", "c"]
        part = opened["movie"].sel(time=slice(1, 2)).isel(dim_1=[3, 1], dim_2=5)
        np.testing.assert_array_equal(part.values, movie[10:20][:, [3, 1], 5])
        picked = opened["movie"].isel(time=xr.DataArray([0, 4], dims="p"), dim_1=xr.DataArray([2, 9], dims="p"))
        np.testing.assert_array_equal(picked.values, movie[[0, 4], [2, 9]])
        blocks = xr.open_dataset(experiment, engine="h5flight", group="plane1", chunks={})
        assert blocks["movie"].chunks[0] == (5,) * 10
        np.testing.assert_array_equal(blocks["movie"].mean("time").values, movie.mean(axis=0))
        tree = xr.open_datatree(experiment, engine="h5flight")
        np.testing.assert_array_equal(tree["plane0/movie"].values, file["plane0/movie"][...])
