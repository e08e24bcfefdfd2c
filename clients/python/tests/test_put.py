"""How values travel to the server, and what the client does when a connection breaks on the way."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import h5flight
from h5flight import columns, put

RECORD = np.array([(1, 2.5, b"ab"), (3, 4.5, b"c")], [("n", ">i4"), ("x", "f8"), ("s", "S2")])


def sent(server: object) -> tuple[object, pa.Table]:
    return server.puts[-1]


def until_refused(server: object, count: int) -> None:
    """The server hears of the end of a stream after the client has left it."""
    for _ in range(500):
        if server.refused == count:
            return
        server.turn.wait(0.01)
    raise AssertionError(f"{server.refused} puts were refused, not {count}")


def values(table: pa.Table, name: str = "value") -> np.ndarray:
    column = table[name].combine_chunks()
    while pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    return column.to_numpy(zero_copy_only=False)


@pytest.mark.parametrize("kind", ["i1", "u2", ">i4", "u8", "f2", "<f4", ">f8"])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (5, 1)])
def test_numbers_travel_as_one_column(client: h5flight.Client, server: object, kind: str, shape: tuple) -> None:
    array = np.arange(np.prod(shape)).astype(kind).reshape(shape)
    made = client.put("m", "e", "/d", array, attrs={"unit": "V", "ids": np.arange(2)}, chunks=shape)
    request, table = sent(server)
    assert (made.rows, made.total_rows, made.content) == (shape[0], shape[0], "c0ffee")
    assert (request.dataset, tuple(request.chunk_shape)) == ("d", shape)
    assert json.loads(request.attributes_json) == {"unit": "V", "ids": [0, 1]}
    assert table.schema.names == ["value"]
    np.testing.assert_array_equal(values(table), array.reshape(-1))
    if len(shape) > 1:
        assert json.loads(table.schema.field(0).metadata[b"h5flight.shape"]) == list(shape[1:])


def test_memory_is_shared_with_arrow_and_batches_are_short() -> None:
    array = np.arange(1 << 20, dtype=np.int16).reshape(-1, 64)
    rows = columns.batches_of(array, batch_bytes=1 << 16)
    batches = list(rows.batches)
    assert batches[0].column(0).flatten().buffers()[1].address == array.ctypes.data
    assert max(batch.nbytes for batch in batches) <= 1 << 16
    assert sum(batch.num_rows for batch in batches) == len(array)


def test_what_arrow_does_not_tell_is_in_the_metadata(client: h5flight.Client, server: object) -> None:
    for array, key in [
        (np.array([True, False]), b"h5flight.bool"),
        (np.array([1 + 2j, 3j]), b"h5flight.complex"),
        (np.array([b"abc", b"d"]), b"h5flight.text"),
    ]:
        client.put("m", "e", "d", array)
        assert key in sent(server)[1].schema.field(0).metadata
    client.put("m", "e", "d", np.array(["a", "längste"]))
    assert sent(server)[1].schema.field(0).metadata == {b"h5flight.bytes": b"8"}
    client.put("m", "e", "d", np.array([1, 2], "M8[us]"))
    assert sent(server)[1].schema.field(0).type == pa.timestamp("us")


def test_records_frames_and_tables_are_members_of_a_compound(client: h5flight.Client, server: object) -> None:
    client.put("m", "e", "d", RECORD)
    table = sent(server)[1]
    assert table.schema.names == ["n", "x", "s"]
    assert values(table, "n").tolist() == [1, 3]
    frame = pd.DataFrame({"a": [1, 2], "t": ["x", "yz"], "c": pd.Categorical(["u", "u"])}, index=[5, 6])
    client.put("m", "e", "d", frame)
    assert sent(server)[1].schema.names == ["a", "t", "c"]
    assert values(sent(server)[1], "c").tolist() == ["u", "u"]
    client.put("m", "e", "d", frame.rename_axis("id"))
    assert sent(server)[1].schema.names == ["id", "a", "t", "c"]
    client.put("m", "e", "d", pd.Series([1.5, 2.5]))
    assert sent(server)[1].schema.names == ["value"]
    client.put("m", "e", "d", pa.table({"t": ["abc", ""], "n": [1, 2]}))
    assert sent(server)[1].schema.field("t").metadata == {b"h5flight.bytes": b"3"}


def test_an_iterator_is_sent_piece_by_piece(client: h5flight.Client, server: object) -> None:
    made = client.put("m", "e", "d", (np.full((3, 2), at) for at in range(4)))
    assert made.rows == 12
    np.testing.assert_array_equal(values(sent(server)[1]), np.repeat(np.arange(4), 6))
    with pytest.raises(TypeError, match="follows pieces"):
        client.put("m", "e", "d", iter([np.zeros(2), np.zeros(2, int)]))
    # Nothing of it was taken: the stream did not end as one that is complete.
    assert len(server.puts) == 1

    def breaks_off(error: Exception):
        yield np.zeros((2, 3))
        raise error

    # Those that a connection raises too are the caller's all the same.
    for error in (ZeroDivisionError(), FileNotFoundError("no such file"), pa.ArrowInvalid("bad"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            client.put("m", "e", "d", breaks_off(error), writer="rig", sequence=1)
        assert caught.value is error
    assert len(server.puts) == 1
    until_refused(server, 5)
    with pytest.raises(TypeError, match="gives nothing"):
        client.put("m", "e", "d", iter([]))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (np.array([object()]), "a object among"),
        (pa.table({"a": [1, None]}), "1 nulls"),
        (np.array(["NaT"], "M8[s]"), "HDF5 has no null"),
        (np.zeros((2, 0)), "hold nothing"),
        (pd.DataFrame({"a": ["x", None]}), "NoneType among"),
        (np.zeros(2, "f16"), "no form in HDF5"),
    ],
)
def test_what_has_no_form_in_hdf5_is_refused_before_anything_is_sent(
    client: h5flight.Client, server: object, data: object, why: str
) -> None:
    with pytest.raises(TypeError, match=why):
        client.put("m", "e", "d", data)
    assert not server.puts


def test_a_broken_put_is_repeated_only_where_that_is_safe(
    client: h5flight.Client, server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(put.time, "sleep", waits.append)
    server.broken_puts = 2
    assert client.put("m", "e", "d", np.arange(3), writer="rig", sequence=9).rows == 3
    assert [request.sequence for request, _ in server.puts] == [9, 9, 9]
    assert waits == sorted(waits)
    assert len(waits) == 2
    server.broken_puts = 1
    with pytest.raises(h5flight.PutError, match="not known"):
        client.put("m", "e", "d", np.arange(3))


def test_a_writer_counts_the_rows_that_are_acknowledged(client: h5flight.Client, server: object) -> None:
    with client.writer("rig", "m", "e", "line") as rig:
        assert rig.rows == len(server.arrays["line"])
        for block in (np.zeros(4), np.zeros(2)):
            rig.append(block)
        assert rig.rows == len(server.arrays["line"]) + 6
    begun = [(request.expected_first_row, request.sequence) for request, _ in server.puts]
    assert begun == [(7, 1), (11, 2)]
    names = {request.writer for request, _ in server.puts}
    assert len(names) == 1
    # After a restart a block is no repetition of one from before, whatever its number is.
    client.writer("rig", "m", "e", "line").append(np.zeros(3))
    assert server.puts[-1][0].writer not in names
    assert all(request.writer.startswith("rig#") for request, _ in server.puts)
    assert [request.mode for request, _ in server.puts] == [2, 2, 2]


def test_new_rows_are_followed_in_order(client: h5flight.Client, server: object) -> None:
    line = client["a"]["e"]["line"]
    pieces = []
    for first_row, rows in line.follow(0, poll_s=0, stop=lambda: len(pieces) >= 3):
        pieces.append((first_row, rows.tolist()))
        before = server.arrays["line"]
        server.arrays["line"] = np.append(before, [len(before), len(before) + 1.0])
    assert [first for first, _ in pieces] == [0, 7, 9]
    assert [value for _, rows in pieces for value in rows] == server.arrays["line"][:11].tolist()
    server.arrays["line"] = np.zeros(3)
    with pytest.raises(h5flight.ConflictError, match="it was replaced"):
        next(line.follow(5, poll_s=0))
