"""Files to measure on: seeded, compressible like recordings, never pure noise.

Layouts are those that NWB writers choose: whole frames in chunks of about 10 MB for movies, all channels of a few
seconds for probes, shuffle and gzip 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

SEED = 8815
GZIP = {"compression": "gzip", "compression_opts": 4}
UNIT = np.dtype([("id", "<i8"), ("t", "<f8"), ("label", "S16")])
"""A row of the table: a spike, when it was, and the name of its unit."""

BLOCK_BYTES = 64 << 20
"""Values made at a time, rounded to whole chunks."""


@dataclass(frozen=True)
class Case:
    """One file with one dataset named ``data``."""

    name: str
    about: str
    shape: tuple[int, ...]
    dtype: str | np.dtype[Any]
    chunks: tuple[int, ...] | None
    filters: dict[str, Any]
    make: Callable[[int, int, tuple[int, ...], np.random.Generator], np.ndarray]

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of axis 0."""
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.shape[0] * self.row_bytes

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All values, in blocks of whole chunks with their first rows."""
        rng = np.random.default_rng(SEED)
        unit = self.chunks[0] if self.chunks else 1
        rows = max(1, BLOCK_BYTES // self.row_bytes // unit) * unit
        for start in range(0, self.shape[0], rows):
            yield start, self.make(start, min(rows, self.shape[0] - start), self.shape[1:], rng).astype(self.dtype)

    def write(self, folder: Path) -> Path:
        """The file, written unless it is there."""
        path = folder / f"{self.name}-{'x'.join(map(str, self.shape))}.h5"
        if not path.exists():
            partial = path.with_suffix(".part")
            with h5py.File(partial, "w", libver="v110") as file:
                data = file.create_dataset("data", self.shape, self.dtype, chunks=self.chunks, **self.filters)
                for start, block in self.blocks():
                    data[start : start + len(block)] = block
            partial.rename(path)
        return path


def movie(start: int, count: int, frame: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Cells blinking at their own pace on an uneven background, with photon noise; 12-bit counts."""
    height, width = frame
    y, x = np.mgrid[:height, :width].astype("f4")
    scene = 240 + 110 * np.exp(-((y - height / 2) ** 2 + (x - width / 3) ** 2) / 4e4) + 30 * np.cos(y / 37 + x / 61)
    block = np.repeat(scene[None], count, axis=0)
    cells = np.random.default_rng(SEED)
    t = np.arange(start, start + count, dtype="f4")
    yy, xx = np.mgrid[-10:11, -10:11].astype("f4")
    spot = np.exp(-(yy**2 + xx**2) / 22)
    for _ in range(200):
        cy, cx = cells.integers(10, [height - 10, width - 10])
        period, phase, gain = cells.uniform(40, 400), cells.uniform(0, 400), cells.uniform(80, 900)
        trace = gain * np.exp(-((t + phase) % period) / 15)
        block[:, cy - 10 : cy + 11, cx - 10 : cx + 11] += trace[:, None, None] * spot
    block += rng.standard_normal(block.shape, dtype="f4") * np.sqrt(block) * 0.8
    return np.clip(block, 0, 4095)


def probe(start: int, count: int, row: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Two shared rhythms, noise of each channel, and spikes that spread to neighbours."""
    depth = np.arange(row[0], dtype="f4")
    t = (np.arange(start, start + count) / 30_000).astype("f4")[:, None]
    block = 55 * np.sin(50 * t + depth / 15) + 20 * np.sin(260 * t + depth / 6)
    block += rng.standard_normal((count, row[0]), dtype="f4") * 8
    shape = (-130 * np.exp(-np.arange(32) / 7) * np.cos(np.arange(32) / 4)).astype("f4")
    if count > 32:
        for at, centre in zip(rng.integers(0, count - 32, count // 350), rng.integers(0, row[0], count // 350)):
            block[at : at + 32] += shape[:, None] * np.exp(-((depth - centre) ** 2) / 5)
    return np.rint(block)


def walk(start: int, count: int, row: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random walks, rounded as a converter would leave them."""
    return np.round(np.cumsum(rng.standard_normal((count, *row)), axis=0), 3)


def table(start: int, count: int, row: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Spikes of some units: numbers that count up, times at uneven distances, and names that come again and again."""
    rows = np.empty(count, UNIT)
    rows["id"] = np.arange(start, start + count)
    rows["t"] = np.round(start * 0.003 + np.cumsum(rng.exponential(0.003, count)), 6)
    names = np.array([f"probe0/unit{unit:03d}".encode() for unit in range(150)], "S16")
    rows["label"] = names[rng.integers(0, len(names), count)]
    return rows


def cases(scale: float) -> dict[str, Case]:
    """All cases; the long axis shrinks with the scale."""
    frames, samples = max(200, int(4000 * scale)), max(120_000, int(3_000_000 * scale))
    film, spikes = (frames, 512, 512), (samples, 64)
    shuffled = {**GZIP, "shuffle": True}
    zstd, bitshuffle = {"shuffle": True, **hdf5plugin.Zstd(clevel=3)}, dict(hdf5plugin.Bitshuffle(cname="lz4"))
    lzf = {"shuffle": True, "compression": "lzf"}
    made = [
        Case("A", "movie u16, chunks 19 x 512 x 512, shuffle + gzip", film, "<u2", (19, 512, 512), shuffled, movie),
        Case("A_roi", "movie u16, chunks 16 x 128 x 128, shuffle + gzip", film, "<u2", (16, 128, 128), shuffled, movie),
        Case("B", "probe i16, chunks 78125 x 64, shuffle + gzip", spikes, "<i2", (78_125, 64), shuffled, probe),
        Case("B_zstd", "as B, shuffle + zstd", spikes, "<i2", (78_125, 64), zstd, probe),
        Case("B_bslz4", "as B, bitshuffle + LZ4", spikes, "<i2", (78_125, 64), bitshuffle, probe),
        Case("B_lzf", "as B, shuffle + LZF", spikes, "<i2", (78_125, 64), lzf, probe),
        Case("C", "matrix f64, 1000 x 1000, chunks 100 x 100, gzip", (1000, 1000), "<f8", (100, 100), GZIP, walk),
        Case("D", "movie u16, contiguous", film, "<u2", None, {}, movie),
        Case("E", "table of i64, f64, S16, chunks 16384, gzip", (1_000_000,), UNIT, (16_384,), GZIP, table),
    ]
    return {case.name: case for case in made}
