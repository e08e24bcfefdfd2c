"""Puts over plain Arrow Flight: what is written is what h5py reads from the file and what the server gives again."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import h5flight
import h5py
import hdf5plugin  # noqa: F401  registers zstd and LZ4 with h5py
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from google.protobuf import any_pb2
from h5py.h5t import string_info

from server import Server
from services import until

TYPE_URL = "type.googleapis.com/h5flight.v1.PutRequest"
NONE, DEFLATE, ZSTD, LZ4 = 1, 2, 3, 4
CREATE, REPLACE, APPEND = 0, 1, 2
PLACES = ("put::begin", "put::batch", "put::chunk", "put::finish", "put::flush", "put::hash")
LATER = ("upload::seal", "upload::keep", "upload::kept", "publish::begin")


class Putter:
    """A plain Flight client, and the contract's messages."""

    def __init__(self, server: Server, contract: SimpleNamespace) -> None:
        self.contract = contract
        self.server = server
        self.client = flight.connect(server.url.replace("grpc://", "grpc+tcp://"))

    def descriptor(self, experiment: str, dataset: str, **fields: object) -> flight.FlightDescriptor:
        request = self.contract.data.PutRequest(animal="put", experiment=experiment, dataset=dataset, **fields)
        wrapped = any_pb2.Any(type_url=TYPE_URL, value=request.SerializeToString())
        return flight.FlightDescriptor.for_command(wrapped.SerializeToString())

    def put(self, table: pa.Table, experiment: str, dataset: str, **fields: object) -> object:
        return self.send(self.descriptor(experiment, dataset, **fields), table.schema, table.to_batches())

    def send(
        self, descriptor: flight.FlightDescriptor, schema: pa.Schema, batches: Iterator[pa.RecordBatch] | list
    ) -> object:
        writer, reader = self.client.do_put(descriptor, schema)
        with writer:
            for batch in batches:
                writer.write_batch(batch)
            writer.done_writing()
            answer = reader.read()
            assert answer is not None
            return self.contract.data.PutResponse.FromString(answer.to_pybytes())

    def file(self, content: str) -> Path:
        return next((self.server.folder / "data").rglob(f"{content}.h5"))


@pytest.fixture
def putter(server: Server, contract: SimpleNamespace) -> Iterator[Putter]:
    putter = Putter(server, contract)
    yield putter
    putter.client.close()


REFUSALS = (flight.FlightError, pa.ArrowException, pa.ArrowInvalid, NotImplementedError)


def reason(caught: pytest.ExceptionInfo[BaseException]) -> str:
    return str(caught.value)


def column(values: np.ndarray, **metadata: str) -> pa.Table:
    """Values as the one column ``value``: a tensor where rows have a shape."""
    row_shape = values.shape[1:]
    flat = pa.array(values.reshape(-1))
    told = {f"h5flight.{key}": text for key, text in metadata.items()}
    if row_shape:
        flat = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(row_shape)))
        told.setdefault("h5flight.shape", json.dumps(row_shape))
    field = pa.field("value", flat.type, metadata=told)
    return pa.Table.from_arrays([flat], schema=pa.schema([field]))


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(7)
    return (rng.normal(0, 20, shape).cumsum(0)).astype(dtype)


DTYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
CHUNKS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((1000,), ()),
    ((1000,), (1000,)),
    ((1001,), (64,)),
    ((37, 11), (8, 11)),
    ((37, 11), (8, 4)),
    ((20, 7, 5), (3, 7, 2)),
    ((20, 7, 5), (1, 2, 5)),
    ((0,), ()),
    ((0, 4), (2, 3)),
)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_what_h5py_reads_and_what_is_read_again(
    putter: Putter, client: h5flight.Client, dtype: str
) -> None:
    for number, (shape, chunks) in enumerate(CHUNKS):
        array = values(dtype, shape)
        codec = (NONE, DEFLATE, ZSTD, LZ4)[number % 4]
        made = putter.put(column(array), "numbers", f"{dtype}/a{number}", chunk_shape=chunks, codec=codec)
        assert (made.version, made.first_row, made.rows, made.total_rows) == (1, 0, shape[0], shape[0])
        with h5py.File(putter.file(made.content)) as file:
            dataset = file[f"{dtype}/a{number}"]
            assert dataset.dtype == array.dtype
            assert not chunks or dataset.chunks == chunks
            np.testing.assert_array_equal(dataset[()], array)
        np.testing.assert_array_equal(client["put"]["numbers"][f"{dtype}/a{number}"][:], array)


@pytest.mark.parametrize("codec", [NONE, DEFLATE, ZSTD, LZ4])
@pytest.mark.parametrize("shuffle", [None, False, True])
def test_batches_need_not_align_with_chunks(putter: Putter, codec: int, shuffle: bool | None) -> None:
    array = values("i2", (5000, 3))
    wished = {} if shuffle is None else {"shuffle": shuffle}
    name = f"c{codec}-{shuffle}"
    table = column(array)
    sizes = [1, 999, 0, 1000, 3000]
    batches = [table.slice(sum(sizes[:at]), size).combine_chunks().to_batches() for at, size in enumerate(sizes)]
    batches = [batch for found in batches for batch in found]
    made = putter.send(
        putter.descriptor("align", name, chunk_shape=(777, 2), codec=codec, **wished), table.schema, batches
    )
    with h5py.File(putter.file(made.content)) as file:
        np.testing.assert_array_equal(file[name][()], array)
        assert file[name].shuffle == (codec != NONE if shuffle is None else shuffle)


def test_other_elements_have_the_types_that_h5py_has_for_them(putter: Putter, client: h5flight.Client) -> None:
    flags = np.array([True, False, True])
    made = putter.put(column(flags), "elements", "flags")
    with h5py.File(putter.file(made.content)) as file:
        assert file["flags"].dtype == np.bool_
        np.testing.assert_array_equal(file["flags"][()], flags)

    texts = pa.array([b"ab\0", b"xyz"], pa.binary(3))
    field = pa.field("value", texts.type, metadata={"h5flight.text": "fixed"})
    made = putter.put(pa.Table.from_arrays([texts], schema=pa.schema([field])), "elements", "texts")
    with h5py.File(putter.file(made.content)) as file:
        assert file["texts"].dtype == np.dtype("S3")
        assert file["texts"][()].tolist() == [b"ab", b"xyz"]

    words = pa.array(["\u00e9", "abc"])
    field = pa.field("value", words.type, metadata={"h5flight.bytes": "4"})
    made = putter.put(pa.Table.from_arrays([words], schema=pa.schema([field])), "elements", "words")
    with h5py.File(putter.file(made.content)) as file:
        assert h5py.check_string_dtype(file["words"].dtype) == string_info("utf-8", 4)
        assert file["words"].asstr()[()].tolist() == ["\u00e9", "abc"]

    numbers = np.array([[1 + 2j], [3 - 4j]], "c8")
    made = putter.put(column(numbers.view("f4"), complex="true", shape="[1,2]"), "elements", "complex")
    with h5py.File(putter.file(made.content)) as file:
        assert file["complex"].dtype == np.dtype("c8")
        np.testing.assert_array_equal(file["complex"][()], numbers)
    np.testing.assert_array_equal(client["put"]["elements"]["complex"][:], numbers)

    times = pa.table({"value": pa.array([0, 5], pa.timestamp("ms"))})
    made = putter.put(times, "elements", "times")
    with h5py.File(putter.file(made.content)) as file:
        assert file["times"][()].tolist() == [0, 5]
        assert file["times"].attrs["unit"] == "milliseconds since 1970-01-01T00:00:00Z"


def test_columns_are_a_compound_with_attributes(putter: Putter) -> None:
    table = pa.table({"t": np.arange(5.0), "id": np.arange(5, dtype="u2"), "ok": np.arange(5) % 2 == 0})
    attributes = {"unit": "V", "rate": 2.5, "count": 3, "yes": True, "names": ["a", "b"], "list": [1, 2]}
    made = putter.put(table, "tables", "deep/group/table", attributes_json=json.dumps(attributes))
    with h5py.File(putter.file(made.content)) as file:
        found = file["deep/group/table"]
        assert found.dtype.names == ("t", "id", "ok")
        np.testing.assert_array_equal(found["t"], np.arange(5.0))
        np.testing.assert_array_equal(found["ok"], np.arange(5) % 2 == 0)
        assert {name: np.asarray(value).tolist() for name, value in found.attrs.items()} == attributes


def test_what_was_read_can_be_written_again(putter: Putter) -> None:
    array = values("f4", (100, 6, 2))
    putter.put(column(array), "again", "a")
    path = flight.FlightDescriptor.for_path("put", "again", "a")
    ticket = putter.client.get_flight_info(path).endpoints[0].ticket
    read = putter.client.do_get(ticket).read_all()
    made = putter.put(read, "again", "b")
    with h5py.File(putter.file(made.content)) as file:
        np.testing.assert_array_equal(file["b"][()], array)


def test_a_path_is_a_new_dataset(putter: Putter) -> None:
    table = column(values("i2", (10,)))
    path = flight.FlightDescriptor.for_path("put", "path", "group", "x")
    assert putter.send(path, table.schema, table.to_batches()).version == 1
    with pytest.raises(REFUSALS) as caught:
        putter.send(path, table.schema, table.to_batches())
    assert "exists" in reason(caught)


def test_the_same_rows_make_the_same_bytes_at_any_time_of_day(putter: Putter) -> None:
    made = putter.put(column(values("i2", (300, 3))), "times", "a/b/x", chunk_shape=(100, 3))
    content = putter.file(made.content).read_bytes()
    heads = [at.end() for at in re.finditer(rb"OHDR\x02", content)]
    assert len(heads) == 4, "the root, two groups, the dataset"
    # Bit 5 of an object header's flags: the times of access and change follow (HDF5 file format, IV.A.1.b).
    assert [content[at] & 0x20 for at in heads] == [0] * 4


def test_replacing_makes_the_next_version_and_leaves_the_neighbours(putter: Putter, client: h5flight.Client) -> None:
    first, second = values("i2", (10,)), values("i4", (20,))
    assert putter.put(column(first), "versions", "x", mode=REPLACE).version == 1
    putter.put(column(first), "versions", "y")
    assert putter.put(column(second), "versions", "x", mode=REPLACE, expected_version=1).version == 2
    with pytest.raises(REFUSALS) as caught:
        putter.put(column(first), "versions", "x", mode=REPLACE, expected_version=1)
    assert "version" in reason(caught)
    experiment = client["put"]["versions"]
    np.testing.assert_array_equal(experiment["x"][:], second)
    np.testing.assert_array_equal(experiment["y"][:], first)


def test_a_repeated_put_is_answered_as_the_first_one_was(putter: Putter) -> None:
    table = column(values("i2", (10,)))
    first = putter.put(table, "repeated", "x", writer="rig", sequence=4)
    again = putter.put(table, "repeated", "x", writer="rig", sequence=4)
    assert (again.already, first.already) == (True, False)
    assert (again.version, again.rows, again.content) == (first.version, first.rows, first.content)
    other = putter.put(column(values("i2", (11,))), "repeated", "x", writer="rig", sequence=5, mode=REPLACE)
    assert (other.version, other.already) == (2, False)


REFUSED: tuple[tuple[pa.Table, dict[str, object], str], ...] = (
    (pa.table({"value": pa.array([1, None])}), {}, "nulls"),
    (pa.table({"value": ["text"]}), {}, "h5flight.bytes"),
    (pa.table({"value": pa.array([1], pa.date32())}), {}, "Date32"),
    (pa.table({"value": [1]}), {"chunk_shape": (2, 2)}, "one number an axis"),
    (pa.table({"value": [1]}), {"chunk_shape": (1 << 40,)}, "chunk_bytes_max"),
    (pa.table({"value": [1]}), {"level": 77}, "level 77"),
    (pa.table({"value": [1]}), {"attributes_json": '{"a": null}'}, "attribute"),
)


@pytest.mark.parametrize(("table", "fields", "word"), REFUSED, ids=[word for *_, word in REFUSED])
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    putter: Putter, table: pa.Table, fields: dict[str, object], word: str
) -> None:
    with pytest.raises(REFUSALS) as caught:
        putter.put(table, "refused", "x", **fields)
    assert word in reason(caught)
    assert not list((putter.server.folder / "data" / "uploads").iterdir())


def test_a_client_that_cancels_leaves_nothing(
    putter: Putter, client: h5flight.Client, contract: SimpleNamespace
) -> None:
    """To a server a cancelled stream looks like one at its end, unless it looks closely."""
    table = column(values("i2", (1 << 20,)))
    parts = [pa.ipc.read_message(part.serialize()) for part in (table.schema, table.to_batches()[0])]
    bodies = [b"" if part.body is None else part.body.to_pybytes() for part in parts]
    messages = [
        contract.flight.FlightData(data_header=part.metadata.to_pybytes(), data_body=body)
        for part, body in zip(parts, bodies, strict=True)
    ]
    described = contract.flight.FlightDescriptor.FromString(putter.descriptor("gone", "x").serialize())
    messages[0].flight_descriptor.CopyFrom(described)
    over = threading.Event()

    def sent() -> Iterator[object]:
        yield from messages
        over.wait()

    uploads = putter.server.folder / "data" / "uploads"
    with grpc.insecure_channel(putter.server.url.removeprefix("grpc://")) as channel:
        put = channel.stream_stream(
            "/arrow.flight.protocol.FlightService/DoPut",
            request_serializer=contract.flight.FlightData.SerializeToString,
            response_deserializer=contract.flight.PutResult.FromString,
        )
        call = put(sent())
        until(lambda: list(uploads.iterdir()), "the beginning of a put")
        call.cancel()
        over.set()
    until(lambda: not list(uploads.iterdir()), "the end of a put")
    with pytest.raises(h5flight.NotFoundError):
        client["put"]["gone"]["x"][:]


def test_a_put_larger_than_the_memory_streams_through(start: Callable[..., Server], contract: SimpleNamespace) -> None:
    server = start({}, "--memory-bytes", "64MiB")
    putter = Putter(server, contract)
    putter.put(column(values("i2", (1000, 8))), "large", "small")
    before = server.peak_bytes()
    piece = np.random.default_rng(1).integers(-99, 99, (16384, 64), "i2")
    batch = column(piece).to_batches()[0]
    made = putter.send(putter.descriptor("large", "x"), batch.schema, (batch for _ in range(100)))
    assert made.rows == 100 * len(piece)
    assert server.peak_bytes() - before < 150 << 20
    with h5py.File(putter.file(made.content)) as file:
        np.testing.assert_array_equal(file["x"][-len(piece) :], piece)


@pytest.mark.parametrize("place", PLACES + LATER)
@pytest.mark.parametrize("fault", ["kill", "disk_full"])
def test_a_put_that_fails_at_any_step_is_not_visible_and_leaves_nothing(
    start: Callable[..., Server], contract: SimpleNamespace, tmp_path: Path, place: str, fault: str
) -> None:
    table = column(values("i2", (3000, 5)))
    folder = tmp_path / "server"
    server = Server(folder, {}, environment={"FAILPOINTS": f"{place}=return({fault})"}).start()
    with pytest.raises((flight.FlightError, pa.ArrowException, OSError)):
        Putter(server, contract).put(table, "faults", "x", chunk_shape=(100, 5))
    if fault == "disk_full":
        assert not list((folder / "data" / "uploads").iterdir())
        server.stop()
    server.kill()
    again = start_again(folder)
    try:
        putter = Putter(again, contract)
        with h5flight.connect(again.url) as client:
            with pytest.raises(h5flight.NotFoundError):
                client["put"]["faults"]["x"][:]
            assert putter.put(table, "faults", "x", chunk_shape=(100, 5)).version == 1
            assert client["put"]["faults"]["x"].shape == (3000, 5)
        assert len(list((folder / "data").rglob("*.h5"))) == 1
    finally:
        again.stop()


@pytest.mark.parametrize("place", ["put::begin", "put::hash", "publish::begin", "publish::committed"])
def test_an_append_whose_server_dies_is_there_once_after_it_was_repeated(
    contract: SimpleNamespace, tmp_path: Path, place: str
) -> None:
    table, folder = column(values("i2", (3000, 5))), tmp_path / "server"
    told = {"mode": APPEND, "chunk_shape": (100, 5), "writer": "rig"}
    before = Server(folder, {}).start()
    assert Putter(before, contract).put(table, "faults", "x", sequence=1, **told).total_rows == 3000
    before.stop()
    dying = Server(folder, {}, environment={"FAILPOINTS": f"{place}=return(kill)"}).start()
    with pytest.raises((flight.FlightError, pa.ArrowException, OSError)):
        Putter(dying, contract).put(table, "faults", "x", sequence=2, **told)
    dying.kill()
    again = start_again(folder)
    try:
        with h5flight.connect(again.url) as client:
            seen = 6000 if place == "publish::committed" else 3000
            assert client["put"]["faults"]["x"].shape == (seen, 5)
            made = Putter(again, contract).put(table, "faults", "x", sequence=2, **told)
            assert (made.already, made.first_row, made.total_rows) == (seen == 6000, 3000, 6000)
            found = client["put"]["faults"]["x"][...]
        np.testing.assert_array_equal(found, np.concatenate([values("i2", (3000, 5))] * 2))
        assert again.command("gc", "--json").returncode == 0
        assert len(list((folder / "data").rglob("*.h5"))) == 1, "both have the same bytes"
    finally:
        again.stop()


def start_again(folder: Path) -> Server:
    return Server(folder, {}, environment={"H5FLIGHT_GARBAGE_GRACE_HOURS": "0"}).start()
