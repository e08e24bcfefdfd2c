"""A Flight server of a few lines: no oracle, only a counterpart for the client's own logic."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight


class OneDatasetServer(flight.FlightServerBase):
    """Serves slices of numpy arrays in batches of two rows, last batch first; no oracle, only a counterpart."""

    def __init__(self, contract: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.contract, self.arrays, self.requests, self.actions = contract, arrays, [], []
        self.puts, self.broken_puts, self.refused = [], 0, 0
        self.turn = threading.Event()

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:  # noqa: ARG002
        from google.protobuf import any_pb2

        packed = any_pb2.Any.FromString(ticket.ticket)
        request = self.contract.data.GetDataRequest()
        assert packed.Unpack(request)
        self.requests.append(request)
        if request.dataset not in self.arrays:
            raise KeyError(f"no dataset {request.dataset!r}")
        array = self.arrays[request.dataset]
        found = array[apply(request, array.shape)]
        return tensor_stream(self.contract, np.array(found, order="C"), array.shape)

    def do_put(
        self,
        context: flight.ServerCallContext,  # noqa: ARG002
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        from google.protobuf import any_pb2

        request = self.contract.data.PutRequest()
        assert any_pb2.Any.FromString(descriptor.command).Unpack(request)
        batches = [chunk.data for chunk in reader]
        if any(column.null_count for batch in batches for column in batch.columns):
            self.refused += 1
            raise pa.ArrowInvalid("put_mismatch")
        self.puts.append((request, pa.Table.from_batches(batches, reader.schema)))
        if self.broken_puts:
            self.broken_puts -= 1
            raise flight.FlightUnavailableError("gone")
        rows = sum(batch.num_rows for batch in batches)
        first = request.expected_first_row
        answer = self.contract.data.PutResponse(
            version=len(self.puts), first_row=first, rows=rows, total_rows=first + rows, content="c0ffee"
        )
        writer.write(answer.SerializeToString())

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> list[bytes]:  # noqa: ARG002
        body = json.loads(action.body.to_pybytes())
        self.actions.append((action.type, body))
        if action.type == "list-datasets":
            names = sorted(self.arrays)
            at = names.index(body["page_token"]) if body["page_token"] else 0
            page = [describe(name, self.arrays[name]) for name in names[at : at + 1]]
            return [json.dumps({"datasets": page, "next_token": [*names, ""][at + 1]}).encode()]
        if action.type == "describe":
            name = body["path"]
            if name == "group":
                return [json.dumps({"kind": "group", "children": [{"name": "inside", "kind": "dataset"}]}).encode()]
            attributes = {"unit": "mV", "raw": {"b64": "AAE="}, "to": {"ref": "/x"}}
            facts = describe(name, self.arrays[name])
            return [json.dumps({"kind": "dataset", "attributes": attributes, "dataset": facts}).encode()]
        return [b"{}"]


def describe(name: str, array: np.ndarray) -> dict:
    names = {"animal": "a", "experiment": "e", "dataset": name}
    return {**names, "version": 1, "shape": array.shape, "dtype": array.dtype.str, "decoded_bytes": array.nbytes}


def apply(request: object, shape: tuple[int, ...]) -> tuple:
    """numpy's own form of a request's selection."""
    if request.WhichOneof("part") == "selection":
        return eval(f"numpy.s_[{request.selection}]", {"numpy": np})
    elements = request.parts.WhichOneof("elements")
    if elements == "points":
        points = request.parts.points
        return tuple(np.array(points.coordinates, int).reshape(-1, points.rank or len(shape)).T)
    if elements == "mask":
        mask = request.parts.mask
        if tuple(mask.shape) != shape:
            raise IndexError(f"a mask of shape {list(mask.shape)} for an array of shape {list(shape)}")
        flags = np.zeros(int(np.prod(shape)), bool)
        bits = np.unpackbits(np.frombuffer(mask.bits, np.uint8), bitorder="little")[: mask.length]
        flags[mask.first : mask.first + mask.length] = bits
        flags[mask.first + np.cumsum(np.array(mask.skips, int) + 1) - 1] = True
        return np.nonzero(flags.reshape(shape))
    axes = []
    for axis in request.parts.axes:
        kind = axis.WhichOneof("kind")
        if kind == "index":
            axes.append(axis.index)
        elif kind == "slice":
            bounds = [getattr(axis.slice, n) if axis.slice.HasField(n) else None for n in ("start", "stop", "step")]
            axes.append(slice(*bounds))
        elif kind == "list":
            axes.append(np.array(axis.list.indices, int))
        elif kind == "mask":
            bits = np.unpackbits(np.frombuffer(axis.mask.bits, np.uint8), bitorder="little")
            axes.append(bits[: axis.mask.length].astype(bool))
        else:
            axes.append(Ellipsis)
    return tuple(axes)


def told(found: np.ndarray, shape: tuple[int, ...]) -> dict[str, str]:
    kind = {"kind": "integer", "signed": True} if found.dtype.kind == "i" else {"kind": "float"}
    element = {**kind, "bytes": found.dtype.itemsize, "order": "little"}
    shapes = {"h5flight.shape": json.dumps(found.shape), "h5flight.dataset_shape": json.dumps(shape)}
    return {**shapes, "h5flight.type": json.dumps(element), "h5flight.version": "3"}


def tensor_stream(contract: SimpleNamespace, found: np.ndarray, shape: tuple[int, ...]) -> flight.GeneratorStream:
    kind = pa.from_numpy_dtype(found.dtype)
    if found.ndim > 1:
        kind = pa.fixed_shape_tensor(kind, found.shape[1:])
    schema = pa.schema([pa.field("value", kind)], metadata=told(found, shape))
    rows = found.reshape(found.shape[0] if found.ndim else 1, int(np.prod(found.shape[1:])))

    def batches():
        for first in reversed(range(0, len(rows), 2)):
            part = pa.array(rows[first : first + 2].reshape(-1))
            if found.ndim > 1:
                storage = pa.FixedSizeListArray.from_arrays(part, rows.shape[1])
                part = pa.ExtensionArray.from_storage(kind, storage.cast(kind.storage_type))
            where = contract.data.BatchMetadata(first_row=first, rows=len(rows[first : first + 2]))
            yield pa.record_batch([part], schema=schema), where.SerializeToString()

    return flight.GeneratorStream(schema, batches())
