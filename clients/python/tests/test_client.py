"""What the client does with answers: place them, name them, fail clearly."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

import h5flight
from h5flight import arrays, errors, progress, retries, selection


def test_batches_in_any_order_make_the_array_in_one_round_trip(client: h5flight.Client, server: object) -> None:
    server.actions.clear()
    found = client["a"]["e"]["/cube"][...]
    np.testing.assert_array_equal(found, server.arrays["cube"])
    assert found.dtype == np.int16
    assert found.flags.writeable
    assert len(server.requests) == 1
    assert not server.actions


@pytest.mark.parametrize(
    "key",
    [np.s_[1], np.s_[1, 2, 0], np.s_[..., 1], np.s_[4:0:-2, :, [0, 2]], np.s_[5:5], np.array([True] * 2 + [False] * 3)],
)
def test_a_slice_has_the_shape_that_numpy_gives_it(client: h5flight.Client, server: object, key: object) -> None:
    found, expected = client["a"]["e"]["cube"][key], server.arrays["cube"][key]
    np.testing.assert_array_equal(found, expected)
    assert type(found) is type(expected)


def test_a_mask_over_all_axes_selects_single_elements(client: h5flight.Client, server: object) -> None:
    cube = server.arrays["cube"]
    mask = cube % 7 == 3
    np.testing.assert_array_equal(client["a"]["e"]["cube"][mask], cube[mask])
    np.testing.assert_array_equal(client["a"]["e"]["cube"][mask.tolist()], cube[mask])
    assert client["a"]["e"]["cube"][np.zeros(cube.shape, bool)].shape == (0,)
    with pytest.raises(h5flight.H5FlightError, match="mask of shape"):
        client["a"]["e"]["cube"][mask[1:]]


def test_a_long_mask_is_read_in_windows_of_one_version(
    client: h5flight.Client, server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "WINDOW", 16)
    cube = server.arrays["cube"]
    for mask in (cube % 2 == 1, (cube < 5) | (cube > 50), cube >= 0, cube == 59):
        server.requests.clear()
        np.testing.assert_array_equal(client["a"]["e"]["cube"][mask], cube[mask])
        assert [request.version for request in server.requests[1:]] == [3] * (len(server.requests) - 1)
    assert len(server.requests) == 1
    with pytest.raises(h5flight.SelectionError, match="as many requests"):
        client["a"]["e"]["cube"].to_arrow(cube >= 0)


def test_points_come_in_their_order_and_are_asked_for_in_that_of_the_file(
    client: h5flight.Client, server: object
) -> None:
    cube, points = server.arrays["cube"], [(4, 3, 2), (0, 0, 0), (-1, -1, -1), (2, 1, 0), (0, 0, 0)]
    expected = cube[tuple(np.array(points).T)]
    server.requests.clear()
    np.testing.assert_array_equal(client["a"]["e"]["cube"].points(points), expected)
    asked = np.array(server.requests[0].parts.points.coordinates).reshape(-1, 3).tolist()
    assert asked == sorted(asked)
    np.testing.assert_array_equal(client["a"]["e"]["cube"][h5flight.Points(points)], expected)
    assert client["a"]["e"]["cube"].points([]).shape == (0,)
    paired = np.s_[[[0, 4], [1, 2]], 3, [0, 2]]
    np.testing.assert_array_equal(client["a"]["e"]["cube"].vindex[paired], cube[paired])
    mask = cube > 30
    np.testing.assert_array_equal(client["a"]["e"]["cube"].vindex[mask], cube[mask])
    with pytest.raises(h5flight.SelectionError, match="paired"):
        client["a"]["e"]["cube"].vindex[[0, 1], [0, 1, 2], 0]


def test_frames_of_single_elements_are_labelled_with_all_indices(client: h5flight.Client, server: object) -> None:
    frame = client.get_data("a", "e", "cube", h5flight.Points([(4, -1, 2), (0, 0, 0)]))
    assert frame.index.names == ["dim_0", "dim_1", "dim_2"]
    assert frame.index.tolist() == [(4, 3, 2), (0, 0, 0)]
    assert frame["value"].tolist() == [server.arrays["cube"][4, 3, 2], 0]
    assert client.get_data("a", "e", "line", h5flight.Points([[6], [-7]])).index.tolist() == [6, 0]
    mask = server.arrays["cube"] > 56
    assert client.get_data("a", "e", "cube", mask).index.tolist() == [(4, 3, 0), (4, 3, 1), (4, 3, 2)]


def test_a_scalar_is_a_scalar_for_empty_brackets_and_an_array_for_an_ellipsis(client: h5flight.Client) -> None:
    one = client["a"]["e"]["one"]
    assert one[()] == 4.5
    assert isinstance(one[()], np.float64)
    assert one[...].shape == ()
    with pytest.raises(TypeError, match="scalar"):
        len(one)


def test_a_dataset_tells_what_it_is(client: h5flight.Client) -> None:
    cube = client["a"]["e"]["cube"]
    assert (cube.shape, cube.ndim, cube.size, cube.nbytes, len(cube)) == ((5, 4, 3), 3, 60, 120, 5)
    assert cube.dtype == np.dtype("int16")
    assert cube.attrs == {"unit": "mV", "raw": b"\0\1", "to": "/x"}
    assert repr(cube) == '<h5flight dataset "a/e/cube": shape (5, 4, 3), type "<i2">'
    assert np.asarray(cube).shape == (5, 4, 3)
    assert [row.shape for row in cube] == [(4, 3)] * 5


def test_a_list_goes_on_over_pages_and_tells_what_datasets_are(client: h5flight.Client, server: object) -> None:
    assert list(client["a"]["e"]) == ["cube", "line", "one"]
    server.actions.clear()
    assert [found.shape for found in client.datasets("a", "e")] == [(5, 4, 3), (7,), ()]
    assert [kind for kind, _ in server.actions] == ["list-datasets"] * 3


def test_a_group_is_no_dataset_and_says_what_is_in_it(client: h5flight.Client) -> None:
    with pytest.raises(h5flight.NotFoundError, match=r"'a/e/group' is a group, not a dataset; in it: inside"):
        _ = client["a"]["e"]["group"].shape
    assert "is a group" in repr(client["a"]["e"]["group"])


def test_threads_share_a_client_and_processes_get_their_own(client: h5flight.Client, server: object) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: client["a"]["e"]["cube"][row % 5], range(64)))
    for row, values in enumerate(found):
        np.testing.assert_array_equal(values, server.arrays["cube"][row % 5])
    with pickle.loads(pickle.dumps(client)) as copy:
        np.testing.assert_array_equal(copy["a"]["e"]["line"][...], server.arrays["line"])
    dataset = pickle.loads(pickle.dumps(client["a"]["e"]["line"]))
    np.testing.assert_array_equal(dataset[2:4], server.arrays["line"][2:4])


def test_a_closed_client_says_so(client: h5flight.Client) -> None:
    client.close()
    with pytest.raises(ValueError, match="the client is closed"):
        client.server_info()


def test_without_a_server_the_error_says_what_to_do() -> None:
    with pytest.raises(h5flight.ServerUnavailableError, match="start one with `h5flight serve`") as caught:
        h5flight.connect("grpc://127.0.0.1:1")
    assert isinstance(caught.value, ConnectionError)
    with pytest.raises(ValueError, match="is no URL of a server"):
        h5flight.connect("nonsense")


def test_the_environment_names_server_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H5FLIGHT_URL", "grpc://elsewhere:1")
    monkeypatch.setenv("H5FLIGHT_TOKEN", "secret")
    client = h5flight.Client()
    assert client.url == "grpc://elsewhere:1"
    assert client._connection.token == "secret"
    assert "secret" not in repr(client)


def test_errors_are_pythons_own_kinds_and_print_cleanly(client: h5flight.Client) -> None:
    with pytest.raises(KeyError) as caught:
        client["a"]["e"]["missing"][0]
    assert isinstance(caught.value, h5flight.NotFoundError)
    assert "no dataset 'missing'" in str(caught.value)
    assert "debug context" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "reason", "ours", "builtin"),
    [
        (3, "out_of_bounds", errors.SelectionError, IndexError),
        (4, "deadline", errors.DeadlineError, TimeoutError),
        (3, "bad_layout", errors.InvalidRequestError, ValueError),
        (5, "animal_not_found", errors.NotFoundError, KeyError),
        (7, "permission_denied", errors.PermissionDeniedError, PermissionError),
        (9, "file_changed", errors.FileStateError, Exception),
        (12, "unsupported_filter", errors.UnsupportedError, NotImplementedError),
        (14, "draining", errors.ServerUnavailableError, ConnectionError),
        (15, "checksum", errors.DataLossError, OSError),
        (13, "internal", errors.H5FlightError, Exception),
    ],
)
def test_codes_and_reasons_become_classes(code: int, reason: str, ours: type, builtin: type) -> None:
    from google.protobuf import any_pb2
    from google.rpc import error_details_pb2, status_pb2

    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="h5flight"))
    details = status_pb2.Status(code=code, message="axis 0 has 5", details=[info]).SerializeToString()
    found = errors.from_flight(pa.ArrowInvalid("whatever"), details)
    assert type(found) is ours
    assert isinstance(found, builtin)
    again = pickle.loads(pickle.dumps(found))
    assert (str(again), again.reason, type(again)) == ("axis 0 has 5", reason, ours)


def test_what_may_pass_is_tried_again_as_often_and_as_late_as_the_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from google.protobuf import any_pb2
    from google.rpc import error_details_pb2, status_pb2

    details = [any_pb2.Any(), any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason="busy", domain="h5flight"))
    later = error_details_pb2.RetryInfo()
    later.retry_delay.FromMilliseconds(1500)
    details[1].Pack(later)
    busy = errors.from_flight(pa.ArrowInvalid("x"), status_pb2.Status(code=8, details=details).SerializeToString())
    assert busy.retry_after_s == 1.5
    waits: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", waits.append)
    answers = iter([busy, errors.ServerUnavailableError("gone"), "there"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retries.repeated(ask) == "there"
    assert waits == [1.5, 0.2]
    answers = iter([busy] * 10)
    with pytest.raises(errors.LimitError):
        retries.repeated(ask)
    assert len(waits) == 2 + retries.ATTEMPTS_MAX - 1
    clock = iter([0.0, 11.0])
    monkeypatch.setattr(retries.time, "monotonic", lambda: next(clock))
    answers = iter([busy, "there"])
    with pytest.raises(errors.LimitError):
        retries.repeated(ask)
    monkeypatch.undo()
    answers = iter([errors.NotFoundError("no such thing", "dataset_not_found"), "there"])
    with pytest.raises(errors.NotFoundError):
        retries.repeated(ask)


def test_a_bar_appears_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    made: list[list[int]] = []

    class Bar:
        def __init__(self, **_how: object) -> None:
            self.n, self.seen = 0, []
            made.append(self.seen)

        def update(self, more: int) -> None:
            self.n += more
            self.seen.append(self.n)

        def close(self) -> None:
            self.seen.append(-1)

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    clock = iter([0.0, 0.5, 1.2])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Progress(300, "movie", True) as shown:
        shown.reach(100)
        assert made == []
        shown.reach(200)
        shown.reach(300)
    assert made == [[200, 300, -1]]


def test_without_details_the_message_is_cut_out_of_pyarrows() -> None:
    text = (
        "Flight returned not found error, with message: nope. gRPC client debug context: NOT_FOUND:nope. "
        "Client context: IOError: Server never sent a data message. Detail: Internal"
    )
    found = errors.from_flight(pa.ArrowKeyError(text), None)
    assert (type(found), str(found), found.reason) == (errors.NotFoundError, "nope", "")


def test_frames_need_pandas_and_say_how_to_get_it(client: h5flight.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'h5flight\[pandas\]'"):
        client.get_data("a", "e", "line")


def test_frames_are_labelled_with_the_indices_of_the_dataset(client: h5flight.Client, server: object) -> None:
    line = client.get_data("a", "e", "line", "2:6:2")
    assert list(line.index) == [2, 4]
    assert list(line["value"]) == list(server.arrays["line"][2:6:2])
    plane = client.get_data("a", "e", "cube", np.s_[-2:, [3, 1], 0])
    assert list(plane.index) == [3, 4]
    assert list(plane.columns) == [3, 1]
    np.testing.assert_array_equal(plane.to_numpy(), server.arrays["cube"][-2:, [3, 1], 0])
    cube = h5flight.get_data("a", "e", "cube", client=client)
    assert cube.columns.names == ["dim_1", "dim_2"]
    assert cube.loc[2, (3, 1)] == server.arrays["cube"][2, 3, 1]
    assert cube.attrs["unit"] == "mV"
    assert cube.attrs["shape"] == [5, 4, 3]
    assert h5flight.get_data("a", "e", "one", url=client.url)["value"].tolist() == [4.5]


def test_a_stream_that_ends_early_is_an_error() -> None:
    told = {"h5flight.shape": "[3]", "h5flight.type": '{"kind": "integer", "signed": true, "bytes": 1}'}
    schema = pa.schema([pa.field("value", pa.int8())], metadata=told)
    assembly = arrays.Assembly(schema)
    assembly.place(pa.record_batch([pa.array([1, 2], pa.int8())], schema=schema), None)
    with pytest.raises(h5flight.H5FlightError, match="ended after 2 of 3 rows"):
        assembly.finish()
    with pytest.raises(h5flight.H5FlightError, match="a batch of 2 rows at row 2 of 3"):
        assembly.place(pa.record_batch([pa.array([1, 2], pa.int8())], schema=schema), None)
