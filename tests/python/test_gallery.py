"""The gallery: each script runs against a real server, and finds what was put into the recording."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5flight
import h5py
import matplotlib
import numpy as np
import pytest

from server import ROOT, Server

matplotlib.use("Agg")
GALLERY = ROOT / "examples" / "gallery"


def script(name: str) -> ModuleType:
    sys.path.insert(0, str(GALLERY))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(GALLERY))


@pytest.fixture(scope="module")
def recording(server: Server, client: h5flight.Client) -> Iterator[ModuleType]:
    recording = script("recording")
    path = Path(server.roots["lab"]) / "gallery.nwb"
    recording.main(path)
    (report,) = client.register(path)
    assert report["publication"]["experiments"] == [{"animal": recording.ANIMAL, "experiment": recording.EXPERIMENT}]
    with h5py.File(path) as file:
        recording.file = file
        yield recording


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where pictures go: $H5FLIGHT_GALLERY_OUT, to look at them, else nowhere that stays."""
    named = os.environ.get("H5FLIGHT_GALLERY_OUT")
    return Path(named) if named else tmp_path


def assert_is_picture(path: Path) -> None:
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 300
    assert pixels[..., :3].std() > 0.05, "a picture of nothing"


def test_browse(recording: ModuleType, client: h5flight.Client, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    movie = script("browse").main(client, out)
    assert movie.shape == recording.file[recording.MOVIE].shape
    told = capsys.readouterr().out
    assert "mouse-042 Mus musculus ['flashes']" in told
    assert recording.LFP in told
    assert "data:image/png" in (out / "browse.html").read_text()


def test_seconds(recording: ModuleType, client: h5flight.Client, out: Path) -> None:
    volts = script("seconds").main(client, out)
    wanted = recording.file[recording.LFP][10_000:12_000][:, [0, 8, 15]].astype("f4") * np.float32(1e-6)
    np.testing.assert_allclose(volts, wanted, rtol=1e-6)
    assert_is_picture(out / "seconds.png")


def test_trial_average(recording: ModuleType, client: h5flight.Client, out: Path) -> None:
    average = script("trial_average").main(client, out)
    lowest = average[:, 15].argmin()
    assert lowest == pytest.approx((0.2 + 0.1) * recording.LFP_HZ, abs=15)
    assert average[lowest, 15] == pytest.approx(-200e-6, abs=20e-6)
    assert abs(average[lowest, 0]) < 20e-6
    assert_is_picture(out / "trial_average.png")


def test_raster(recording: ModuleType, client: h5flight.Client, out: Path) -> None:
    rates = script("raster").main(client, out)
    assert rates.shape == (5, 70)
    after = rates[:, 22:30].mean(axis=1)
    assert [unit for unit, rate in enumerate(after) if rate > 30] == list(recording.RESPONDING)
    assert rates[:, :20].mean() == pytest.approx(5, abs=1)
    assert_is_picture(out / "raster.png")


def test_dask_mean(recording: ModuleType, client: h5flight.Client, out: Path) -> None:
    answer = script("dask_mean").main(client, out)
    inside = answer[recording.PATCH, recording.PATCH]
    assert inside.mean() == pytest.approx(0.53, abs=0.05)
    outside = answer.copy()
    outside[recording.PATCH, recording.PATCH] = 0
    assert np.abs(outside).max() < inside.min()
    assert_is_picture(out / "dask_mean.png")


def test_plain_pyarrow(recording: ModuleType, server: Server) -> None:
    np.testing.assert_array_equal(script("plain_pyarrow").main(server.url), recording.file[recording.MOVIE][...])


def test_frames(recording: ModuleType, client: h5flight.Client) -> None:
    rates, outcomes = script("frames").main(client)
    counts = np.diff(recording.file["units/spike_times_index"][...].astype(int), prepend=0)
    good = round(counts[:5].mean() / 120, 1)
    assert [(quality, units) for quality, units, _ in rates] == [("good", 5), ("poor", 1)]
    assert rates[0][2] == pytest.approx(good, abs=0.1)
    assert outcomes.rows() == [("hit", 40), ("miss", 20)]


def test_the_first_page_leads_to_the_picture(
    recording: ModuleType, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "index.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code.strip().splitlines()) < 10
    drawn: list[np.ndarray] = []
    monkeypatch.setattr("matplotlib.pyplot.imshow", lambda image, **_how: drawn.append(image))
    exec(code.replace("grpc://server:8815", server.url), {})
    assert drawn[0].shape == (16, 700)
    assert drawn[0][15].argmin() == pytest.approx(300, abs=15)


def test_the_example_with_asyncio_reads_at_once(recording: ModuleType, client: h5flight.Client) -> None:
    page = (ROOT / "clients" / "python" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(import asyncio\n.*?)```", page, re.DOTALL)
    names = {"mouse-017": recording.ANIMAL, "day1": recording.EXPERIMENT}
    for name, ours in names.items():
        code = code.replace(f'"{name}"', f'"{ours}"')
    made: dict[str, Any] = {}
    exec(code, made)
    frames = asyncio.run(made["traces"](client, [recording.LFP, "intervals/trials/start_time"]))
    np.testing.assert_array_equal(frames[0].to_numpy(), recording.file[recording.LFP][:1000])
    assert frames[1]["value"].tolist() == [trial * recording.TRIAL_S for trial in range(recording.TRIALS)]
