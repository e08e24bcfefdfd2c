"""Parts of a series by its own clock and channels, and values in its unit."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from . import wire

UNITS = {None: 0, "float32": 1, "float64": 2}
"""Types of values in the unit of a series; None leaves them as they are stored."""


def encode(
    time: tuple[float | None, float | None] | None = None,
    channels: Sequence[int] | None = None,
    units: str | bool | None = None,
) -> bytes:
    """Encode what is asked of a series as fields of a `GetDataRequest`.

    Parameters
    ----------
    time : tuple, optional
        ``(start, stop)`` in seconds of the series' clock: the rows with ``start <= t < stop``; None is no bound.
    channels : sequence of int, optional
        Ids of channels, in the order of the result.
    units : str or bool, optional
        ``"float32"`` or ``"float64"``: values in the unit of the series; True is float64.
    """
    found = b""
    if time is not None:
        bounds = ((field, bound) for field, bound in enumerate(time, 1) if bound is not None)
        # A wire type of 1 is eight bytes.
        found += wire.block(20, b"".join(wire.varint(field << 3 | 1) + struct.pack("<d", at) for field, at in bounds))
    if channels is not None:
        ids = b"".join(wire.zigzag(int(channel)) for channel in channels)
        found += wire.block(21, wire.block(1, ids))
    units = {True: "float64", False: None}.get(units, units) if isinstance(units, bool) else units
    if units not in UNITS:
        raise ValueError(f"units {units!r} are none of float32, float64")
    return found + wire.number(23, UNITS[units])
