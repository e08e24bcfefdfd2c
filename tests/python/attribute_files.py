"""Files with attributes of every type, shape and name that HDF5 knows, and the comparison with what h5py reads.

h5py is the oracle. Where it reads less than the file says (times, items of big-endian sequences), or says it
otherwise (texts of fixed size are bytes, references are handles), the promise of our client is what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import h5py
import numpy as np
from h5py import h5a, h5s, h5t

import files

EDGES = [0, 1, -1, 2**53 + 1, -(2**63), 2**63 - 1]
DOUBLES = [0.1, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, np.nan, np.inf, -np.inf, 1e16, 9007199254740993.0]
NESTED = np.dtype(
    {
        "names": ["a", "inner", "b64", "tag"],
        "formats": [">i2", np.dtype([("x", "<f4"), ("grid", ">u2", (2, 2))], align=True), "<f8", "S3"],
        "offsets": [1, 4, 24, 33],
        "itemsize": 40,
    }
)
STRANGE_NAMES = [
    b"a/b",
    b"100%",
    b"%FF",
    b"\xff",
    b"cut \xe2\x82",
    b"tab\tand\nnewline\x1b[31m\x7f",
    b" spaces ",
    "straße \u202e\u6587".encode(),
    b".",
    b"..",
    b"n" * 4096,
]


def low(at: h5py.HLObject, name: bytes, kind: h5t.TypeID, shape: tuple[int, ...] = ()) -> h5a.AttrID:
    """Make an attribute past h5py's high level, which chooses types and refuses names."""
    space = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
    return h5a.create(at.id, name, kind, space)


def fixed_string(size: int, padding: int, charset: int) -> h5t.TypeID:
    kind = h5t.C_S1.copy()
    kind.set_size(size)
    kind.set_strpad(padding)
    kind.set_cset(charset)
    return kind


def write_numbers(at: h5py.HLObject) -> None:
    for order in "<>":
        for code in ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]:
            name = f"{'le' if order == '<' else 'be'}_{code}"
            values = files.numbers(order + code, (3, 4))
            at.attrs.create(name, values, dtype=order + code)
            at.attrs.create(f"{name}_scalar", values[0, 1], dtype=order + code)
    at.attrs["edges"] = np.array(EDGES, "i8")
    at.attrs["largest"] = np.uint64(2**64 - 1)
    at.attrs["doubles"] = np.array(DOUBLES)
    at.attrs["singles"] = np.array([0.1, 1 / 3, 1e-45, 3.4028235e38], "f4")
    at.attrs["long_double"] = np.arange(3, dtype=np.longdouble) / 4
    at.attrs["bool"], at.attrs["bools"] = True, np.array([[True, False], [False, False]])
    at.attrs.create("enum", 7, dtype=files.COLOUR)
    at.attrs.create("enums", np.array([70_000, 0, 5], ">i4"), dtype=files.LEVEL)
    odd = h5t.STD_I32LE.copy()
    odd.set_precision(24)
    low(at, b"int24", odd, (2,)).write(np.array([-5, 8_000_000], "i4"), h5t.NATIVE_INT32)


def write_texts(at: h5py.HLObject) -> None:
    paddings = {"term": h5t.STR_NULLTERM, "null": h5t.STR_NULLPAD, "space": h5t.STR_SPACEPAD}
    for padding, number in paddings.items():
        for charset, code in {"ascii": h5t.CSET_ASCII, "utf8": h5t.CSET_UTF8}.items():
            kind = fixed_string(7, number, code)
            stored = np.array([b"ab\0cd  ", b"xy     ", b"abcdefg", "ü€  ".encode()], "S7")
            low(at, f"fixed_{padding}_{charset}".encode(), kind, (4,)).write(stored, kind)
            low(at, f"fixed_{padding}_{charset}_one".encode(), kind).write(stored[1:2].reshape(()), kind)
    at.attrs["text"], at.attrs["nothing"] = "motion corrected, ΔF/F", ""
    at.attrs["texts"] = np.array([["a", ""], ["ß", "日本"]], object)
    at.attrs.create("ascii", b"plain", dtype=h5py.string_dtype("ascii"))
    at.attrs.create("not_utf8", b"\xff\xfe", dtype=h5py.string_dtype("ascii"))
    at.attrs["fixed_not_utf8"] = np.array([b"\xff\xfe", b"ok"], "S4")
    at.attrs["one_text"] = np.array(["only"], object)
    at.attrs["looks_like_a_note"] = '{"b64": "AAAA"}'


def write_made_of_others(at: h5py.HLObject) -> None:
    ragged = files.objects([np.arange(n, dtype="f8") / 3 for n in (3, 0, 1)])
    at.attrs.create("vlen", ragged, dtype=h5py.vlen_dtype("f8"))
    at.attrs.create(
        "vlen_big", files.objects([np.arange(n, dtype=">i4") for n in (1, 2)]), dtype=h5py.vlen_dtype(">i4")
    )
    at.attrs.create(
        "vlen_texts", files.objects([np.array(["a", "ß"], object)]), dtype=h5py.vlen_dtype(h5py.string_dtype())
    )
    deep = files.objects([files.objects([np.arange(2, dtype="i2"), np.arange(0, dtype="i2")])])
    at.attrs.create("vlen_of_vlen", deep, dtype=h5py.vlen_dtype(h5py.vlen_dtype("i2")))
    at.attrs.create("array", np.arange(12).reshape(2, 2, 3), (2, 2, 3), np.dtype((">i4", (2, 3))))
    at.attrs.create("array_one", np.arange(6).reshape(2, 3), (2, 3), np.dtype(("<f4", (2, 3))))
    nested = np.zeros((2, 3), NESTED)
    nested["a"] = np.arange(6).reshape(2, 3) - 300
    nested["inner"]["x"], nested["inner"]["grid"] = 0.1, np.arange(4).reshape(2, 2)
    nested["b64"], nested["tag"] = np.nan, b"ab"
    at.attrs["nested"], at.attrs["nested_one"] = nested, nested[0, 1]
    at.attrs["one_member"] = np.array([(5,)], [("omitted", "i4")])
    at.attrs["one_member_alone"] = np.array((5,), [("b64", "i4")])[()]
    notes = np.empty(2, [("n", "i4"), ("text", h5py.string_dtype()), ("list", h5py.vlen_dtype("i2"))])
    notes[0], notes[1] = (1, "ä", np.arange(3, dtype="i2")), (2, "", np.arange(0, dtype="i2"))
    at.attrs["notes"] = notes
    at.attrs["opaque"], at.attrs["opaques"] = np.void(b"\0\1\xff"), np.array([b"12345678", b"\0" * 8], "V8")
    for name, kind, code in [("le", h5t.STD_B16LE, "<u2"), ("be", h5t.STD_B32BE, ">u4")]:
        low(at, f"bits_{name}".encode(), kind, (2,)).write(np.array([1, 0x1234], code), kind)
    pair = np.dtype([("re", "<f4"), ("im", "<f4")])
    at.attrs["pair"] = np.array((1, 2), pair)[()]


def write_references(file: h5py.File, at: h5py.HLObject) -> None:
    gone = file.create_dataset("gone", data=1)
    targets = [file["target"].ref, file.ref, h5py.Reference(), gone.ref]
    at.attrs.create("references", files.objects(targets), dtype=h5py.ref_dtype)
    at.attrs["reference"] = file["target"].ref
    at.attrs.create("null_reference", h5py.Reference(), dtype=h5py.ref_dtype)
    at.attrs["region"] = file["target"].regionref[1:2]
    pair = np.empty(1, [("to", h5py.ref_dtype), ("n", "i4")])
    pair[0] = (file["target"].ref, 3)
    at.attrs["referring"] = pair
    del file["gone"]


def write_shapes(at: h5py.HLObject) -> None:
    at.attrs["null"], at.attrs["null_text"] = h5py.Empty("f4"), h5py.Empty(h5py.string_dtype())
    at.attrs["empty"], at.attrs["empty_texts"] = np.zeros(0, ">u2"), np.zeros((0,), h5py.string_dtype())
    at.attrs["empty_cube"] = np.zeros((3, 0, 2), "f4")
    at.attrs["empty_compound"] = np.zeros((2, 0), files.POINT)
    at.attrs["one"] = np.array([[[5]]], "i1")
    at.attrs["cube"] = np.arange(24, dtype="<i8").reshape(2, 3, 4)
    at.attrs["rank32"] = np.arange(2, dtype="u1").reshape((1,) * 31 + (2,))


def write_all(file: h5py.File, at: h5py.HLObject) -> None:
    write_numbers(at)
    write_texts(at)
    write_made_of_others(at)
    write_references(file, at)
    write_shapes(at)
    for number, name in enumerate(STRANGE_NAMES):
        low(at, name, h5t.NATIVE_INT32).write(np.array(number, "i4"))


def write(path: Path) -> None:
    """Write all attributes to the root, a group, a dataset and a named type, and many and large ones."""
    with h5py.File(path, "w", libver=("earliest", "latest"), track_order=False) as file:
        file["target"] = np.arange(4)
        file.create_group("group")
        file["dataset"] = np.float32(1.5)
        file["named/type"] = np.dtype("<i4")
        for at in (file, file["group"], file["dataset"], file["named/type"]):
            write_all(file, at)
        write_named_types(file)
        many = file.create_group("many")
        for number in range(3000):
            many.attrs[f"attribute {number:04}"] = number if number % 2 else f"text {number}"


def write_named_types(file: h5py.File) -> None:
    """Write attributes and datasets whose types are named ones."""
    for name, kind in {"colour": files.COLOUR, "point": files.POINT}.items():
        file[f"named/{name}"] = kind
        values = np.array([7, -3], "i1") if name == "colour" else np.array([(1, 2.5), (3, -1)], files.POINT)
        file.create_dataset(f"of_{name}", data=values, dtype=file[f"named/{name}"])
        file["group"].attrs.create(f"of_{name}", values, dtype=file[f"named/{name}"])
        file["group"].attrs.create(f"of_{name}_one", values[0], dtype=file[f"named/{name}"])


def write_dense(path: Path) -> None:
    """Write attributes that only the newest file format has room for."""
    with h5py.File(path, "w", libver="latest") as file:
        file["data"] = 1
        file["data"].attrs["large"] = np.random.default_rng(1).standard_normal(50_000)
        file["data"].attrs["small"] = np.int8(3)
        file["data"].attrs["too_large"] = np.zeros(400_000)
        for number in range(500):
            file["data"].attrs[f"dense {number}"] = np.arange(number % 5, dtype="i2")


def names(at: h5py.HLObject) -> list[bytes]:
    """Names of all attributes, as bytes."""
    found: list[bytes] = []
    h5a.iterate(at.id, lambda name, *_: found.append(name), h5py.h5.INDEX_NAME)
    return found


def objects_of(file: h5py.File) -> Iterator[tuple[bytes, h5py.HLObject]]:
    """Every object of a file with one of its paths, the root first; no link is followed out of it."""
    found: list[bytes] = []
    h5py.h5o.visit(file.id, found.append)
    for path in found:
        yield path, file[path]


def shown(name: bytes) -> str:
    """A name of an attribute as the server shows it."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return escaped(name)


def escaped(name: bytes) -> str:
    """A name of a link as the server shows it in paths: what cannot be shown is percent-escaped."""
    out = []
    for letter in name.decode("utf-8", "surrogateescape"):
        raw = letter.encode("utf-8", "surrogateescape")
        is_shown = not (
            "\udc80" <= letter <= "\udcff" or letter in "%/" or ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0
        )
        out.append(letter if is_shown else "".join(f"%{byte:02X}" for byte in raw))
    return "".join(out)


class NotComparedError(Exception):
    """There is nothing to compare with; the text says why."""


def check(found: Any, at: h5py.HLObject, name: bytes) -> None:
    """Compare one attribute with what h5py reads: type, shape, every value.

    Raises
    ------
    AssertionError
        Where they differ.
    NotComparedError
        Where h5py cannot read it, or the server left it out for its size.
    """
    attribute = h5a.open(at.id, name)
    kind, rank = attribute.get_type(), attribute.get_space().get_simple_extent_ndims()
    try:
        expected = at.attrs[name]
    except (TypeError, OSError, ValueError, RuntimeError) as error:
        raise NotComparedError(f"h5py cannot read it: {error}") from None
    if isinstance(expected, h5py.Empty):
        assert found is None, f"{found!r} for a null dataspace"
        return
    if isinstance(found, dict) and found.keys() == {"omitted"}:
        raise NotComparedError(f"left out, {found['omitted'] >> 10} KiB")
    if isinstance(expected, np.generic | np.ndarray) and _has_numbers_only(kind):
        assert found.dtype == expected.dtype, f"type {found.dtype}, h5py has {expected.dtype}"
        assert type(found) is type(expected), f"{type(found)}, h5py has {type(expected)}"
    file = at.file
    ours = _nested(found, rank, lambda one: _plain(one, kind, lambda path: path and _address(file[raw_path(path)])))
    theirs = _nested(expected, rank, lambda one: _plain(_promised(one, kind), kind, lambda ref: _target(ref, file)))
    assert ours == theirs, f"{ours!r}, h5py has {theirs!r}"


def raw_path(path: str) -> bytes:
    """The path that was escaped."""
    return unquote_to_bytes(path.encode())


def _has_numbers_only(kind: h5t.TypeID) -> bool:
    """Whether numpy has the very same type: no texts, references or sequences, which are objects, no long doubles."""
    group = kind.get_class()
    if group == h5t.COMPOUND:
        return all(_has_numbers_only(kind.get_member_type(i)) for i in range(kind.get_nmembers()))
    if group == h5t.ARRAY:
        return _has_numbers_only(kind.get_super())
    if group == h5t.FLOAT:
        return kind.dtype in (np.float16, np.float32, np.float64)
    if group == h5t.INTEGER:
        return kind.get_precision() == 8 * kind.get_size()
    return group in (h5t.ENUM, h5t.BITFIELD, h5t.OPAQUE, h5t.COMPLEX)


def _nested(value: Any, depth: int, leaf: Callable[[Any], Any]) -> Any:
    return leaf(value) if depth == 0 else [_nested(item, depth - 1, leaf) for item in value]


def _promised(value: Any, kind: h5t.TypeID) -> Any:
    """What h5py reads wrongly or otherwise, put right; members and items are put right when they are reached."""
    if kind.get_class() == h5t.STRING:
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        return files._text(raw, None if kind.is_variable_str() else kind.get_strpad())
    if kind.get_class() == h5t.VLEN:
        return files._items(value, kind.get_super())
    return value


def _plain(value: Any, kind: h5t.TypeID, address: Callable[[Any], int | None]) -> Any:
    """Plain values, floats as hexadecimal text; references as addresses."""
    group = kind.get_class()
    if group == h5t.REFERENCE:
        return address(value)
    if group == h5t.ARRAY:
        item = kind.get_super()
        dims = kind.get_array_dims()
        return _nested(value, len(dims), lambda one: _plain(_promised(one, item), item, address))
    if group == h5t.VLEN:
        item = kind.get_super()
        return [_plain(_promised(one, item), item, address) for one in value]
    if isinstance(value, np.complexfloating):
        return [float(value.real).hex(), float(value.imag).hex()]
    if group == h5t.COMPOUND:
        members = [(kind.get_member_name(i).decode(), kind.get_member_type(i)) for i in range(kind.get_nmembers())]
        return {name: _plain(_promised(value[name], of), of, address) for name, of in members}
    if isinstance(value, np.floating):
        return float(value).hex()
    if isinstance(value, np.void):
        return value.tobytes()
    return value.item() if isinstance(value, np.generic) else value


def _target(reference: Any, file: h5py.File) -> int | None:
    found = files.target(reference, file)
    return None if found is None else _address(found)


def _address(at: h5py.HLObject) -> int:
    return int(h5py.h5o.get_info(at.id).addr)
