"""The few protobuf messages that travel between client and server, written and read by hand.

The client sends three messages (`h5flight.v1.GetDataRequest`, `IngestHeader` and `PutRequest`) and reads three small
ones (`BatchMetadata`, `PutResponse` and the `google.rpc.Status` of an error). The protobuf runtime would be one more
dependency, with generated code that has to fit its version, for about a hundred lines; `tests/test_wire.py` holds them
against code generated from the contract.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

GET_DATA_TYPE_URL = "type.googleapis.com/h5flight.v1.GetDataRequest"
GET_TABLE_TYPE_URL = "type.googleapis.com/h5flight.v1.GetTableRequest"
INGEST_HEADER_TYPE_URL = "type.googleapis.com/h5flight.v1.IngestHeader"
PUT_TYPE_URL = "type.googleapis.com/h5flight.v1.PutRequest"
ERROR_INFO_TYPE_URL = "type.googleapis.com/google.rpc.ErrorInfo"
RETRY_INFO_TYPE_URL = "type.googleapis.com/google.rpc.RetryInfo"
ERROR_DOMAIN = "h5flight"

LAYOUTS = {"auto": 0, "tensor": 1, "columns": 2, "tidy": 3}
STRING_FORMS = {"auto": 0, "binary": 1, "fixed": 2}
COMPRESSIONS = {None: 0, "lz4": 1, "zstd": 2}
PUT_MODES = {"create": 0, "replace": 1, "append": 2}
PUT_CODECS = {None: 0, "none": 1, "deflate": 2, "gzip": 2, "zstd": 3, "lz4": 4}

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def varint(number: int) -> bytes:
    """Encode an unsigned number of up to 64 bits, seven bits to a byte."""
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{number} does not fit 64 bits")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    """Encode a signed number (`sint64`): small ones stay short, whatever their sign."""
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{number} does not fit 64 bits")
    return varint((number << 1) ^ (number >> 63))


def varints(numbers: np.ndarray[Any, Any]) -> bytes:
    """Encode many unsigned numbers (uint64) one after the other, all at once."""
    sizes = np.ones(len(numbers), np.intp)
    for bits in range(7, 64, 7):
        sizes += numbers >= np.uint64(1 << bits)
    places = np.arange(sizes.max(initial=0))
    out = (numbers[:, None] >> (7 * places).astype(np.uint64)).astype(np.uint8) & 0x7F
    out[places < sizes[:, None] - 1] |= 0x80
    encoded: bytes = out[places < sizes[:, None]].tobytes()
    return encoded


def zigzags(numbers: np.ndarray[Any, Any]) -> bytes:
    """Encode many signed numbers (int64) one after the other."""
    return varints(((numbers << 1) ^ (numbers >> 63)).view(np.uint64))


def block(field: int, payload: bytes) -> bytes:
    """Write a field of bytes: a text, a message, packed numbers. Empty ones too: presence has a meaning."""
    return varint(field << 3 | _LENGTH) + varint(len(payload)) + payload


def text(field: int, value: str) -> bytes:
    """Write a text field; an empty one is the default and is left out."""
    return block(field, value.encode()) if value else b""


def number(field: int, value: int) -> bytes:
    """Write an unsigned field; 0 is the default and is left out."""
    return varint(field << 3 | _VARINT) + varint(value) if value else b""


def index(position: int) -> bytes:
    """`AxisSelection` of one index."""
    return varint(1 << 3 | _VARINT) + zigzag(position)


def slice_(part: slice) -> bytes:
    """`AxisSelection` of a slice; what is None is left out."""
    bounds = ((1, part.start), (2, part.stop), (3, part.step))
    return block(
        2, b"".join(varint(field << 3 | _VARINT) + zigzag(value) for field, value in bounds if value is not None)
    )


def index_list(indices: Sequence[int]) -> bytes:
    """`AxisSelection` of a list of indices."""
    packed = zigzags(np.array(indices, np.int64))
    return block(3, block(1, packed) if packed else b"")


def mask(bits: bytes, length: int) -> bytes:
    """`AxisSelection` of a boolean list: flags eight to a byte, least significant bit first."""
    return block(4, (block(1, bits) if bits else b"") + number(2, length))


ELLIPSIS = block(5, b"")


def points(rank: int, coordinates: np.ndarray[Any, Any]) -> bytes:
    """`Selection.points`: single elements, `rank` coordinates each."""
    packed = zigzags(coordinates)
    return block(3, number(1, rank) + (block(2, packed) if packed else b""))


def element_mask(
    shape: Sequence[int],
    *,
    bits: bytes = b"",
    length: int = 0,
    first: int = 0,
    skips: np.ndarray[Any, Any] | None = None,
) -> bytes:
    """`Selection.mask`: flags of consecutive elements from `first` on, or how many lie between those that are set."""
    sizes = block(1, b"".join(map(varint, shape)))
    between = b"" if skips is None else varints(skips.astype(np.uint64))
    flags = (block(2, bits) if bits else b"") + number(3, length) + number(4, first)
    return block(4, sizes + flags + (block(5, between) if between else b""))


def selection(axes: Sequence[bytes], fields: Sequence[str] = (), elements: bytes = b"") -> bytes:
    """`Selection`: one entry per axis, members of a compound, or single elements in place of axes."""
    return b"".join(block(1, axis) for axis in axes) + b"".join(block(2, name.encode()) for name in fields) + elements


def version_selector(version: int, as_of_us: int | None, tag: str) -> bytes:
    """`VersionSelector`; empty is the current version."""
    if as_of_us is not None:
        # Presence has a meaning here, and a negative number is its two's complement.
        return varint(2 << 3 | _VARINT) + varint(as_of_us & (1 << 64) - 1)
    return number(1, version) + text(3, tag)


@dataclass(frozen=True)
class GetData:
    """A `GetDataRequest`.

    Attributes
    ----------
    animal, experiment, dataset : str
        What is read.
    parts : bytes, str or None
        An encoded `Selection`, or numpy's text of one; None is everything.
    layout : str
        ``auto``, ``tensor``, ``columns`` or ``tidy``.
    version : int
        Version, counted from 1; 0 is the current one.
    strings : str
        ``auto``, ``binary`` (bytes even where they are UTF-8) or ``fixed`` (as numpy keeps them).
    batch_bytes : int
        Bytes a batch should have; 0 is the server's choice.
    compression : str or None
        Of batches on the wire: None, ``lz4`` or ``zstd``.
    as_of_us : int or None
        In place of a version: the one that was current at this time, in microseconds since 1970 UTC.
    tag : str
        In place of a version: the one with this tag; empty for none.
    series : bytes
        Fields in the words of a series, encoded by `h5flight.units`.
    rows : (int, int) or None
        Only these rows of the result: the first one, and the one behind the last.
    """

    animal: str
    experiment: str
    dataset: str
    parts: bytes | str | None = None
    layout: str = "tensor"
    version: int = 0
    strings: str = "auto"
    batch_bytes: int = 0
    compression: str | None = None
    as_of_us: int | None = None
    tag: str = ""
    series: bytes = b""
    rows: tuple[int, int] | None = None

    def encode(self) -> bytes:
        """Encode the message itself."""
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout {self.layout!r} is none of {', '.join(LAYOUTS)}")
        if self.strings not in STRING_FORMS:
            raise ValueError(f"strings {self.strings!r} is none of {', '.join(STRING_FORMS)}")
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"compression {self.compression!r} is none of None, lz4, zstd")
        part = b""
        if isinstance(self.parts, str):
            part = block(4, self.parts.encode())
        elif self.parts is not None:
            part = block(5, self.parts)
        names = text(1, self.animal) + text(2, self.experiment) + text(3, self.dataset)
        how = number(6, LAYOUTS[self.layout]) + number(7, self.version) + number(8, STRING_FORMS[self.strings])
        if self.rows is not None:
            how += block(9, number(1, self.rows[0]) + number(2, self.rows[1]))
        how += number(11, self.batch_bytes)
        at = version_selector(0, self.as_of_us, self.tag)
        at = block(12, at) if at else b""
        return names + part + how + at + number(16, COMPRESSIONS[self.compression]) + self.series

    def ticket(self) -> bytes:
        """Encode the message in a `google.protobuf.Any`, which is what a Flight ticket or command carries."""
        return text(1, GET_DATA_TYPE_URL) + block(2, self.encode())


def ingest_header(
    *,
    file_name: str,
    file_bytes: int,
    blake3: str = "",
    idempotency_key: str = "",
    animal: str = "",
    experiment: str = "",
    replace: bool = False,
    offset: int = 0,
) -> bytes:
    """Encode an `IngestHeader` in a `google.protobuf.Any`, which is what the command of an upload carries."""
    names = text(4, idempotency_key) + text(5, animal) + text(6, experiment) + number(7, int(replace))
    header = text(1, file_name) + number(2, file_bytes) + text(3, blake3) + names + number(8, offset)
    return text(1, INGEST_HEADER_TYPE_URL) + block(2, header)


@dataclass(frozen=True)
class PutRequest:
    """A `PutRequest`.

    Attributes
    ----------
    animal, experiment, dataset : str
        What is written.
    mode : str
        ``create``, ``replace`` or ``append``.
    chunk_shape : tuple of int
        Shape of a chunk; empty is the server's choice.
    codec : str or None
        ``none``, ``deflate`` (or ``gzip``), ``zstd``, ``lz4``; None is the server's choice.
    level : int or None
        Of the compression.
    shuffle : bool or None
        Whether bytes are shuffled before.
    attributes_json : str
        Attributes of the dataset; empty for none.
    writer, sequence : str, int
        Who writes, and which of its puts this is.
    expected_version, expected_first_row : int or None
        What the put is based on.
    failures_max : int
        Not sent: attempts after the first one, before a put is given up.
    """

    animal: str
    experiment: str
    dataset: str
    mode: str = "create"
    chunk_shape: tuple[int, ...] = ()
    codec: str | None = None
    level: int | None = None
    shuffle: bool | None = None
    attributes_json: str = ""
    writer: str = ""
    sequence: int = 0
    expected_version: int | None = None
    expected_first_row: int | None = None
    failures_max: int = 10

    def encode(self) -> bytes:
        """Encode the message itself."""
        if self.mode not in PUT_MODES:
            raise ValueError(f"mode {self.mode!r} is none of {', '.join(PUT_MODES)}")
        if self.codec not in PUT_CODECS:
            known = ", ".join(repr(codec) for codec in PUT_CODECS if codec)
            raise ValueError(f"codec {self.codec!r} is none of {known}")
        names = text(1, self.animal) + text(2, self.experiment) + text(3, self.dataset)
        shape = b"".join(map(varint, self.chunk_shape))
        how = number(4, PUT_MODES[self.mode]) + (block(5, shape) if shape else b"") + number(6, PUT_CODECS[self.codec])
        # A negative number of 32 bits is its two's complement of 64.
        level = None if self.level is None else self.level & (1 << 64) - 1
        shuffle = None if self.shuffle is None else int(self.shuffle)
        how += _optional(7, level) + _optional(8, shuffle) + text(9, self.attributes_json)
        based = _optional(12, self.expected_version) + _optional(13, self.expected_first_row)
        return names + how + text(10, self.writer) + number(11, self.sequence) + based

    def command(self) -> bytes:
        """Encode the message in a `google.protobuf.Any`, which is what the command of a put carries."""
        return text(1, PUT_TYPE_URL) + block(2, self.encode())


def _optional(field: int, value: int | None) -> bytes:
    """Write a field whose presence has a meaning."""
    return b"" if value is None else varint(field << 3 | _VARINT) + varint(value)


def put_response(message: bytes) -> dict[str, Any]:
    """`PutResponse`: version, first_row, rows, total_rows, already, content."""
    found = dict(fields(message))
    numbers = {
        name: found.get(field, 0) for field, name in enumerate(("version", "first_row", "rows", "total_rows"), 1)
    }
    return {**numbers, "already": bool(found.get(5, 0)), "content": _words(found.get(6))}


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Read a message: pairs of field number and value, a number or bytes.

    Raises
    ------
    ValueError
        When the message ends within a field or holds something that is not protobuf.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _LENGTH:
            size, at = _read_varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"protobuf field of unknown kind {kind}")
        if size > len(message) - at:
            raise ValueError(f"protobuf field of {size} bytes, {len(message) - at} are left")
        yield tag >> 3, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("protobuf message ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("protobuf number of more than 64 bits")


def batch_metadata(message: bytes) -> tuple[int, int]:
    """`BatchMetadata`: first row of a batch within the whole result, and its number of rows."""
    found = {field: value for field, value in fields(message) if isinstance(value, int)}
    return found.get(1, 0), found.get(2, 0)


@dataclass(frozen=True)
class Status:
    """What a server says of an error: the gRPC code, its message, the reason, facts for programs, when to retry."""

    code: int
    message: str
    reason: str
    metadata: dict[str, str]
    retry_after_s: float = 0.0


def status(message: bytes) -> Status:
    """Read a `google.rpc.Status` with the `ErrorInfo` and `RetryInfo` among its details."""
    code, words, reason, retry_after_s = 0, "", "", 0.0
    facts: dict[str, str] = {}
    for field, value in fields(message):
        if field == 1 and isinstance(value, int):
            code = value
        elif field == 2 and isinstance(value, bytes):
            words = value.decode(errors="replace")
        elif field == 3 and isinstance(value, bytes) and (info := _error_info(value)):
            reason, facts = info
        elif field == 3 and isinstance(value, bytes):
            retry_after_s = _retry_after_s(value) or retry_after_s
    return Status(code, words, reason, facts, retry_after_s)


def _retry_after_s(detail: bytes) -> float:
    """Seconds of a `google.rpc.RetryInfo`; 0 for other details."""
    parts = {field: value for field, value in fields(detail) if isinstance(value, bytes)}
    if parts.get(1) != RETRY_INFO_TYPE_URL.encode():
        return 0.0
    delay = next((value for field, value in fields(parts.get(2, b"")) if field == 1 and isinstance(value, bytes)), b"")
    numbers = {field: value for field, value in fields(delay) if isinstance(value, int)}
    return numbers.get(1, 0) + numbers.get(2, 0) / 1e9


def _error_info(detail: bytes) -> tuple[str, dict[str, str]] | None:
    """Reason and metadata of a detail, where it is an ErrorInfo of ours."""
    parts = {field: value for field, value in fields(detail) if isinstance(value, bytes)}
    if parts.get(1) != ERROR_INFO_TYPE_URL.encode():
        return None
    info = [(field, value) for field, value in fields(parts.get(2, b"")) if isinstance(value, bytes)]
    if dict(info).get(2) != ERROR_DOMAIN.encode():
        return None
    entries = (dict(fields(value)) for field, value in info if field == 3)
    return _words(dict(info).get(1)), {_words(entry.get(1)): _words(entry.get(2)) for entry in entries}


def _words(value: int | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
