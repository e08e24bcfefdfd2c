"""Filters that hdf5plugin writes, with every option that changes the stored form, against what h5py reads.

A filter is a row of CASES: the same arrays are written through each of them, in chunks of every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5flight
import h5py
import hdf5plugin
import numpy as np
import pytest

import files
from server import Server

NUMBERS = ["<i1", "<u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8", ">i2", ">u4", ">f4", ">f8"]
"""Types that every filter here is applied to, unless a case names others."""

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "whole": ((61, 23), (61, 23)),
    "edges": ((61, 23), (16, 7)),
    "long": ((20_011,), (9_001,)),
    "even": ((4096,), (1024,)),
    "cube": ((7, 9, 11), (3, 4, 5)),
    "ones": ((13,), (1,)),
}
"""Shapes and their chunks: one chunk, partial ones at the edges, several blocks in a chunk, chunks of one element."""

Options = Mapping[str, Any]
CASES: dict[str, Options] = {
    **{f"lz4_nbytes_{nbytes}": hdf5plugin.LZ4(nbytes=nbytes) for nbytes in (0, 1, 100, 4096, 1 << 20)},
    **{f"zstd_level_{level}": hdf5plugin.Zstd(clevel=level) for level in (-7, 1, 3, 19)},
    **{f"bzip2_blocks_{blocks}": hdf5plugin.BZip2(blocksize=blocks) for blocks in (1, 9)},
    **{
        f"bitshuffle_{cname}_{nelems}": hdf5plugin.Bitshuffle(cname=cname, nelems=nelems)
        for cname in ("none", "lz4", "zstd")
        for nelems in (0, 8, 128, 1000, 1 << 16)
    },
    "bitshuffle_zstd_level_22": hdf5plugin.Bitshuffle(cname="zstd", clevel=22),
    "shuffle_zstd_fletcher32": {**hdf5plugin.Zstd(), "shuffle": True, "fletcher32": True},
    "shuffle_lz4": {**hdf5plugin.LZ4(), "shuffle": True},
    "bitshuffle_lz4_fletcher32": {**hdf5plugin.Bitshuffle(), "fletcher32": True},
}
"""What `h5py.Group.create_dataset` is told, by name."""

LEVELS = (0, 1, 5, 9)
"""Levels of Blosc: 0 does not compress, 1 and 9 cut into other blocks than 5."""
BLOSC: dict[str, Options] = {
    **{
        f"blosc_{cname}_{shuffle}_{level}": hdf5plugin.Blosc(cname=cname, shuffle=shuffle, clevel=level)
        for cname in ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
        for shuffle in (hdf5plugin.Blosc.NOSHUFFLE, hdf5plugin.Blosc.SHUFFLE, hdf5plugin.Blosc.BITSHUFFLE)
        for level in LEVELS
    },
    **{
        f"blosc2_{cname}_{filters}_{level}": hdf5plugin.Blosc2(cname=cname, filters=filters, clevel=level)
        for cname in ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
        # Nothing, shuffle, bit shuffle, delta, and less precise values, which the library refuses: it skips the chunk.
        for filters in range(5)
        for level in LEVELS
    },
}
"""Every compressor and filter of Blosc and Blosc2."""
CASES |= BLOSC
CASES |= {
    "blosc_fletcher32": {**hdf5plugin.Blosc(), "fletcher32": True},
    "blosc2_fletcher32": {**hdf5plugin.Blosc2(), "fletcher32": True},
}

TYPES: dict[str, list[str]] = {
    # One type of each size, where there are so many cases; text of a size that is no power of two.
    name: [*NUMBERS, "<c16", "S3"] if name.endswith("_5") else ["<u1", "<i2", ">f4", "<f8", "<c16"]
    for name in BLOSC
}
"""The types of cases that are not for all NUMBERS."""

LARGE = [name for name in BLOSC if name.endswith("_1_5") or ("_lz4_" in name and name.endswith("_5"))]
"""Every compressor, and every filter, once."""


def noise(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Values that no filter shrinks."""
    return files.numbers(dtype, shape, seed)


def smooth(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Values that all filters shrink."""
    steps = np.random.default_rng(seed).integers(-2, 3, int(np.prod(shape)))
    return (np.abs(steps.cumsum()) % 100).reshape(shape).astype(dtype)


def slices(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """The whole, and strided slices across chunks."""
    inner = tuple(slice(size // 5, size - size // 7, 3) for size in shape)
    back = tuple(slice(None, None, -2) for _ in shape)
    row = tuple(slice(size // 2, size // 2 + 1) for size in shape[:1])
    return [(), inner, back, row]


def check(publish: Callable[..., h5flight.Experiment], path: Path, options: Options, types: list[str]) -> None:
    """Write arrays of all types and shapes with one filter, and read them back as h5py does."""
    seed = int(np.random.default_rng().integers(1 << 32))
    print(f"seed {seed}")
    with h5py.File(path, "w") as file:
        for i, dtype in enumerate(types):
            for j, (form, (shape, chunks)) in enumerate(SHAPES.items()):
                # Types of one size differ little to a filter: each shape has both kinds of values, with half the types.
                values = (noise, smooth)[(i + j) % 2]
                name = f"{dtype.replace('<', 'le_').replace('>', 'be_')}_{form}_{values.__name__}"
                file.create_dataset(name, data=values(dtype, shape, seed), chunks=chunks, **options)
    check_file(publish, path)


def check_file(publish: Callable[..., h5flight.Experiment], path: Path) -> None:
    """Read back whatever the file has as h5py does."""
    experiment = publish(path, animal="filters")
    with h5py.File(path) as file:
        for name, dataset in file.items():
            whole = files.oracle(dataset)
            for key in slices(dataset.shape):
                files.assert_same(experiment[name][key], whole[key], f"{path.stem}/{name}[{key!r}]")


@pytest.mark.parametrize("name", CASES)
def test_every_filter_is_read_as_h5py_reads_it(
    server: Server, publish: Callable[..., h5flight.Experiment], name: str
) -> None:
    path = Path(server.roots["lab"]) / f"{name}.h5"
    check(publish, path, CASES[name], TYPES.get(name, NUMBERS))


@pytest.mark.parametrize("name", LARGE)
def test_chunks_of_many_blocks_and_of_one_value_are_read_as_h5py_reads_them(
    server: Server, publish: Callable[..., h5flight.Experiment], name: str
) -> None:
    """Blosc cuts larger chunks, Blosc2 into boxes, and says of a chunk with one value no more than that."""
    path = Path(server.roots["lab"]) / f"{name}_large.h5"
    seed = int(np.random.default_rng().integers(1 << 32))
    print(f"seed {seed}")
    with h5py.File(path, "w") as file:
        for dtype, shape, chunks in [
            ("<i4", (1_300_000,), (1_200_001,)),
            ("<u2", (1100, 900), (1000, 700)),
            ("<f4", (40, 130, 170), (37, 120, 150)),
            ("<c16", (300, 500), (256, 500)),
            ("S3", (700, 600), (700, 600)),
        ]:
            for values in (noise, smooth):
                data = values(dtype, shape, seed)
                file.create_dataset(f"{dtype[1:]}_{values.__name__}", data=data, chunks=chunks, **BLOSC[name])
        for dtype, value in [("<u1", 0), ("<i2", 0x0101), ("<f4", np.nan), ("<f8", np.nan), ("<f8", 0.1), ("<c16", 0)]:
            for shape in [(100_000,), (300, 400)]:
                data = np.full(shape, value, dtype)
                form = f"{dtype[1:]}_{value}_{len(shape)}"
                file.create_dataset(form, data=data, chunks=tuple(-(-size // 2) for size in shape), **BLOSC[name])
    check_file(publish, path)
    # 20 MB, and there are many of them.
    path.unlink()


def test_large_elements_of_blosc2_are_read_although_hdf5plugin_cannot(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    """Of elements of more than 255 bytes in several dimensions the frame says that they have one."""
    path = Path(server.roots["lab"]) / "blosc2_large_elements.h5"
    values = np.array([b"%d" % at for at in range(600)], "S300").reshape(4, 150)
    with h5py.File(path, "w") as file:
        file.create_dataset("values", data=values, chunks=(3, 70), **hdf5plugin.Blosc2())
    experiment = publish(path, animal="filters")
    files.assert_same(experiment["values"][...], files.objects(values.astype("U300").ravel().tolist(), values.shape))


def test_text_of_its_own_length_may_be_filtered_too(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    """Such text is read by libhdf5, which has no decoder of its own for these filters."""
    path = Path(server.roots["lab"]) / "text.h5"
    # libhdf5 refuses to write checksums of it, and hdf5plugin's Blosc divides by zero.
    cases = {name: options for name, options in CASES.items() if "fletcher32" not in options and name not in BLOSC}
    words = ["", "ä", "spike", "x" * 3000] * 10
    with h5py.File(path, "w") as file:
        for name, options in cases.items():
            file.create_dataset(name, data=words, dtype=h5py.string_dtype(), chunks=(7,), **options)
    experiment = publish(path, animal="filters")
    for name in cases:
        files.assert_same(experiment[name][...], files.objects(words), name)
