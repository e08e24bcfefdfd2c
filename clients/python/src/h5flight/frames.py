"""pandas frames of slices. pandas is optional: it is imported when a frame is wanted.

Values come as one array and the frame is laid around it, which is several times faster than making a frame of Arrow
columns: rank 0 and 1 are a column ``value``, rank 2 has a column per index of axis 1, rank 3 and more a row per index
of axis 0 and a MultiIndex of columns over the other axes, a compound a column per member. Rows and columns are labelled
with the indices they have in the dataset; single elements by all of theirs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import selection as selections
from . import units as series
from .arrays import Array
from .attributes import plain
from .client import Client
from .dataset import Dataset
from .errors import H5FlightError
from .history import Time, VersionAt
from .progress import Wish

if TYPE_CHECKING:
    import pandas as pd

Labels = range | list[int] | Array
"""Indices of one axis; of single elements, a row of indices each."""


def get_data(
    animal: str,
    experiment: str,
    dataset: str,
    selection: Any = None,
    *,
    time: tuple[float | None, float | None] | None = None,
    channels: Sequence[int] | str | None = None,
    units: str | bool | None = None,
    version: int | None = None,
    as_of: Time | None = None,
    tag: str | None = None,
    layout: str | None = None,
    progress: Wish = None,
    client: Client | None = None,
    url: str | None = None,
    token: str | None = None,
) -> pd.DataFrame:
    """Read a slice of a dataset into a frame.

    Parameters
    ----------
    animal, experiment, dataset : str
        What is read.
    selection : optional
        numpy's text (``"0:100, 5, ::2"``, ``"points[[0, 1], [5, 2]]"``) or what stands between brackets
        (``numpy.s_[0:100, 5]``, `Points`, a mask); None is everything.
    time : (float, float), optional
        Rows by the clock of the series, in place of a part of axis 0: ``start <= t < stop`` in seconds, None is no
        bound. With `time`, `channels` or `units` the frame's index is the time of the rows, in seconds, and its columns
        are the ids of channels, where these are known.
    channels : sequence of int or str, optional
        Ids of channels, or a condition on the table of electrodes: ``"location = 'CA1'"``.
    units : str or bool, optional
        ``"float32"`` or ``"float64"``: values in the unit of the series; True is float64.
    version : int, optional
        Version, counted from 1; the current one if not given.
    as_of : datetime or str, optional
        The version that was current then, see `Dataset.at`.
    tag : str, optional
        The version with this tag.
    layout : str, optional
        ``"tidy"`` gives one row per element with index columns ``dim_0, dim_1, ...``, as the server makes it.
        Without it the frame is as described above.
    progress : bool or callable, optional
        True shows a bar once it takes longer than a second (with tqdm installed), False none; without it there is one
        in terminals and notebooks. A function is told the bytes so far and in all.
    client : Client, optional
        Connection to use; else one to `url` and `token` is made for this call.
    url, token : str, optional
        See `connect`.

    Returns
    -------
    pandas.DataFrame
        ``frame.attrs`` holds ``animal``, ``experiment``, ``dataset``, ``version``, ``shape`` of the slice and the
        dataset's HDF5 ``attributes``, ``unit`` among them where it has one.

    Examples
    --------
    >>> import h5flight
    >>> h5flight.get_data("m01", "day1", "traces", "0:1000, [3, 5]")  # doctest: +SKIP
    >>> h5flight.get_data("m01", "day1", "acquisition/raw/data", time=(15, 16), units=True)  # doctest: +SKIP
    """
    import_pandas()
    owned = client is None
    client = Client(url, token) if client is None else client
    try:
        at = VersionAt.of(version, as_of, tag)
        asked = series.encode(time, channels, units)
        return read_frame(Dataset(client, animal, experiment, dataset, at=at), selection, layout, progress, asked)
    finally:
        if owned:
            client.close()


def import_pandas() -> Any:
    """Import pandas, or say how to get it."""
    try:
        import pandas
    except ImportError:
        raise ImportError("frames need pandas: pip install 'h5flight[pandas]' (or read arrays: dataset[...])") from None
    return pandas


def read_frame(
    dataset: Dataset, selection: Any = None, layout: str | None = None, progress: Wish = None, asked: bytes = b""
) -> pd.DataFrame:
    """Read a slice of a dataset into a frame, see `get_data`; `asked` is what `h5flight.units.encode` made."""
    pandas = import_pandas()
    if layout not in (None, "auto"):
        table = dataset.to_arrow(selection, layout=layout, asked=asked)
        frame = table.to_pandas()
        frame.attrs = _facts(dataset, {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()})
        return frame
    parsed = None if isinstance(selection, str) else selections.parse(() if selection is None else selection)
    values, metadata = dataset._read(
        selection if parsed is None else parsed, strings="auto", progress=progress, asked=asked
    )
    parsed = selections.parse_text(selection) if parsed is None else parsed
    if asked:
        frame = _series_frame(pandas, dataset, parsed, metadata, values)
    else:
        frame = _frame(pandas, values, _labels(dataset, parsed, metadata, values))
    frame.attrs = _facts(dataset, metadata)
    return frame


def _labels(dataset: Dataset, selection: selections.Selection, metadata: dict[str, str], values: Array) -> list[Labels]:
    """Indices in the dataset, for every axis of the result; axes of the elements themselves count from 0."""
    shape = tuple(json.loads(metadata[DATASET_SHAPE])) if DATASET_SHAPE in metadata else dataset.shape
    kept: list[Labels]
    if selection.elements is not None:
        kept = [selection.elements.indices(shape)]
    else:
        kept = [axis for axis in selections.positions(selection, shape) if axis is not None]
    labels: list[Labels] = [*kept, *(range(size) for size in values.shape[len(kept) :])]
    if [len(axis) for axis in labels] != list(values.shape):
        raise H5FlightError(f"a slice of shape {values.shape} came for {[len(axis) for axis in labels]} indices")
    return labels


def _series_frame(
    pandas: Any, dataset: Dataset, selection: selections.Selection, metadata: dict[str, str], values: Array
) -> pd.DataFrame:
    """A frame whose rows have times and whose columns have ids of channels, where the server knows them."""
    shape = tuple(json.loads(metadata[DATASET_SHAPE]))
    axes: list[Labels | None] = list(selections.positions(selection, shape))
    has_rows = bool(axes) and axes[0] is not None
    if len(axes) > 1 and axes[1] is not None and "h5flight.channels" in metadata:
        axes[1] = json.loads(metadata["h5flight.channels"])
    if has_rows:
        # Which rows came is the server's to say: they may have been asked for by time.
        axes[0] = range(len(values))
    labels = [axis for axis in axes if axis is not None]
    labels += [range(size) for size in values.shape[len(labels) :]]
    frame = _frame(pandas, values, labels)
    times = _times(dataset, metadata, len(values)) if has_rows else None
    if times is not None:
        frame.index = pandas.Index(times, name="time_s")
    return frame


def _times(dataset: Dataset, metadata: dict[str, str], rows: int) -> Array | None:
    """When rows are, in seconds of the series' clock; None where that is not known."""
    told = json.loads(metadata.get("h5flight.time", "{}"))
    first_row, step = told.get("first_row"), told.get("step")
    if first_row is None:
        return None
    numbers = first_row + step * np.arange(rows, dtype=np.int64)
    if "hz" in told:
        times: Array = told["start_s"] + numbers / told["hz"]
        return times
    low, high = (int(numbers.min()), int(numbers.max())) if rows else (0, -1)
    # As they were when the version that was read was published: they have versions of their own.
    at = VersionAt.of(told["timestamps_version"], None, None)
    stamps = Dataset(dataset.client, dataset.animal, dataset.experiment, told["timestamps"], at=at)
    found: Array = stamps[low : high + 1][numbers - low]
    return found


DATASET_SHAPE = "h5flight.dataset_shape"


def _index(pandas: Any, labels: Labels) -> Any:
    if isinstance(labels, np.ndarray):
        if labels.shape[1] == 1:
            return labels[:, 0]
        return pandas.MultiIndex.from_arrays(list(labels.T), names=[f"dim_{axis}" for axis in range(labels.shape[1])])
    return pandas.RangeIndex(labels.start, labels.stop, labels.step) if isinstance(labels, range) else labels


def _frame(pandas: Any, values: Array, labels: list[Labels]) -> pd.DataFrame:
    rows = _index(pandas, labels[0]) if labels else pandas.RangeIndex(1)
    if values.dtype.names:
        members = {name: _column(values[name].reshape(len(rows), -1)) for name in values.dtype.names}
        return pandas.DataFrame(members, index=rows)
    if values.ndim < 2:
        return pandas.DataFrame({"value": values.reshape(-1)}, index=rows, copy=False)
    flat = values.reshape(len(rows), math.prod(values.shape[1:]))
    if values.ndim == 2:
        columns = _index(pandas, labels[1])
    else:
        names = [f"dim_{axis}" for axis in range(1, values.ndim)]
        columns = pandas.MultiIndex.from_product([list(axis) for axis in labels[1:]], names=names)
    return pandas.DataFrame(flat, index=rows, columns=columns, copy=False)


def _column(values: Array) -> Any:
    """One column of a compound; members with axes of their own become lists of values."""
    if values.shape[1:] == (1,) and not values.dtype.names:
        return values[:, 0]
    column = np.empty(len(values), object)
    for row, inside in enumerate(values):
        column[row] = inside if len(inside) != 1 else inside[0]
    return column


def _facts(dataset: Dataset, metadata: dict[str, str]) -> dict[str, Any]:
    # Plain values: pandas compares what frames have in common, which arrays cannot do.
    told = metadata.get("h5flight.attributes")
    found_there = dataset._describe_whole().get("attributes", {}) if told is None else json.loads(told)
    attributes = {name: plain(value) for name, value in found_there.items()}
    facts = {"animal": dataset.animal, "experiment": dataset.experiment, "dataset": dataset.name}
    numbers = {"version": int(metadata.get("h5flight.version", 0)) or dataset.version}
    found: dict[str, Any] = {**facts, **numbers, "attributes": attributes}
    if "h5flight.shape" in metadata:
        found["shape"] = json.loads(metadata["h5flight.shape"])
    if "unit" in attributes:
        found["unit"] = attributes["unit"]
    return found
