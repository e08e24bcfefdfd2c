"""Files as the libraries of the field write them, read back equal to what those libraries give.

Two oracles: h5py for every dataset of every file, and the writing library's own reader where it has one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5flight
import h5py
import hdf5plugin
import numpy as np
import pytest

import files
from server import Server

RNG_SEED = 20250911
Publish = Callable[..., h5flight.Experiment]


def noise(shape: tuple[int, ...], dtype: str = "<i4") -> np.ndarray:
    return np.random.default_rng(RNG_SEED).integers(0, 1000, shape).astype(dtype)


def check(path: Path, experiment: h5flight.Experiment) -> int:
    """Compare every dataset of a file with h5py, whole and in a part; gives their number."""
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in found:
            if file[name].shape is None:
                with pytest.raises(h5flight.H5FlightError, match="null dataspace"):
                    experiment[name][...]
                continue
            whole, rank = files.oracle(file[name]), len(file[name].shape)
            files.assert_same(experiment[name][...], whole, name)
            if rank and file[name].shape[0] > 1:
                key = slice(1, None, 2)
                files.assert_same(experiment[name][key], files.select(whole, key, rank), f"{name}[1::2]")
    return len(found)


def low_level(file: h5py.File, name: str, values: np.ndarray, **properties: Any) -> None:
    """Write a dataset with creation properties that h5py has no words for."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    for setter, value in properties.items():
        getattr(creation, f"set_{setter}")(value)
    kind, space = h5py.h5t.py_create(values.dtype, logical=True), h5py.h5s.create_simple(values.shape)
    h5py.h5d.create(file.id, name.encode(), kind, space, creation).write(h5py.h5s.ALL, h5py.h5s.ALL, values)


def write_indexes(file: h5py.File) -> None:
    """All kinds of chunk index, small and large enough for each to have inner nodes or pages, with partial edges."""
    for name, rows in {"small": 11, "large": 6001}.items():
        values = noise((rows, 5))
        grown = {"fixed": None, "one": (None, 5), "two": (None, None)}
        for (kind, limit), packed in itertools.product(grown.items(), (None, "gzip")):
            where = f"{name}/{kind}_{packed or 'plain'}"
            file.create_dataset(where, data=values, chunks=(2, 3), maxshape=limit, compression=packed)
    file.create_dataset("single/plain", data=noise((7, 5)), chunks=(7, 5))
    file.create_dataset("single/gzip", data=noise((7, 5)), chunks=(7, 5), compression="gzip", fletcher32=True)
    file.create_dataset("single/edge", data=noise((3, 5)), chunks=(4, 5), maxshape=(4, 5))
    low_level(file, "implicit", noise((11, 5)), chunk=(2, 3), alloc_time=h5py.h5d.ALLOC_TIME_EARLY)
    low_level(file, "compact", noise((11, 5)), layout=h5py.h5d.COMPACT)
    low_level(file, "early", noise((11, 5)), alloc_time=h5py.h5d.ALLOC_TIME_EARLY)
    shrunk = file.create_dataset("shrunk", data=noise((40, 30)), chunks=(7, 7), maxshape=(None, None))
    shrunk.resize((9, 8))
    shrunk.resize((20, 20))


def write_unwritten(file: h5py.File) -> None:
    """Nothing is ever written to these: each value is the fill value, given or not."""
    fills = {
        "i2": np.int16(-7),
        ">u4": np.uint32(9),
        "f2": np.float16(0.5),
        ">f8": np.float64(np.nan),
        "?": np.True_,
        "c8": np.complex64(1 - 2j),
        "S4": np.bytes_(b"ab"),
        "V3": np.void(b"\1\2\3"),
        files.POINT: np.array((5, 2.5), files.POINT),
        np.dtype(("<i4", (2,))): None,
        files.COLOUR: np.int8(7),
        h5py.string_dtype(): "none",
        h5py.string_dtype("ascii", 6): np.bytes_(b"fixed"),
        h5py.vlen_dtype("<i4"): None,
        h5py.ref_dtype: None,
    }
    layouts = {"contiguous": {}, "chunked": {"chunks": (4,)}, "gzip": {"chunks": (4,), "compression": "gzip"}}
    for (number, (dtype, fill)), (layout, options) in itertools.product(enumerate(fills.items()), layouts.items()):
        file.create_dataset(f"{layout}/default_{number}", (9,), dtype, **options)
        if fill is not None:
            file.create_dataset(f"{layout}/given_{number}", (9,), dtype, fillvalue=fill, **options)


def write_order(file: h5py.File) -> None:
    """Links and attributes in the order of their creation, dense and compact."""
    for count in (3, 60):
        group = file.create_group(f"many{count}", track_order=True)
        for i in range(count):
            group.create_dataset(f"d{(i * 7) % count:03}", data=noise((5,)) + i, track_order=True).attrs["i"] = i


WRITERS = {"indexes": write_indexes, "unwritten": write_unwritten, "order": write_order, "types": files.write_types}


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "v112", "v114", "latest"])
@pytest.mark.parametrize("name", WRITERS)
def test_files_of_every_format_version(server: Server, publish: Publish, name: str, libver: str) -> None:
    path = Path(server.roots["lab"]) / f"{name}-{libver}.h5"
    if WRITERS[name] is files.write_types:
        memory = Path(path)
        files.write_types(memory)
        with h5py.File(path.with_suffix(".copy"), "w", libver=libver) as copy, h5py.File(memory) as source:
            for key in source:
                source.copy(key, copy)
        path.with_suffix(".copy").rename(path)
    else:
        with h5py.File(path, "w", libver=libver) as file:
            WRITERS[name](file)
    assert check(path, publish(path)) > 5


@pytest.mark.parametrize("bytes_before", [512, 1024, 65536])
def test_files_behind_a_user_block(server: Server, publish: Publish, bytes_before: int) -> None:
    path = Path(server.roots["lab"]) / f"block-{bytes_before}.h5"
    with h5py.File(path, "w", userblock_size=bytes_before) as file:
        write_indexes(file)
        file["text"] = ["a", "b"]
    with path.open("r+b") as raw:
        raw.write(b"anything may stand here")
    assert check(path, publish(path)) > 5


def test_a_file_that_was_written_for_readers_beside_the_writer(server: Server, publish: Publish) -> None:
    path = Path(server.roots["lab"]) / "swmr.h5"
    with h5py.File(path, "w", libver="latest") as file:
        plain = file.create_dataset("plain", (0, 4), "<f4", chunks=(8, 4), maxshape=(None, 4))
        packed = file.create_dataset("packed", (0, 4), "<f4", chunks=(8, 4), maxshape=(None, 4), compression="gzip")
        file.swmr_mode = True
        for start in range(0, 100, 10):
            for dataset in (plain, packed):
                dataset.resize(start + 10, axis=0)
                dataset[start:] = noise((10, 4), "<f4") + start
                dataset.flush()
    assert check(path, publish(path)) == 2


PLUGINS: dict[str, Any] = {
    "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
    "bitshuffle_lz4": hdf5plugin.Bitshuffle(cname="lz4"),
    "bitshuffle_zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "blosc_lz4": hdf5plugin.Blosc(cname="lz4"),
    "blosc_zstd": hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE),
    "blosc2": hdf5plugin.Blosc2(cname="zstd"),
    "bzip2": hdf5plugin.BZip2(),
    "lz4": hdf5plugin.LZ4(),
    "zstd": hdf5plugin.Zstd(),
}


def test_plugin_filters_are_decoded_or_refused_by_name(server: Server, publish: Publish) -> None:
    path = Path(server.roots["lab"]) / "plugins.h5"
    values = noise((103, 31), ">i4").cumsum(axis=0).astype(">i4")
    with h5py.File(path, "w") as file:
        for name, options in PLUGINS.items():
            file.create_dataset(name, data=values, chunks=(20, 31), **options)
    experiment = publish(path)
    for name in PLUGINS:
        try:
            files.assert_same(experiment[name][...], values.astype("=i4"), name)
        except h5flight.H5FlightError as error:
            # Which ones are decoded is told, and tested, in docs/support.md.
            assert error.reason == "unsupported_filter", name


def test_pytables_tables_and_arrays(server: Server, publish: Publish) -> None:
    tables = pytest.importorskip("tables")
    path = Path(server.roots["lab"]) / "pytables.h5"
    row = np.dtype([("id", "i8"), ("name", "S9"), ("xyz", "f4", (3,)), ("ok", "?"), ("z", "c16")])
    rows = np.zeros(300, row)
    rows["id"], rows["xyz"], rows["ok"] = np.arange(300), noise((300, 3)), np.arange(300) % 2
    rows["name"], rows["z"] = [f"r{i}".encode() for i in range(300)], np.arange(300) * 1j
    filters = {"zlib": tables.Filters(5, "zlib", fletcher32=True), "none": None}
    with tables.open_file(str(path), "w") as file:
        for name, packed in filters.items():
            file.create_table("/", f"table_{name}", rows, filters=packed).flush()
            grown = file.create_earray("/", f"earray_{name}", tables.Int16Atom(), (0, 7), filters=packed)
            for _ in range(5):
                grown.append(noise((11, 7), "<i2"))
        file.create_array("/", "array", noise((6, 5, 4)))
        file.create_carray("/", "carray", obj=noise((60, 50)), filters=filters["zlib"])
        ragged = file.create_vlarray("/", "vlarray", tables.Float64Atom())
        text = file.create_vlarray("/", "text", tables.VLUnicodeAtom())
        for n in (3, 0, 2):
            ragged.append(np.arange(n))
            text.append("ä" * n)
        file.create_group("/", "colours")
        file.create_array("/colours", "words", [b"a", b"bcd"])
        table = file.create_table("/", "indexed", rows[["id"]])
        table.cols.id.create_index()
    experiment = publish(path)
    assert check(path, experiment) > 10
    with tables.open_file(str(path)) as file:
        read = file.root.table_zlib.read()
        for name in ("id", "xyz", "z"):
            files.assert_same(experiment["table_zlib"][name], read[name], name)
        # PyTables stores its booleans as bit fields of a byte.
        np.testing.assert_array_equal(np.asarray(experiment["table_zlib"]["ok"]).astype(bool), read["ok"])
        files.assert_same(experiment["table_zlib"]["name"], read["name"])
        files.assert_same(experiment["earray_zlib"][...], file.root.earray_zlib.read())
        for found, expected in zip(experiment["vlarray"][...], file.root.vlarray.read(), strict=True):
            np.testing.assert_array_equal(found, expected)


def write_recording(path: Path) -> None:
    """A session with a table of electrodes, ragged spike times, references and texts."""
    from pynwb import NWBHDF5IO, NWBFile, TimeSeries
    from pynwb.ecephys import ElectricalSeries
    from pynwb.file import Subject

    start = datetime(2024, 5, 6, 7, tzinfo=UTC)
    session = NWBFile("ä session", "id-1", start, experimenter=["A, B", "C, D"], keywords=["one", "two"])
    session.subject = Subject(subject_id="w01", species="Mus musculus", age="P90D")
    device = session.create_device("probe")
    group = session.create_electrode_group("shank", "the only one", "CA1", device)
    session.add_electrode_column("label", "its name")
    for i in range(4):
        session.add_electrode(group=group, location="CA1", label=f"e{i}", x=float(i), y=0.5, z=-1.0)
    region = session.create_electrode_table_region([3, 1, 0], "used")
    session.add_acquisition(
        ElectricalSeries(name="raw", data=noise((500, 3), "<i2"), electrodes=region, rate=30000.0, conversion=1e-6)
    )
    session.add_acquisition(
        TimeSeries(name="speed", data=noise((50,), "<f8"), unit="m/s", timestamps=np.arange(50) / 10)
    )
    for i in range(5):
        session.add_unit(spike_times=np.arange(i) / 3, electrodes=[i % 4], waveform_mean=noise((20,), "<f4"))
    session.add_trial(0.0, 1.5)
    with NWBHDF5IO(path, "w") as io:
        io.write(session)


def test_pynwb_sessions(server: Server, publish: Publish) -> None:
    from pynwb import NWBHDF5IO

    path = Path(server.roots["lab"]) / "pynwb.nwb"
    write_recording(path)
    experiment = publish(path)
    assert check(path, experiment) > 30
    with NWBHDF5IO(path, "r") as io:
        session = io.read()
        files.assert_same(experiment["acquisition/raw/data"][...], session.acquisition["raw"].data[...])
        ends = np.concatenate([[0], experiment["units/spike_times_index"][...]])
        times = experiment["units/spike_times"][...]
        for i in range(5):
            np.testing.assert_array_equal(times[ends[i] : ends[i + 1]], session.units["spike_times"][i])
        assert list(experiment["general/extracellular_ephys/electrodes/label"][...]) == ["e0", "e1", "e2", "e3"]


def test_netcdf_files(server: Server, publish: Publish) -> None:
    netcdf = pytest.importorskip("netCDF4")
    path = Path(server.roots["lab"]) / "netcdf.nc"
    with netcdf.Dataset(str(path), "w") as file:
        for name, size in {"time": None, "lat": 6, "lon": 7, "letters": 5}.items():
            file.createDimension(name, size)
        for name, dims, options in [
            ("time", ("time",), {}),
            ("plain", ("lat", "lon"), {}),
            ("packed", ("time", "lat", "lon"), {"zlib": True, "shuffle": True, "fletcher32": True}),
            ("filled", ("time", "lat"), {"fill_value": -9}),
            ("big", ("lat", "lon"), {"endian": "big"}),
        ]:
            variable = file.createVariable(name, "i4", dims, **options)
            shape = tuple(10 if d == "time" else len(file.dimensions[d]) for d in dims)
            if name != "filled":
                variable[:] = noise(shape, ">i4" if name == "big" else "<i4")
        file["filled"][3:5] = 1
        file.createVariable("words", str, ("lat",))[:] = np.array(["a", "ß", "", "d", "e", "f"], object)
        file.createVariable("letters", "S1", ("lat", "letters"))[:] = b"x"
        file.createVariable("single", "f8")[...] = 2.5
        place = file.createCompoundType(np.dtype([("x", "f4"), ("n", "i8")]), "place_t")
        file.createVariable("place", place, "lat")[:] = np.zeros(6, place.dtype)
        ragged = file.createVariable("ragged", file.createVLType("i2", "ragged_t"), "lat")
        for i in range(6):
            ragged[i] = np.arange(i + 1, dtype="i2")
        level = file.createEnumType("u1", "level_t", {"low": 0, "high": 3})
        file.createVariable("level", level, "lat", fill_value=0)[:] = np.array([0, 3, 0, 3, 3, 0], "u1")
        file.createGroup("inner").createVariable("there", "f4", ("lat",))[:] = 1.5
    experiment = publish(path)
    assert check(path, experiment) > 12
    with netcdf.Dataset(str(path)) as file:
        file.set_auto_mask(False)
        for name in ("time", "plain", "packed", "filled", "big", "inner/there"):
            # HDF5 holds no more of an unlimited axis than was written; netCDF goes on with the fill value.
            read = file[name][: experiment[name].shape[0]]
            files.assert_same(experiment[name][...], read.astype(read.dtype.newbyteorder("=")), name)
        assert list(experiment["words"][...]) == list(file["words"][...])


def test_anndata_files(server: Server, publish: Publish) -> None:
    anndata = pytest.importorskip("anndata")
    sparse, pandas = pytest.importorskip("scipy.sparse"), pytest.importorskip("pandas")
    path = Path(server.roots["lab"]) / "cells.h5ad"
    counts = sparse.csr_matrix(noise((40, 12), "<f4") % 3)
    kinds = pandas.Categorical(["a", "b", None, "a"] * 10)
    cells = pandas.DataFrame(
        {"kind": kinds, "n": np.arange(40), "ok": np.arange(40) % 2 == 0}, index=map(str, range(40))
    )
    data = anndata.AnnData(counts, obs=cells, uns={"note": "ä", "nested": {"k": np.arange(3)}})
    data.layers["dense"], data.obsm["pca"] = noise((40, 12)), noise((40, 3), "<f8")
    data.write_h5ad(path, compression="gzip")
    experiment = publish(path)
    assert check(path, experiment) > 10
    read = anndata.read_h5ad(path)
    parts = (experiment[f"X/{name}"][...] for name in ("data", "indices", "indptr"))
    assert (sparse.csr_matrix(tuple(parts), shape=(40, 12)) != read.X).nnz == 0
    files.assert_same(experiment["obsm/pca"][...], read.obsm["pca"])


def test_matlab_files(server: Server, publish: Publish) -> None:
    path = Path(server.roots["lab"]) / "matlab.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["matrix"] = noise((5, 3), "<f8")
        file["matrix"].attrs["MATLAB_class"] = np.bytes_("double")
        file["word"] = np.array([[ord(letter)] for letter in "motion"], "<u2")
        file["empty"] = np.zeros(2, "<u8")
        file["empty"].attrs["MATLAB_empty"] = np.uint8(1)
        file.create_dataset("logical", data=noise((50, 40)) > 500, dtype="u1", compression="gzip", chunks=(7, 40))
        pointed = [file.create_dataset(f"#refs#/{name}", data=noise((2, i + 1))).ref for i, name in enumerate("abc")]
        file.create_dataset("cell", data=files.objects(pointed, (3, 1)), dtype=h5py.ref_dtype)
        file["struct/field"] = np.float64(2)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    experiment = publish(path)
    assert check(path, experiment) == 9
    assert [[str(place).strip("/") for place in row] for row in experiment["cell"][...]] == [
        ["#refs#/a"],
        ["#refs#/b"],
        ["#refs#/c"],
    ]
