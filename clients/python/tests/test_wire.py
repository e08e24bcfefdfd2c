"""The hand-written protobuf, held against code generated from the contract."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from h5flight import selection, wire
from h5flight.history import VersionAt

CASES = [
    (),
    0,
    -1,
    (1 << 62, -(1 << 63)),
    slice(None),
    slice(3, None, -2),
    (slice(-5, 0), slice(0, 0, 1)),
    ([], [0], [5, -1, 300]),
    np.array([True, False] * 9),
    np.zeros(0, bool),
    (Ellipsis, 4),
    ("x", "y", slice(0, 2)),
    ("x", selection.Points([(0, -1), (1 << 62, -(1 << 63))])),
    selection.Points([]),
    np.arange(20).reshape(4, 5) % 2 == 0,
    np.arange(2000).reshape(40, 50) % 700 == 9,
    np.zeros((3, 4), bool),
    np.zeros((0, 4), bool),
]


@pytest.mark.parametrize("key", CASES, ids=repr)
def test_a_request_is_encoded_as_generated_code_would(contract: SimpleNamespace, key: object) -> None:
    parsed = selection.parse(key)
    request = wire.GetData("ä", "e", "d/x", parsed.encode(), "tidy", 1 << 40, "binary", 65536, "zstd")
    found = contract.data.GetDataRequest.FromString(request.encode())
    expected = contract.data.GetDataRequest(
        animal="ä", experiment="e", dataset="d/x", layout=3, version=1 << 40, strings=1, batch_bytes=65536
    )
    expected.compression = 2
    if isinstance(parsed.elements, selection.Points):
        expected.parts.points.rank = parsed.elements.coordinates.shape[1]
        expected.parts.points.coordinates.extend(parsed.elements.coordinates.reshape(-1).tolist())
    if isinstance(parsed.elements, selection.ElementMask):
        add_mask(expected.parts.mask, parsed.elements.flags)
    if parsed.axes or parsed.fields:
        expected.parts.fields.extend(parsed.fields)
        for axis in parsed.axes:
            add(expected.parts.axes.add(), axis)
    assert found == expected
    assert request.encode() == expected.SerializeToString()


def test_the_header_of_an_upload_is_encoded_as_generated_code_would(contract: SimpleNamespace) -> None:
    told = {"file_name": "ä.h5", "file_bytes": 1 << 40, "blake3": "ab", "idempotency_key": "k", "offset": 5}
    for header in (told, {"file_name": "a", "file_bytes": 0, "animal": "m", "experiment": "e", "replace": True}):
        packed = dict(wire.fields(wire.ingest_header(**header)))
        assert packed[1].decode() == wire.INGEST_HEADER_TYPE_URL
        assert packed[2] == contract.data.IngestHeader(**header).SerializeToString()


PUTS = [
    {"mode": "append", "chunk_shape": (1 << 20, 3), "codec": "gzip", "level": 4, "shuffle": False, "writer": "rig"},
    {"mode": "replace", "level": -5, "shuffle": True, "sequence": 1 << 40, "expected_version": 0},
    {"codec": "lz4", "attributes_json": '{"unit": "V"}', "expected_first_row": 7},
]


@pytest.mark.parametrize("told", PUTS, ids=repr)
def test_a_put_is_encoded_as_generated_code_would(contract: SimpleNamespace, told: dict) -> None:
    packed = dict(wire.fields(wire.PutRequest("ä", "e", "d/x", **told).command()))
    assert packed[1].decode() == wire.PUT_TYPE_URL
    numbers = {"mode": wire.PUT_MODES[told.get("mode", "create")], "codec": wire.PUT_CODECS[told.get("codec")]}
    expected = contract.data.PutRequest(animal="ä", experiment="e", dataset="d/x", **{**told, **numbers})
    assert contract.data.PutRequest.FromString(packed[2]) == expected
    assert packed[2] == expected.SerializeToString()


def test_what_a_put_made_is_read(contract: SimpleNamespace) -> None:
    told = {"version": 3, "first_row": 1 << 40, "rows": 5, "total_rows": 9, "already": True, "content": "ab"}
    assert wire.put_response(contract.data.PutResponse(**told).SerializeToString()) == told
    assert wire.put_response(b"")["already"] is False


def add(into: object, axis: object) -> None:
    if isinstance(axis, int):
        into.index = axis
    elif isinstance(axis, slice):
        into.slice.SetInParent()
        for name in ("start", "stop", "step"):
            if getattr(axis, name) is not None:
                setattr(into.slice, name, getattr(axis, name))
    elif isinstance(axis, list):
        into.list.SetInParent()
        into.list.indices.extend(axis)
    elif isinstance(axis, np.ndarray):
        into.mask.SetInParent()
        into.mask.length = len(axis)
        into.mask.bits = np.packbits(axis, bitorder="little").tobytes()
    else:
        into.ellipsis.SetInParent()


def add_mask(into: object, flags: np.ndarray) -> None:
    into.shape.extend(flags.shape)
    if flags.sum() > flags.size / 16:
        into.length = flags.size
        into.bits = np.packbits(flags, bitorder="little").tobytes()
        return
    chosen = np.flatnonzero(flags).tolist()
    into.skips.extend(at - before - 1 for before, at in zip([-1, *chosen], chosen, strict=False))


def test_many_numbers_are_encoded_like_each_of_them() -> None:
    numbers = [n for bits in range(64) for n in ((1 << bits) - 1, 1 << bits, -(1 << bits), 1 - (1 << bits))]
    numbers = [n for n in numbers if -(1 << 63) <= n < 1 << 63]
    assert wire.zigzags(np.array(numbers, np.int64)) == b"".join(map(wire.zigzag, numbers))
    assert wire.varints(np.array([0, (1 << 64) - 1], np.uint64)) == wire.varint(0) + wire.varint((1 << 64) - 1)
    assert wire.varints(np.zeros(0, np.uint64)) == b""


def test_a_text_selection_and_the_any_around_it_are_understood(contract: SimpleNamespace) -> None:
    from google.protobuf import any_pb2

    request = contract.data.GetDataRequest()
    packed = any_pb2.Any.FromString(wire.GetData("a", "e", "d", "0:5, ...").ticket())
    assert packed.Unpack(request)
    assert request.WhichOneof("part") == "selection"
    assert request.selection == "0:5, ..."
    assert request.layout == contract.data.LAYOUT_TENSOR


@pytest.mark.parametrize(
    "said", [{}, {"as_of": "1970-01-01T00:00:00Z"}, {"as_of": "1969-12-31T23:59:59.999999Z"}, {"tag": "paper-2026"}]
)
def test_a_version_is_named_as_generated_code_would(contract: SimpleNamespace, said: dict[str, str]) -> None:
    at = VersionAt.of(None, said.get("as_of"), said.get("tag"))
    request = wire.GetData("a", "e", "d", batch_bytes=1, as_of_us=at.as_of_us, tag=at.tag)
    expected = contract.data.GetDataRequest(animal="a", experiment="e", dataset="d", layout=1, batch_bytes=1)
    if at.as_of_us is not None:
        expected.at.as_of_us = at.as_of_us
    if at.tag:
        expected.at.tag = at.tag
    assert request.encode() == expected.SerializeToString()


def test_a_version_has_one_name_and_a_time_a_zone() -> None:
    for said in [(1, None, "x"), (0, None, None), (None, None, ""), (None, "2026-05-01T12:00:00", None)]:
        with pytest.raises(ValueError, match=r"version|tag|zone"):
            VersionAt.of(*said)
    assert VersionAt.named("paper").as_json() == {"tag": "paper"}
    assert VersionAt.named(3).as_json() == {"version": 3}
    assert VersionAt.named("2026-05-01T12:00:00+02:00").as_json() == {"as_of": "2026-05-01T10:00:00.000000+00:00"}
    assert VersionAt().as_json() == {}


def test_random_batch_metadata_is_read_as_it_was_written(contract: SimpleNamespace) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        first, rows = rng.getrandbits(rng.randrange(65)), rng.getrandbits(rng.randrange(65))
        message = contract.data.BatchMetadata(first_row=first, rows=rows).SerializeToString()
        assert wire.batch_metadata(message) == (first, rows)


def test_a_status_gives_code_message_and_reason_and_damaged_ones_are_errors() -> None:
    from google.protobuf import any_pb2
    from google.rpc import error_details_pb2, status_pb2

    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="file_changed", domain="h5flight", metadata={"a": "b"}))
    other = any_pb2.Any()
    other.Pack(error_details_pb2.ErrorInfo(reason="not_ours", domain="elsewhere"))
    message = status_pb2.Status(code=9, message="it changed", details=[info, other]).SerializeToString()
    assert wire.status(message) == wire.Status(9, "it changed", "file_changed", {"a": "b"})
    for cut in range(1, len(message)):
        try:
            wire.status(message[:cut])
        except ValueError:
            continue


@pytest.mark.parametrize("damaged", [b"\x80", b"\x0a\x05ab", b"\xff" * 11, b"\x0b", b"\x0d\x01"])
def test_what_is_not_protobuf_is_a_value_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="protobuf"):
        list(wire.fields(damaged))
