"""What is supported: the tables of docs/support.md, each row of which is a file that is written, served and compared.

`pytest tests/python/test_support.py --write-support` writes them; without it, what differs from the page fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import h5flight
import h5py
import hdf5plugin
import numpy as np
import pytest

import corpus
import files
from server import Server

PAGE = corpus.ROOT / "docs" / "support.md"
SHAPE, CHUNKS = (240, 150), (50, 40)
"""More than the catalogue keeps itself, so that a read shows who decodes."""
SEED = 20250912

Write = Callable[[h5py.File], Any]


@dataclass(frozen=True)
class Row:
    """One row: how its file is written. All datasets of the file are asked for."""

    write: Write
    libver: str = "earliest"
    peers: tuple[str, str, str] = ("", "", "")
    """VirtualiZarr, kerchunk, LINDI, where they were measured."""
    userblock: int = 0


def plane(dtype: str = "<i4") -> np.ndarray:
    """Numbers that filters can shrink."""
    rng = np.random.default_rng(SEED)
    return rng.integers(0, 100, SHAPE).cumsum(axis=0).astype(dtype)


def put(data: Any, dtype: Any = None, **options: Any) -> Write:
    """Writes one dataset by h5py's high-level words."""
    return lambda file: file.create_dataset("data", data=data, dtype=dtype, **options)


def several(values: Mapping[str, Any]) -> Write:
    """Writes one chunked and compressed dataset for each value."""

    def write(file: h5py.File) -> None:
        for name, value in values.items():
            file.create_dataset(name, data=value, chunks=True, compression="gzip")

    return write


def low(values: np.ndarray, kind: h5py.h5t.TypeID | None = None, **properties: Any) -> Write:
    """Writes one dataset with creation properties, or of a type, that h5py has no words for."""

    def write(file: h5py.File) -> None:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        for setter, value in properties.items():
            getattr(creation, f"set_{setter}")(*value if setter in ("filter", "szip") else (value,))
        stored = kind or h5py.h5t.py_create(values.dtype)
        space = h5py.h5s.create_simple(values.shape)
        dataset = h5py.h5d.create(file.id, b"data", stored, space, creation)
        # Numbers are converted as they are written; bits have no other form to be converted from.
        memory = stored if stored.get_class() == h5py.h5t.BITFIELD else None
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values, memory)

    return write


def packed(**options: Any) -> Write:
    return put(plane(), chunks=CHUNKS, **options)


def small_integer(bits: int) -> h5py.h5t.TypeID:
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(bits)
    return kind


def texts(count: int = 5000) -> list[str]:
    return [f"entry {i}, ΔF/F" for i in range(count)]


def ragged(dtype: str) -> np.ndarray:
    return files.objects([np.arange(i % 40, dtype=dtype) for i in range(3000)])


def write_array_elements(file: h5py.File) -> None:
    values = np.arange(9000 * 6, dtype="<i4").reshape(9000, 2, 3)
    file.create_dataset("data", (9000,), np.dtype(("<i4", (2, 3))))[...] = values


def write_references(file: h5py.File) -> None:
    target = file.create_group("g").create_dataset("target", data=plane())
    file.create_dataset("data", data=files.objects([target.ref] * 9000), dtype=h5py.ref_dtype)


def write_regions(file: h5py.File) -> None:
    target = file.create_dataset("target", data=plane())
    file.create_dataset("data", data=files.objects([target.regionref[1:3]] * 6000), dtype=h5py.regionref_dtype)


ERROR, OK = "error", "ok"
TYPES = {
    "integers, 8 to 64 bits, either sign": Row(
        several({c: plane(f"<{c}") for c in ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]})
    ),
    "float16, float32, float64": Row(several({c: plane(f"<{c}") for c in ("f2", "f4", "f8")})),
    "big-endian numbers": Row(several({c: plane(f">{c}") for c in ("i2", "u4", "i8", "f4", "f8")}), peers=(OK, OK, OK)),
    "long double": Row(put(plane().astype(np.longdouble))),
    "integers of 12 bits": Row(low(plane("<i2") % 2000, small_integer(12))),
    "bool": Row(several({"data": plane() % 2 == 0}), peers=(OK, OK, OK)),
    "enum": Row(put(np.full(SHAPE, 7, "i1"), files.COLOUR), peers=(OK, OK, OK)),
    "complex": Row(several({c: plane() * (1 + 2j) for c in ("c8", "c16")}), peers=(OK, OK, "refuses")),
    "strings of fixed size": Row(put(np.array([t.encode()[:12] for t in texts(9000)], "S12"))),
    "strings of variable length": Row(put(texts(), h5py.string_dtype()), peers=(ERROR, OK, OK)),
    "strings that are not UTF-8": Row(put([b"\xff\xfe", b"fine"] * 3000, h5py.string_dtype("ascii"))),
    "sequences of variable length": Row(put(ragged("<i4"), h5py.vlen_dtype("<i4")), peers=(ERROR, ERROR, ERROR)),
    "compound, nested, with arrays, text, enum, complex": Row(
        put(files.trials((1500,)), chunks=(400,), compression="gzip"),
        peers=(OK, ERROR, "by field only"),
    ),
    "compound with members of variable length": Row(put(np.tile(files.notes(40), 100), files.NOTE)),
    "array as element": Row(write_array_elements),
    "object references": Row(write_references),
    "region references (the object's path)": Row(write_regions),
    "opaque": Row(put(np.frombuffer(plane().tobytes(), "V8"))),
    "bit field": Row(low(plane("<u2"), h5py.h5t.STD_B16LE)),
    "null dataspace (no value)": Row(lambda file: file.create_dataset("data", data=h5py.Empty("f4"))),
}


def write_soft_link(file: h5py.File) -> None:
    file["there"] = plane()
    file["data"] = h5py.SoftLink("/there")


def write_virtual(name: str) -> Write:
    def write(file: h5py.File) -> None:
        if name == ".":
            file["there"] = plane()
        layout = h5py.VirtualLayout(SHAPE, "<i4")
        layout[...] = h5py.VirtualSource(name, "there", SHAPE)
        file.create_virtual_dataset("data", layout)
        file["other"] = plane()

    return write


def write_external(file: h5py.File) -> None:
    outside = Path(file.filename).with_suffix(".raw")
    outside.write_bytes(plane().tobytes())
    file.create_dataset("data", SHAPE, "<i4", external=[(str(outside), 0, outside.stat().st_size)])


def write_external_link(file: h5py.File) -> None:
    outside = Path(file.filename).with_suffix(".other.h5")
    with h5py.File(outside, "w") as other:
        other["data"] = plane()
    file["data"] = h5py.ExternalLink(str(outside), "/data")


def write_skipped(file: h5py.File) -> None:
    dataset = packed(compression="gzip")(file)
    dataset.id.write_direct_chunk((0, 0), plane()[:50, :40].tobytes(), filter_mask=1)


EARLY = h5py.h5d.ALLOC_TIME_EARLY
STORAGE = {
    "contiguous": Row(put(plane())),
    "contiguous, never written (fill value)": Row(lambda f: f.create_dataset("data", SHAPE, "<i4", fillvalue=3)),
    "compact": Row(low(plane()[:100], layout=h5py.h5d.COMPACT)),
    "chunked, version 1 B-tree": Row(packed()),
    "chunked, version 2 B-tree": Row(packed(maxshape=(None, None)), "latest"),
    "chunked, fixed array": Row(packed(compression="gzip"), "latest"),
    "chunked, extensible array": Row(packed(maxshape=(None, 150)), "latest"),
    "chunked, single chunk": Row(put(plane(), chunks=SHAPE), "latest"),
    "chunked, implicit index": Row(low(plane(), chunk=CHUNKS, alloc_time=EARLY), "latest"),
    "chunked, never written (fill value)": Row(
        lambda f: f.create_dataset("data", SHAPE, "<i4", chunks=CHUNKS, fillvalue=3)
    ),
    "no element": Row(put(np.zeros((0, 3), "<i4"), chunks=(4, 3), maxshape=(None, 3))),
    "scalar": Row(put(np.float64(2.5))),
    "user block (MATLAB 7.3)": Row(packed(compression="gzip"), userblock=512),
    "soft link": Row(write_soft_link),
    "virtual dataset over the same file": Row(write_virtual(".")),
    "virtual dataset, source not served": Row(write_virtual("missing.h5")),
    "external raw storage": Row(write_external),
    "external link": Row(write_external_link),
}


def plugin(options: Any, dtype: str = "<i4", **more: Any) -> Write:
    return put(plane(dtype), chunks=CHUNKS, **options, **more)


LATE = ("indexed, KeyError at read", "refuses", "refuses")
NBIT = {"chunk": CHUNKS, "filter": (h5py.h5z.FILTER_NBIT,)}
FILTERS = {
    "gzip": Row(packed(compression="gzip")),
    "gzip, shuffle": Row(packed(compression="gzip", shuffle=True)),
    "gzip, shuffle, fletcher32": Row(
        packed(compression="gzip", shuffle=True, fletcher32=True), peers=(OK, "refuses", "checksum error")
    ),
    "gzip, skipped for one chunk (filter mask)": Row(
        write_skipped, peers=("accepted, zlib error at read", "refuses", "accepted, zlib error at read")
    ),
    "LZF": Row(packed(compression="lzf", shuffle=True), peers=LATE),
    "szip": Row(packed(compression="szip")),
    "n-bit": Row(low(plane("<i2") % 2000, small_integer(12), **NBIT)),
    "scale-offset, integers": Row(packed(scaleoffset=0), peers=("unknown codec", "refuses", "refuses")),
    "scale-offset, floats": Row(plugin({"scaleoffset": 2}, "<f4"), peers=("unknown codec", "refuses", "refuses")),
    "bitshuffle": Row(plugin(hdf5plugin.Bitshuffle(cname="none"))),
    "bitshuffle, LZ4": Row(plugin(hdf5plugin.Bitshuffle(cname="lz4")), peers=("unknown codec", "refuses", "refuses")),
    "bitshuffle, Zstandard": Row(plugin(hdf5plugin.Bitshuffle(cname="zstd"))),
    **{
        f"Blosc, {name}": Row(plugin(hdf5plugin.Blosc(cname=name)), peers=(OK, OK, OK) if name == "lz4" else ("",) * 3)
        for name in ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
    },
    **{
        f"Blosc2, {name}": Row(
            plugin(hdf5plugin.Blosc2(cname=name)),
            peers=("unknown codec", "refuses", "refuses") if name == "blosclz" else ("",) * 3,
        )
        for name in ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
    },
    "bzip2": Row(plugin(hdf5plugin.BZip2())),
    "LZ4": Row(plugin(hdf5plugin.LZ4()), peers=LATE),
    "Zstandard": Row(plugin(hdf5plugin.Zstd()), peers=(OK, OK, ERROR)),
    "ZFP": Row(plugin(hdf5plugin.Zfp(reversible=True), "<f4")),
    "SZ": Row(plugin(hdf5plugin.SZ(absolute=0.1), "<f4")),
    "SZ3": Row(plugin(hdf5plugin.SZ3(absolute=0.1), "<f4")),
    "SPERR": Row(plugin(hdf5plugin.Sperr(rate=8), "<f4")),
    "JPEG-LS (FCIDECOMP)": Row(plugin(hdf5plugin.FciDecomp(), "<u1")),
}

MASK = np.arange(SHAPE[0]) % 3 == 0
SELECTIONS: dict[str, tuple[str, Any]] = {
    "everything": ("plane", ...),
    "one index": ("plane", (5, 7)),
    "index from the end": ("plane", -1),
    "slice": ("plane", (slice(10, 90), slice(20, 40))),
    "slice with a step": ("plane", (slice(None, None, 7), slice(3, None, 2))),
    "slice backwards": ("plane", (slice(None, None, -1), slice(90, 10, -3))),
    "slice beyond the end, as numpy clips it": ("plane", slice(200, 999)),
    "index list, ascending": ("plane", ([1, 5, 200],)),
    "index list, any order and duplicates": ("plane", ([200, 5, 5, 1],)),
    "index lists on two axes (outer product)": ("plane", ([3, 1, 2], [0, 149])),
    "boolean mask of one axis": ("plane", (MASK,)),
    "boolean masks of two axes": ("plane", (MASK, np.arange(SHAPE[1]) < 5)),
    "boolean mask of the array's shape": ("plane", plane() % 5 == 0),
    "member of a compound": ("table", "wave"),
    "member of a compound, and a slice": ("table", ("tag", slice(3, 40, 2))),
    "no element": ("plane", slice(5, 5)),
}


class Bench:
    """A server, and two ways to ask it: for values, and for who decoded them."""

    def __init__(self, server: Server, client: h5flight.Client, contract: SimpleNamespace) -> None:
        self.folder, self.client, self.contract = Path(server.roots["lab"]), client, contract
        limit = [("grpc.max_receive_message_length", 64 << 20)]
        channel = grpc.insecure_channel(server.url.removeprefix("grpc://"), options=limit)
        self.stub = contract.service.DataServiceStub(channel)
        server.expect(r"worker|quarantine")

    def serve(self, name: str, row: Row) -> tuple[Path, h5flight.Experiment]:
        """Write and register a row's file."""
        name = "".join(letter if letter.isalnum() else "_" for letter in name)
        path = self.folder / f"{name}.h5"
        with h5py.File(path, "w", libver=row.libver, userblock_size=row.userblock) as file:
            row.write(file)
        (told,) = self.client.register(path, animal="support", experiment=name)
        assert told["publication"] is not None, f"{name}: {told}"
        return path, self.client["support"][name]

    def tier(self, dataset: h5flight.Dataset) -> str:
        """Who gave the values of a first read."""
        names = {"animal": dataset.animal, "experiment": dataset.experiment, "dataset": dataset.name}
        call = self.stub.GetData(self.contract.data.GetDataRequest(**names))
        for _ in call:
            pass
        trailer = dict(call.trailing_metadata())["h5flight-stats"]
        blocks = {tier for tier, count in json.loads(trailer)["blocks"].items() if count}
        return "worker" if "worker" in blocks else "catalogue" if "inline" in blocks else "native"

    def outcome(self, file: h5py.File, dataset: h5flight.Dataset) -> str:
        """How h5flight answers; wrong values are no outcome, they fail."""
        try:
            tier = self.tier(dataset)
            values = dataset[...]
        except (h5flight.H5FlightError, grpc.RpcError):
            with pytest.raises(h5flight.H5FlightError) as caught:
                dataset[...]
            return f"refused: `{caught.value.reason}`"
        files.assert_same(values, files.oracle(file[dataset.name]), dataset.name)
        return tier


@pytest.fixture(scope="module")
def bench(server: Server, client: h5flight.Client, contract: SimpleNamespace) -> Bench:
    return Bench(server, client, contract)


@pytest.fixture
def compare(pytestconfig: pytest.Config) -> Callable[[str, list[str]], None]:
    """Compare rows with the page, or write them into it."""

    def compare(name: str, rows: list[str]) -> None:
        table = "\n".join(rows) + "\n"
        if pytestconfig.getoption("--write-support"):
            corpus.rewrite(PAGE, name, table)
        told = corpus.between(PAGE.read_text(), name).splitlines()
        assert rows == told, f"docs/support.md does not say what is so; write it with --write-support ({name})"

    return compare


def by_h5py(file: h5py.File, name: str) -> str:
    """Whether h5py answers, with hdf5plugin's filters at hand. Whether it is right is not asked: it is the oracle."""
    try:
        return "no value" if file[name].shape is None else "ok" if file[name][...] is not None else "error"
    except Exception:  # h5py raises whatever it comes upon
        return "error"


def measure(bench: Bench, rows: Mapping[str, Row], peers: bool) -> list[str]:
    """The table of some rows."""
    heads = ["", "h5flight", "h5py", *(("VirtualiZarr", "kerchunk", "LINDI") if peers else ())]
    table = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        path, experiment = bench.serve(name, row)
        with h5py.File(path) as file:
            names = ["data"] if "data" in file or file.get("data", getlink=True) else list(file)
            ours = " / ".join(sorted({bench.outcome(file, experiment[name]) for name in names}))
            theirs = " / ".join(sorted({by_h5py(file, name) for name in names}))
        cells = [name, ours, theirs, *(row.peers if peers else ())]
        table.append("| " + " | ".join(cells) + " |")
    return table


def test_types(bench: Bench, compare: Callable[[str, list[str]], None]) -> None:
    compare("support of types", measure(bench, TYPES, peers=True))


def test_storage(bench: Bench, compare: Callable[[str, list[str]], None]) -> None:
    compare("support of storage", measure(bench, STORAGE, peers=False))


def test_filters(bench: Bench, compare: Callable[[str, list[str]], None]) -> None:
    compare("support of filters", measure(bench, FILTERS, peers=True))


def test_selections(bench: Bench, compare: Callable[[str, list[str]], None]) -> None:
    def write(file: h5py.File) -> None:
        file.create_dataset("plane", data=plane(), chunks=CHUNKS, compression="gzip")
        file.create_dataset("table", data=files.trials((1500,)), chunks=(400,), compression="gzip")

    path, experiment = bench.serve("selections", Row(write))
    table = ["| selection | h5flight | h5py |", "|---|---|---|"]
    with h5py.File(path) as file:
        for name, (dataset, key) in SELECTIONS.items():
            whole = files.oracle(file[dataset])
            expected = expected_of(whole, key)
            try:
                files.assert_same(experiment[dataset][key], expected, name)
                ours = "ok"
            except h5flight.H5FlightError as error:
                ours = f"refused: `{error.reason}`"
            table.append(f"| {name} | {ours} | {asked_of_h5py(file[dataset], key, expected)} |")
    compare("support of selections", table)


def expected_of(whole: np.ndarray, key: Any) -> Any:
    """What numpy gives for a key, several lists being an outer product."""
    if isinstance(key, str):
        return whole[key]
    if isinstance(key, tuple) and isinstance(key[0], str):
        return whole[key[0]][key[1]]
    if isinstance(key, np.ndarray):
        return whole[key]
    return files.select(whole, key, whole.ndim)


def asked_of_h5py(dataset: h5py.Dataset, key: Any, expected: Any) -> str:
    """Whether h5py gives the same."""
    try:
        found = np.asarray(dataset[key])
    except Exception:  # h5py raises whatever it comes upon
        return "error"
    if found.shape != np.shape(expected):
        return "other shape"
    return "ok" if found.dtype.kind == "S" or np.array_equal(found, expected) else "other values"


def test_a_file_that_is_open_for_writing_is_refused(server: Server, client: h5flight.Client) -> None:
    path = Path(server.roots["lab"]) / "open.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("data", data=plane(), chunks=CHUNKS, maxshape=(None, None))
        file.swmr_mode = True
        (told,) = client.register(path)
    assert told["reason"] == "open_for_writing"
