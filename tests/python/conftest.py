"""Fixtures of the end-to-end tests: a server of one's own, a server for many, and its log checked at the end."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import h5flight
import pytest

from server import Server

ROOT = Path(__file__).resolve().parents[2]

SUMMARY = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("h5flight corpus")
    group.addoption("--corpus-report", metavar="FILE", help="write what differs or fails, with reasons, as JSON")
    group.addoption("--corpus-only", metavar="TEXT", default="", help="only files whose names contain TEXT")
    group.addoption("--write-support", action="store_true", help="write the tables of docs/support.md anew")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SUMMARY] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    # A process that pytest-xdist runs tests in hands its lines to the one that prints.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["summary"] = session.config.stash[SUMMARY]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object | None) -> None:
    node.config.stash[SUMMARY].extend(getattr(node, "workeroutput", {}).get("summary", ()))  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[SUMMARY]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Adds a line to the summary at the end of the run."""
    return pytestconfig.stash[SUMMARY].append


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test; each one's log must be clean."""
    servers: list[Server] = []

    def start(roots: dict[str, Path], *flags: str, environment: dict[str, str] | None = None) -> Server:
        server = Server(tmp_path / f"server-{len(servers)}", roots, *flags, environment=environment)
        servers.append(server)
        return server.start()

    yield start
    end(*servers)


def end(*servers: Server) -> None:
    """Stop servers; an unexpected warning or error in a log is a failure."""
    for server in servers:
        server.stop()
    loud = [f"{server.log_file}: {line}" for server in servers for line in server.unexpected()]
    assert not loud, "unexpected lines in the log:\n" + "\n".join(loud[:20])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a module; files go into `server.roots["lab"]`."""
    folder = tmp_path_factory.mktemp("server")
    lab = tmp_path_factory.mktemp("lab")
    running = Server(folder, {"lab": lab}).start()
    yield running
    end(running)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[h5flight.Client]:
    """A client of the module's server."""
    with h5flight.connect(server.url, timeout_s=120) as connected:
        yield connected


@pytest.fixture(scope="session")
def contract(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Code generated from the project's own .proto files: messages and gRPC stubs."""
    from grpc_tools import protoc

    out, proto = tmp_path_factory.mktemp("contract"), ROOT / "proto"
    files = [str(file.relative_to(proto)) for file in sorted(proto.rglob("*.proto"))]
    google = Path(protoc.__file__).parent / "_proto"
    flags = [f"-I{proto}", f"-I{google}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(["protoc", *flags, *files]) == 0
    # The generated package has our package's name: its modules are found beside ours.
    sys.path.append(str(out))
    h5flight.__path__.append(str(out / "h5flight"))
    return SimpleNamespace(
        data=importlib.import_module("h5flight.v1.data_pb2"),
        service=importlib.import_module("h5flight.v1.data_pb2_grpc"),
        flight=importlib.import_module("arrow.flight.protocol.flight_pb2"),
    )


@pytest.fixture(scope="module")
def publish(client: h5flight.Client) -> Callable[..., h5flight.Experiment]:
    """Registers a file below the module's root and gives its experiment."""

    def publish(path: Path, animal: str = "m01") -> h5flight.Experiment:
        (report,) = client.register(path, animal=animal, experiment=path.stem)
        assert report["publication"] is not None, report
        return client[animal][path.stem]

    return publish
