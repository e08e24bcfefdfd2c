"""Files are registered as they appear and change. Whatever is waited for is a line of the command's output."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

from server import Server, binary, environment_without_settings
from services import free_port

LINE_S = 60
"""Seconds that a line may take."""
FAST = ("--settle", "200ms", "--every", "50ms")


class Watcher:
    """`h5flight watch` in a process of its own, and what it says on both outputs."""

    def __init__(self, server: Server, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [str(binary()), *arguments],
            env={**environment_without_settings(), "H5FLIGHT_URL": server.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, pattern: str) -> str:
        """The next line, which must match."""
        line = self._lines.get(timeout=LINE_S)
        self.said.append(str(line))
        assert line is not None, f"it ended after {self.said}"
        assert re.search(pattern, line), f"{line!r} after {self.said}"
        return line

    def end(self) -> tuple[int, list[str]]:
        """Ends it as Ctrl-C does; gives its exit code and what it still said."""
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(LINE_S)
        return code, list(iter(lambda: self._lines.get(timeout=LINE_S), None))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(LINE_S)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    return folder


@pytest.fixture
def watch() -> Iterator[Callable[..., Watcher]]:
    watchers: list[Watcher] = []

    def watch(server: Server, *arguments: str) -> Watcher:
        watchers.append(Watcher(server, "watch", *arguments, *FAST))
        return watchers[-1]

    yield watch
    for watcher in watchers:
        watcher.kill()


def write(path: Path, factor: int = 1) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # There at once and whole, however slow this machine is just now.
        with h5py.File(Path(folder) / path.name, "w") as file:
            file["data"] = np.arange(1000) * factor
        shutil.move(Path(folder) / path.name, path)
    return path


def value(server: Server, name: str) -> int:
    with h5flight.connect(server.url, timeout_s=60) as client:
        return int(client[name][name]["data"][3])


def test_files_are_registered_as_they_appear_and_change(
    start: Callable[..., Server], lab: Path, watch: Callable[..., Watcher]
) -> None:
    server = start({"lab": lab})
    write(lab / "known.h5")
    assert server.command("register", "lab:").returncode == 0
    write(lab / "before.h5")
    (lab / "notes.h5").write_text("no HDF5 file")
    watcher = watch(server, "lab:")
    watcher.line(r"^watching lab:: 1 file not registered as they are$")
    watcher.line(r"^lab:before\.h5  1 dataset, 0 chunks in before/before  ")
    write(lab / "deep" / "new.h5")
    watcher.line(r"^lab:deep/new\.h5  1 dataset, ")
    assert value(server, "new") == 3
    write(lab / "deep" / "new.h5", 5)
    watcher.line(r"^lab:deep/new\.h5  1 dataset, ")
    assert value(server, "new") == 15
    write(lab / "known.h5", 7)
    watcher.line(r"^lab:known\.h5  1 dataset, ")
    assert value(server, "known") == 21
    # Nothing was said twice, nothing of what was known or is no HDF5 file.
    assert watcher.end() == (0, ["4 files registered, 0 refused"])
    again = watch(server, "lab:")
    again.line(r"^watching lab:: 0 files")
    assert again.end() == (0, ["0 files registered, 0 refused"])


def test_a_half_written_file_is_refused_once_and_registered_when_it_is_whole(
    start: Callable[..., Server], lab: Path, tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    server = start({"lab": lab})
    whole = write(tmp_path / "copy.h5").read_bytes()
    watcher = watch(server, "lab:")
    watcher.line("^watching")
    with (lab / "copy.h5").open("wb") as file:
        file.write(whole[: len(whole) // 2])
        file.flush()
        watcher.line(r"^lab:copy\.h5  refused \(truncated\): ")
        write(lab / "other.h5")
        watcher.line(r"^lab:other\.h5  1 dataset, ")
        file.write(whole[len(whole) // 2 :])
    watcher.line(r"^lab:copy\.h5  1 dataset, ")
    assert value(server, "copy") == 3
    assert watcher.end() == (0, ["2 files registered, 1 refused"])


def test_a_file_that_is_open_for_writing_waits(
    start: Callable[..., Server], lab: Path, watch: Callable[..., Watcher]
) -> None:
    server = start({"lab": lab})
    watcher = watch(server, "lab:")
    watcher.line("^watching")
    with h5py.File(lab / "open.h5", "w", libver="latest") as file:
        file["data"] = np.arange(1000)
        file.flush()
        watcher.line(r"^lab:open\.h5  waits \(open_for_writing\): ")
        write(lab / "other.h5")
        watcher.line(r"^lab:other\.h5  1 dataset, ")
    watcher.line(r"^lab:open\.h5  1 dataset, ")
    assert value(server, "open") == 3
    assert watcher.end()[0] == 0


def test_a_restart_of_the_server_is_survived(
    start: Callable[..., Server], lab: Path, watch: Callable[..., Watcher]
) -> None:
    server = start({"lab": lab}, "--listen", f"127.0.0.1:{free_port()}")
    watcher = watch(server, "lab:", "--json")
    watcher.line("^watching")
    write(lab / "one.h5")
    report = json.loads(watcher.line("one"))
    assert (report["path"], report["publication"]["datasets"], report["error"]) == ("lab:one.h5", 1, None)
    server.stop()
    watcher.line(r"^lab:: the connection to the server broke .*; trying again every 50ms$")
    write(lab / "two.h5")
    server.start()
    watcher.line("^lab:: watched again$")
    assert json.loads(watcher.line("two"))["path"] == "lab:two.h5"
    server.kill()
    watcher.line("; trying again every 50ms$")
    server.start()
    watcher.line("^lab:: watched again$")
    assert watcher.end() == (0, ["2 files registered, 0 refused"])


def test_register_watches_where_it_is_told_to_and_names_hold(
    start: Callable[..., Server], lab: Path, watch: Callable[..., Watcher]
) -> None:
    server = start({"lab": lab})
    write(lab / "sub" / "a.h5")
    write(lab / "b.h5")
    watcher = Watcher(server, "register", str(lab / "sub"), "--watch", *FAST, "--animal", "mouse", "--experiment", "e")
    try:
        watcher.line("^watching .*/lab/sub: 1 file")
        watcher.line(r"^lab:sub/a\.h5  1 dataset, 0 chunks in mouse/e  ")
        assert watcher.end() == (0, ["1 file registered, 0 refused"])
    finally:
        watcher.kill()
    assert server.command("register", str(lab), "--settle", "1s").returncode == 2


def test_what_cannot_be_watched_is_refused_at_once(start: Callable[..., Server], lab: Path) -> None:
    server = start({"lab": lab})
    for path, reason in [("/etc", "outside_roots"), ("lab:nothing", "file_not_found")]:
        done = server.command("watch", path, "--json")
        assert (done.returncode, json.loads(done.stderr)["error"]["reason"]) == (1, reason)
    assert server.command("watch").returncode == 2
    assert server.command("watch", "lab:", "--settle", "0s").returncode == 2
