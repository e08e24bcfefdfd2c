"""Uploads that break off, servers that die under them, bytes that arrive twice, late or changed."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import grpc
import h5flight
import numpy as np
import pytest

import uploading
from server import Server, binary, environment_without_settings
from services import until
from uploading import PIECE, Proxy, Uploader

SEED = 20261126
NONE, PARTIAL, RUNNING, COMPLETE = range(4)


def uploads(server: Server) -> list[str]:
    """What lies in the folder of unfinished uploads."""
    return sorted(path.name for path in (server.folder / "data" / "uploads").iterdir())


def kept(server: Server) -> list[Path]:
    """The managed files."""
    return sorted((server.folder / "data" / "files").glob("*/*.h5"))


def assert_served(url: str, animal: str, experiment: str, seed: int, megabytes: int) -> None:
    with h5flight.connect(url) as client:
        found = client[animal][experiment]["data"][...]
    assert np.array_equal(found, uploading.values(seed, megabytes))


def test_a_server_that_is_killed_at_any_point_loses_at_most_what_it_had_not_acknowledged(
    start: Callable[..., Server], tmp_path: Path, contract: SimpleNamespace
) -> None:
    rng = random.Random(SEED)
    uploader = Uploader(contract, uploading.write(tmp_path / "a.h5", SEED, 16))
    size = len(uploader.content)
    server = start({})
    lost = 0
    for round_ in range(5):
        uploader.connect(server)
        durable, state = uploader.status()
        assert state == (PARTIAL if round_ else NONE), f"seed {SEED}, round {round_}"
        acknowledged = durable + rng.randrange(1, 8) * PIECE
        behind = acknowledged + rng.randrange(0, 4) * PIECE
        with uploader.held(durable, acknowledged, behind) as go_on:
            go_on()
            until(lambda goal=acknowledged: uploader.status() == (goal, RUNNING), "the acknowledgement")
            go_on()
            server.kill()
        server.start()
        uploader.connect(server)
        durable, state = uploader.status()
        assert state == PARTIAL
        assert acknowledged <= durable <= behind, f"seed {SEED}, round {round_}"
        lost += behind - durable
    answer = uploader.send(durable)
    assert answer.content == uploader.header["blake3"]
    assert size <= uploader.sent_bytes <= size + lost
    assert_served(server.url, "up", "one", SEED, 16)
    assert uploads(server) == []
    assert uploader.status() == (size, COMPLETE)


def test_what_came_before_a_client_went_away_is_kept(
    start: Callable[..., Server], tmp_path: Path, contract: SimpleNamespace
) -> None:
    server = start({})
    uploader = Uploader(contract, uploading.write(tmp_path / "a.h5", 1, 2))
    uploader.connect(server)
    with uploader.held(0, 3 * PIECE) as go_on:
        go_on()
        until(lambda: uploader.status()[0] == 3 * PIECE, "the acknowledgement")
    until(lambda: uploader.status() == (3 * PIECE, PARTIAL), "the end of the stream")
    with pytest.raises(grpc.RpcError) as caught:
        uploader.send(4 * PIECE)
    assert uploading.refusal(caught.value) == "upload_offset"
    uploader.sent_bytes = 0
    # Going on before what is there is allowed: what is behind is sent again.
    uploader.send(2 * PIECE)
    assert uploader.sent_bytes == len(uploader.content) - 2 * PIECE
    assert_served(server.url, "up", "one", 1, 2)


@pytest.mark.parametrize("resumed", [False, True], ids=["at-once", "resumed"])
def test_a_bit_that_changed_on_the_way_is_refused_and_nothing_stays(
    start: Callable[..., Server], tmp_path: Path, contract: SimpleNamespace, resumed: bool
) -> None:
    server = start({})
    uploader = Uploader(contract, uploading.write(tmp_path / "a.h5", 2, 1))
    changed = bytearray(uploader.content)
    changed[random.Random(SEED).randrange(PIECE)] ^= 1
    good, uploader.content = uploader.content, bytes(changed)
    uploader.connect(server)
    if resumed:
        with uploader.held(0, 2 * PIECE) as go_on:
            go_on()
            until(lambda: uploader.status()[0] == 2 * PIECE, "the acknowledgement")
        until(lambda: uploader.status() == (2 * PIECE, PARTIAL), "the end of the stream")
        uploader.content = good
    with pytest.raises(grpc.RpcError) as caught:
        uploader.send(2 * PIECE if resumed else 0)
    assert uploading.refusal(caught.value) == "upload_mismatch"
    assert uploader.status() == (0, NONE)
    assert uploads(server) == []
    assert kept(server) == []


def test_a_second_stream_of_an_upload_is_refused_while_the_first_one_runs(
    start: Callable[..., Server], tmp_path: Path, contract: SimpleNamespace
) -> None:
    server = start({})
    uploader = Uploader(contract, uploading.write(tmp_path / "a.h5", 3, 1))
    uploader.connect(server)
    with uploader.held(0, PIECE) as go_on:
        go_on()
        until(lambda: uploader.status() == (PIECE, RUNNING), "the acknowledgement")
        with pytest.raises(grpc.RpcError) as caught:
            uploader.send(PIECE)
        assert caught.value.code() == grpc.StatusCode.ABORTED
        assert uploading.refusal(caught.value) == "upload_in_progress"
    until(lambda: uploader.status() == (PIECE, PARTIAL), "the end of the stream")
    uploader.send(PIECE)


def test_what_is_there_is_answered_without_bytes(
    start: Callable[..., Server], tmp_path: Path, contract: SimpleNamespace
) -> None:
    server = start({})
    content = uploading.write(tmp_path / "a.h5", 4, 1)
    uploader = Uploader(contract, content, idempotency_key="k")
    uploader.connect(server)
    first = uploader.send(0)
    uploader.sent_bytes = 0
    for header in ({}, {"idempotency_key": ""}, {"idempotency_key": "", "experiment": "two"}):
        again = Uploader(contract, content, **{"idempotency_key": "k", **header})
        again.connect(server)
        assert again.status() == (len(content), COMPLETE), header
        answer = again.send(len(content))
        assert again.sent_bytes == 0
        assert (answer.content, answer.publication.already) == (first.content, "experiment" not in header), header
    assert_served(server.url, "up", "two", 4, 1)
    assert len(kept(server)) == 1
    # Without the hash nobody knows that it is the same before the bytes are there.
    unknown = Uploader(contract, content, idempotency_key="k", blake3="")
    unknown.connect(server)
    assert unknown.status() == (0, NONE)
    assert unknown.send(0).publication.already
    other = Uploader(contract, content + b"x", idempotency_key="k")
    other.connect(server)
    with pytest.raises(grpc.RpcError) as caught:
        other.status()
    assert uploading.refusal(caught.value) == "upload_mismatch"


def test_two_uploads_of_the_same_content_at_once_make_one_file(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start({})
    uploading.write(tmp_path / "a.h5", 5, 8)
    with ThreadPoolExecutor(2) as pool:
        names = ["one", "two"]
        command = ["ingest", str(tmp_path / "a.h5"), "--animal", "m", "--experiment"]
        done = list(pool.map(lambda name: server.command(*command, name), names))
    assert [made.returncode for made in done] == [0, 0], [made.stderr for made in done]
    for name in names:
        assert_served(server.url, "m", name, 5, 8)
    assert len(kept(server)) == 1
    assert uploads(server) == []


def test_the_command_goes_on_when_the_server_dies_and_comes_back(start: Callable[..., Server], tmp_path: Path) -> None:
    server, proxy = start({}), Proxy()
    size = len(uploading.write(tmp_path / "a.h5", 6, 24))
    proxy.to(server)
    proxy.break_after(5 << 20)
    command = [str(binary()), "ingest", str(tmp_path / "a.h5"), "--animal", "m", "--experiment", "e"]
    environment = {**environment_without_settings(), "H5FLIGHT_URL": proxy.url}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        proxy.wait_for_break()
        server.kill()
        server.start()
        proxy.to(server)
        proxy.break_after(7 << 20)
        proxy.wait_for_break()
        out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert "going on in" in err
    assert "1 dataset" in out
    assert_served(server.url, "m", "e", 6, 24)
    # The first break was a kill: what was not yet flushed went twice. The second left all that had come.
    assert proxy.forwarded_bytes < size + (5 << 20) + (2 << 20)


def test_an_interrupted_command_says_how_to_go_on_and_does(start: Callable[..., Server], tmp_path: Path) -> None:
    server, proxy = start({}), Proxy()
    size = len(uploading.write(tmp_path / "a.h5", 7, 24))
    proxy.to(server)
    command = [str(binary()), "ingest", str(tmp_path / "a.h5"), "--animal", "m", "--experiment", "e"]
    environment = {**environment_without_settings(), "H5FLIGHT_URL": proxy.url}
    proxy.break_after(6 << 20)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        proxy.wait_for_break()
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "the same command again" in err
    before = proxy.forwarded_bytes
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # What was in the buffers of the connection when it was cut is lost.
    assert proxy.forwarded_bytes - before < size - (2 << 20)
    assert_served(server.url, "m", "e", 7, 24)


def test_python_goes_on_where_the_connection_broke(start: Callable[..., Server], tmp_path: Path) -> None:
    server, proxy = start({}), Proxy()
    size = len(uploading.write(tmp_path / "a.h5", 8, 24))
    proxy.to(server)
    told: list[tuple[int, int]] = []
    with h5flight.connect(proxy.url) as client:
        proxy.break_after(6 << 20)
        path = tmp_path / "a.h5"
        answer = client.ingest(path, animal="m", experiment="e", progress=lambda *sent: told.append(sent))
        assert answer["publication"]["datasets"] == 1
        assert told[-1] == (size, size)
        proxy.wait_for_break()
        assert proxy.forwarded_bytes < size + (4 << 20)
        before = proxy.forwarded_bytes
        assert client.ingest(path, animal="m", experiment="e")["publication"]["already"]
        assert proxy.forwarded_bytes - before < 64 << 10
        (tmp_path / "b.h5").write_bytes(b"no HDF5" * 1000)
        with pytest.raises(h5flight.H5FlightError) as caught:
            client.ingest(tmp_path / "b.h5")
        assert caught.value.reason == "not_hdf5"
    assert_served(server.url, "m", "e", 8, 24)


@pytest.mark.parametrize("announced", ["blake3", "nothing"])
def test_an_upload_puts_back_what_was_damaged(
    start: Callable[..., Server], tmp_path: Path, contract: SimpleNamespace, announced: str
) -> None:
    server = start({})
    content = uploading.write(tmp_path / "a.h5", 7, 1)
    first = Uploader(contract, content)
    first.connect(server)
    first.send(0)
    (path,) = kept(server)
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 4
    path.write_bytes(damaged)
    again = Uploader(contract, content, **({} if announced == "blake3" else {"blake3": ""}))
    again.connect(server)
    again.send(0)
    assert path.read_bytes() == content
    assert again.sent_bytes == len(content)
    server.stop()
    server.start()
    assert_served(server.url, "up", "one", 7, 1)
