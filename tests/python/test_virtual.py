"""Virtual datasets: put together from the datasets that are served, refused where one is not, never filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5flight
import h5py
import numpy as np
import pytest

import files
from server import Server

UNLIMITED = h5py.h5s.UNLIMITED
Add = Callable[[h5py.File], None]


def source(file: h5py.File, name: str, key: Any = ...) -> h5py.VirtualSource:
    """A part of a dataset of the same file."""
    return h5py.VirtualSource(".", name, file[name].shape, file[name].dtype)[key]


def make(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any, parts: list[Any], **options: Any) -> None:
    """Write a virtual dataset of parts: (where, source)."""
    layout = h5py.VirtualLayout(shape, dtype, maxshape=options.pop("maxshape", None))
    for key, part in parts:
        layout[key] = part
    file.create_virtual_dataset(name, layout, **options)


def write(path: Path) -> None:
    """Sources of all kinds, and virtual datasets of them."""
    rng = np.random.default_rng(files.SEED)
    with h5py.File(path, "w", libver="latest") as file:
        movie = rng.integers(0, 60_000, (300, 20, 30), dtype="u2")
        file.create_dataset("raw/a", data=movie[:100], chunks=(16, 20, 30), compression="gzip", shuffle=True)
        file.create_dataset("raw/b", data=movie[100:220], chunks=(7, 8, 9), compression="lzf")
        file.create_dataset("raw/c", data=movie[220:])
        for i in range(40):
            file[f"rows/{i:02}"] = rng.standard_normal(500)
        file["big_endian"] = np.arange(60, dtype=">i4").reshape(6, 10)
        file["words"] = np.array([f"wört {i}" for i in range(50)], object)
        file["fixed"] = np.array([f"w{i}" for i in range(50)], "S5")
        file["notes"] = files.notes(12)
        file["trials"] = files.trials((30,))
        file["few"] = np.arange(5)
        file["scalar"] = 5.5
        file["alias"] = file["raw"]
        file["soft"] = h5py.SoftLink("/alias/a")
        file.create_dataset("sparse", (100, 20, 30), "u2", chunks=(10, 20, 30), fillvalue=77)
        grown = file.create_dataset("grown", data=np.arange(70).reshape(14, 5), maxshape=(None, 5), chunks=(4, 5))
        assert grown.shape == (14, 5)

        whole = [(slice(0, 100), "raw/a"), (slice(100, 220), "raw/b"), (slice(220, 300), "raw/c")]
        make(file, "v/joined", (300, 20, 30), "u2", [(rows, source(file, name)) for rows, name in whole])
        linked = [(slice(0, 100), "soft"), (slice(100, 220), "alias/b")]
        make(file, "v/linked", (220, 20, 30), "u2", [(rows, source(file, name)) for rows, name in linked])
        every = [(slice(i, None, 2), source(file, "raw/a", slice(i * 50, i * 50 + 50))) for i in range(2)]
        make(file, "v/interleaved", (100, 20, 30), "u2", every)
        crossed = [
            (np.s_[:, ::3], source(file, "raw/a", np.s_[:, 0:7])),
            (np.s_[:, 1::3], source(file, "raw/a", np.s_[:, 7:14])),
            (np.s_[:, 2::3], source(file, "raw/a", np.s_[:, 14:20])),
        ]
        make(file, "v/crossed", (100, 20, 30), "u2", crossed)
        rows = [((i,), source(file, f"rows/{i:02}")) for i in range(40)]
        make(file, "v/rows", (40, 500), "f8", rows)
        make(file, "v/columns", (500, 40), "f8", [((slice(None), i), source(file, f"rows/{i:02}")) for i in range(40)])
        make(file, "v/planes", (3, 100, 30), "u2", [(i, source(file, "raw/a", np.s_[:, i, :])) for i in range(3)])
        holes = [(np.s_[5:15, 3:13, ::2], source(file, "raw/c", np.s_[10:20, 5:15, 0:15]))]
        make(file, "v/holes", (40, 20, 30), "u2", holes, fillvalue=4711)
        make(file, "v/empty_parts", (40, 20, 30), "u2", [(np.s_[:20], source(file, "sparse", np.s_[:20]))], fillvalue=1)
        make(file, "v/big_endian", (12, 10), ">i4", [(i, source(file, "big_endian")) for i in (np.s_[:6], np.s_[6:])])
        make(file, "v/words", (100,), h5py.string_dtype(), [(np.s_[::2], source(file, "words"))])
        make(file, "v/fixed", (60,), "S5", [(np.s_[3:53], source(file, "fixed"))])
        make(file, "v/notes", (20,), files.NOTE, [(np.s_[4:16], source(file, "notes"))])
        make(file, "v/trials", (60,), files.TRIAL, [(np.s_[30:], source(file, "trials"))])
        make(file, "v/grown", (14, 5), "i8", [(np.s_[:UNLIMITED], source(file, "grown", np.s_[:UNLIMITED]))],
             maxshape=(None, 5))  # fmt: skip
        make(file, "v/one", (3,), "f8", [((1,), source(file, "scalar"))])
        nested = [(slice(0, 300), source(file, "v/joined")), (slice(310, 350), source(file, "v/holes"))]
        make(file, "v/nested", (350, 20, 30), "u2", nested, fillvalue=9)
        make(file, "v/twice", (100, 20), "u2", [(..., source(file, "v/nested", np.s_[250:350, :, 2]))])
        # Only libhdf5 puts these together: another element type, another shape.
        make(file, "v/converted", (40, 500), "f4", rows)
        make(file, "v/reshaped", (5, 100), "f8", [(..., source(file, "rows/00"))])
    with h5py.File(path, "r+") as file:
        file["grown"].resize(17, 0)
        file["grown"][14:] = -1


NAMES = [
    "joined", "linked", "interleaved", "crossed", "rows", "columns", "planes", "holes", "empty_parts", "big_endian",
    "words", "fixed", "notes", "trials", "grown", "one", "nested", "twice", "converted", "reshaped",
]  # fmt: skip


@pytest.fixture(scope="module")
def virtual(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> Iterator[tuple[h5flight.Experiment, h5py.File]]:
    path = Path(server.roots["lab"]) / "virtual.h5"
    write(path)
    with h5py.File(path) as file:
        assert sorted(file["v"]) == sorted(NAMES)
        yield publish(path), file


@pytest.mark.parametrize("name", NAMES)
def test_a_virtual_dataset_is_read_as_h5py_reads_it(virtual: tuple[h5flight.Experiment, h5py.File], name: str) -> None:
    experiment, file = virtual
    whole, dataset = files.oracle(file["v"][name]), experiment[f"v/{name}"]
    assert dataset.shape == file["v"][name].shape
    for key in files.keys(whole.shape):
        files.assert_same(dataset[key], files.select(whole, key, whole.ndim), f"{name}[{key!r}]")


def test_random_parts_are_read_as_h5py_reads_them(virtual: tuple[h5flight.Experiment, h5py.File]) -> None:
    experiment, file = virtual
    seed = int(np.random.default_rng().integers(1 << 32))
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    for name in ("joined", "interleaved", "crossed", "columns", "nested", "twice", "converted"):
        whole = file["v"][name][...]
        for _ in range(20):
            ends = [sorted(rng.integers(0, size + 1, 2)) for size in whole.shape]
            key: tuple[Any, ...] = tuple(slice(int(a), int(b), int(rng.integers(1, 4))) for a, b in ends)
            if rng.integers(2):
                key = (rng.integers(0, whole.shape[0], 5).tolist(), *key[1:])
            files.assert_same(experiment[f"v/{name}"][key], whole[key], f"{name}[{key}]")


def test_a_large_virtual_dataset_comes_in_many_batches(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    path = Path(server.roots["lab"]) / "large.h5"
    values = np.random.default_rng(1).integers(0, 4000, (4000, 64, 32), dtype="u2")
    with h5py.File(path, "w") as file:
        for i in range(4):
            file.create_dataset(f"part{i}", data=values[i * 1000 : i * 1000 + 1000], chunks=(300, 64, 32), shuffle=True)
        parts = [(slice(i * 1000, i * 1000 + 1000), source(file, f"part{i}")) for i in range(4)]
        make(file, "whole", values.shape, "u2", parts)
    whole = publish(path)["whole"]
    for _ in range(2):
        np.testing.assert_array_equal(whole[...], values)
    np.testing.assert_array_equal(whole[3999::-7, 5:60:3, ::-1], values[3999::-7, 5:60:3, ::-1])


def refused(dataset: h5flight.Dataset, key: Any = ...) -> tuple[str, str]:
    """Reason and message of a refusal."""
    with pytest.raises(h5flight.H5FlightError) as caught:
        dataset[key]
    return caught.value.reason, str(caught.value)


def test_what_is_missing_is_an_error_and_never_the_fill_value(
    server: Server, publish: Callable[..., h5flight.Experiment], tmp_path: Path
) -> None:
    path = Path(server.roots["lab"]) / "missing.h5"
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(5)
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(5)
        file["short"] = np.arange(3)
        file["group/x"] = 1
        file["out"] = h5py.ExternalLink(str(secret), "/data")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file.create_dataset("raw", (5,), "i8", external=[(str(secret), 0, UNLIMITED)])
        for name, where in {
            "dataset": (".", "gone"),
            "group_member": (".", "group"),
            "dangling_link": (".", "dangling"),
            "external_link": (".", "out"),
            "file": ("gone.h5", "data"),
            "absolute": (str(secret), "data"),
            "converted": (".", "out"),
            "smaller": (".", "short"),
            "external_storage": (".", "raw"),
        }.items():
            there = h5py.VirtualSource(where[0], where[1], (5,), "i8")
            dtype = "f4" if name == "converted" else "i8"
            make(file, f"v/{name}", (3, 5), dtype, [((0,), source(file, "data")), ((2,), there)], fillvalue=-1)
        grows = h5py.VirtualSource("gone.h5", "data", (5,), "i8", maxshape=(None,))[:UNLIMITED]
        make(file, "v/grows", (5,), "i8", [(np.s_[:UNLIMITED], grows)], maxshape=(None,))
    experiment = publish(path)
    for name in h5py.File(path)["v"]:
        dataset = experiment[f"v/{name}"]
        reason, message = refused(dataset)
        expected = {"external_storage": "external_storage_refused", "grows": "unsupported_layout"}
        assert reason == expected.get(name, "virtual_source_refused"), (name, message)
        assert str(tmp_path) not in message, message
        if name not in ("converted", "grows"):
            assert refused(dataset, np.s_[1:3, 2])[0] == reason
            assert refused(dataset, np.s_[::2])[0] == reason
            np.testing.assert_array_equal(dataset[0], np.arange(5))
            np.testing.assert_array_equal(dataset[:2, 1:3], [[1, 2], [-1, -1]])
    assert "secret.h5:/data" in refused(experiment["v/absolute"])[1]
    assert "/gone" in refused(experiment["v/dataset"])[1]


def test_circles_are_refused_by_name(server: Server, publish: Callable[..., h5flight.Experiment]) -> None:
    path = Path(server.roots["lab"]) / "circles.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(5)
        for name, of in {"own": "own", "a": "b", "b": "a", "c": "a", "f1": "fa", "fa": "f1"}.items():
            dtype = "f4" if name == "f1" else "i8"
            there = h5py.VirtualSource(".", of, (10,), dtype)[:5]
            make(file, name, (10,), dtype, [(np.s_[:5], there), (np.s_[5:], source(file, "data"))])
        below = "data"
        for depth in range(8):
            make(file, f"deep{depth}", (5,), "i8", [(..., h5py.VirtualSource(".", below, (5,), "i8"))])
            below = f"deep{depth}"
    experiment = publish(path)
    for name in ("own", "a", "b", "c", "f1", "fa"):
        reason, message = refused(experiment[name])
        assert reason == "virtual_cycle", message
    for name in ("own", "a"):
        np.testing.assert_array_equal(experiment[name][5:], np.arange(5))
    for depth in range(8):
        if depth < 5:
            np.testing.assert_array_equal(experiment[f"deep{depth}"][...], np.arange(5))
        else:
            assert refused(experiment[f"deep{depth}"])[0] == "virtual_cycle"


def test_irregular_selections_are_listed_with_their_reason(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    path = Path(server.roots["lab"]) / "irregular.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(5)
        create, space = h5py.h5p.create(h5py.h5p.DATASET_CREATE), h5py.h5s.create_simple((9,))
        space.select_hyperslab((0,), (2,))
        space.select_hyperslab((5,), (3,), op=h5py.h5s.SELECT_OR)
        create.set_virtual(space, b".", b"data", h5py.h5s.create_simple((5,)))
        h5py.h5d.create(file.id, b"virtual", h5py.h5t.NATIVE_INT64, h5py.h5s.create_simple((9,)), create)
    experiment = publish(path)
    reason, message = refused(experiment["virtual"])
    assert reason == "unsupported_layout"
    assert "mapping 0" in message
    assert experiment["virtual"].shape == (9,)


def test_numbered_sources_of_the_own_file_are_found(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    path = Path(server.roots["lab"]) / "numbered.h5"
    with h5py.File(path, "w") as file:
        for i in range(4):
            file[f"block%{i}"] = np.arange(5) + 10 * i
        create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        space = h5py.h5s.create_simple((0, 5), (UNLIMITED, 5))
        space.select_hyperslab((0, 0), (UNLIMITED, 1), None, (1, 5))
        create.set_virtual(space, b".", b"block%%%b", h5py.h5s.create_simple((5,)))
        full = h5py.h5s.create_simple((0, 5), (UNLIMITED, 5))
        h5py.h5d.create(file.id, b"virtual", h5py.h5t.NATIVE_INT64, full, create)
    with h5py.File(path) as file:
        expected = file["virtual"][...]
    assert expected.shape == (4, 5)
    np.testing.assert_array_equal(publish(path)["virtual"][...], expected)


def test_sources_in_other_files_are_served_from_the_same_experiment_only(
    server: Server, client: h5flight.Client
) -> None:
    lab = Path(server.roots["lab"]) / "several"
    lab.mkdir()
    values = np.random.default_rng(2).integers(0, 1000, (60, 40))
    for i in range(3):
        with h5py.File(lab / f"part{i}.h5", "w") as file:
            file.create_dataset(f"part{i}/data", data=values[i * 20 : i * 20 + 20], chunks=(8, 40), compression="gzip")
    with h5py.File(lab / "whole.h5", "w") as file:
        parts = [
            (slice(i * 20, i * 20 + 20), h5py.VirtualSource(f"part{i}.h5", f"part{i}/data", (20, 40), "i8"))
            for i in range(3)
        ]
        make(file, "whole", (60, 40), "i8", parts)

    def register(name: str, experiment: str) -> None:
        (report,) = client.register(lab / name, animal="m02", experiment=experiment)
        assert report["publication"] is not None, report

    register("whole.h5", "day1")
    whole = client["m02"]["day1"]["whole"]
    assert refused(whole)[0] == "virtual_source_refused"
    register("part0.h5", "day1")
    register("part1.h5", "day2")
    register("part2.h5", "day1")
    assert refused(whole)[0] == "virtual_source_refused"
    assert "part1.h5:/part1/data" in refused(whole)[1]
    np.testing.assert_array_equal(whole[:20], values[:20])
    np.testing.assert_array_equal(whole[40:, ::-3], values[40:, ::-3])
    register("part1.h5", "day1")
    for _ in range(2):
        np.testing.assert_array_equal(whole[...], values)
    # A source that changed is an error until it is registered anew, and then the new one.
    with h5py.File(lab / "part1.h5", "r+") as file:
        file["part1/data"][...] = -values[20:40]
    assert refused(whole)[0] == "file_changed"
    np.testing.assert_array_equal(whole[:20], values[:20])
    register("part1.h5", "day1")
    np.testing.assert_array_equal(whole[15:45], np.concatenate([values[15:20], -values[20:40], values[40:45]]))
    # Of two files of the name the one beside is meant.
    (lab / "other").mkdir()
    with h5py.File(lab / "other" / "part2.h5", "w") as file:
        file["elsewhere"] = 1
        file["part2/data"] = values[:20]
    (report,) = client.register(lab / "other" / "part2.h5", animal="m02", experiment="day3")
    assert report["publication"] is not None, report
    np.testing.assert_array_equal(whole[40:], values[40:])
