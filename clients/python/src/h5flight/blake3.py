"""BLAKE3 of a file, by which the server knows an upload again and sees that it arrived whole.

With the package ``blake3`` (``pip install h5flight[upload]``) several gigabytes a second; without it this one, which
compresses thousands of chunks at once in numpy: some hundred megabytes a second. The names are those of the paper
(github.com/BLAKE3-team/BLAKE3-specs, sections 2.1 to 2.5).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint32]]

_IV = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32
)
_PERMUTATION = np.array([2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8])
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT = 1, 2, 4, 8
_BLOCK_BYTES, _CHUNK_BYTES = 64, 1024
_PIECE_BYTES = 4 << 20
"""Bytes that are compressed at once: a whole subtree, so a power of two of chunks."""


def file_blake3(path: str | os.PathLike[str], progress: Callable[[int], object] = lambda _: None) -> str:
    """Hash a file.

    Parameters
    ----------
    path : str or path
        The file.
    progress : callable
        Told the bytes hashed so far.

    Returns
    -------
    str
        Lowercase hex.
    """
    hasher = _hasher()
    hashed = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
            hashed += len(piece)
            progress(hashed)
    digest: str = hasher.hexdigest()
    return digest


def _hasher() -> Any:
    try:
        return importlib.import_module("blake3").blake3()
    except ImportError:
        return Blake3()


class Blake3:
    """A hash that grows. Bytes are kept until a piece of 4 MiB is full and more is known to come."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._stack: list[Words] = []
        self._pieces = 0

    def update(self, data: bytes) -> None:
        """Append bytes."""
        self._waiting += data
        while len(self._waiting) > _PIECE_BYTES:
            node = _reduced(_chunks(bytes(self._waiting[:_PIECE_BYTES]), self._first_chunk(), 0))
            del self._waiting[:_PIECE_BYTES]
            self._pieces += 1
            # One subtree is waiting for each bit of the number of pieces.
            done = self._pieces
            while done % 2 == 0:
                node = _parents(np.concatenate([self._stack.pop(), node], axis=1), 0)
                done //= 2
            self._stack.append(node)

    def hexdigest(self) -> str:
        """The hash of all bytes, lowercase hex. Nothing can be appended behind it."""
        alone = not self._stack
        single = alone and len(self._waiting) <= _CHUNK_BYTES
        nodes = _chunks(bytes(self._waiting), self._first_chunk(), _ROOT if single else 0)
        if alone and not single:
            nodes = _parents(_reduced(nodes, 2), _ROOT)
        elif not alone:
            nodes = _reduced(nodes)
            for at in reversed(range(len(self._stack))):
                nodes = _parents(np.concatenate([self._stack[at], nodes], axis=1), 0 if at else _ROOT)
        return nodes[:, 0].astype("<u4").tobytes().hex()

    def _first_chunk(self) -> int:
        return self._pieces * (_PIECE_BYTES // _CHUNK_BYTES)


def _chunks(data: bytes, first: int, flags: int) -> Words:
    """Chaining values (8, n) of the chunks of `data`, the last of which may be short."""
    whole = len(data) // _CHUNK_BYTES
    # Of data that ends with a chunk this one is the last; there is one also where there is no data.
    rest = data[whole * _CHUNK_BYTES :]
    parts = []
    if whole:
        words = np.frombuffer(data, "<u4", whole * _CHUNK_BYTES // 4).reshape(whole, 16, 16)
        blocks = np.ascontiguousarray(words.transpose(1, 2, 0)).astype(np.uint32, copy=False)
        counters = np.arange(first, first + whole, dtype=np.uint64)
        sizes = [_BLOCK_BYTES] * 16
        parts.append(_chain(blocks, counters, sizes, flags))
    if rest or not whole:
        count = max(1, -(-len(rest) // _BLOCK_BYTES))
        padded = rest.ljust(count * _BLOCK_BYTES, b"\0")
        blocks = np.frombuffer(padded, "<u4").astype(np.uint32).reshape(count, 16, 1)
        sizes = [_BLOCK_BYTES] * (count - 1) + [len(rest) - (count - 1) * _BLOCK_BYTES]
        parts.append(_chain(blocks, np.array([first + whole], np.uint64), sizes, flags))
    return np.concatenate(parts, axis=1)


def _chain(blocks: Words, counters: np.ndarray[Any, Any], sizes: list[int], flags: int) -> Words:
    values = np.repeat(_IV[:, None], len(counters), axis=1)
    last = len(blocks) - 1
    for at, block in enumerate(blocks):
        mine = (_CHUNK_START if at == 0 else 0) | (_CHUNK_END | flags if at == last else 0)
        values = _compress(values, block, counters, sizes[at], mine)
    return values


def _reduced(nodes: Words, wanted: int = 1) -> Words:
    """Merge neighbours, level by level; one without a neighbour waits for the next level."""
    while nodes.shape[1] > wanted:
        even = nodes.shape[1] // 2 * 2
        nodes = np.concatenate([_parents(nodes[:, :even], 0), nodes[:, even:]], axis=1)
    return nodes


def _parents(nodes: Words, flags: int) -> Words:
    blocks = np.concatenate([nodes[:, 0::2], nodes[:, 1::2]], axis=0)
    values = np.repeat(_IV[:, None], blocks.shape[1], axis=1)
    return _compress(values, blocks, np.zeros(blocks.shape[1], np.uint64), _BLOCK_BYTES, _PARENT | flags)


def _compress(values: Words, block: Words, counters: np.ndarray[Any, Any], size: int, flags: int) -> Words:
    width = values.shape[1]
    a, b, c = values[:4].copy(), values[4:].copy(), np.repeat(_IV[:4, None], width, axis=1)
    d = np.empty((4, width), np.uint32)
    d[0], d[1], d[2], d[3] = counters & np.uint64(0xFFFFFFFF), counters >> np.uint64(32), size, flags
    order = np.arange(16)
    for _ in range(7):
        _mix(a, b, c, d, block[order[0:8:2]], block[order[1:8:2]])
        b, c, d = np.roll(b, -1, 0), np.roll(c, -2, 0), np.roll(d, -3, 0)
        _mix(a, b, c, d, block[order[8:16:2]], block[order[9:16:2]])
        b, c, d = np.roll(b, 1, 0), np.roll(c, 2, 0), np.roll(d, 3, 0)
        order = order[_PERMUTATION]
    return np.concatenate([a ^ c, b ^ d], axis=0)


def _mix(a: Words, b: Words, c: Words, d: Words, x: Words, y: Words) -> None:
    for words, right_d, right_b in ((x, 16, 12), (y, 8, 7)):
        a += b
        a += words
        d ^= a
        _rotate(d, right_d)
        c += d
        b ^= c
        _rotate(b, right_b)


def _rotate(words: Words, right: int) -> None:
    high = words << np.uint32(32 - right)
    words >>= np.uint32(right)
    words |= high
