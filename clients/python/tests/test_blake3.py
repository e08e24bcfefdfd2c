"""BLAKE3 in numpy, held against the published test vectors (BLAKE3-team/BLAKE3, test_vectors.json)."""

from __future__ import annotations

import pytest

from h5flight.blake3 import _PIECE_BYTES, Blake3

VECTORS = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    2048: "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a",
    102400: "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
}


@pytest.mark.parametrize("size", VECTORS)
def test_the_hash_is_the_published_one(size: int) -> None:
    hasher = Blake3()
    hasher.update(bytes(at % 251 for at in range(size)))
    assert hasher.hexdigest() == VECTORS[size]


@pytest.mark.parametrize("extra", [-1, 0, 1, 1024])
def test_the_hash_does_not_depend_on_how_the_bytes_arrive(extra: int) -> None:
    data = bytes(range(251)) * (3 * _PIECE_BYTES // 251 + 5)
    data = data[: 3 * _PIECE_BYTES + extra]
    whole, parts = Blake3(), Blake3()
    whole.update(data)
    for at in range(0, len(data), 1_000_003):
        parts.update(data[at : at + 1_000_003])
    assert whole.hexdigest() == parts.hexdigest()
