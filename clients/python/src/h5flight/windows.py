"""Windows of a series around events, as one array with an axis of events and one of time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import units as series
from .arrays import Array
from .exports import optional

if TYPE_CHECKING:
    from .dataset import Dataset


@dataclasses.dataclass(frozen=True, repr=False)
class Windows:
    """Windows around events.

    Attributes
    ----------
    values : numpy.ndarray
        Of shape (events, rows of a window, ...): the axes behind are those of the dataset's rows.
    time_s : numpy.ndarray of float64
        When rows of a window are, in seconds from its event, as far as the rate tells: the first row is the first
        sample at or after the start of the window, so that all are up to one sample later.
    event_s : numpy.ndarray of float64
        When the events are, in seconds of the series' clock.
    event : numpy.ndarray of int64
        Which they are: their place in the events that were given, or their row in the table.
    first_row : numpy.ndarray of int64
        The row of the dataset that a window begins with; it may be negative where windows are clipped.
    present : numpy.ndarray of bool
        Of shape (events, rows): which rows there are; all, unless windows are clipped.
    channels : list of int or None
        Ids of the channels, where the dataset has some.
    unit : str or None
        Unit of the values; of values as they are stored, what their conversion leads to.
    """

    values: Array
    time_s: Array
    event_s: Array
    event: Array
    first_row: Array
    present: Array
    channels: list[int] | None
    unit: str | None

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.values, dtype, copy=copy) if copy else np.asarray(self.values, dtype)

    def __repr__(self) -> str:
        span = f"{self.time_s[0]:g} .. {self.time_s[-1]:g} s" if len(self.time_s) else "no rows"
        return f"<h5flight.Windows: {len(self)} events, {span}, {self.values.shape} {self.values.dtype}>"

    def to_xarray(self) -> Any:
        """Make an xarray array with the axes ``event`` (in seconds), ``time`` (from the event) and ``channel``."""
        xarray = optional("xarray", "xarray")
        names = ["event", "time", "channel", *(f"dim_{axis}" for axis in range(3, self.values.ndim))]
        coordinates: dict[str, Any] = {"event": self.event_s, "time": self.time_s}
        if self.channels is not None and self.values.ndim > 2:
            coordinates["channel"] = self.channels
        attributes = {"unit": self.unit} if self.unit else {}
        return xarray.DataArray(self.values, coordinates, names[: self.values.ndim], attrs=attributes)


def read(
    dataset: Dataset,
    events: str | tuple[str, str] | Sequence[float] | np.ndarray[Any, Any],
    window: tuple[float, float],
    *,
    where: str | None = None,
    channels: Sequence[int] | str | None = None,
    units: str | bool | None = None,
    edge: str = "drop",
    fill: float | None = None,
) -> Windows:
    """Read windows, see `Dataset.windows`."""
    around = series.Around.of(events, window, where, edge=edge, as_of_us=dataset._at.as_of_us)
    request = dataclasses.replace(dataset._request(None), series=series.encode(None, channels, units, around))
    rows, metadata = dataset.client._connection.array(request)
    told = json.loads(metadata["h5flight.windows"])
    counts = np.array(told["present"], np.int64)
    first_row = np.array(told["first_row"], np.int64)
    size = int(told["rows"])
    place = np.arange(size)
    before = np.minimum(np.maximum(-first_row, 0), size)
    present = (place >= before[:, None]) & (place < (before + counts)[:, None])
    if present.all():
        values = rows.reshape(len(counts), size, *rows.shape[1:])
    else:
        values = np.full((len(counts), size, *rows.shape[1:]), _fill(rows.dtype, fill), rows.dtype)
        values[present] = rows
    channel_ids = json.loads(metadata["h5flight.channels"]) if "h5flight.channels" in metadata else None
    return Windows(
        values=values,
        time_s=told["start_s"] + place / told["hz"],
        event_s=np.array(told["time_s"], np.float64),
        event=np.array(told["event"], np.int64),
        first_row=first_row,
        present=present,
        channels=channel_ids,
        unit=json.loads(metadata["h5flight.unit"]) if "h5flight.unit" in metadata else None,
    )


def _fill(dtype: np.dtype[Any], fill: float | None) -> Any:
    if fill is not None:
        return fill
    return np.nan if dtype.kind in "fc" else np.zeros((), dtype)[()]
