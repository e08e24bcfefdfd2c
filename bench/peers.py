"""What h5flight is held against, and how a client reads from each.

Two servers live here, each run as its own process: ``python bench/peers.py naive FILE`` is the Flight server that one
writes in an afternoon, ``python bench/peers.py memory FILE ROWS`` is the fastest that pyarrow has, with everything in
memory. Both are read by the code by which h5flight is read, and tell shape and type as it does. What is measured never
lives here. The other modules have from here what is found only once the paths of the client and the tests are known.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py
import hdf5plugin  # noqa: F401, registers its filters with h5py
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import redis

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "clients" / "python" / "src"), str(ROOT / "tests" / "python")]

import h5flight
from h5flight import arrays
from h5flight import wire as wire
from h5flight.connection import Connection
from h5flight.errors import from_flight as from_flight
from server import Server as Server
from services import Redis as Redis
from services import until as until

PIECE_BYTES = 4 << 20
"""What the naive server reads and sends at a time, at least."""

MEMORY_BATCH_BYTES = 2 << 20
"""Batches of the server that has everything in memory: those of h5flight."""

Slice = tuple[slice, ...]
Where = tuple[str, ...]
"""How a reader is opened: its kind and what it needs to know."""


# Servers


class BenchServer(flight.FlightServerBase):
    """On a free port of the loopback; answers any action, by which a client sees that it is connected."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[bytes]:
        """Answer with nothing."""
        return iter(())


class NaiveServer(BenchServer):
    """h5py behind pyarrow.flight: reads piece by piece along axis 0, and sends each piece as a batch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._dataset = h5py.File(path)["data"]

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        """Answer with the part that the ticket names."""
        key = tuple(slice(start, stop) for start, stop in json.loads(ticket.ticket))
        schema = schema_of(self._dataset.dtype, tuple(part.stop - part.start for part in key))
        return flight.GeneratorStream(schema, self._batches(key, schema))

    def _batches(self, key: Slice, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for first, last in pieces(self._dataset, key):
            yield batch_of(self._dataset[(slice(first, last), *key[1:])], schema)


def pieces(dataset: h5py.Dataset, key: Slice) -> Iterator[tuple[int, int]]:
    """Rows to read at a time. They end where chunks end: else each chunk would be decoded once for every piece."""
    row_bytes = int(np.prod([part.stop - part.start for part in key[1:]])) * dataset.dtype.itemsize
    unit = dataset.chunks[0] if dataset.chunks else 1
    rows = -(-PIECE_BYTES // (row_bytes * unit)) * unit
    first = key[0].start
    while first < key[0].stop:
        last = min((first + rows) // unit * unit, key[0].stop)
        yield first, last
        first = last


class MemoryServer(BenchServer):
    """The first rows of a dataset as a table in memory; sending them is C++ alone."""

    def __init__(self, path: Path, rows: int) -> None:
        super().__init__()
        with h5py.File(path) as file:
            values = file["data"][:rows]
        schema = schema_of(values.dtype, values.shape)
        step = max(1, MEMORY_BATCH_BYTES // values[0].nbytes)
        batches = [batch_of(values[start : start + step], schema) for start in range(0, rows, step)]
        self._table = pa.Table.from_batches(batches)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        """Answer with all of it."""
        return flight.RecordBatchStream(self._table)


def schema_of(dtype: np.dtype, shape: tuple[int, ...]) -> pa.Schema:
    """One column of rows, with what the client must know of the result."""
    kind = {"kind": "integer", "bytes": dtype.itemsize, "signed": dtype.kind == "i"}
    column = pa.list_(pa.from_numpy_dtype(dtype), int(np.prod(shape[1:])))
    metadata = {arrays.SHAPE: json.dumps(shape).encode(), arrays.TYPE: json.dumps(kind).encode()}
    return pa.schema([pa.field("value", column, nullable=False)], metadata)


def batch_of(values: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
    """Rows as a batch, without a copy."""
    flat = pa.array(values.reshape(-1))
    return pa.record_batch([pa.FixedSizeListArray.from_arrays(flat, type=schema.field(0).type)], schema=schema)


class Peer:
    """A server of this module in its own process.

    Parameters
    ----------
    *arguments
        As on the command line.
    """

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, __file__, *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"{' '.join(command[1:])} ended with {self._process.wait()} before it listened")
        self.url = f"grpc://127.0.0.1:{port}"
        self.pid = self._process.pid

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


# Readers


class Reader(Protocol):
    """A dataset somewhere."""

    def __getitem__(self, key: Slice) -> np.ndarray: ...

    def close(self) -> None: ...


class Local:
    """The file itself, by h5py."""

    def __init__(self, path: str) -> None:
        self._file = h5py.File(path)
        self._dataset = self._file["data"]

    def __getitem__(self, key: Slice) -> np.ndarray:
        return self._dataset[key]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class H5Flight:
    """A dataset of the h5flight server, by its client."""

    def __init__(self, url: str, experiment: str) -> None:
        self._client = h5flight.connect(url)
        self._dataset = self._client["bench"][experiment]["data"]

    def __getitem__(self, key: Slice) -> np.ndarray:
        return self._dataset[key]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@dataclass(frozen=True)
class Bounds(wire.GetData):
    """What is asked of the servers of this module, in place of h5flight's request."""

    key: Slice = ()

    def ticket(self) -> bytes:
        """Give the bounds of all axes."""
        return json.dumps([[part.start, part.stop] for part in self.key]).encode()


class Arrow:
    """A server of this module, read by the connection of h5flight's client."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)
        self._connection.act("hello")

    def __getitem__(self, key: Slice) -> np.ndarray:
        return self._connection.array(Bounds("bench", "bench", "data", key=key))[0]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Recipe:
    """The lab recipe's hot read: a pickled array in Redis under the name of its slice."""

    def __init__(self, port: str) -> None:
        self._redis = redis.Redis(port=int(port))
        self._redis.ping()

    def __getitem__(self, key: Slice) -> np.ndarray:
        return pickle.loads(self._redis.get(str(key)))

    def __setitem__(self, key: Slice, values: np.ndarray) -> None:
        self._redis.set(str(key), pickle.dumps(values))

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


READERS: dict[str, type[Local | H5Flight | Arrow | Recipe]] = {
    "h5py": Local,
    "h5flight": H5Flight,
    "arrow": Arrow,
    "redis": Recipe,
}


def reader(where: Where) -> Reader:
    """Open what can be read by slices; it is connected then."""
    kind, *arguments = where
    return READERS[kind](*arguments)


def main() -> None:
    """Serve until told to end."""
    kind, path, *rows = sys.argv[1:]
    server = NaiveServer(Path(path)) if kind == "naive" else MemoryServer(Path(path), int(rows[0]))
    print(server.port, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
