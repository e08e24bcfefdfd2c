"""Files with every type and every storage that h5py can write, and what reading them must give.

The oracle is h5py: a dataset is read whole and then indexed by numpy, since selections may do more here than in h5py.
"""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

SEED = 20240607


def numbers(dtype: str, shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """All kinds of values of a type: extremes, and for floats what is no number."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        values = rng.integers(bounds.min, bounds.max, shape, dtype=kind.newbyteorder("="), endpoint=True)
        special = [bounds.min, bounds.max, 0, 1]
    elif kind.kind == "c":
        values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        special = [complex(np.nan, 1), complex(-0.0, np.inf), 0, -1j]
    else:
        values = rng.standard_normal(shape)
        special = [np.nan, np.inf, -np.inf, -0.0]
    values = values.astype(kind)
    flat = values.reshape(-1)
    flat[: len(special)] = np.array(special[: flat.size], kind)
    return values


COLOUR = h5py.enum_dtype({"red": -3, "green": 7, "blue": 100}, basetype="i1")
LEVEL = h5py.enum_dtype({"low": 0, "high": 70_000}, basetype=">i4")
POINT = np.dtype([("x", "<i4"), ("y", ">f8")])
TRIAL = np.dtype(
    [
        ("id", "<u2"),
        ("ok", "?"),
        ("colour", COLOUR),
        ("where", POINT),
        ("wave", ">f4", (2, 3)),
        ("tag", "S5"),
        ("phase", "<c8"),
    ],
    align=True,
)
NOTE = np.dtype([("n", "<i4"), ("text", h5py.string_dtype()), ("list", h5py.vlen_dtype("<i2"))])


def trials(shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, TRIAL)
    count = out.size
    flat = out.reshape(-1)
    flat["id"] = np.arange(count)
    flat["ok"] = np.arange(count) % 3 == 0
    flat["colour"] = np.array([-3, 7, 100], "i1")[np.arange(count) % 3]
    flat["where"]["x"] = -np.arange(count)
    flat["where"]["y"] = np.linspace(-1, 1, count)
    flat["wave"] = np.arange(count * 6).reshape(count, 2, 3)
    flat["tag"] = [f"t{i}".encode() for i in range(count)]
    flat["phase"] = np.exp(1j * np.arange(count))
    return out


def notes(count: int) -> np.ndarray:
    out = np.empty(count, NOTE)
    for i in range(count):
        out[i] = (i, "ä" * i, np.arange(i, dtype="<i2"))
    return out


def objects(values: list[Any], shape: tuple[int, ...] | None = None) -> np.ndarray:
    out = np.empty(len(values), object)
    for i, value in enumerate(values):
        out[i] = value
    return out if shape is None else out.reshape(shape)


def write_types(path: Path | BinaryIO) -> None:
    """Write one dataset of every type, ranks 0 to 3."""
    with h5py.File(path, "w") as file:
        for code, order in itertools.product(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"], "<>"):
            file[f"number/{'le' if order == '<' else 'be'}_{code}"] = numbers(order + code, (13, 5))
        for code in ("<c8", ">c8", "<c16", ">c16"):
            file[f"complex/{'le' if code[0] == '<' else 'be'}_{code[1:]}"] = numbers(code, (7, 3))
        file["complex/line"] = numbers("<c16", (9,))
        file["number/cube"] = numbers("<f4", (6, 5, 4))
        file["number/line"] = numbers("<i2", (17,))
        file["number/long_double"] = np.arange(12, dtype=np.longdouble) / 4
        file["bool/line"] = np.arange(11) % 3 == 0
        file["bool/plane"] = (np.arange(33) % 4 == 1).reshape(11, 3)
        write_enums(file)
        write_strings(file)
        file["compound/line"] = trials((11,))
        file["compound/plane"] = trials((5, 3))
        file["compound/scalar"] = trials(())
        file["compound/notes"] = notes(6)
        file["compound/value"] = np.array([(i,) for i in range(5)], [("value", "<i8")])
        write_rest(file)
        write_rare(file)
        for name, value in {"int": np.int16(-5), "float": np.float64(2.5), "bool": np.True_, "complex": 1 + 2j}.items():
            file[f"scalar/{name}"] = value
        file["scalar/text"] = "motion corrected, ΔF/F"
        file["scalar/bytes"] = np.bytes_(b"fixed")
        file["empty/line"] = np.zeros(0, "<i4")
        file["empty/cube"] = np.zeros((3, 0, 2), "<f8")
        file["empty/text"] = np.zeros(0, h5py.string_dtype())
        file["empty/compound"] = np.zeros(0, POINT)
        file.create_dataset("empty/array", (2, 0), np.dtype(("<f4", (3,))))
        file["rank/32"] = np.arange(8, dtype=">i2").reshape((2, *(1,) * 29, 2, 2))
        file["rank/31_text"] = np.array(["a", "ß"], object).reshape((1,) * 30 + (2,))


def write_enums(file: h5py.File) -> None:
    file.create_dataset("enum/colour", data=np.array([-3, 7, 100, 7, -3], "i1"), dtype=COLOUR)
    # 5 has no name: HDF5 does not mind.
    file.create_dataset("enum/level", data=np.array([0, 70_000, 5, 0], ">i4"), dtype=LEVEL)
    file.create_dataset("enum/plane", data=np.array([[-3, 7], [100, -3]], "i1"), dtype=COLOUR)


def write_strings(file: h5py.File) -> None:
    words = ["", "a", "mouse", "ΔF/F", "日本", "with\ttab"]
    file.create_dataset("text/vlen", data=words, dtype=h5py.string_dtype())
    file.create_dataset("text/plane", data=np.array(words, object).reshape(2, 3), dtype=h5py.string_dtype())
    file.create_dataset("text/fixed_utf8", data=[w.encode() for w in words], dtype=h5py.string_dtype("utf-8", 12))
    file["text/fixed"] = np.array([b"", b"ab", b"abcde", b"a\0b"], "S5")
    file["text/fixed_plane"] = np.array([[b"a", b"bc"], [b"def", b""]], "S3")
    file.create_dataset("text/not_utf8", data=[b"\xff\xfe", b"fine"], dtype=h5py.string_dtype("ascii"))
    file["text/fixed_not_utf8"] = np.array([b"\xff\xfe", b"fine"], "S4")
    for name, padding in {"null_terminated": h5py.h5t.STR_NULLTERM, "space_padded": h5py.h5t.STR_SPACEPAD}.items():
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(6)
        kind.set_strpad(padding)
        space = h5py.h5s.create_simple((3,))
        dataset = h5py.h5d.create(file["text"].id, name.encode(), kind, space)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([b"ab\0cd ", b"xy    ", b"abcdef"], "S6"), kind)


def write_rest(file: h5py.File) -> None:
    """Arrays as elements, sequences, references, opaque values, bits."""
    for name, shape, dims, code in [("line", (7,), (2, 3), ">i4"), ("plane", (4, 2), (3,), "<f8")]:
        values = np.arange(np.prod(shape + dims)).reshape(shape + dims).astype(code)
        file.create_dataset(f"array/{name}", shape, np.dtype((code, dims)))[...] = values
    ragged = objects([np.arange(n, dtype="<f8") / 3 for n in (3, 0, 1, 5)])
    file.create_dataset("vlen/floats", data=ragged, dtype=h5py.vlen_dtype("<f8"))
    file.create_dataset("vlen/plane", data=ragged.reshape(2, 2), dtype=h5py.vlen_dtype("<f8"))
    shorts = objects([np.arange(n, dtype=">i2") for n in (1, 2)])
    file.create_dataset("vlen/big_endian", data=shorts, dtype=h5py.vlen_dtype(">i2"))
    targets = [file["number/cube"].ref, file["text"].ref, h5py.Reference(), file.ref]
    file.create_dataset("reference/line", data=objects(targets), dtype=h5py.ref_dtype)
    file.create_dataset("reference/plane", data=objects(targets, (2, 2)), dtype=h5py.ref_dtype)
    regions = objects([file["number/cube"].regionref[1:3], file["number/line"].regionref[4]])
    file.create_dataset("reference/region", data=regions, dtype=h5py.regionref_dtype)
    file["opaque/line"] = np.array([b"12345678", b"\0\1\2\3\4\5\6\7"], "V8")
    space = h5py.h5s.create_simple((4,))
    for name, kind in {"bits_le": h5py.h5t.STD_B16LE, "bits_be": h5py.h5t.STD_B16BE}.items():
        dataset = h5py.h5d.create(file["opaque"].id, name.encode(), kind, space)
        stored = np.array([1, 256, 65535, 4660], "<u2" if name == "bits_le" else ">u2")
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, stored, kind)
    file.create_dataset("null/float", data=h5py.Empty("f4"))


def low(file: h5py.File, name: str, kind: h5py.h5t.TypeID, values: np.ndarray) -> None:
    """Write values of a type that h5py's high level does not choose; they have its form already."""
    space = h5py.h5s.create_simple(values.shape)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, lcpl=links)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values, kind)


def write_rare(file: h5py.File) -> None:
    """Write what few programs write, but some do."""
    h5t = h5py.h5t
    for padding, number in {"term": h5t.STR_NULLTERM, "null": h5t.STR_NULLPAD, "space": h5t.STR_SPACEPAD}.items():
        for charset, code in {"ascii": h5t.CSET_ASCII, "utf8": h5t.CSET_UTF8}.items():
            kind = h5t.C_S1.copy()
            kind.set_size(8)
            kind.set_strpad(number)
            kind.set_cset(code)
            pad = b" " if padding == "space" else b"\0"
            stored = [word.ljust(8, pad) for word in (b"ab", b"a\0b", b"", b"abcdefgh", "ü€".encode())]
            low(file, f"text/{padding}_{charset}", kind, np.array(stored, "S8"))
    for name in ("F32LE", "F32BE", "F64LE", "F64BE"):
        kind = getattr(h5t, f"COMPLEX_IEEE_{name}")
        low(file, f"complex/native_{name}", kind, numbers(kind.dtype.str, (4, 3)))
    parts = np.dtype([("r", "<f2"), ("i", "<f2")])
    file["complex/halves"] = np.array([(1, -2), (0.5, 65504)], parts)
    inside = np.dtype(
        [("pad", "u1"), ("grid", ">f8", (2, 2)), ("deep", [("z", ">c16"), ("b", "?")]), ("e", LEVEL)], align=True
    )
    nested = np.zeros((3, 2), inside)
    nested["grid"] = np.arange(24).reshape(3, 2, 2, 2) / 7
    nested["deep"]["z"], nested["deep"]["b"], nested["e"] = 1 - 2j, True, 70_000
    file["compound/nested"] = nested
    texts = np.dtype([("names", h5py.string_dtype(), (2,)), ("of", h5py.vlen_dtype(">u4"))])
    several = np.empty(2, texts)
    for row, words in enumerate((["a", "ß"], ["", "日本"])):
        several[row] = (np.array(words, object), np.arange(row + 1, dtype=">u4"))
    file["compound/texts"] = several
    file.create_dataset("array/texts", (2,), np.dtype((h5py.string_dtype(), (2,))))[...] = [["a", "b"], ["ß", ""]]
    words = objects([np.array(["a", "ß"], object), np.array([], object)])
    file.create_dataset("vlen/texts", data=words, dtype=h5py.vlen_dtype(h5py.string_dtype()))
    file.create_dataset("vlen/big_floats", data=objects([np.array([0.5, -1], ">f8")]), dtype=h5py.vlen_dtype(">f8"))
    gone = file.create_dataset("reference/gone", data=1)
    targets = objects([gone.ref, file["number/cube"].ref, h5py.Reference()])
    file.create_dataset("reference/dangling", data=targets, dtype=h5py.ref_dtype)
    regions = objects([h5py.RegionReference(), file["number/line"].regionref[1:3]])
    file.create_dataset("reference/null_region", data=regions, dtype=h5py.regionref_dtype)
    pairs = np.empty(2, [("to", h5py.ref_dtype), ("n", "<i4")])
    pairs[0], pairs[1] = (file["number/line"].ref, 1), (h5py.Reference(), 2)
    file["reference/pairs"] = pairs
    del file["reference/gone"]


FILTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gzip": {"compression": "gzip", "compression_opts": 9},
    "shuffle": {"shuffle": True},
    "fletcher32": {"fletcher32": True},
    "shuffle_gzip": {"shuffle": True, "compression": "gzip"},
    "gzip_fletcher32": {"compression": "gzip", "fletcher32": True},
    "shuffle_gzip_fletcher32": {"shuffle": True, "compression": "gzip", "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "shuffle_lzf": {"shuffle": True, "compression": "lzf"},
    "shuffle_lzf_fletcher32": {"shuffle": True, "compression": "lzf", "fletcher32": True},
    "scaleoffset": {"scaleoffset": 0},
}


def write_storages(path: Path | BinaryIO, user_block: int = 0) -> None:
    """Write the same plane of numbers in every way of storing it, and holes, edges and skipped filters."""
    rng = np.random.default_rng(SEED)
    plane = rng.integers(-500, 500, (57, 23)).astype("<i4").cumsum(axis=0)
    with h5py.File(path, "w", userblock_size=user_block, libver="latest" if user_block else "earliest") as file:
        for name, filters in FILTERS.items():
            file.create_dataset(f"filter/{name}", data=plane, chunks=(10, 7), **filters)
            file.create_dataset(f"big_endian/{name}", data=plane.astype(">i2"), chunks=(16, 23), **filters)
        file["contiguous"] = plane
        file.create_dataset("incompressible/lzf", data=rng.bytes(6000), dtype="V6000")
        noise = rng.integers(0, 256, (300, 100), dtype="u1")
        file.create_dataset("incompressible/noise", data=noise, chunks=(30, 100), compression="lzf")
        file.create_dataset("incompressible/gzip", data=noise, chunks=(30, 100), compression="gzip")
        write_holes(file)
        write_masks(file)
        thin = rng.integers(0, 9, (400, 6), dtype="u2")
        file.create_dataset("slabs/columns", data=thin, chunks=(400, 1), compression="gzip", shuffle=True)
        file.create_dataset("slabs/rows", data=thin, chunks=(1, 6), compression="gzip")
        file.create_dataset("slabs/whole", data=thin, chunks=(400, 6), compression="gzip")
        growing = file.create_dataset("slabs/grown", data=thin, chunks=(64, 4), maxshape=(None, None))
        growing.resize((500, 9))
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((57, 23)), compact)
        file["compact"][...] = plane if plane.nbytes < 60_000 else 0


def write_holes(file: h5py.File) -> None:
    """Chunks and arrays that were never written are the fill value."""
    sparse = file.create_dataset("fill/sparse", (100, 40), ">i2", chunks=(16, 16), fillvalue=-7, compression="gzip")
    sparse[33:50, 5:20] = 3
    file.create_dataset("fill/never", (50, 3), "<f8", chunks=(10, 3), fillvalue=np.nan)
    file.create_dataset("fill/contiguous", (20, 3), "<u2", fillvalue=9)
    file.create_dataset("fill/default", (20, 3), "<u2", chunks=(7, 2))
    file.create_dataset("fill/compound", (9,), POINT, chunks=(4,), fillvalue=np.array((5, 2.5), POINT))


def write_masks(file: h5py.File) -> None:
    """Chunks for which filters were skipped, as acquisition software writes them."""
    skipped = file.create_dataset("mask/skipped", (8, 10), "<i4", chunks=(4, 5), compression="gzip", shuffle=True)
    chunk = np.arange(20, dtype="<i4").reshape(4, 5)
    skipped[...] = np.arange(80).reshape(8, 10)
    skipped.id.write_direct_chunk((0, 5), chunk.tobytes(), filter_mask=0b11)
    skipped.id.write_direct_chunk((4, 0), zlib.compress((chunk + 100).tobytes()), filter_mask=0b01)


def names_of(write: Callable[[BinaryIO], None]) -> list[str]:
    """Names of all datasets that a function writes and that hold a value."""
    found: list[str] = []
    with io.BytesIO() as memory:
        write(memory)
        with h5py.File(memory, "r") as file:
            file.visititems(lambda name, item: found.append(name) if getattr(item, "shape", None) is not None else None)
    return found


def keys(shape: tuple[int, ...]) -> list[Any]:
    """Selections of every kind that fit an array, and some of its corners."""
    rank = len(shape)
    if rank == 0:
        return [(), ...]
    if rank > 8:
        return [(), ..., 0, (..., -1), (..., slice(None, None, -1)), (slice(None), [0]), (0,) * rank]
    n = shape[0]
    found: list[Any] = [
        (),
        ...,
        slice(1, -1),
        slice(None, None, -1),
        slice(n - 1, 0, -2),
        slice(1, None, 3),
        slice(2, 2),
        [],
    ]
    if n:
        rng = np.random.default_rng(SEED)
        mask = rng.integers(0, 2, n).astype(bool)
        found += [0, -1, n - 1, [n - 1, 0, 0, n // 2], np.arange(0, n, 2), mask, np.zeros(n, bool), (0, ...)]
    if rank >= 2 and n and shape[1]:
        m = shape[1]
        found += [
            (0, 0),
            (slice(None), m - 1),
            (..., slice(None, None, 2)),
            ([n - 1, 0], [0, m - 1]),
            (slice(1, n), [0, 0]),
        ]
        found += [(slice(n // 3, 2 * n // 3 + 1), slice(m // 3, m)), (-1, slice(None, None, -1))]
    if rank >= 3 and 0 not in shape:
        found += [
            (1, slice(None), 2),
            (slice(None), 0, slice(0, None, 2)),
            (0, 0, 0),
            (..., -1),
            ([0, 2], slice(1, 3), [1]),
        ]
    return found


def oracle(dataset: h5py.Dataset) -> np.ndarray:
    """The whole dataset, in the form that our client promises."""
    return promised(dataset[...], dataset.id.get_type(), dataset.file)


def _items(values: np.ndarray, kind: h5py.h5t.TypeID) -> np.ndarray:
    """The items of a sequence. h5py calls big-endian items what they are in the file, but has swapped none."""
    order = getattr(kind, "get_order", lambda: h5py.h5t.ORDER_LE)()
    return values.view(values.dtype.newbyteorder(">")) if order == h5py.h5t.ORDER_BE else values


def target(reference: Any, file: h5py.File) -> h5py.HLObject | None:
    """What a reference leads to; None for a null one, and where the object is gone."""
    try:
        return file[reference] if reference else None
    except (ValueError, KeyError):
        return None


def promised(values: Any, kind: h5py.h5t.TypeID, file: h5py.File) -> np.ndarray:
    """h5py's values in the form of our client: text, paths of references, native numbers, packed compounds."""
    values = np.asarray(values)
    group = kind.get_class()
    if group == h5py.h5t.COMPOUND and values.dtype.names:
        members = {kind.get_member_name(i).decode(): kind.get_member_type(i) for i in range(kind.get_nmembers())}
        parts = {name: promised(values[name], members[name], file) for name in values.dtype.names}
        shapes = {name: part.shape[values.ndim :] for name, part in parts.items()}
        out = np.empty(values.shape, [(name, part.dtype, shapes[name]) for name, part in parts.items()])
        for name, part in parts.items():
            out[name] = part
        return out
    if group == h5py.h5t.ARRAY:
        return promised(values, kind.get_super(), file)
    if group == h5py.h5t.STRING:
        if kind.get_strpad() == h5py.h5t.STR_NULLPAD and not kind.is_variable_str():
            # numpy's own form: NULs at the end are padding.
            return values.astype(f"S{kind.get_size()}")
        if not kind.is_variable_str():
            fields = [_raw(value, kind.get_strpad()) for value in values.reshape(-1)]
            return np.array(fields, f"S{kind.get_size()}").reshape(values.shape)
        padding = None
        texts = [_text(value, padding) for value in values.reshape(-1)]
        known = all(isinstance(text, str) for text in texts)
        return objects(texts if known else [_raw(v, padding) for v in values.reshape(-1)], values.shape)
    if group == h5py.h5t.REFERENCE:
        found = [target(ref, file) for ref in values.reshape(-1)]
        return objects([at.name if at is not None else None for at in found], values.shape)
    if group == h5py.h5t.VLEN:
        item = kind.get_super()
        return objects([promised(_items(v, item), item, file) for v in values.reshape(-1)], values.shape)
    if values.dtype == np.longdouble:
        return values.astype(np.float64)
    return values.astype(values.dtype.newbyteorder("="))


def _raw(value: Any, padding: int | None) -> bytes:
    raw = value.encode() if isinstance(value, str) else bytes(value)
    if padding == h5py.h5t.STR_NULLTERM:
        return raw.split(b"\0")[0]
    if padding == h5py.h5t.STR_SPACEPAD:
        return raw.rstrip(b" ")
    return raw.rstrip(b"\0") if padding == h5py.h5t.STR_NULLPAD else raw


def _text(value: Any, padding: int | None) -> str | bytes:
    raw = _raw(value, padding)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def parts_of(key: Any) -> list[Any]:
    """What a key says, axis by axis."""
    return list(key) if isinstance(key, tuple) else [key]


def select(values: np.ndarray, key: Any, rank: int) -> Any:
    """numpy's indexing, but several lists select the cross product of their indices."""
    parts = parts_of(key)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    named = parts[:at] + parts[at + 1 :]
    parts = named[:at] + [slice(None)] * (rank - len(named)) + named[at:]
    axis = 0
    for part in parts:
        if isinstance(part, int):
            # The slice keeps an array: numpy would hand out the object of an array of objects.
            values = values[(slice(None),) * axis + (slice(part, part + 1 or None),)].squeeze(axis)
        else:
            values = values[(slice(None),) * axis + (part,)]
            axis += 1
    return values


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    """Equal type, shape and values; NaN equals NaN, -0.0 is not 0.0."""
    expected = np.asarray(expected)
    if expected.dtype == object and expected.ndim == 0 and not (isinstance(found, np.ndarray) and found.ndim == 0):
        # One value of an array of objects: the object itself.
        found = objects([found], ())
    # numpy gives one string the type of its own length.
    found = np.asarray(found, expected.dtype if isinstance(found, np.bytes_) else None)
    assert found.shape == expected.shape, f"{where}: shape {found.shape}, expected {expected.shape}"
    assert found.dtype == expected.dtype, f"{where}: type {found.dtype}, expected {expected.dtype}"
    if found.dtype.names:
        for name in found.dtype.names:
            assert_same(found[name], expected[name], f"{where}[{name!r}]")
    elif found.dtype == object:
        for one, other in zip(found.reshape(-1), expected.reshape(-1), strict=True):
            if isinstance(other, np.ndarray):
                assert_same(one, other, where)
            else:
                assert type(one) is type(other), f"{where}: {one!r}, expected {other!r}"
                assert one == other, f"{where}: {one!r}, expected {other!r}"
    else:
        assert found.tobytes() == expected.tobytes(), f"{where}: {found!r}\nexpected {expected!r}"
