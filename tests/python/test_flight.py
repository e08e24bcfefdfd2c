"""Arrow Flight as any client speaks it: bare pyarrow, nothing of our package."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import h5flight
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from google.protobuf import any_pb2

from server import Server

PLANE = np.arange(5000 * 12, dtype="i4").reshape(5000, 12)
LONG = np.arange(200_000 * 8, dtype="f8").reshape(200_000, 8)


@pytest.fixture(scope="module")
def lab(server: Server, publish: Callable[..., h5flight.Experiment]) -> h5py.File:
    path = Path(server.roots["lab"]) / "bare.h5"
    with h5py.File(path, "w") as file:
        plane = file.create_dataset("imaging/traces", data=PLANE, chunks=(500, 12), compression="gzip")
        plane.attrs["unit"] = "counts"
        file["line"] = np.linspace(0, 1, 100)
        file.create_dataset("long", data=LONG, chunks=(4000, 8))
        file["cube"] = PLANE.reshape(500, 10, 12)
        file["trials"] = np.array([(1, b"a"), (2, b"b")], [("id", "i4"), ("tag", "S1")])
        file["words"] = ["x", "yz"]
    publish(path, "bare")
    with h5py.File(path) as file:
        yield file


@pytest.fixture
def bare(server: Server, lab: h5py.File) -> Iterator[flight.FlightClient]:
    with flight.connect(server.url) as connected:
        yield connected


def path_of(*names: str) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_path("bare", "bare", *names)


def read(bare: flight.FlightClient, descriptor: flight.FlightDescriptor) -> pa.Table:
    info = bare.get_flight_info(descriptor)
    return pa.concat_tables(bare.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints)


def command(contract: SimpleNamespace, **request: object) -> bytes:
    packed = any_pb2.Any()
    packed.Pack(contract.data.GetDataRequest(**{"animal": "bare", "experiment": "bare", **request}))
    return packed.SerializeToString()


def test_a_path_becomes_a_frame_in_three_lines(bare: flight.FlightClient) -> None:
    info = bare.get_flight_info(path_of("imaging/traces"))
    assert info.total_records == 5000
    assert info.total_bytes >= PLANE.nbytes
    frame = bare.do_get(info.endpoints[0].ticket).read_pandas()
    assert list(frame.columns) == [str(i) for i in range(12)]
    np.testing.assert_array_equal(frame.to_numpy(), PLANE)


def test_a_dataset_name_may_come_in_one_element_or_in_several(bare: flight.FlightClient) -> None:
    assert read(bare, path_of("imaging", "traces")).equals(read(bare, path_of("/imaging/traces")))


def test_the_schema_is_the_same_wherever_it_is_asked_for(bare: flight.FlightClient) -> None:
    schema = bare.get_schema(path_of("imaging/traces")).schema
    assert schema.equals(bare.get_flight_info(path_of("imaging/traces")).schema, check_metadata=True)
    table = read(bare, path_of("imaging/traces"))
    assert schema.equals(table.schema, check_metadata=True)
    told = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert json.loads(told["h5flight.shape"]) == [5000, 12]
    assert json.loads(told["h5flight.attributes"])["unit"] == "counts"


def test_ranks_and_types_have_the_columns_that_were_promised(bare: flight.FlightClient) -> None:
    line = read(bare, path_of("line"))
    assert line.column_names == ["value"]
    np.testing.assert_array_equal(line["value"].to_numpy(), np.linspace(0, 1, 100))
    cube = read(bare, path_of("cube"))
    assert cube.schema.field("value").type == pa.fixed_shape_tensor(pa.int32(), (10, 12)) or isinstance(
        cube.schema.field("value").type, pa.FixedShapeTensorType
    )
    found = np.concatenate([chunk.to_numpy_ndarray() for chunk in cube["value"].chunks])
    np.testing.assert_array_equal(found, PLANE.reshape(500, 10, 12))
    trials = read(bare, path_of("trials"))
    assert trials.to_pylist() == [{"id": 1, "tag": "a"}, {"id": 2, "tag": "b"}]
    assert read(bare, path_of("words"))["value"].to_pylist() == ["x", "yz"]


def test_a_request_may_be_a_command_and_also_a_ticket_at_once(
    bare: flight.FlightClient, contract: SimpleNamespace
) -> None:
    request = command(contract, dataset="imaging/traces", selection="10:20, ::3", layout=contract.data.LAYOUT_COLUMNS)
    by_command = read(bare, flight.FlightDescriptor.for_command(request))
    at_once = bare.do_get(flight.Ticket(request)).read_all()
    assert by_command.equals(at_once)
    assert at_once.column_names == ["0", "3", "6", "9"]
    np.testing.assert_array_equal(at_once.to_pandas().to_numpy(), PLANE[10:20, ::3])


def test_the_tidy_layout_has_index_columns(bare: flight.FlightClient, contract: SimpleNamespace) -> None:
    request = command(contract, dataset="cube", selection="2:4, 5, ::6", layout=contract.data.LAYOUT_TIDY)
    table = bare.do_get(flight.Ticket(request)).read_all()
    assert table.column_names == ["dim_0", "dim_2", "value"]
    cube = PLANE.reshape(500, 10, 12)
    assert table.num_rows == 4
    for row in table.to_pylist():
        assert row["value"] == cube[row["dim_0"], 5, row["dim_2"]]


def test_several_endpoints_are_ranges_that_make_the_whole(bare: flight.FlightClient, contract: SimpleNamespace) -> None:
    request = command(contract, dataset="long", layout=contract.data.LAYOUT_TENSOR, endpoints_max=4)
    info = bare.get_flight_info(flight.FlightDescriptor.for_command(request))
    assert 1 < len(info.endpoints) <= 4
    rows = np.full(len(LONG), -1.0)
    for endpoint in info.endpoints:
        for chunk in bare.do_get(endpoint.ticket):
            where = contract.data.BatchMetadata.FromString(chunk.app_metadata.to_pybytes())
            assert where.rows == chunk.data.num_rows
            rows[where.first_row : where.first_row + where.rows] = chunk.data["value"].to_numpy_ndarray()[:, 0]
    np.testing.assert_array_equal(rows, LONG[:, 0])


def test_a_range_of_rows_goes_on_where_a_stream_broke(bare: flight.FlightClient, contract: SimpleNamespace) -> None:
    rows = contract.data.RowRange(start=4990, stop=5000)
    request = command(contract, dataset="imaging/traces", rows=rows, layout=contract.data.LAYOUT_TENSOR)
    (chunk,) = list(bare.do_get(flight.Ticket(request)))
    assert contract.data.BatchMetadata.FromString(chunk.app_metadata.to_pybytes()).first_row == 4990
    np.testing.assert_array_equal(chunk.data["value"].to_numpy_ndarray(), PLANE[4990:])


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_compressed_batches_hold_the_same_values(server: Server, lab: h5py.File, compression: str | None) -> None:
    with h5flight.connect(server.url, compression=compression) as client:
        experiment = pickle.loads(pickle.dumps(client))["bare"]["bare"]
        for name in ("long", "cube", "trials", "words", "line"):
            np.testing.assert_array_equal(
                experiment[name][:], lab[name][:] if name != "words" else np.array(["x", "yz"], object)
            )


def test_a_compression_that_does_not_exist_is_refused(
    server: Server, bare: flight.FlightClient, contract: SimpleNamespace
) -> None:
    with pytest.raises(ValueError, match="'gzip' is none of None, 'lz4', 'zstd'"):
        h5flight.connect(server.url, compression="gzip")
    with pytest.raises(pa.ArrowInvalid, match="compression 7 does not exist"):
        bare.do_get(flight.Ticket(command(contract, dataset="long", compression=7))).read_all()


def test_flights_and_actions_are_listed(bare: flight.FlightClient) -> None:
    flights = {tuple(info.descriptor.path) for info in bare.list_flights()}
    assert (b"bare", b"bare", b"line") in flights or (b"bare", b"bare", b"imaging/traces") in flights
    actions = {action.type for action in bare.list_actions()}
    expected = {"list-animals", "list-experiments", "list-datasets", "describe", "search", "server-info", "register"}
    assert expected | {"list-chunks"} <= actions


def act(bare: flight.FlightClient, name: str, **body: object) -> dict:
    (answer,) = bare.do_action(flight.Action(name, json.dumps(body).encode()))
    return json.loads(answer.body.to_pybytes())


def test_actions_answer_in_json_page_by_page(bare: flight.FlightClient) -> None:
    assert "bare" in [found["animal"] for found in act(bare, "list-animals")["animals"]]
    names, token = [], ""
    while True:
        page = act(bare, "list-datasets", animal="bare", experiment="bare", page_size=2, page_token=token)
        assert len(page["datasets"]) <= 2
        names += [found["dataset"] for found in page["datasets"]]
        token = page["next_token"]
        if not token:
            break
    assert names == ["cube", "imaging/traces", "line", "long", "trials", "words"]
    group = act(bare, "describe", animal="bare", experiment="bare", path="imaging")
    assert (group["kind"], group["children"]) == (
        "group",
        [{"name": "traces", "kind": "dataset", "problem_reason": ""}],
    )
    found = act(bare, "search", query="COUNTS traces")["datasets"]
    assert [entry["dataset"] for entry in found] == ["imaging/traces"]
    chunks = act(bare, "list-chunks", animal="bare", experiment="bare", dataset="imaging/traces")["chunks"]
    assert [chunk["position"] for chunk in chunks] == [[i, 0] for i in range(10)]


def test_chunk_pointers_are_those_of_the_file(bare: flight.FlightClient, lab: h5py.File) -> None:
    chunks = act(bare, "list-chunks", animal="bare", experiment="bare", dataset="imaging/traces")["chunks"]
    for at, chunk in enumerate(chunks):
        info = lab["imaging/traces"].id.get_chunk_info(at)
        assert (chunk["offset"], chunk["stored_bytes"]) == (info.byte_offset, info.size)
        assert chunk["filter_mask"] == info.filter_mask


@pytest.mark.parametrize(
    ("names", "error", "says"),
    [
        (("bare", "bare", "imaging/trace"), pa.ArrowKeyError, "imaging/traces"),
        (("bare", "nobody", "x"), pa.ArrowKeyError, "nobody"),
        (("beer", "bare", "x"), pa.ArrowKeyError, "beer"),
        (("bare",), pa.ArrowInvalid, "experiment"),
    ],
)
def test_errors_have_the_flight_class_and_name_what_is_near(
    bare: flight.FlightClient, names: tuple[str, ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        bare.get_flight_info(flight.FlightDescriptor.for_path(*names))


@pytest.mark.parametrize("ticket", [b"", b"nonsense", b"\x0a\x05abcde", b"\xff" * 4096])
def test_a_ticket_that_means_nothing_is_refused(bare: flight.FlightClient, ticket: bytes) -> None:
    with pytest.raises((pa.ArrowInvalid, flight.FlightUnauthenticatedError, flight.FlightUnauthorizedError)):
        bare.do_get(flight.Ticket(ticket)).read_all()
    assert act(bare, "server-info")["version"]


def test_a_ticket_cannot_be_changed(bare: flight.FlightClient) -> None:
    ticket = bytearray(bare.get_flight_info(path_of("line")).endpoints[0].ticket.ticket)
    for at in range(0, len(ticket), max(1, len(ticket) // 40)):
        forged = bytes(ticket[:at] + bytes([ticket[at] ^ 1]) + ticket[at + 1 :])
        with pytest.raises((pa.ArrowInvalid, flight.FlightUnauthenticatedError, flight.FlightUnauthorizedError)):
            bare.do_get(flight.Ticket(forged)).read_all()
