"""Filters of hdf5plugin and of libhdf5, with every option that changes the stored form, against what h5py reads.

A filter is a row of CASES or LIBRARY_CASES: the same arrays are written through each of them, in chunks of every kind.
N-bit depends on the type alone: there, the types are the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


def levels(cname: str) -> tuple[int, ...]:
    """Levels of Blosc: 0 does not compress, 1 and 9 cut into other blocks than 5, whatever the compressor."""
    return (0, 1, 5, 9) if cname == "lz4" else (5,)


BLOSC: dict[str, Options] = {
    **{
        f"blosc_{cname}_{shuffle}_{level}": hdf5plugin.Blosc(cname=cname, shuffle=shuffle, clevel=level)
        for cname in ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
        for shuffle in (hdf5plugin.Blosc.NOSHUFFLE, hdf5plugin.Blosc.SHUFFLE, hdf5plugin.Blosc.BITSHUFFLE)
        for level in levels(cname)
    },
    **{
        f"blosc2_{cname}_{filters}_{level}": hdf5plugin.Blosc2(cname=cname, filters=filters, clevel=level)
        for cname in ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
        # Nothing, shuffle, bit shuffle, delta, and less precise values, which the library refuses: it skips the chunk.
        for filters in range(5)
        for level in levels(cname)
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


def fractions(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Values of either sign with digits behind the point, and some that are equal."""
    values = np.random.default_rng(seed).standard_normal(shape) * 300
    values.reshape(-1)[::5] = -1.5
    return values.astype(dtype)


@dataclass(frozen=True)
class Case:
    """One filter, and what is written with it."""

    options: Options
    types: list[str]
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    values: tuple[Callable[[str, tuple[int, ...], int], np.ndarray], ...]


def check(publish: Callable[..., h5flight.Experiment], path: Path, case: Case) -> None:
    """Write arrays of all types and shapes with one filter, and read them back as h5py does."""
    seed = int(np.random.default_rng().integers(1 << 32))
    print(f"seed {seed}")
    with h5py.File(path, "w") as file:
        for i, dtype in enumerate(case.types):
            for j, (form, (shape, chunks)) in enumerate(case.shapes.items()):
                # Types of one size differ little to a filter: each shape has every kind of values, with some of them.
                values = case.values[(i + j) % len(case.values)]
                name = f"{dtype.replace('<', 'le_').replace('>', 'be_')}_{form}_{values.__name__}"
                file.create_dataset(name, data=values(dtype, shape, seed), chunks=chunks, **case.options)
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
    check(publish, path, Case(CASES[name], TYPES.get(name, NUMBERS), SHAPES, (noise, smooth)))


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
    files.assert_same(experiment["values"][...], values)


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


INTEGERS = [dtype for dtype in NUMBERS if dtype[1] != "f"]
FLOATS = [dtype for dtype in NUMBERS if dtype[1] == "f"]

SCANLINES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    **{form: shapes for form, shapes in SHAPES.items() if form != "ones"},
    "beyond_the_longest": ((3, 9001), (2, 9001)),
    "the_longest": ((3, 4096), (2, 4096)),
    "shorter_than_a_block": ((200, 3), (70, 3)),
}
"""SHAPES for szip, which wants a block of pixels in a chunk and works by rows of up to 4096."""


def whole_numbers(**options: Any) -> Case:
    """Scale-offset of integers."""
    return Case(options, INTEGERS, SHAPES, (noise, smooth))


def digits(count: int, **options: Any) -> Case:
    """Scale-offset of floats, which keeps so many digits behind the point."""
    return Case({"scaleoffset": count, **options}, FLOATS, SHAPES, (fractions, smooth))


LIBRARY_CASES: dict[str, Case] = {
    **{
        f"szip_{coding}_{pixels}": Case(
            {"compression": "szip", "compression_opts": (coding, pixels)}, NUMBERS, SCANLINES, (noise, smooth)
        )
        for coding in ("nn", "ec")
        for pixels in (2, 4, 8, 10, 16, 30, 32)
    },
    "szip_shuffle_fletcher32": Case(
        {"compression": "szip", "shuffle": True, "fletcher32": True}, NUMBERS, SCANLINES, (noise, smooth)
    ),
    **{f"scaleoffset_bits_{bits}": whole_numbers(scaleoffset=bits) for bits in (0, 1, 5, 8)},
    "scaleoffset_gzip": whole_numbers(scaleoffset=0, compression="gzip"),
    "scaleoffset_shuffle_gzip": whole_numbers(scaleoffset=0, shuffle=True, compression="gzip"),
    "scaleoffset_lzf": whole_numbers(scaleoffset=0, compression="lzf"),
    "scaleoffset_fill_value": whole_numbers(scaleoffset=0, fillvalue=3),
    "scaleoffset_bits_fill_value": whole_numbers(scaleoffset=7, fillvalue=100),
    **{f"scaleoffset_digits_{count}": digits(count) for count in range(6)},
    "scaleoffset_digits_fill_value": digits(2, fillvalue=-1.5),
    "scaleoffset_digits_shuffle_gzip": digits(1, shuffle=True, compression="gzip"),
}
"""Filters that libhdf5 brings, or h5py's libhdf5 does."""


@pytest.mark.parametrize("name", LIBRARY_CASES)
def test_filters_of_libhdf5_are_read_as_h5py_reads_them(
    server: Server, publish: Callable[..., h5flight.Experiment], name: str
) -> None:
    check(publish, Path(server.roots["lab"]) / f"{name}.h5", LIBRARY_CASES[name])


def odd_integer(dtype: str, precision: int, offset: int) -> h5py.h5t.TypeID:
    """An integer of which only some bits are significant."""
    kind = h5py.h5t.py_create(np.dtype(dtype)).copy()
    kind.set_precision(precision)
    kind.set_offset(offset)
    return kind


def compound_of(members: list[tuple[int, h5py.h5t.TypeID]], size: int) -> h5py.h5t.TypeID:
    kind = h5py.h5t.create(h5py.h5t.COMPOUND, size)
    for number, (offset, member) in enumerate(members):
        kind.insert(f"m{number}".encode(), offset, member)
    return kind


def stored_types() -> dict[str, h5py.h5t.TypeID]:
    """What n-bit has something to do with, and what it leaves alone."""
    kinds = {f"plain_{dtype[1:]}_{'be' if dtype[0] == '>' else 'le'}": plain(dtype) for dtype in NUMBERS}
    for dtype in INTEGERS:
        bits = np.dtype(dtype).itemsize * 8
        for precision, offset in ((bits // 2, 0), (bits - 1, 0), (bits - 3, 2), (1, bits - 1)):
            name = f"odd_{dtype[1:]}_{'be' if dtype[0] == '>' else 'le'}_{precision}_{offset}"
            kinds[name] = odd_integer(dtype, precision, offset)
    kinds["array"] = h5py.h5t.array_create(plain("<i4"), (2, 3))
    kinds["compound"] = compound_of([(0, plain("<u2")), (2, plain(">f8")), (12, plain("S3"))], 16)
    kinds["compound_odd"] = compound_of(
        [(0, odd_integer("<i4", 13, 3)), (4, plain("<f4")), (8, h5py.h5t.array_create(odd_integer(">u2", 9, 0), (3,)))],
        14,
    )
    kinds["nested"] = h5py.h5t.array_create(compound_of([(1, odd_integer("<u1", 5, 1)), (2, plain("<i8"))], 10), (2,))
    return kinds


def plain(dtype: str) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(np.dtype(dtype))


NBIT_PIPELINES: dict[str, list[Callable[[h5py.h5p.PropDCID], None]]] = {
    "nbit": [lambda properties: properties.set_filter(h5py.h5z.FILTER_NBIT)],
    "nbit_shuffle_gzip_fletcher32": [
        lambda properties: properties.set_filter(h5py.h5z.FILTER_NBIT),
        lambda properties: properties.set_shuffle(),
        lambda properties: properties.set_deflate(4),
        lambda properties: properties.set_fletcher32(),
    ],
}


@pytest.mark.parametrize("name", NBIT_PIPELINES)
def test_nbit_is_read_as_h5py_reads_it(server: Server, publish: Callable[..., h5flight.Experiment], name: str) -> None:
    seed = int(np.random.default_rng().integers(1 << 32))
    print(f"seed {seed}")
    path = Path(server.roots["lab"]) / f"{name}.h5"
    with h5py.File(path, "w") as file:
        for label, kind in stored_types().items():
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_chunk((16, 7))
            for add in NBIT_PIPELINES[name]:
                add(properties)
            space = h5py.h5s.create_simple((61, 23))
            dataset = h5py.h5d.create(file.id, label.encode(), kind, space, properties)
            # Random bits in the file's own form: no conversion, and padding that n-bit drops.
            values = np.random.default_rng(seed).integers(0, 256, 61 * 23 * kind.get_size(), dtype="u1")
            dataset.write(space, space, values.view(f"V{kind.get_size()}").reshape(61, 23), kind)
    check_file(publish, path)
