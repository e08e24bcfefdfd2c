"""Starts the real binary on ports of its own choice, and reads its log.

Nothing sleeps here: the server says on its standard output where it listens, and its end is waited for.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTENING = re.compile(r"h5flight is listening on (grpc\S*://[^,\s]+), (http\S*://\S+)")
LOUD = re.compile(r"\b(WARN|ERROR)\b|panicked at")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
END_S = 30
"""Seconds that a server may take to end after SIGTERM."""


def binary() -> Path:
    """The binary under test: $H5FLIGHT_BIN, else the one that `cargo build` makes."""
    named = os.environ.get("H5FLIGHT_BIN")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = Path(named) if named else target / "debug" / "h5flight"
    if not found.is_file():
        raise FileNotFoundError(f"no binary at {found}: run `cargo build`, or set H5FLIGHT_BIN")
    return found


class Server:
    """One server process with its own data folder and log.

    Parameters
    ----------
    folder : Path
        Where its data and its log go.
    roots : mapping of str to Path
        Folders below which files can be registered.
    flags, environment
        What else it is told.
    """

    def __init__(
        self,
        folder: Path,
        roots: Mapping[str, Path],
        *flags: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.roots, self.flags = folder, dict(roots), flags
        self.environment = {**environment_without_settings(), **(environment or {})}
        self.log_file = folder / "server.log"
        self.expected: list[re.Pattern[str]] = []
        self.url = self.http_url = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Server:
        """Start it and wait until it says where it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [str(binary()), "serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        command += ["--data-dir", str(self.folder / "data")]
        for name, path in self.roots.items():
            command += ["--root", f"{name}={path}"]
        with self.log_file.open("a") as log:
            self._process = subprocess.Popen(
                [*command, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.folder,
                env=self.environment,
            )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if found := LISTENING.search(line):
                self.url, self.http_url = found[1], found[2]
                # What else it says must not fill the pipe.
                threading.Thread(target=self._drain, args=(self._process.stdout,), daemon=True).start()
                return self
        code = self._process.wait(END_S)
        raise RuntimeError(f"the server ended with {code} before it listened:\n{''.join(said)}{self.log()[-4000:]}")

    def _drain(self, output: Iterator[str]) -> None:
        with contextlib.suppress(ValueError, OSError), self.log_file.open("a") as log:
            for line in output:
                log.write(line)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def peak_bytes(self) -> int:
        """The most memory that the process had resident so far; 0 once it has ended."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                return int(found[1]) << 10
        return 0

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int | None:
        """End it as an operator does, and give its exit code."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(END_S)
                raise
        return self._process.returncode

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(END_S)

    def log(self) -> str:
        return COLOUR.sub("", self.log_file.read_text(errors="replace")) if self.log_file.exists() else ""

    def expect(self, pattern: str) -> None:
        """Allow warnings and errors in the log that match."""
        self.expected.append(re.compile(pattern))

    def unexpected(self) -> list[str]:
        """Warnings and errors in the log that nobody expected."""
        loud = (line for line in self.log().splitlines() if LOUD.search(line))
        return [line for line in loud if not any(pattern.search(line) for pattern in self.expected)]

    def command(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a client command of the binary against this server."""
        environment = {**environment_without_settings(), "H5FLIGHT_URL": self.url}
        return subprocess.run(
            [str(binary()), *arguments], env=environment, text=True, capture_output=True, timeout=120, **options
        )


def environment_without_settings() -> dict[str, str]:
    """Our environment without settings that would reach the server unasked."""
    return {name: value for name, value in os.environ.items() if not name.startswith("H5FLIGHT_")}
