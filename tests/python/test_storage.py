"""Every way of storing: filters in every combination, skipped filters, holes, edges, slabs, user blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5flight
import h5py
import numpy as np
import pytest

import files
from server import Server

Pair = tuple[h5flight.Experiment, h5py.File]
NAMES = files.names_of(files.write_storages)


@pytest.fixture(scope="module", params=[0, 512, 8192], ids=["plain", "user-block-512", "user-block-8192"])
def storages(
    request: pytest.FixtureRequest, server: Server, publish: Callable[..., h5flight.Experiment]
) -> Iterator[Pair]:
    path = Path(server.roots["lab"]) / f"storages_{request.param}.h5"
    partial(files.write_storages, user_block=request.param)(path)
    with h5py.File(path) as file:
        yield publish(path), file


@pytest.mark.parametrize("name", NAMES)
def test_every_storage_is_read_as_h5py_reads_it(storages: Pair, name: str) -> None:
    experiment, file = storages
    whole, dataset = files.oracle(file[name]), experiment[name]
    assert dataset.chunks == file[name].chunks
    for key in files.keys(whole.shape):
        files.assert_same(dataset[key], files.select(whole, key, whole.ndim), f"{name}[{key!r}]")


def test_random_boxes_are_read_as_h5py_reads_them(storages: Pair) -> None:
    experiment, file = storages
    seed = int(np.random.default_rng().integers(1 << 32))
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    for name in ("filter/shuffle_gzip", "fill/sparse", "mask/skipped", "slabs/grown", "contiguous"):
        whole = file[name][...]
        for _ in range(40):
            ends = [sorted(rng.integers(0, size + 1, 2)) for size in whole.shape]
            key = tuple(slice(int(a), int(b), int(rng.integers(1, 4))) for a, b in ends)
            files.assert_same(experiment[name][key], whole[key].astype(whole.dtype.newbyteorder("=")), f"{name}[{key}]")


def test_a_long_read_comes_in_many_batches_and_is_whole(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    path = Path(server.roots["lab"]) / "long.h5"
    values = np.random.default_rng(1).integers(0, 4000, (3000, 64, 64), dtype="u2")
    with h5py.File(path, "w") as file:
        file.create_dataset("movie", data=values, chunks=(100, 64, 64), compression="lzf", shuffle=True)
        file.create_dataset(
            "columns", data=values.reshape(3000, -1), chunks=(3000, 64), compression="lzf", shuffle=True
        )
    experiment = publish(path)
    np.testing.assert_array_equal(experiment["movie"][...], values)
    np.testing.assert_array_equal(experiment["movie"][2999::-7, 5:60:3, ::-1], values[2999::-7, 5:60:3, ::-1])
    np.testing.assert_array_equal(experiment["columns"][...], values.reshape(3000, -1))
    np.testing.assert_array_equal(np.concatenate([row[np.newaxis] for row in experiment["movie"]]), values)


def test_a_file_that_changed_is_refused_until_it_is_registered_anew(
    server: Server, publish: Callable[..., h5flight.Experiment]
) -> None:
    path = Path(server.roots["lab"]) / "changing.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(1000)
    experiment = publish(path)
    assert experiment["data"][3] == 3
    with h5py.File(path, "a") as file:
        file["data"][:] = np.arange(1000) * 2
        file["more"] = 1
    with pytest.raises(h5flight.FileStateError) as caught:
        experiment["data"][3:5]
    assert caught.value.reason == "file_changed"
    publish(path)
    assert experiment["data"][3] == 6
    assert experiment["more"][()] == 1
    assert experiment["data"].version == 2


def test_external_data_is_refused_and_never_opened(
    server: Server, publish: Callable[..., h5flight.Experiment], tmp_path: Path
) -> None:
    path = Path(server.roots["lab"]) / "external.h5"
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(5)
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink(str(secret), "/data")
        file.create_dataset("raw", (4,), "i4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        layout = h5py.VirtualLayout((5,), "i8")
        layout[:] = h5py.VirtualSource(str(secret), "data", (5,))
        file.create_virtual_dataset("virtual", layout)
        file["fine"] = 1
    experiment = publish(path)
    expected = {
        "link": "external_link_refused", "raw": "external_storage_refused", "virtual": "virtual_source_refused"
    }  # fmt: skip
    for name, reason in expected.items():
        with pytest.raises(h5flight.H5FlightError) as caught:
            experiment[name][...]
        assert caught.value.reason == reason
        assert str(tmp_path) not in str(caught.value)
    assert experiment["fine"][()] == 1
