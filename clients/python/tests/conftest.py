"""Fixtures: the contract as generated code, and a server of a few lines that speaks it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from counterpart import OneDatasetServer

PROTO = Path(__file__).parents[3] / "proto"


@pytest.fixture(scope="session")
def contract(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Code generated from the project's own .proto files."""
    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("contract")
    files = [str(file.relative_to(PROTO)) for file in sorted(PROTO.rglob("*.proto"))]
    google = Path(protoc.__file__).parent / "_proto"
    assert protoc.main(["protoc", f"-I{PROTO}", f"-I{google}", f"--python_out={out}", *files]) == 0
    # The generated package has our package's name: its modules are found beside ours.
    import h5flight

    sys.path.append(str(out))
    h5flight.__path__.append(str(out / "h5flight"))
    return SimpleNamespace(data=importlib.import_module("h5flight.v1.data_pb2"))


@pytest.fixture
def server(contract: SimpleNamespace):
    cube = np.arange(5 * 4 * 3, dtype=np.int16).reshape(5, 4, 3)
    with OneDatasetServer(contract, {"cube": cube, "line": np.linspace(0, 1, 7), "one": np.array(4.5)}) as running:
        yield running


@pytest.fixture
def client(server: OneDatasetServer):
    import h5flight

    with h5flight.connect(f"grpc://127.0.0.1:{server.port}") as connected:
        yield connected
