"""The wheel is built, installed into an environment of its own, and imported from there."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import h5flight

PACKAGE = Path(__file__).resolve().parents[1]


def test_the_wheel_installs_and_imports_with_its_types(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=PACKAGE, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    # The dependencies are those of this environment, so that nothing is downloaded.
    others = {str(Path(module.__file__ or "").parents[1]) for module in (np, pa)}
    script = (
        f"import sys; sys.path.extend({sorted(others)!r}); import h5flight, pathlib;"
        "at = pathlib.Path(h5flight.__file__).parent; print(h5flight.__version__, (at / 'py.typed').is_file(), at)"
    )
    told = subprocess.run([python, "-I", "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert told[:2] == [h5flight.__version__, "True"]
    assert Path(told[2]).is_relative_to(tmp_path / "fresh")
