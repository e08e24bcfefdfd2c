"""The setting of glibc is made by the first connection, and left alone where somebody chose otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CONNECTS = """
import h5flight, h5flight.connection as connection
made = []
keep = connection.keep_freed_memory
connection.keep_freed_memory = lambda: made.append(keep())
for _ in range(2):
    try:
        h5flight.connect("grpc://127.0.0.1:1")
    except h5flight.ServerUnavailableError:
        pass
print(made)
"""


@pytest.mark.parametrize(
    ("environment", "made"),
    [
        ({}, platform.libc_ver()[0] == "glibc"),
        ({"H5FLIGHT_MALLOC": "0"}, False),
        ({"MALLOC_TRIM_THRESHOLD_": "1000000"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000000"}, False),
    ],
)
def test_the_first_connection_makes_the_setting(environment: dict[str, str], made: bool) -> None:
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "H5FLIGHT"))
    }
    command = [sys.executable, "-c", CONNECTS]
    answer = subprocess.run(command, env={**plain, **environment}, text=True, capture_output=True, check=True)
    assert answer.stdout.strip() == str([made])
