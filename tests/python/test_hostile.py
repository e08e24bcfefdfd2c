"""Files and names that want to hurt: limits, changes under the reader, paths out of the root, workers that die."""

from __future__ import annotations

import os
import socket
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

from server import Server

MIB = 1 << 20
SEED = 20261125

Maker = Callable[[h5py.File], None]


def refusal(read: Callable[[], object]) -> h5flight.H5FlightError:
    with pytest.raises(h5flight.H5FlightError) as caught:
        read()
    return caught.value


def written(path: Path, make: Maker) -> Path:
    with h5py.File(path, "w") as file:
        make(file)
    return path


def many_groups(file: h5py.File) -> None:
    for at in range(20):
        file.create_group(f"g{at}")


def deep_groups(file: h5py.File) -> None:
    file.create_group("/".join(["deep"] * 20))


def many_links(file: h5py.File) -> None:
    for at in range(20):
        file[f"l{at}"] = h5py.SoftLink("/nowhere")


def long_name(file: h5py.File) -> None:
    file.create_group("n" * 200)


def many_attributes(file: h5py.File) -> None:
    for at in range(20):
        file.attrs[f"a{at}"] = at


def many_chunks(file: h5py.File) -> None:
    file.create_dataset("d", data=np.zeros(100), chunks=(1,))


REFUSED_FILES: list[tuple[str, str, Maker]] = [
    ("--inspect-objects-max", "10", many_groups),
    ("--inspect-depth-max", "10", deep_groups),
    ("--inspect-links-max", "10", many_links),
    ("--inspect-name-bytes-max", "100", long_name),
    ("--inspect-attributes-max", "10", many_attributes),
    ("--inspect-chunks-max", "50", many_chunks),
]


@pytest.mark.parametrize(("flag", "value", "make"), REFUSED_FILES, ids=[flag for flag, _, _ in REFUSED_FILES])
def test_a_file_beyond_a_limit_is_refused_and_the_limit_is_named(
    start: Callable[..., Server], tmp_path: Path, flag: str, value: str, make: Maker
) -> None:
    path = written(tmp_path / "file.h5", make)
    server = start({"lab": tmp_path}, flag, value)
    with h5flight.connect(server.url) as client:
        (told,) = client.register(path)
    assert told["publication"] is None
    assert told["reason"] == "file_too_complex"
    assert flag.removeprefix("--").replace("-", "_") in told["message"]


def test_a_report_beyond_its_memory_is_refused(start: Callable[..., Server], tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        for at in range(100):
            file.create_group(f"g{at}").attrs["text"] = "x" * 30_000

    path = written(tmp_path / "file.h5", make)
    server = start({"lab": tmp_path}, "--inspect-report-bytes-max", "1MiB")
    with h5flight.connect(server.url) as client:
        (told,) = client.register(path)
    assert (told["reason"], "inspect_report_bytes_max" in told["message"]) == ("file_too_complex", True)


def test_results_and_chunks_beyond_a_limit_are_refused_from_the_index(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    def make(file: h5py.File) -> None:
        file.create_dataset("huge_chunk", (1 << 27,), "f8", chunks=(1 << 27,), compression="gzip")
        file["huge_chunk"].id.write_direct_chunk((0,), b"\x78\x9c\x03\x00\x00\x00\x00\x01")
        file.create_dataset("bomb", (4 * MIB,), "u1", chunks=(4 * MIB,), compression="gzip")[...] = 0
        file.create_dataset("space", (1 << 50,), "f8", chunks=(1 << 10,))

    path = written(tmp_path / "file.h5", make)
    server = start({"lab": tmp_path}, "--result-bytes-max", "1GiB", "--decode-ratio-max", "500")
    with h5flight.connect(server.url) as client:
        client.register(path, animal="a", experiment="e")
        experiment = client["a"]["e"]
        for read, reason, limit in [
            (lambda: experiment["huge_chunk"][:1], "chunk_too_large", "chunk_bytes_max"),
            (lambda: experiment["bomb"][:1], "chunk_too_large", "decode_ratio_max"),
            (lambda: experiment["space"][...], "result_too_large", "result_bytes_max"),
        ]:
            error = refusal(read)
            assert (error.reason, limit in str(error)) == (reason, True), str(error)
        np.testing.assert_array_equal(experiment["space"][(1 << 50) - 3 :], [0, 0, 0])


def test_text_beyond_the_budget_is_refused_and_text_within_it_is_read(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    texts = [letter * (3 * MIB) for letter in "abc"]

    def make(file: h5py.File) -> None:
        file["within"] = texts
        file["beyond"] = ["z" * (40 * MIB)]

    path = written(tmp_path / "file.h5", make)
    server = start({"lab": tmp_path}, "--memory-bytes", "64MiB", "--admission-timeout-ms", "500")
    with h5flight.connect(server.url) as client:
        client.register(path, animal="a", experiment="e")
        experiment = client["a"]["e"]
        assert list(experiment["within"][...]) == texts
        error = refusal(lambda: experiment["beyond"][...])
        assert (error.reason, "memory_bytes" in str(error)) == ("result_too_large", True), str(error)
        assert list(experiment["within"][1:]) == texts[1:]


def test_what_is_no_regular_file_below_a_root_is_refused(start: Callable[..., Server], tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir(), outside.mkdir()
    secret = written(outside / "secret.h5", lambda file: file.create_dataset("d", data=[1, 2]))
    (root / "link.h5").symlink_to(secret)
    (root / "folder_link").symlink_to(outside)
    os.mkfifo(root / "pipe.h5")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket.h5"))
    server = start({"lab": root})
    with h5flight.connect(server.url) as client:
        for path, reasons in [
            ("lab:link.h5", {"not_a_regular_file", "outside_roots"}),
            ("lab:folder_link/secret.h5", {"not_a_regular_file", "outside_roots"}),
            ("lab:pipe.h5", {"not_a_regular_file"}),
            ("lab:socket.h5", {"not_a_regular_file"}),
            ("lab:../outside/secret.h5", {"outside_roots"}),
            (str(secret), {"outside_roots"}),
            (f"{root}/../outside/secret.h5", {"outside_roots"}),
            ("/proc/self/environ", {"outside_roots"}),
            ("/dev/zero", {"outside_roots"}),
            ("lab:none.h5", {"file_not_found"}),
            ("lab:" + "x" * 5_000, {"file_not_found", "outside_roots", "io"}),
        ]:
            try:
                (told,) = client.register(path)
                reason, message = told["reason"], told["message"]
                assert told["publication"] is None, path
            except h5flight.H5FlightError as error:
                reason, message = error.reason, str(error)
            assert reason in reasons, f"{path}: {reason}: {message}"
            assert str(tmp_path) not in message.replace(path, "")
        assert client.animals() == []


def test_a_path_that_becomes_a_link_while_it_is_registered_never_leads_out(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir(), outside.mkdir()
    secret = written(outside / "secret.h5", lambda file: file.create_dataset("d", data=[666]))
    mine = written(tmp_path / "mine.h5", lambda file: file.create_dataset("d", data=[1]))
    swapped, turns, rng = root / "swapped.h5", threading.Semaphore(0), np.random.default_rng(SEED)

    def swap() -> None:
        for _ in range(200):
            turns.acquire()
            for make in (lambda at: os.symlink(secret, at), lambda at: os.link(mine, at)) * int(rng.integers(0, 3)):
                make(root / ".next")
                os.replace(root / ".next", swapped)

    server = start({"lab": root})
    os.link(mine, swapped)
    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        outcomes: dict[str, int] = {}
        with h5flight.connect(server.url) as client:
            for _ in range(200):
                turns.release()
                try:
                    (told,) = client.register("lab:swapped.h5", animal="a", experiment="e", replace=True)
                    outcome = told["reason"]
                    if told["publication"] is not None:
                        value = int(client["a"]["e"]["d"][0])
                        assert value == 1, "a value of a file outside the root"
                        outcome = "read"
                except h5flight.H5FlightError as error:
                    outcome = error.reason
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
    finally:
        turns.release(200)
        attacker.join()
    assert outcomes.get("read", 0) > 0, outcomes
    assert "internal" not in outcomes, outcomes


def test_a_file_that_is_overwritten_while_it_is_read_is_never_mixed(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    """The file has one number everywhere; it is overwritten in place by another one while somebody reads."""
    count, rng = 24 * MIB, np.random.default_rng(SEED)
    path = tmp_path / "file.h5"
    server = start({"lab": tmp_path})
    outcomes: dict[str, int] = {}
    with h5flight.connect(server.url) as client:
        for turn in range(12):
            with h5py.File(path, "w") as file:
                offset = file.create_dataset("d", data=np.full(count, turn, "u1")).id.get_offset()
            client.register(path, animal="a", experiment="e", replace=True)
            begin = threading.Event()
            first = int(rng.integers(0, count, endpoint=True))

            def overwrite(
                turn: int = turn, first: int = first, offset: int = offset, begin: threading.Event = begin
            ) -> None:
                begin.wait()
                with path.open("r+b", buffering=0) as target:
                    for at in (*range(first, count, MIB), *range(0, first, MIB)):
                        os.pwrite(target.fileno(), bytes([turn + 100]) * min(MIB, count - at), offset + at)

            writer = threading.Thread(target=overwrite)
            writer.start()
            begin.set()
            try:
                found = client["a"]["e"]["d"][...]
                assert (found == turn).all(), f"turn {turn}, seed {SEED}: {np.unique(found)}"
                outcome = "whole"
            except h5flight.H5FlightError as error:
                outcome = error.reason
            writer.join()
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            assert refusal(lambda: client["a"]["e"]["d"][:1]).reason == "file_changed"
    assert outcomes.keys() <= {"whole", "file_changed"}, outcomes
    assert outcomes.get("file_changed", 0) > 0, outcomes


def test_an_array_that_kills_its_worker_is_not_tried_for_ever(start: Callable[..., Server], tmp_path: Path) -> None:
    def make(file: h5py.File) -> None:
        file["texts"] = ["some text"] * 20_000
        file["numbers"] = np.arange(5)

    path = written(tmp_path / "file.h5", make)
    server = start({"lab": tmp_path}, "--worker-read-timeout-ms", "1")
    server.expect("worker|libhdf5")
    with h5flight.connect(server.url) as client:
        client.register(path, animal="a", experiment="e")
        experiment = client["a"]["e"]
        errors = [refusal(lambda: experiment["texts"][...]) for _ in range(5)]
        assert {error.reason for error in errors} == {"malformed_file"}
        assert "worker_read_timeout_ms" in str(errors[0])
        assert "not tried again" in str(errors[-1])
        np.testing.assert_array_equal(experiment["numbers"][...], np.arange(5))


def test_a_chunk_that_is_stored_in_far_more_bytes_than_it_holds_is_refused(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    """Bytes behind a stream are ignored: without a bound, chunks of a kilobyte could ask for a gigabyte each."""
    path = Path(server.roots["lab"]) / "bloated.h5"
    with h5py.File(path, "w") as file:
        values = file.create_dataset("values", (200_000,), "u1", chunks=(100_000,), compression="gzip")
        values.id.write_direct_chunk((0,), zlib.compress(bytes(100_000)) + bytes(1 << 20))
    experiment = publish(path, animal="hostile")
    with pytest.raises(h5flight.H5FlightError, match="stored bytes") as caught:
        experiment["values"][...]
    assert caught.value.reason == "chunk_too_large"
