"""Parts of a series by its own clock and channels, windows around events, and values in its unit."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import wire

UNITS = {None: 0, "float32": 1, "float64": 2}
"""Types of values in the unit of a series; None leaves them as they are stored."""


EVENT_COLUMN = "start_time"
"""The column of events of a table that is named alone."""

EDGES = {"drop": 0, "clip": 1}
"""What becomes of windows that reach over an end of the series."""


@dataclasses.dataclass(frozen=True)
class Around:
    """Windows around events.

    Attributes
    ----------
    events : sequence of float, or (str, str)
        Seconds of the series' clock; or the path of a table, and its column of them.
    start_s, stop_s : float
        Where a window begins and ends, in seconds from its event; the end is not part of it.
    where : str
        Which rows of the table; empty is all.
    edge : str
        ``drop`` or ``clip``.
    as_of_us : int or None
        The table as it was at this time, in microseconds since 1970 UTC; None is the current one.
    """

    events: Sequence[float] | np.ndarray[Any, Any] | tuple[str, str]
    start_s: float
    stop_s: float
    where: str = ""
    edge: str = "drop"
    as_of_us: int | None = None

    @classmethod
    def of(
        cls,
        events: str | tuple[str, str] | Sequence[float] | np.ndarray[Any, Any],
        window: tuple[float, float],
        where: str | None,
        **how: Any,
    ) -> Around:
        """Make it of what users give: a table that is named alone has its events in the column ``start_time``."""
        events = (events, EVENT_COLUMN) if isinstance(events, str) else events
        return cls(events, float(window[0]), float(window[1]), where or "", **how)

    def encode(self) -> bytes:
        """Encode the message `Windows`."""
        if self.edge not in EDGES:
            raise ValueError(f"edge {self.edge!r} is none of {', '.join(EDGES)}")
        if isinstance(self.events, tuple) and len(self.events) == 2 and isinstance(self.events[0], str):
            table, column = self.events
            names = wire.text(1, str(table)) + wire.text(2, str(column))
            at = wire.version_selector(0, self.as_of_us, "")
            events = wire.block(2, names + wire.text(3, self.where) + (wire.block(4, at) if at else b""))
        else:
            seconds = np.asarray(self.events, "<f8")
            if seconds.ndim != 1:
                raise ValueError(f"events of shape {seconds.shape} are no list of seconds")
            if self.where:
                raise ValueError("a condition needs a table of events")
            events = wire.block(1, seconds.tobytes()) if len(seconds) else b""
        return events + _double(3, self.start_s) + _double(4, self.stop_s) + wire.number(5, EDGES[self.edge])


def encode(
    time: tuple[float | None, float | None] | None = None,
    channels: Sequence[int] | str | None = None,
    units: str | bool | None = None,
    around: Around | None = None,
) -> bytes:
    """Encode what is asked of a series as fields of a `GetDataRequest`.

    Parameters
    ----------
    time : tuple, optional
        ``(start, stop)`` in seconds of the series' clock: the rows with ``start <= t < stop``; None is no bound.
    channels : sequence of int or str, optional
        Ids of channels, in the order of the result; or a condition on their table: ``"location = 'CA1'"``.
    units : str or bool, optional
        ``"float32"`` or ``"float64"``: values in the unit of the series; True is float64.
    around : Around, optional
        Windows around events, in place of `time`.
    """
    found = b""
    if time is not None:
        found += wire.block(20, b"".join(_double(field, at) for field, at in enumerate(time, 1) if at is not None))
    if isinstance(channels, str):
        if not channels.strip():
            raise ValueError("an empty condition on channels; None is all of them")
        found += wire.block(21, wire.text(2, channels))
    elif channels is not None:
        ids = b"".join(wire.zigzag(int(channel)) for channel in channels)
        found += wire.block(21, wire.block(1, ids))
    units = {True: "float64", False: None}.get(units, units) if isinstance(units, bool) else units
    if units not in UNITS:
        raise ValueError(f"units {units!r} are none of float32, float64")
    return found + wire.number(23, UNITS[units]) + (wire.block(24, around.encode()) if around else b"")


def _double(field: int, value: float) -> bytes:
    # A wire type of 1 is eight bytes.
    return wire.varint(field << 3 | 1) + struct.pack("<d", value)
