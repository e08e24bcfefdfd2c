"""Uploads on a disk that is full, or gets full under them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

import uploading
from server import Server
from services import until
from test_upload import NONE, PARTIAL, RUNNING, assert_served, kept, uploads
from uploading import PIECE, Uploader

DISK_BYTES = 24 << 20


@pytest.fixture
def small(start: Callable[..., Server], tmp_path: Path, say: Callable[[str], None]) -> Iterator[Server]:
    """A server whose data folder is a file system of 24 MiB; its catalogue lies elsewhere."""
    data = tmp_path / "server-0" / "data"
    data.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "h5flight-test", str(data)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        say(f"NOT TESTED: a disk that is full, for `{' '.join(mount)}` fails: {mounted.stderr.strip()}")
        pytest.skip("no file system can be mounted here; run as root, or in a container with CAP_SYS_ADMIN")
    try:
        server = start({}, "--database-url", f"sqlite://{tmp_path / 'catalog.sqlite'}")
        yield server
        server.stop()
    finally:
        subprocess.run(["umount", str(data)], check=True)


def fill(server: Server) -> Path:
    """Take all that is free."""
    filler = server.folder / "data" / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def uploader(server: Server, contract: SimpleNamespace, tmp_path: Path, megabytes: int) -> Uploader:
    made = Uploader(contract, uploading.write(tmp_path / "a.h5", megabytes, megabytes))
    made.connect(server)
    return made


def test_what_does_not_fit_is_refused_before_its_bytes_come(
    small: Server, tmp_path: Path, contract: SimpleNamespace
) -> None:
    large = uploader(small, contract, tmp_path, 40)
    with pytest.raises(grpc.RpcError) as caught:
        large.send(0)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert uploading.refusal(caught.value) == "disk_full"
    assert f"needs {len(large.content)} bytes" in caught.value.details()
    assert "are free" in caught.value.details()
    assert uploads(small) == []
    # What one upload was promised another one does not get.
    first = uploader(small, contract, tmp_path, 14)
    second = uploader(small, contract, tmp_path, 13)
    with first.held(0, PIECE) as go_on:
        go_on()
        until(lambda: first.status() == (PIECE, RUNNING), "the acknowledgement")
        with pytest.raises(grpc.RpcError) as caught:
            second.send(0)
        assert uploading.refusal(caught.value) == "disk_full"
    until(lambda: first.status() == (PIECE, PARTIAL), "the end of the stream")
    second.send(0)
    assert_served(small.url, "up", "one", 13, 13)


def test_a_disk_that_gets_full_keeps_what_was_durable(small: Server, tmp_path: Path, contract: SimpleNamespace) -> None:
    upload = uploader(small, contract, tmp_path, 12)
    with upload.held(0, 8 * PIECE, len(upload.content)) as go_on:
        go_on()
        until(lambda: upload.status() == (8 * PIECE, RUNNING), "the acknowledgement")
        filler = fill(small)
        go_on()
        until(lambda: upload.status() == (8 * PIECE, PARTIAL), "the end of the stream")
    with pytest.raises(grpc.RpcError) as caught:
        upload.send(8 * PIECE)
    assert uploading.refusal(caught.value) == "disk_full"
    assert upload.status() == (8 * PIECE, PARTIAL)
    filler.unlink()
    upload.send(8 * PIECE)
    assert_served(small.url, "up", "one", 12, 12)


def test_a_disk_that_gets_full_before_anything_was_durable_is_left_empty(
    small: Server, tmp_path: Path, contract: SimpleNamespace
) -> None:
    upload = uploader(small, contract, tmp_path, 12)
    with upload.held(0, 0, len(upload.content)) as go_on:
        go_on()
        until(lambda: upload.status() == (0, RUNNING), "the beginning")
        fill(small)
        go_on()
        until(lambda: upload.status() == (0, NONE), "the end of the stream")
    assert uploads(small) == []
    assert kept(small) == []


def test_unfinished_uploads_have_a_quota(
    start: Callable[..., Server], tmp_path: Path, contract: SimpleNamespace
) -> None:
    server = start({}, "--upload-quota-bytes", "3MiB")
    first = uploader(server, contract, tmp_path, 2)
    with first.held(0, PIECE) as go_on:
        go_on()
        until(lambda: first.status() == (PIECE, RUNNING), "the acknowledgement")
    until(lambda: first.status() == (PIECE, PARTIAL), "the end of the stream")
    second = Uploader(contract, uploading.write(tmp_path / "b.h5", 9, 3))
    second.connect(server)
    with pytest.raises(grpc.RpcError) as caught:
        second.send(0)
    assert uploading.refusal(caught.value) == "disk_full"
    assert "quota" in caught.value.details()
    first.send(PIECE)
    assert_served(server.url, "up", "one", 2, 2)
