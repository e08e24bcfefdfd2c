"""The example for Node.js: installed from its lock file, run against a real server, compared with numpy."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries

from server import ROOT, Server, environment_without_settings

EXAMPLE = Path("examples") / "node"
INSTALL_S, RUN_S = 300, 60
HZ, FIRST_S = 100.0, 2.0
SEED = 11

Read = Callable[..., subprocess.CompletedProcess[str]]


def values() -> dict[str, np.ndarray]:
    """By dataset; `long` comes in several batches."""
    rng = np.random.default_rng(SEED)
    return {
        "volts": rng.integers(-500, 500, (4000, 5), "i2"),
        "long": rng.standard_normal((200_000, 6)),
        "movie": rng.standard_normal((40, 7, 9)).astype(">f4"),
        "counts": rng.integers(2**60, 2**62, 300, "u8"),
        "halves": rng.standard_normal(77).astype("f2"),
        "wide": rng.integers(0, 9, (10, 12), "u1"),
    }


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in a copy of its folder, with the packages of the lock file."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    assert not missing, f"{' and '.join(missing)} not installed: run scripts/setup.sh"
    copy = tmp_path_factory.mktemp("node")
    shutil.copytree(ROOT / "proto", copy / "proto")
    shutil.copytree(ROOT / EXAMPLE, copy / EXAMPLE, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--prefer-offline", "--no-update-notifier"]
    done = subprocess.run(command, cwd=copy / EXAMPLE, text=True, capture_output=True, timeout=INSTALL_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / EXAMPLE / "read.js"


def run(program: Path, url: str, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**environment_without_settings(), "H5FLIGHT_URL": url, "H5FLIGHT_TOKEN": token}
    command = ["node", str(program), *arguments]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=RUN_S)


@pytest.fixture(scope="module")
def read(program: Path, server: Server, publish: Callable[..., h5flight.Experiment], client: h5flight.Client) -> Read:
    """Runs the program against a server that has a plain file and an NWB series."""
    lab = Path(server.roots["lab"])
    with h5py.File(lab / "day1.h5", "w") as file:
        for name, data in values().items():
            file.create_dataset(name, data=data, chunks=True, compression="gzip")
        file["complex"] = np.array([1 + 2j, 3 - 4j])
        file["notes"] = ["first", "zweite ä"]
    publish(lab / "day1.h5", "m01")
    nwb = NWBFile("d", "node-1", datetime(2026, 3, 5, tzinfo=UTC), session_id="nwb")
    where = {"rate": HZ, "starting_time": FIRST_S, "conversion": 1e-3, "unit": "volts"}
    nwb.add_acquisition(TimeSeries(name="trace", data=values()["volts"], **where))
    with NWBHDF5IO(str(lab / "nwb.nwb"), "w") as out:
        out.write(nwb)
    publish(lab / "nwb.nwb", "m02")
    return lambda *arguments: run(program, server.url, *arguments)


def means(done: subprocess.CompletedProcess[str]) -> dict[str, float]:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {name: float(mean) for name, mean in re.findall(r"^mean of (.+): (.+)$", done.stdout, re.MULTILINE)}


@pytest.mark.parametrize(
    ("dataset", "selection"),
    [
        ("volts", ()),
        ("volts", np.s_[10:2000:3, ::2]),
        ("long", np.s_[5:]),
        ("counts", np.s_[::-1]),
        ("halves", ()),
        ("movie", np.s_[3:30, :, 1:4]),
    ],
)
def test_means_are_those_of_numpy(read: Read, dataset: str, selection: tuple) -> None:
    data = values()[dataset][selection].astype("f8")
    done = read("m01", "day1", dataset, text(selection))
    found = means(done)
    # Arrays of rank 2 are columns here, others are one column with all elements.
    wanted = data.mean(axis=0) if data.ndim == 2 else [data.mean()]
    np.testing.assert_allclose(list(found.values()), wanted, rtol=1e-9, atol=1e-12)
    assert f"\n{len(data)} rows\n" in done.stdout


def text(selection: object) -> str:
    """A selection as numpy writes it."""
    parts = selection if isinstance(selection, tuple) else (selection,)
    numbers = ([part.start, part.stop, part.step] for part in parts)
    return ", ".join(":".join("" if number is None else str(number) for number in three) for three in numbers)


def test_the_first_rows_are_shown_and_columns_left_out_are_counted(read: Read) -> None:
    data = values()["wide"]
    shown = read("m01", "day1", "wide").stdout.splitlines()
    assert shown[0] == "shape [10,12] of |u1"
    assert shown[1:4] == [f"row {row}: {'  '.join(map(str, data[row, :8]))}" for row in range(3)]
    assert shown[-1] == "and 4 more columns"


def test_what_has_no_mean_is_shown(read: Read) -> None:
    for dataset, row in [("notes", "row 1: zweite ä"), ("complex", "row 1: [3,-4]")]:
        done = read("m01", "day1", dataset)
        assert row in done.stdout.splitlines()
        assert means(done) == {}


def test_an_empty_slice_has_no_rows(read: Read) -> None:
    done = read("m01", "day1", "volts", "5:5")
    assert means(done) == {}
    assert "\n0 rows\n" in done.stdout


def test_rows_by_time_in_the_unit_of_the_series(read: Read) -> None:
    data = values()["volts"]
    times = FIRST_S + np.arange(len(data)) / HZ
    for start, stop in [(5, 7.5), (5, None)]:
        kept = data[(times >= start) & (times < (np.inf if stop is None else stop))] * 1e-3
        done = read("m02", "nwb", "acquisition/trace/data", "--units", "--time", f"{start}:{stop or ''}")
        np.testing.assert_allclose(list(means(done).values()), kept.mean(axis=0), rtol=1e-9)
        assert f"\n{len(kept)} rows\n" in done.stdout


def test_a_search_shows_what_it_finds_page_after_page(read: Read, client: h5flight.Client, server: Server) -> None:
    done = read("trace rate > 50")
    assert done.stdout.splitlines()[0] == "m02  nwb  acquisition/trace/data  <i2 (4000, 5)"
    many = Path(server.roots["lab"]) / "many.h5"
    with h5py.File(many, "w") as file:
        for number in range(230):
            file[f"many/{number:03}"] = number
    client.register(many, animal="m03", experiment="many")
    names = [line.split("  ")[2] for line in read("animal = 'm03'").stdout.splitlines()]
    assert sorted(names) == [f"many/{number:03}" for number in range(230)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["m01", "day1", "volt"], r'^dataset_not_found: .*no dataset "volt"; did you mean "volts"\?$'),
        (["m01", "day2", "volts"], r"^experiment_not_found: .*day2"),
        (["m01", "day1", "volts", "0, 99"], r"^out_of_bounds: .*99"),
        (["m01", "day1", "volts", "--time", "0:1"], r"^bad_selection: "),
        (["rate >"], r"^bad_expression: "),
        (["m01", "day1"], r"^usage: "),
        (["m01", "--wrong"], r"Unknown option '--wrong'"),
    ],
)
def test_a_refusal_is_the_reason_and_the_sentence_of_the_server(read: Read, arguments: list[str], told: str) -> None:
    done = read(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(told, done.stderr.splitlines()[0]), done.stderr
    assert "    at " not in done.stderr, "a stack trace"


def test_a_server_that_is_away_is_told(program: Path) -> None:
    done = run(program, "grpc://127.0.0.1:1", "m01", "day1", "volts")
    assert done.returncode == 1
    assert done.stderr.startswith("UNAVAILABLE: "), done.stderr
    done = run(program, "http://127.0.0.1:1", "volts")
    assert "not grpc://HOST:PORT" in done.stderr


def test_a_token_opens_the_door(program: Path, start: Callable[..., Server]) -> None:
    server = start({})
    folder = str(server.folder / "data")
    made = server.command("token", "create", "--principal", "p", "--role", "read", "--data-dir", folder)
    token = made.stdout.strip().splitlines()[0]
    server.stop()
    server.start()
    assert run(program, server.url, "", token=token).returncode == 0
    assert run(program, server.url, "").stderr.startswith("unauthenticated: ")


def test_the_lock_file_names_no_registry() -> None:
    lock = (ROOT / EXAMPLE / "package-lock.json").read_text()
    assert '"integrity"' in lock
    assert '"resolved"' not in lock
