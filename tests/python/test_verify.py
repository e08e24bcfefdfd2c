"""Whether the catalogue and the files agree: what is found, what a repair does, and that it says when all is well."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5flight
import h5py
import numpy as np
import pytest

import files
from server import Server

VALUES = np.arange(40 * 64, dtype="<u4").reshape(40, 64)
OLD_S = 1_600_000_000
"""A time before any test."""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    return folder


def write(path: Path, values: np.ndarray = VALUES) -> Path:
    """A file with chunks that we decode, chunks that libhdf5 decodes, and contiguous data."""
    with h5py.File(path, "w") as file:
        file.create_dataset("zip", data=values, chunks=(10, 64), compression="gzip")
        file.create_dataset("plain", data=values, chunks=(10, 64))
        file.create_dataset("flat", data=np.repeat(values, 8, axis=0))
        texts = [f"text {at}" * 20 for at in range(4000)]
        file.create_dataset("texts", data=texts, dtype=h5py.string_dtype(), chunks=(1000,), compression="gzip")
    return path


def verify(server: Server, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = server.command("verify", "--json", *arguments)
    assert not done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def reasons(reports: list[dict[str, Any]]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Reason, array and chunk of all findings."""
    found = [finding for report in reports if "path" in report for finding in report["findings"]]
    return [(finding["reason"], finding["array"], tuple(finding["chunk"])) for finding in found]


def flip(path: Path, offset: int, bit: int) -> None:
    """Flips one bit, as a disk does; the same again undoes it."""
    with path.open("rb") as file:
        file.seek(offset)
        (byte,) = file.read(1)
    overwrite(path, offset, bytes([byte ^ 1 << bit]))


def register(server: Server, path: Path, animal: str = "m") -> h5flight.Experiment:
    client = h5flight.connect(server.url, timeout_s=60)
    (report,) = client.register(path, animal=animal, experiment=path.stem)
    assert report["publication"] is not None, report
    return client[animal][path.stem]


def ingest(server: Server, path: Path, animal: str = "m") -> tuple[h5flight.Experiment, Path]:
    """Uploads a file; gives its experiment and where the server keeps it."""
    done = server.command("ingest", str(path), "--animal", animal, "--experiment", path.stem, "--json")
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    content = answer["content"]
    kept = server.folder / "data" / "files" / content[:2] / f"{content}.h5"
    return h5flight.connect(server.url, timeout_s=60)[animal][path.stem], kept


def stored_chunk(path: Path, dataset: str, number: int) -> tuple[int, int]:
    """Where a chunk is, and how long."""
    with h5py.File(path) as file:
        info = file[dataset].id.get_chunk_info(number)
        return info.byte_offset, info.size


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Changes bytes of a file in a way that its size and time do not show, as a failing disk does."""
    before = path.stat()
    mode = before.st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    path.chmod(mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_files_of_every_type_and_storage_are_well(start: Callable[..., Server], lab: Path, tmp_path: Path) -> None:
    server = start({"lab": lab})
    for name, make in [("types", files.write_types), ("storages", files.write_storages), ("small", write)]:
        make(lab / f"{name}.h5")
        register(server, lab / f"{name}.h5")
    upload = tmp_path / "upload.h5"
    files.write_storages(upload)
    ingest(server, upload, "n")
    for arguments, count in [([], 4), (["--deep"], 4), (["m"], 3), (["n", "upload", "--deep"], 1), (["--repair"], 4)]:
        code, reports = verify(server, *arguments)
        assert (code, len(reports), reasons(reports)) == (0, count, []), arguments
        assert all(report["unchecked"] == [] and report["repaired"] is None for report in reports), reports
        assert all((report["bytes_read"] > 0) == ("--deep" in arguments) for report in reports)
    said = server.command("verify", "--deep")
    assert (said.returncode, said.stdout) == (0, "")
    assert said.stderr.startswith("4 files verified, ")
    assert said.stderr.endswith("all is well\n")


def test_names_that_do_not_exist_are_refused_and_not_well(start: Callable[..., Server], lab: Path) -> None:
    server = start({"lab": lab})
    register(server, write(lab / "a.h5"))
    for arguments, reason in [(["x"], "animal_not_found"), (["m", "x"], "experiment_not_found")]:
        done = server.command("verify", "--json", *arguments)
        assert (done.returncode, json.loads(done.stderr)["error"]["reason"]) == (1, reason)
    assert server.command("verify", "m", "a", "b").returncode == 2


def test_a_changed_file_is_registered_again_under_its_names(start: Callable[..., Server], lab: Path) -> None:
    server = start({"lab": lab})
    experiment = register(server, write(lab / "a.h5"))
    write(lab / "a.h5", VALUES * 2)
    code, reports = verify(server, "m")
    assert (code, reasons(reports)) == (1, [("file_changed", "", ())])
    code, (report,) = verify(server, "m", "--repair")
    assert (code, report["repaired"], report["repair_error"]) == (0, "registered", None)
    assert verify(server, "--deep")[0] == 0
    np.testing.assert_array_equal(experiment["zip"][...], VALUES * 2)
    assert experiment["zip"].version == 2


def test_a_missing_file_is_out_of_use_until_it_is_back(start: Callable[..., Server], lab: Path) -> None:
    server = start({"lab": lab})
    experiment = register(server, write(lab / "a.h5"))
    register(server, write(lab / "b.h5"))
    np.testing.assert_array_equal(experiment["zip"][...], VALUES)
    (lab / "a.h5").rename(lab / "elsewhere")
    code, reports = verify(server)
    assert (code, reasons(reports)) == (1, [("file_not_found", "", ())])
    code, (report,) = verify(server, "m", "a", "--repair")
    assert (code, report["repaired"], report["quarantine_reason"]) == (1, "quarantined", "file_not_found")
    # Also what is cached is refused now, with the reason.
    with pytest.raises(h5flight.H5FlightError) as caught:
        experiment["zip"][...]
    assert caught.value.reason == "file_not_found"
    (lab / "elsewhere").rename(lab / "a.h5")
    code, (report,) = verify(server, "m", "a")
    assert (code, report["findings"], report["quarantine_reason"]) == (1, [], "file_not_found")
    code, (report,) = verify(server, "m", "a", "--repair")
    assert (code, report["repaired"], report["quarantine_reason"]) == (0, "released", None)
    np.testing.assert_array_equal(experiment["zip"][...], VALUES)
    assert verify(server, "--deep")[0] == 0


def test_a_root_without_its_disk_takes_nothing_out_of_use(start: Callable[..., Server], lab: Path) -> None:
    server = start({"lab": lab})
    register(server, write(lab / "a.h5"))
    (lab / "a.h5").unlink()
    code, (report,) = verify(server, "--repair")
    assert (code, report["repaired"], report["quarantine_reason"]) == (1, None, None)
    assert report["findings"][0]["reason"] == "file_not_found"
    assert report["repair_error"] == "the root lab is empty or not configured: is its disk mounted?"
    write(lab / "b.h5")
    server.stop()
    server.roots = {}
    server.start()
    code, (report,) = verify(server, "--repair")
    assert (code, report["repaired"], report["quarantine_reason"]) == (1, None, None)


def test_damaged_chunks_are_named(start: Callable[..., Server], lab: Path) -> None:
    server = start({"lab": lab})
    path = write(lab / "a.h5")
    register(server, path)
    for dataset, number in [("zip", 2), ("texts", 1), ("texts", 3)]:
        offset, size = stored_chunk(path, dataset, number)
        overwrite(path, offset, b"\xff" * size)
    assert verify(server)[0] == 0, "only a deep look finds it"
    code, reports = verify(server, "--deep")
    expected = {
        ("malformed_file", "/zip", (2, 0)), ("malformed_file", "/texts", (1,)), ("malformed_file", "/texts", (3,))
    }  # fmt: skip
    assert (code, set(reasons(reports))) == (1, expected)
    said = server.command("verify", "--deep")
    assert "lab:a.h5  malformed_file: /zip chunk (2, 0): " in said.stdout
    code, (report,) = verify(server, "--deep", "--repair")
    assert (code, report["repaired"], report["quarantine_reason"]) == (1, "quarantined", "malformed_file")


def test_a_damaged_upload_is_found_by_its_hash_and_back_after_a_restore(
    start: Callable[..., Server], lab: Path, tmp_path: Path
) -> None:
    server = start({"lab": lab})
    experiment, kept = ingest(server, write(tmp_path / "up.h5"))
    shutil.copy2(kept, tmp_path / "backup")
    # Bytes of no chunk: contiguous data.
    with h5py.File(kept) as file:
        offset = file["flat"].id.get_offset()
    overwrite(kept, offset + 100, b"\xaa")
    assert verify(server)[0] == 0
    code, reports = verify(server, "--deep", "--repair")
    assert (code, reasons(reports)) == (1, [("checksum", "", ())])
    with pytest.raises(h5flight.H5FlightError) as caught:
        experiment["flat"][...]
    assert caught.value.reason == "checksum"
    shutil.copy2(tmp_path / "backup", kept)
    assert verify(server, "--repair")[0] == 1, "a look at the places cannot tell"
    code, (report,) = verify(server, "--deep", "--repair")
    assert (code, report["repaired"]) == (0, "released")
    np.testing.assert_array_equal(experiment["flat"][...], np.repeat(VALUES, 8, axis=0))
    os.truncate(kept, 1000)
    code, reports = verify(server)
    assert (code, reasons(reports)) == (1, [("file_changed", "", ())])


FLIPS = int(os.environ.get("H5FLIGHT_FLIPS", "150"))
"""Bits that are flipped for each kind of file."""
STORED = {
    "zip": {"compression": "gzip", "compression_opts": 1},
    "shuffled": {"compression": "lzf", "shuffle": True},
    "plain": {},
    # A filter of ours that libhdf5 has to apply, for the elements have no plain form.
    "odd": {"compression": "gzip"},
}


def write_stored(path: Path) -> dict[str, np.ndarray]:
    """Chunks of each kind, 20 by 2 of each; larger than what the catalogue keeps of small arrays."""
    values = np.random.default_rng(files.SEED).integers(0, 900, (400, 128), dtype="<u2")
    with h5py.File(path, "w") as file:
        for name, options in STORED.items():
            kind = values.dtype
            if name == "odd":
                made = h5py.h5t.STD_U16LE.copy()
                made.set_precision(13)
                space = h5py.h5s.create_simple(values.shape)
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_chunk((20, 64))
                plist.set_deflate(4)
                h5py.h5d.create(file.id, name.encode(), made, space, plist)
                file[name][...] = values
            else:
                file.create_dataset(name, data=values, dtype=kind, chunks=(20, 64), **options)
    with h5py.File(path) as file:
        return {name: file[name][...] for name in STORED}


def seeded() -> np.random.Generator:
    seed = int(os.environ.get("H5FLIGHT_SEED", np.random.default_rng().integers(1 << 32)))
    print(f"seed {seed}: H5FLIGHT_SEED repeats it")
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", ["managed", "registered"])
def test_no_flipped_bit_of_a_chunk_is_ever_read(
    start: Callable[..., Server], lab: Path, tmp_path: Path, kind: str
) -> None:
    rng = seeded()
    path = (lab if kind == "registered" else tmp_path) / "a.h5"
    values = write_stored(path)
    if kind == "managed":
        server = start({"lab": lab})
        experiment, path = ingest(server, path)
    else:
        server = start({"lab": lab}, "--verify-reads", "all")
        experiment = register(server, path)
        # From now on checksums are known.
        assert verify(server, "--deep")[0] == 0
    chunks = [(name, number, *stored_chunk(path, name, number)) for name in STORED for number in range(40)]
    for _ in range(FLIPS):
        name, number, offset, size = chunks[rng.integers(len(chunks))]
        at, bit = offset + int(rng.integers(size)), int(rng.integers(8))
        row, column = number // 2 * 20, number % 2 * 64
        part = np.s_[row : row + 20, column : column + 64]
        flip(path, at, bit)
        with pytest.raises(h5flight.H5FlightError) as caught:
            experiment[name][part]
        assert caught.value.reason == "checksum", f"bit {bit} at {at} of {name}"
        assert f"chunk [{number // 2}, {number % 2}] of /{name} at {offset}" in str(caught.value)
        flip(path, at, bit)
    for name, expected in values.items():
        np.testing.assert_array_equal(experiment[name][...], expected)

    # Several at once: a verification names exactly those.
    for _ in range(max(FLIPS // 30, 1)):
        damaged = [chunks[at] for at in rng.choice(len(chunks), 12, replace=False)]
        flips = [(offset + int(rng.integers(size)), int(rng.integers(8))) for _, _, offset, size in damaged]
        for at, bit in flips:
            flip(path, at, bit)
        code, reports = verify(server, "--deep")
        found = {(array, chunk) for reason, array, chunk in reasons(reports) if array and reason == "checksum"}
        assert (code, found) == (1, {(f"/{name}", (number // 2, number % 2)) for name, number, *_ in damaged})
        whole = [reason for reason, array, _ in reasons(reports) if not array]
        assert whole == (["checksum"] if kind == "managed" else [])
        for at, bit in flips:
            flip(path, at, bit)
    assert verify(server, "--deep")[0] == 0


def test_reads_are_compared_as_the_setting_says(start: Callable[..., Server], lab: Path, tmp_path: Path) -> None:
    for setting, compared in [("off", set()), ("managed", {"managed"}), ("all", {"managed", "registered"})]:
        server = start({"lab": lab}, "--verify-reads", setting)
        path, upload = lab / f"{setting}.h5", tmp_path / "up.h5"
        write_stored(path)
        write_stored(upload)
        registered = register(server, path)
        managed, kept = ingest(server, upload, "n")
        assert verify(server, "--deep")[0] == 0
        for experiment, where, kind in [(registered, path, "registered"), (managed, kept, "managed")]:
            offset, _ = stored_chunk(where, "plain", 0)
            flip(where, offset, 0)
            if kind in compared:
                with pytest.raises(h5flight.H5FlightError, match="its stored bytes changed"):
                    experiment["plain"][0, 0]
            else:
                experiment["plain"][0, 0]
            # A verification compares whatever the setting is.
            assert verify(server, "--deep")[0] == 1
            flip(where, offset, 0)


def test_files_without_a_name_are_reported_and_left_alone(
    start: Callable[..., Server], lab: Path, tmp_path: Path
) -> None:
    server = start({"lab": lab})
    _, kept = ingest(server, write(tmp_path / "up.h5"))
    managed = server.folder / "data" / "files"
    stray, young, odd = managed / "ab" / f"ab{'0' * 62}.h5", managed / "cd" / f"cd{'0' * 62}.h5", managed / "notes"
    for path in (stray, young, odd):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"left behind")
    for path in (stray, odd, kept):
        os.utime(path, (OLD_S, OLD_S))
    code, reports = verify(server, "--repair")
    strays = [report["stray"] for report in reports if "stray" in report]
    assert (code, reasons(reports)) == (1, [])
    assert strays == [{"path": "notes", "bytes": 11}, {"path": f"ab/{stray.name}", "bytes": 11}]
    assert all(path.exists() for path in (stray, young, odd, kept))
    # An animal's files are no strays' business.
    assert verify(server, "m")[0] == 0


def test_repairing_is_for_administrators(start: Callable[..., Server], lab: Path) -> None:
    server = start({"lab": lab})
    register(server, write(lab / "a.h5"))
    tokens = {}
    for role in ("read", "ingest", "admin"):
        made = server.command(
            "token", "create", "--principal", role, "--role", role, "--data-dir", str(server.folder / "data"), "--json"
        )
        tokens[role] = json.loads(made.stdout)["token"]
    server.stop()
    server.start()
    for role, repair, allowed in [
        ("read", False, False), ("ingest", False, True), ("ingest", True, False), ("admin", True, True)
    ]:  # fmt: skip
        flags = ["--repair"] if repair else []
        done = server.command("verify", "--json", "--token", tokens[role], *flags)
        assert done.returncode == (0 if allowed else 1)
        assert allowed or json.loads(done.stderr)["error"]["reason"] == "permission_denied"
