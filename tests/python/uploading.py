"""What the tests of uploads share: files, streams that stop where they are told, a connection that breaks."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import h5py
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from h5flight.blake3 import Blake3

from server import Server
from services import until

PIECE = 256 << 10
"""Bytes of one message."""


def values(seed: int, megabytes: int) -> np.ndarray:
    """Values that do not compress."""
    return np.random.default_rng(seed).integers(0, 1 << 32, (megabytes, 1 << 18), dtype="u4")


def write(path: Path, seed: int, megabytes: int) -> bytes:
    """Write a file with one dataset and give its bytes."""
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=values(seed, megabytes), chunks=(1, 1 << 18))
    return path.read_bytes()


def blake3(content: bytes) -> str:
    hasher = Blake3()
    hasher.update(content)
    return hasher.hexdigest()


def refusal(error: grpc.RpcError) -> str:
    """The stable reason of an error."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return info.reason


class Uploader:
    """Uploads one content over gRPC, message by message, as far as it is told."""

    def __init__(self, contract: SimpleNamespace, content: bytes, **header: object) -> None:
        self.contract, self.content = contract, content
        told = {"file_name": "up.h5", "file_bytes": len(content), "animal": "up", "experiment": "one"}
        self.header = {**told, "blake3": blake3(content), **header}
        self.sent_bytes = 0

    def connect(self, server: Server) -> None:
        self.channel = grpc.insecure_channel(server.url.removeprefix("grpc://"))
        self.stub = self.contract.service.DataServiceStub(self.channel)

    def status(self) -> tuple[int, int]:
        """Durable bytes and state."""
        asked = {name: self.header.get(name) for name in ("file_bytes", "blake3", "idempotency_key")}
        answer = self.stub.UploadStatus(self.contract.data.UploadStatusRequest(**asked))
        return answer.durable_bytes, answer.state

    def messages(self, offset: int, stop: int | None = None) -> Iterator[object]:
        """The header and the bytes from `offset` to `stop`."""
        yield self.contract.data.IngestRequest(header=self.contract.data.IngestHeader(**self.header, offset=offset))
        stop = len(self.content) if stop is None else stop
        for at in range(offset, stop, PIECE):
            piece = self.content[at : min(at + PIECE, stop)]
            self.sent_bytes += len(piece)
            yield self.contract.data.IngestRequest(data=piece)

    def send(self, offset: int, stop: int | None = None) -> object:
        """Upload a part, or all, and give the answer."""
        return self.stub.Ingest(self.messages(offset, stop))

    @contextlib.contextmanager
    def held(self, offset: int, *stops: int) -> Iterator[Callable[[], None]]:
        """Send up to each stop, and wait there until the next is asked for; in the end the stream is cancelled."""
        turns, done = [threading.Event() for _ in stops], threading.Event()
        taken = iter(turns)

        def messages() -> Iterator[object]:
            at = offset
            whole = iter(self.messages(offset))
            yield next(whole)
            for stop, turn in zip(stops, turns, strict=True):
                turn.wait(60)
                while at < stop:
                    at += PIECE
                    yield next(whole)
            done.wait(60)

        call = self.stub.Ingest.future(messages())
        try:
            yield lambda: next(taken).set()
        finally:
            call.cancel()
            done.set()
            for turn in turns:
                turn.set()


class Proxy:
    """Forwards connections to a server that may move, and breaks them when told."""

    def __init__(self) -> None:
        self.port = 0
        self.forwarded_bytes = 0
        self._break_after: int | None = None
        self._lost: re.Pattern[bytes] | None = None
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self._listener.getsockname()[1]}"

    def to(self, server: Server) -> None:
        self.port = int(server.url.rpartition(":")[2])

    def break_after(self, forwarded_bytes: int) -> None:
        """Cut every connection when so many more bytes went to the server."""
        self._break_after = self.forwarded_bytes + forwarded_bytes

    def break_before(self, pattern: bytes) -> None:
        """Cut every connection when the server answers with this, which then never arrives."""
        self._lost = re.compile(pattern)

    def wait_for_break(self) -> None:
        until(lambda: self._break_after is None, "the break of the connection", 60)

    def cut(self) -> None:
        """Cut every connection now."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink, source is client), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(64 << 10):
                if not counts and self._lost and self._lost.search(data):
                    self._lost = None
                    self.cut()
                    break
                sink.sendall(data)
                if counts:
                    self.forwarded_bytes += len(data)
                    if self._break_after is not None and self.forwarded_bytes >= self._break_after:
                        self._break_after = None
                        self.cut()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
