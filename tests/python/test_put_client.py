"""What the Python client writes, a real server serves and h5py reads: the same values, whatever their form.

`H5FLIGHT_PUTS` says how many random arrays are written, `H5FLIGHT_SEED` repeats a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from server import Server
from uploading import Proxy

PUTS = int(os.environ.get("H5FLIGHT_PUTS", "60"))
KINDS = ["i1", "<i2", ">i2", "<u4", ">u8", "<f2", ">f4", "<f8", "?", "<c8", "<c16", "S5", "U4"]
CONTENT = b"[0-9a-f]{64}"
"""What only the acknowledgement of a put has: the content address."""

CODECS = [None, "none", "gzip", "zstd", "lz4"]


def seeded() -> np.random.Generator:
    seed = int(os.environ.get("H5FLIGHT_SEED", np.random.default_rng().integers(1 << 32)))
    print(f"seed {seed}: H5FLIGHT_SEED repeats it")
    return np.random.default_rng(seed)


def random_values(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of this kind; those of any bits where every pattern is a value."""
    dtype = np.dtype(kind)
    if dtype.kind == "U":
        return rng.choice(np.array(["", "a", "ä", "日本語", "xyz"]), shape).astype(kind)
    if dtype.kind == "S":
        return rng.choice(np.array([b"", b"a", b"abc", b"12345"]), shape).astype(kind)
    if dtype.kind in "iu":
        return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
    return (rng.normal(size=shape) * 100).astype(kind) if dtype.kind != "b" else rng.integers(0, 2, shape).astype(bool)


def kept(server: Server, made: h5flight.Put) -> Path:
    """The file that a put made."""
    return server.folder / "data" / "files" / made.content[:2] / f"{made.content}.h5"


def as_numbers(array: np.ndarray) -> np.ndarray:
    """In native order; texts as the bytes that HDF5 keeps of them."""
    array = np.asarray(array)
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8")
    if array.dtype.kind == "O":
        return np.array([text.encode() if isinstance(text, str) else text for text in array.reshape(-1)]).reshape(
            array.shape
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def test_random_arrays_come_back_as_they_were(client: h5flight.Client, server: Server) -> None:
    rng = seeded()
    for number in range(PUTS):
        kind, rank = KINDS[rng.integers(len(KINDS))], int(rng.integers(1, 5))
        shape = tuple(int(size) for size in rng.integers(1, (3000, 60, 20, 9)[rank - 1], rank))
        values = random_values(rng, kind, shape)
        codec = CODECS[rng.integers(len(CODECS))]
        chunks = tuple(int(rng.integers(1, size + 1)) for size in shape) if rng.integers(2) else None
        told = f"put {number}: {kind} {shape}, {codec}, chunks {chunks}"
        batch_bytes = int(rng.choice([1, 1000, 1 << 21]))
        made = client.put(
            "m", "random", f"group/d{number}", values, codec=codec, chunks=chunks, batch_bytes=batch_bytes,
            attrs={"unit": "mV", "gain": 2.5, "ids": [1, 2]},
        )  # fmt: skip
        assert (made.version, made.first_row, made.rows, made.total_rows) == (1, 0, len(values), len(values)), told
        dataset = client["m"]["random"][f"group/d{number}"]
        np.testing.assert_array_equal(as_numbers(dataset[...]), as_numbers(values), told)
        assert chunks is None or dataset.chunks == chunks, told
        assert dataset.attrs["unit"] == "mV", told
        if codec not in ("zstd", None, "lz4"):  # h5py alone has no filter for these.
            with h5py.File(kept(server, made)) as file:
                np.testing.assert_array_equal(as_numbers(file[f"group/d{number}"][...]), as_numbers(values), told)


def test_tables_of_every_library_are_compounds(client: h5flight.Client) -> None:
    records = np.array([(1, 2.5, b"ab"), (3, -4.5, b"c")], [("n", "<i4"), ("x", "<f8"), ("s", "S2")])
    frame = pd.DataFrame({"n": [1, 2, 3], "name": ["a", "bb", "ä"]}, index=pd.Index([5, 6, 7], name="id"))
    client.put("m", "tables", "records", records)
    client.put("m", "tables", "frame", frame)
    client.put("m", "tables", "arrow", pa.table({"a": pa.array([1, 2], pa.uint16()), "b": [True, False]}))
    client.put("m", "tables", "pieces", (records for _ in range(5)))
    experiment = client["m"]["tables"]
    assert experiment["records"][...].tolist() == records.tolist()
    assert experiment["pieces"][...].tolist() == np.tile(records, 5).tolist()
    found = experiment["frame"].to_pandas()
    assert found["id"].tolist() == [5, 6, 7]
    assert found["name"].tolist() == ["a", "bb", "ä"]
    assert [bool(flag) for flag in experiment["arrow"]["b"]] == [True, False]


def test_names_and_values_in_the_wrong_order_are_told(client: h5flight.Client) -> None:
    with pytest.raises(TypeError, match="the animal is a ndarray: the order is animal, experiment, dataset, data"):
        client.put(np.zeros(3), "m", "e", "d")


def test_a_put_hides_no_group_and_lies_in_no_dataset(client: h5flight.Client) -> None:
    client.put("m", "hiding", "group/data", np.arange(3))
    for mode in ("create", "replace"):
        with pytest.raises(h5flight.H5FlightError, match='"group" is a group already') as refused:
            client.put("m", "hiding", "group", np.arange(3), mode=mode)
        assert refused.value.reason == "put_mismatch"
        with pytest.raises(h5flight.H5FlightError, match='"group/data" is a dataset already') as refused:
            client.put("m", "hiding", "group/data/more", np.arange(3), mode=mode)
        assert refused.value.reason == "put_mismatch"
    assert client.put("m", "hiding", "group/more", np.arange(2)).version == 1
    assert sorted(client["m"]["hiding"]) == ["group/data", "group/more"]


def test_a_put_that_breaks_off_leaves_nothing(client: h5flight.Client) -> None:
    def breaks_off(error: Exception) -> Iterator[np.ndarray]:
        yield np.zeros((1000, 50))
        raise error

    for error in (ZeroDivisionError(), FileNotFoundError("the next file")):
        with pytest.raises(type(error)):
            client.put("m", "broken", "d", breaks_off(error))
    with pytest.raises(h5flight.NotFoundError):
        client["m"]["broken"]["d"].shape  # noqa: B018
    assert client.put("m", "broken", "d", np.ones(3)).version == 1


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    running = Proxy()
    running.to(server)
    yield running
    running.cut()


def test_a_put_over_a_bad_line_makes_one_version(
    client: h5flight.Client, proxy: Proxy, say: Callable[[str], None]
) -> None:
    """The line breaks somewhere in the rows, or the acknowledgement does not come through."""
    rng, puts, again = seeded(), 20, 0
    with h5flight.connect(proxy.url) as line:
        for number in range(puts):
            if number % 2:
                proxy.break_after(int(rng.integers(1, 30_000)))
            else:
                proxy.break_before(CONTENT)
            values = np.full((250, 64), number, "i2")
            made = line.put("m", "line", "d", values, mode="replace", writer="rig", sequence=number)
            assert (made.version, made.rows, made.already) == (number + 1, 250, number % 2 == 0)
            again += made.already
            np.testing.assert_array_equal(client["m"]["line"]["d"][...], values)
    assert len(client["m"]["line"]["d"].versions()) == puts
    say(f"puts over a bad line: {puts}, {again} of them known when they came again, 0 lost, 0 twice")


def test_without_a_writer_nobody_knows_what_became_of_a_broken_put(client: h5flight.Client, proxy: Proxy) -> None:
    with h5flight.connect(proxy.url) as line:
        proxy.break_after(20_000)
        with pytest.raises(h5flight.PutError, match="not known"):
            line.put("m", "unknown", "d", np.zeros((2500, 64)))
    with pytest.raises(h5flight.NotFoundError):
        client["m"]["unknown"]["d"][...]
