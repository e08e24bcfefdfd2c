"""One connection to one server: calls, tickets, and errors with the server's reason.

pyarrow drops the details of an error, so a small middleware keeps the trailer that carries them.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.flight as flight

from . import arrays, columns, put, wire
from .allocation import keep_freed_memory
from .errors import H5FlightError, ServerUnavailableError, from_flight
from .progress import Progress, Wish
from .retries import Patience, repeated, rest_of

if TYPE_CHECKING:
    from .tables import GetTable

DEFAULT_URL = "grpc://127.0.0.1:8815"
_DETAILS = "grpc-status-details-bin"

_APART_BYTES = 16 << 20
"""Results from here on are copied by a second thread: 100 MB cost 1.2 times a read without a copy, not 1.4."""

_WINDOWS = "h5flight.windows"
"""Of the schema: which events the rows are around."""

_BATCHES_AHEAD = 4
"""Batches that wait to be copied at most, of 1 to 4 MB each."""

_SAFE = frozenset(
    [
        "describe",
        "diff-versions",
        "list-animals",
        "list-chunks",
        "list-datasets",
        "list-experiments",
        "list-versions",
        "search",
        "search-experiments",
    ]
)
"""Actions that change nothing, however often they are called; without server-info: who asks it wants to know now."""


class _Trailers(flight.ClientMiddleware):  # type: ignore[misc]
    """Keeps what the server said of the error of one call."""

    def __init__(self) -> None:
        super().__init__()
        self.details: bytes | None = None

    def received_headers(self, headers: dict[str, list[str | bytes]]) -> None:
        for value in headers.get(_DETAILS, []):
            self.details = value.encode("latin-1") if isinstance(value, str) else value


class _Calls(flight.ClientMiddlewareFactory):  # type: ignore[misc]
    """Makes the middleware of each call and remembers the last one of each thread, which is the one that may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.last = threading.local()

    def start_call(self, info: flight.CallInfo) -> _Trailers:  # noqa: ARG002
        self.last.call = _Trailers()
        return self.last.call  # type: ignore[no-any-return]


class Exchange:
    """An upload under way."""

    def __init__(self, writer: flight.FlightStreamWriter, reader: flight.FlightStreamReader) -> None:
        self._writer, self._reader = writer, reader

    def send(self, data: bytes) -> None:
        """Send the next bytes."""
        self._writer.write_metadata(pa.py_buffer(data))

    def answer(self) -> dict[str, Any]:
        """End the upload and wait for the server's answer."""
        self._writer.done_writing()
        answer: dict[str, Any] = {}
        for chunk in self._reader:
            # The answers before the last one tell how far it is.
            answer = json.loads(chunk.app_metadata.to_pybytes())
        return answer


def _spoil(writer: flight.FlightStreamWriter, schema: pa.Schema) -> None:
    """Make the server refuse a put that is under way.

    pyarrow cannot cancel one: a writer that is dropped ends its stream in good order, and the rows so far would become
    a dataset. A row of nulls is refused, whatever was before it.
    """
    with contextlib.suppress(pa.ArrowException, OSError):
        nulls = [pa.nulls(1, getattr(field.type, "storage_type", field.type)) for field in schema]
        row = [
            pa.ExtensionArray.from_storage(field.type, array) if hasattr(field.type, "storage_type") else array
            for field, array in zip(schema, nulls, strict=True)
        ]
        writer.write_batch(pa.RecordBatch.from_arrays(row, schema=schema))
        writer.done_writing()


class _SourceError(Exception):
    """An error of where rows come from, which may be of the same kind as one of the connection."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _of_source(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except Exception as error:
        raise _SourceError(error) from error


@functools.cache
def _set_up_process() -> None:
    """Do once what concerns all connections."""
    keep_freed_memory()


class Connection:
    """Calls to one server. Threads may share it; it is opened at the first call, and anew in a forked process.

    Parameters
    ----------
    url : str
        ``grpc://HOST:PORT``, ``grpc+tls://HOST:PORT`` or ``grpc+unix:///PATH``.
    token : str
        Bearer token; empty for none.
    timeout_s : float or None
        Seconds that a call may take, a whole read included.
    tls_root_certs : bytes or None
        PEM of the authorities to trust in place of the system's.
    compression : str or None
        Of what is read: None, ``lz4`` or ``zstd``.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        timeout_s: float | None = None,
        tls_root_certs: bytes | None = None,
        compression: str | None = None,
    ) -> None:
        if compression not in wire.COMPRESSIONS:
            raise ValueError(f"compression {compression!r} is none of None, 'lz4', 'zstd'")
        self.url, self.token, self.compression = url, token, compression
        self.timeout_s, self.tls_root_certs = timeout_s, tls_root_certs
        self._lock = threading.Lock()
        self._calls = _Calls()
        self._client: flight.FlightClient | None = None
        self._process = 0
        self._closed = False

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("url", "token", "timeout_s", "tls_root_certs", "compression")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Connection.__init__(self, **state)

    def close(self) -> None:
        """Close the connection; later calls are refused."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        if client is not None and self._process == os.getpid():
            client.close()

    def _flight(self) -> flight.FlightClient:
        with self._lock:
            if self._closed:
                raise ValueError("the client is closed")
            if self._client is None or self._process != os.getpid():
                _set_up_process()
                # Of a unix socket's URL pyarrow makes an :authority that strict servers refuse.
                unix = [("grpc.default_authority", "localhost")] if self.url.startswith("grpc+unix") else []
                tls = {"tls_root_certs": self.tls_root_certs} if self.tls_root_certs else {}
                try:
                    self._client = flight.connect(self.url, middleware=[self._calls], generic_options=unix, **tls)
                except pa.ArrowInvalid as error:
                    raise ValueError(f"{self.url!r} is no URL of a server, {DEFAULT_URL} is: {error}") from None
                self._process = os.getpid()
            return self._client

    def _options(self) -> flight.FlightCallOptions:
        headers = [(b"authorization", b"Bearer " + self.token.encode())] if self.token else []
        return flight.FlightCallOptions(timeout=self.timeout_s, headers=headers)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn pyarrow's errors into ours."""
        self._calls.last.call = None
        try:
            yield
        except (pa.ArrowException, pa.ArrowCancelled, OSError) as error:
            call = self._calls.last.call
            ours = from_flight(error, call.details if call else None)
            if isinstance(ours, ServerUnavailableError) and not ours.reason:
                ours.message = (
                    f"no h5flight server answers at {self.url} (start one with `h5flight serve`, or name another by "
                    f"url= or H5FLIGHT_URL): {ours.message}"
                )
            raise ours from None

    def act(self, action: str, **body: Any) -> list[Any]:
        """Call an action with a JSON body; the answers are JSON too."""
        client = self._flight()
        with self._errors():
            request = flight.Action(action, json.dumps(body).encode())
            answers = client.do_action(request, self._options())
            return [json.loads(answer.body.to_pybytes()) for answer in answers]

    def ask(self, action: str, **body: Any) -> dict[str, Any]:
        """Call an action that has one answer; what changes nothing is tried again when the server is away or busy."""
        answers = repeated(lambda: self.act(action, **body)) if action in _SAFE else self.act(action, **body)
        found: dict[str, Any] = answers[0]
        return found

    def pages(self, action: str, entries: str, /, page_size: int = 1000, **body: Any) -> Iterator[dict[str, Any]]:
        """Go through a list, page by page.

        Parameters
        ----------
        action : str
            The action.
        entries : str
            Where an answer holds the entries.
        page_size : int
            Entries of a page.
        **body
            What else the action takes.
        """
        token = ""
        while True:
            answer = self.ask(action, **body, page_size=page_size, page_token=token)
            yield from answer.get(entries, ())
            token = answer.get("next_token", "")
            if not token:
                return

    @contextlib.contextmanager
    def stream(self, request: wire.GetData | GetTable) -> Iterator[flight.FlightStreamReader]:
        """Start a read: one round trip. Leaving early cancels it."""
        client = self._flight()
        request = dataclasses.replace(request, compression=request.compression or self.compression)
        with self._errors():
            reader = client.do_get(flight.Ticket(request.ticket()), self._options())
            try:
                yield reader
            except BaseException:
                reader.cancel()
                raise

    @contextlib.contextmanager
    def exchange(self, header: dict[str, Any]) -> Iterator[Exchange]:
        """Start an upload. Leaving early breaks it off, so that it can go on."""
        client = self._flight()
        headers = [(b"authorization", b"Bearer " + self.token.encode())] if self.token else []
        with self._errors():
            descriptor = flight.FlightDescriptor.for_command(wire.ingest_header(**header))
            # No time limit: it would be one for the whole file.
            writer, reader = client.do_exchange(descriptor, flight.FlightCallOptions(headers=headers))
            try:
                yield Exchange(writer, reader)
            except BaseException:
                reader.cancel()
                # What was wrong is told by the end of the call, not by the message that could not be sent.
                writer.close()
                raise
            writer.close()

    def put(self, request: wire.PutRequest, rows: columns.Batches) -> put.Put:
        """Send rows; gives the server's answer when they are durable and visible.

        When the rows cannot be had to their end, the put is spoilt: the server takes none of them.
        """
        client = self._flight()
        headers = [(b"authorization", b"Bearer " + self.token.encode())] if self.token else []
        with self._errors():
            descriptor = flight.FlightDescriptor.for_command(request.command())
            # No time limit: it would be one for all rows.
            options = flight.FlightCallOptions(headers=headers)
            writer, answers = client.do_put(descriptor, rows.schema, options)
            answer, source_error = None, None
            try:
                for batch in _of_source(rows.batches):
                    writer.write_batch(batch)
                writer.done_writing()
                answer = answers.read()
            except _SourceError as failed:
                source_error = failed.error
                _spoil(writer, rows.schema)
            except (pa.ArrowException, OSError):
                _spoil(writer, rows.schema)
                # What was wrong is told by the end of the call, not by the message that could not be sent.
                writer.close()
                raise
            except BaseException:
                _spoil(writer, rows.schema)
                raise
            with contextlib.suppress(*([pa.ArrowException, OSError] if source_error else [])):
                writer.close()
        if source_error:
            raise source_error
        if answer is None:
            raise ServerUnavailableError("the server ended the put without an answer")
        return put.Put(**wire.put_response(answer.to_pybytes()))

    def array(self, request: wire.GetData, progress: Wish = None) -> tuple[arrays.Array, dict[str, str]]:
        """Read into numpy; also gives the schema's metadata. A stream that breaks goes on at the row it reached."""
        patience, assembly, part = Patience(), None, request
        metadata: dict[str, str] = {}
        while True:
            try:
                with self.stream(part) as reader:
                    told = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
                    if assembly is not None and told.get(_WINDOWS) != metadata.get(_WINDOWS):
                        raise H5FlightError("the table of events was changed while windows were read: read again")
                    if assembly is None:
                        metadata = told
                        assembly = arrays.Assembly(reader.schema, request.strings)
                    self._fill(assembly, reader, Progress(assembly.nbytes, request.dataset, progress))
                return assembly.finish(), metadata
            except H5FlightError as error:  # noqa: PERF203, this is what the loop is for
                reached = assembly.rows_in_order() if assembly else 0
                patience.wait(error, reached)
                if assembly is not None and reached:
                    version = int(metadata.get("h5flight.version", 0))
                    part = rest_of(request, reached, assembly.rows, version)

    def _fill(self, assembly: arrays.Assembly, reader: flight.FlightStreamReader, shown: Progress) -> None:
        """Place batches as they come: of a large result in a second thread, while the next ones are received."""
        if assembly.nbytes < _APART_BYTES:
            with shown:
                for chunk in reader:
                    assembly.place(chunk.data, chunk.app_metadata)
                    shown.reach(assembly.placed_bytes)
            return
        with shown, ThreadPoolExecutor(1) as pool:
            under_way: collections.deque[Future[None]] = collections.deque()
            for chunk in reader:
                under_way.append(pool.submit(assembly.place, chunk.data, chunk.app_metadata))
                if len(under_way) > _BATCHES_AHEAD:
                    under_way.popleft().result()
                shown.reach(assembly.placed_bytes)
            for placing in under_way:
                placing.result()
            shown.reach(assembly.placed_bytes)

    def schema(self, request: wire.GetData) -> pa.Schema:
        """The schema that a read would have: nothing is read for it."""
        client = self._flight()
        with self._errors():
            return client.get_schema(flight.FlightDescriptor.for_command(request.ticket()), self._options()).schema

    def table(self, request: wire.GetData) -> pa.Table:
        """Read into an Arrow table; tried again as a whole when the stream breaks."""

        def read() -> pa.Table:
            with self.stream(request) as reader:
                return reader.read_all()

        return repeated(read)
