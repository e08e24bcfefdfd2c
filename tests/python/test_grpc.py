"""The same slices over gRPC and over Flight, byte for byte; uploads; details of errors."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import h5flight
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

import files
from server import Server

CASES = [
    ("number/be_f8", "", 1),
    ("number/cube", "::-1, 1:4, 2", 1),
    ("number/be_i2", "3:9", 2),
    ("compound/line", "'tag', 'wave', ::2", 0),
    ("compound/notes", "", 0),
    ("text/plane", "1", 0),
    ("vlen/floats", "", 0),
    ("number/cube", "..., 0", 3),
    ("enum/colour", "", 0),
    ("scalar/text", "", 0),
    ("empty/cube", "", 1),
]


@pytest.fixture(scope="module")
def channel(server: Server, publish: Callable[..., h5flight.Experiment]) -> Iterator[grpc.Channel]:
    path = Path(server.roots["lab"]) / "grpc.h5"
    files.write_types(path)
    publish(path, "g")
    limit = [("grpc.max_receive_message_length", 64 << 20)]
    with grpc.insecure_channel(server.url.removeprefix("grpc://"), options=limit) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel, contract: SimpleNamespace) -> object:
    return contract.service.DataServiceStub(channel)


def ipc(messages: list) -> bytes:
    """The messages of a stream as an Arrow IPC stream."""
    out = io.BytesIO()
    for message in messages:
        header = message.data_header + b"\0" * (-len(message.data_header) % 8)
        out.write(b"\xff\xff\xff\xff" + len(header).to_bytes(4, "little") + header + message.data_body)
    out.write(b"\xff\xff\xff\xff\0\0\0\0")
    return out.getvalue()


@pytest.mark.parametrize(("dataset", "selection", "layout"), CASES)
def test_grpc_and_flight_send_the_same_messages(
    server: Server,
    stub: object,
    channel: grpc.Channel,
    contract: SimpleNamespace,
    dataset: str,
    selection: str,
    layout: int,
) -> None:
    request = contract.data.GetDataRequest(
        animal="g", experiment="grpc", dataset=dataset, selection=selection, layout=layout
    )
    over_grpc = list(stub.GetData(request))
    packed = any_pb2.Any()
    packed.Pack(request)
    ticket = contract.flight.Ticket(ticket=packed.SerializeToString())
    do_get = channel.unary_stream(
        "/arrow.flight.protocol.FlightService/DoGet",
        request_serializer=contract.flight.Ticket.SerializeToString,
        response_deserializer=contract.flight.FlightData.FromString,
    )
    over_flight = list(do_get(ticket))
    assert over_grpc == over_flight
    with flight.connect(server.url) as bare:
        table = bare.do_get(flight.Ticket(packed.SerializeToString())).read_all()
    assert as_bytes(pa.ipc.open_stream(ipc(over_grpc)).read_all()) == as_bytes(table)


def as_bytes(table: pa.Table) -> bytes:
    """A table as its bytes: a comparison by values would not find NaN equal to NaN."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return sink.getvalue().to_pybytes()


def test_the_trailer_tells_what_a_read_took(stub: object, contract: SimpleNamespace) -> None:
    call = stub.GetData(contract.data.GetDataRequest(animal="g", experiment="grpc", dataset="number/cube"))
    for _ in call:
        pass
    trailers = dict(call.trailing_metadata())
    assert '"rows"' in trailers["h5flight-stats"]


def test_an_error_carries_code_reason_and_message(stub: object, contract: SimpleNamespace) -> None:
    request = contract.data.GetDataRequest(animal="g", experiment="grpc", dataset="number/line", selection="99")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.GetData(request))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert (info.domain, info.reason) == ("h5flight", "out_of_bounds")
    assert "99" in caught.value.details()


def upload(contract: SimpleNamespace, content: bytes, **header: object) -> Iterator[object]:
    told = {"file_name": "up.h5", "file_bytes": len(content), "animal": "up", "experiment": "one", **header}
    yield contract.data.IngestRequest(header=contract.data.IngestHeader(**told))
    for at in range(0, len(content), 1 << 20):
        yield contract.data.IngestRequest(data=content[at : at + (1 << 20)])


def made_file(value: int) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        values = np.full((100, 100), value, "i4")
        file.create_dataset("data", data=values, chunks=(10, 100), compression="gzip")
    return memory.getvalue()


def test_an_upload_is_there_when_it_is_answered_and_again_changes_nothing(
    stub: object, client: h5flight.Client, contract: SimpleNamespace
) -> None:
    content = made_file(7)
    answer = stub.Ingest(upload(contract, content, idempotency_key="k1"))
    assert answer.publication.datasets == 1
    assert not answer.publication.already
    assert client["up"]["one"]["data"][5, 5] == 7
    again = stub.Ingest(upload(contract, content, idempotency_key="k1"))
    assert again.publication.already
    assert again.content == answer.content


def test_an_upload_that_is_based_on_an_older_version_loses(stub: object, contract: SimpleNamespace) -> None:
    def based_on(version: int) -> list[object]:
        names = {"animal": "up", "experiment": "based", "dataset": "data"}
        return [contract.data.ExpectedVersion(**names, version=version)]

    header = {"experiment": "based", "replace": True}
    assert not stub.Ingest(upload(contract, made_file(1), **header, expected=based_on(0))).publication.already
    stub.Ingest(upload(contract, made_file(2), **header, expected=based_on(1)))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Ingest(upload(contract, made_file(3), **header, expected=based_on(1)))
    assert caught.value.code() == grpc.StatusCode.ABORTED
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    won = {"dataset": "up/based/data", "expected_version": "1", "current_version": "2"}
    assert (info.reason, dict(info.metadata)) == ("conflict", won)
    assert "version 2" in caught.value.details()
    asked = {"animal": "up", "experiment": "based", "dataset": "data"}
    versions = stub.ListVersions(contract.data.ListVersionsRequest(**asked)).versions
    assert [version.version for version in versions] == [2, 1]


@pytest.mark.parametrize(
    ("content", "header", "reason"),
    [
        (b"this is no HDF5 file" * 100, {}, "not_hdf5"),
        (made_file(1), {"file_bytes": 10}, "upload_mismatch"),
        (made_file(1), {"blake3": "00" * 32}, "upload_mismatch"),
        (made_file(1)[:3000], {}, "truncated"),
    ],
    ids=["no-hdf5", "wrong-size", "wrong-hash", "cut"],
)
def test_an_upload_that_is_not_what_it_says_leaves_nothing(
    stub: object, client: h5flight.Client, contract: SimpleNamespace, content: bytes, header: dict, reason: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Ingest(upload(contract, content, **{"animal": "refused", **header}))
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason in (reason, "malformed_file")
    assert "refused" not in client


def test_lists_and_descriptions_are_those_of_the_actions(
    stub: object, client: h5flight.Client, contract: SimpleNamespace
) -> None:
    answer = stub.ListDatasets(contract.data.ListDatasetsRequest(animal="g", experiment="grpc"))
    assert [found.dataset for found in answer.datasets][:50] == list(client["g"]["grpc"])[:50]
    found = stub.Describe(contract.data.DescribeRequest(animal="g", experiment="grpc", path="number/cube"))
    assert tuple(found.dataset.shape) == client["g"]["grpc"]["number/cube"].shape
    assert stub.GetServerInfo(contract.data.GetServerInfoRequest()).version == client.server_info()["version"]
