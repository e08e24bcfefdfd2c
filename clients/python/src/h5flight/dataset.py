"""`Dataset`: a dataset of the server with h5py's manners."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from . import selection as selections
from . import units as series
from . import wire
from .arrays import Array
from .attributes import Attributes
from .errors import H5FlightError, NotFoundError, SelectionError
from .exports import dask_array, data_array, optional
from .history import Difference, Time, Version, VersionAt, VersionName
from .progress import Wish

if TYPE_CHECKING:
    import pandas as pd

    from .client import Client
    from .put import Put
    from .windows import Windows

Facts = dict[str, Any]


class Dataset:
    """A dataset, read by slicing it.

    Making one costs nothing: what it is, is asked for when first needed and then kept; ``dataset[...]`` alone is one
    round trip. Strings in fields are numpy's (``S16``), as in h5py; those of their own length are `str` (`bytes` where
    the file holds something else than UTF-8); enums are integers, references are paths, values of their own length are
    arrays in an array of objects.

    Parameters
    ----------
    client : Client
        Where it is.
    animal, experiment, dataset : str
        Its name.
    version : int or None
        Version to read, counted from 1; None is the current one.
    at : VersionAt or None
        Version to read, named in any way; see `at`.
    facts : dict or None
        What a list of datasets already told of it.

    Examples
    --------
    >>> import h5flight
    >>> client = h5flight.connect()  # doctest: +SKIP
    >>> movie = client["m01"]["day1"]["acquisition/TwoPhotonSeries/data"]  # doctest: +SKIP
    >>> movie.shape, movie.dtype  # doctest: +SKIP
    ((4000, 512, 512), dtype('uint16'))
    >>> movie[100:200, ::2, ::2].mean()  # doctest: +SKIP
    246.3
    """

    def __init__(
        self,
        client: Client,
        animal: str,
        experiment: str,
        dataset: str,
        *,
        version: int | None = None,
        at: VersionAt | None = None,
        facts: Facts | None = None,
    ) -> None:
        self.client, self.animal, self.experiment = client, animal, experiment
        self.name = dataset.strip("/")
        self._at = at or VersionAt.of(version, None, None)
        self._facts = facts
        self._details: Facts | None = None

    # What it is

    def _describe(self) -> Facts:
        if self._facts is None:
            self._facts = self._describe_whole()["dataset"]
        return self._facts

    def _describe_whole(self) -> Facts:
        """With what lists of datasets do not tell."""
        if self._details is None:
            asked: dict[str, Any] = {"animal": self.animal, "experiment": self.experiment, "path": self.name}
            if not self._at.is_current:
                asked["at"] = self._at.as_json()
            found = self.client._connection.ask("describe", **asked)
            if not found.get("dataset"):
                members = ", ".join(child["name"] for child in found.get("children", ())[:10])
                kind = found.get("kind", "object").replace("_", " ")
                raise NotFoundError(f"{self._full_name!r} is a {kind}, not a dataset; in it: {members or 'nothing'}")
            self._details = found
        return self._details

    @property
    def _full_name(self) -> str:
        return f"{self.animal}/{self.experiment}/{self.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements by axis; ``()`` for a scalar."""
        return tuple(self._describe().get("shape", ()))

    def at(self, version: int | None = None, *, as_of: Time | None = None, tag: str | None = None) -> Dataset:
        """Give the same dataset as it was.

        Parameters
        ----------
        version : int, optional
            Version, counted from 1.
        as_of : datetime or str, optional
            The version that was current then: a datetime with a time zone, or text in RFC 3339.
        tag : str, optional
            The version with this tag.

        Examples
        --------
        >>> movie.at(1)[0], movie.at(tag="paper-2026")[0]  # doctest: +SKIP
        >>> movie.at(as_of="2026-05-01T12:00:00Z").version  # doctest: +SKIP
        """
        at = VersionAt.of(version, as_of, tag)
        return Dataset(self.client, self.animal, self.experiment, self.name, at=at)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements, native byte order; object where they have no fixed size in numpy."""
        return dtype_of(self._describe().get("dtype", ""))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements; 0 where the file says there is no value at all."""
        return 0 if self._describe().get("is_null") else math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded values; 0 where elements have no fixed size."""
        return int(self._describe().get("decoded_bytes", 0))

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of a chunk; None where the dataset is stored in one piece."""
        return tuple(self._describe().get("chunks", ())) or None

    @property
    def maxshape(self) -> tuple[int | None, ...]:
        """Largest shape; None for an axis without limit."""
        largest = self._describe().get("max_shape") or self.shape
        return tuple(None if size < 0 else size for size in largest)

    @property
    def filters(self) -> tuple[str, ...]:
        """Filters of the chunks, in the order in which they were applied."""
        return tuple(self._describe().get("filters", ()))

    @property
    def version(self) -> int:
        """Version that is read: the one asked for, or the newest when this was looked up."""
        return self._at.version or int(self._describe().get("version", 0))

    @property
    def attrs(self) -> Attributes:
        """HDF5 attributes, as h5py gives them; see `Attributes` for what differs."""
        found = self._describe_whole()
        return Attributes(found.get("attributes", {}), found.get("attribute_types"))

    @property
    def dims(self) -> list[Dimension]:
        """What each axis means: its label, its scales, and where its coordinates are."""
        return [self._dimension(told) for told in self._describe_whole().get("dims", ())]

    def _dimension(self, told: Facts) -> Dimension:
        def dataset(name: str) -> Dataset:
            return Dataset(self.client, self.animal, self.experiment, name)

        coordinate = told.get("coordinate")
        scales = [dataset(name) for name in told.get("scales", ())]
        return Dimension(
            told.get("label", ""), told.get("size", 0), scales, dataset(coordinate) if coordinate else None
        )

    # Its history

    def versions(self) -> list[Version]:
        """All versions, the newest first, with who published them, from which file, and their tags."""
        found = self.client._connection.pages("list-versions", "versions", 1000, **self._names())
        return [Version.of(facts) for facts in found]

    def diff(self, version: VersionName, other: VersionName | None = None) -> Difference:
        """Tell what is different between two versions, without reading values.

        Parameters
        ----------
        version, other : int, str or datetime
            A number, a tag, or a time; without `other` the version that this dataset stands for.
        """
        to = self._at if other is None else VersionAt.named(other)
        between = {"from": VersionAt.named(version).as_json(), "to": to.as_json()}
        return Difference.of(self.client._connection.ask("diff-versions", **self._names(), **between))

    def tag(self, name: str, *, move: bool = False) -> None:
        """Give the version that this dataset stands for a name to read it by.

        Parameters
        ----------
        name : str
            A letter, then letters, digits, ``.``, ``_`` and ``-``: ``paper-2026``.
        move : bool
            Whether a tag that another version has is moved; else that is a `ConflictError`.
        """
        self.client._connection.ask("set-tag", **self._names(), tag=name, at=self._at.as_json(), move=move)

    def untag(self, name: str) -> None:
        """Remove a tag."""
        self.client._connection.ask("delete-tag", **self._names(), tag=name)

    def rollback(self, version: VersionName, *, expected_version: int | None = None) -> int:
        """Make an older version the newest again, as a new version. Nothing of the history changes.

        Parameters
        ----------
        version : int, str or datetime
            The older one: a number, a tag, or a time.
        expected_version : int, optional
            Number of the version that is the newest as far as you know; when it is another one by then, nothing is
            done, and the `ConflictError` has its number in ``facts["current_version"]``.

        Returns
        -------
        int
            Number of the version that is the newest now.
        """
        to = VersionAt.named(version).as_json()
        asked = {**self._names(), "to": to, "expected_version": expected_version or 0}
        made = self.client._connection.ask("rollback", **asked)
        self._facts = self._details = None
        return int(made["version"])

    def _names(self) -> dict[str, str]:
        return {"animal": self.animal, "experiment": self.experiment, "dataset": self.name}

    # Its growth

    def append(self, data: Any, *, first_row: int | None = None, **options: Any) -> Put:
        """Write more rows behind it, see `Client.append`.

        Parameters
        ----------
        data : array_like, pandas.DataFrame, pyarrow.Table, or iterator of these
            Rows of the dataset's type and shape.
        first_row : int, optional
            The row that the first of them must become; another one by then is a `ConflictError`.
        **options
            As for `Client.put`: chunks, codec, level, shuffle, writer, sequence, expected_version.
        """
        made = self.client.append(self.animal, self.experiment, self.name, data, first_row=first_row, **options)
        self._facts = self._details = None
        return made

    def follow(
        self,
        start: int | None = None,
        *,
        poll_s: float = 0.2,
        stop: Callable[[], bool] | None = None,
        patience_s: float = 60.0,
    ) -> Iterator[tuple[int, Array]]:
        """Go through new rows as they become visible: each once, in order, over broken connections too.

        Each look reads one version, so an append is seen whole. What cannot be noticed: a dataset that is replaced by
        another one with at least as many rows as were read; it is gone on with at the same row. A dataset that is not
        there yet is waited for. Through another server than the one that takes the appends rows come up to a second
        later.

        Parameters
        ----------
        start : int, optional
            Row to begin with; else the rows that there are now are left out. 0 gives all of them first, -100 the last
            100 that there are now.
        poll_s : float
            Seconds between two questions whether there is more.
        stop : callable, optional
            Asked between them; true ends it. Without it the generator ends when you leave its loop.
        patience_s : float
            Seconds for which a server may be away before its error is raised.

        Yields
        ------
        (int, numpy.ndarray)
            First row, and the rows from it on, at most 64 MiB at once.

        Raises
        ------
        ConflictError
            When the dataset was replaced by one with fewer rows than were read.

        Examples
        --------
        >>> for first_row, rows in client["m01"]["day1"]["traces"].follow():  # doctest: +SKIP
        ...     print(first_row, rows.shape)
        """
        from .follow import follow

        begin = start if start is not None and start >= 0 else max(0, self._rows_now() + (start or 0))
        return follow(self, begin, poll_s=poll_s, stop=stop, patience_s=patience_s)

    def _now(self) -> Now:
        """What it is now, whatever was known of it."""
        names = {"animal": self.animal, "experiment": self.experiment, "path": self.name}
        facts = self.client._connection.ask("describe", **names).get("dataset")
        if not facts:
            raise NotFoundError(f"{self._full_name!r} is no dataset", "dataset_not_found")
        shape = facts.get("shape") or (1,)
        rows = int(shape[0])
        return Now(int(facts["version"]), rows, int(facts.get("decoded_bytes", 0)) // max(1, rows))

    def _rows_now(self) -> int:
        """Rows that there are now; 0 where there is no dataset of this name."""
        try:
            return self._now().rows
        except NotFoundError:
            return 0

    # Its values

    def __getitem__(self, key: Any) -> Any:
        """Read a part, as h5py does.

        Parameters
        ----------
        key : int, slice, Ellipsis, list, ndarray, str, Points or tuple of these
            Slices may run backwards and lists may be in any order; several lists select the outer product of their
            indices. A boolean array of the dataset's shape selects single elements, as `Points` do. Text names
            members of a compound.

        Returns
        -------
        numpy.ndarray or scalar
            A scalar when every axis is indexed, or for ``()`` of a scalar dataset.

        Raises
        ------
        SelectionError
            When the selection does not fit; it is an `IndexError`.
        """
        selection = selections.parse(key)
        found, _ = self._read(selection)
        if selection.bare_field and found.dtype.names == selection.fields:
            found = found[selection.fields[0]]
        return found if found.ndim or selection.wants_array else found[()]

    def points(self, coordinates: Any, *fields: str) -> Array:
        """Read single elements by their coordinates.

        Parameters
        ----------
        coordinates : array_like of int, shape (points, axes)
            One row per point with an index for every axis; negative ones count from the end.
        *fields : str
            Members of a compound.

        Returns
        -------
        numpy.ndarray
            One value per point, in their order.

        Examples
        --------
        >>> movie.points([(0, 5, 7), (3999, -1, 0)])  # doctest: +SKIP
        array([211, 240], dtype=uint16)
        """
        found: Array = self[(*fields, selections.Points(coordinates))]
        return found

    @property
    def vindex(self) -> PointIndexer:
        """Brackets that pair the lists of all axes: ``[[0, 5], [1, 2]]`` are the elements (0, 1) and (5, 2)."""
        return PointIndexer(self)

    def _read(
        self, selection: selections.Selection | str, strings: str = "fixed", progress: Wish = None, asked: bytes = b""
    ) -> tuple[Array, dict[str, str]]:
        """Read into an array; also gives the metadata of the schema."""

        def read(parts: bytes | str | None, version: int | None = None) -> tuple[Array, dict[str, str]]:
            request = self._request(parts, version=version)
            return self.client._connection.array(dataclasses.replace(request, strings=strings, series=asked), progress)

        if isinstance(selection, str):
            return read(selection)
        ordered, order = selection.in_storage_order()
        windows = ordered.windows()
        found, metadata = read(next(windows))
        # A long mask takes several requests: they read the version that the first one found.
        version = int(metadata.get("h5flight.version", 0)) or None
        more = [read(parts, version)[0] for parts in windows]
        if more:
            found = np.concatenate([found, *more])
            metadata["h5flight.shape"] = json.dumps(found.shape)
        if order is not None:
            back = np.empty_like(found)
            back[order] = found
            found = back
        return found, metadata

    def _request(
        self, parts: bytes | str | None, layout: str = "tensor", *, version: int | None = None
    ) -> wire.GetData:
        at = VersionAt(version) if version else self._at
        return wire.GetData(
            self.animal,
            self.experiment,
            self.name,
            parts=parts,
            layout=layout,
            version=at.version,
            as_of_us=at.as_of_us,
            tag=at.tag,
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("values come over the network: they cannot be had without a copy")
        found = np.asarray(self[...])
        return found if dtype is None else found.astype(dtype, copy=False)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"{self._full_name!r} is a scalar and has no length")
        return self.shape[0]

    def __iter__(self) -> Any:
        # Row by row would be a round trip each: rows come in blocks of about 4 MiB.
        rows = len(self)
        step = max(1, (4 << 20) * rows // max(self.nbytes, 1)) if self.nbytes else 1024
        for start in range(0, rows, step):
            yield from self[start : start + step]

    def read(
        self,
        selection: Any = None,
        *,
        time: tuple[float | None, float | None] | None = None,
        channels: Sequence[int] | str | None = None,
        units: str | bool | None = None,
    ) -> Array:
        """Read a part of a series by its own clock and channels, see `h5flight.units.encode`.

        Examples
        --------
        >>> dataset.read(time=(15, 16), channels=[3, 5], units="float32")  # doctest: +SKIP
        >>> dataset.read(time=(15, 16), channels="location = 'CA1'", units=True)  # doctest: +SKIP
        """
        request = dataclasses.replace(self._request(encode(selection)), series=series.encode(time, channels, units))
        return self.client._connection.array(request)[0]

    def windows(
        self,
        events: str | tuple[str, str] | Sequence[float] | Array,
        window: tuple[float, float] = (-0.5, 1.0),
        *,
        where: str | None = None,
        channels: Sequence[int] | str | None = None,
        units: str | bool | None = None,
        edge: str = "drop",
        fill: float | None = None,
    ) -> Windows:
        """Read the same stretch of time around many events, in one call; each chunk is decoded once.

        All windows have as many rows, ``round((stop - start) * rate)``. The first row of each is the first sample at or
        after ``event + start``.

        Parameters
        ----------
        events : str, (str, str) or sequence of float
            Path of a table whose ``start_time`` the events are, the table and another column, or seconds of the series'
            clock in any order. At most 65,536. Rows of the table without a number are no events.
        window : (float, float)
            Start and stop, in seconds from the event; the stop is not part of it.
        where : str, optional
            Which rows of the table: ``"outcome = 'hit'"``, as in `Client.table`.
        channels : sequence of int or str, optional
            Ids of channels, or a condition on their table: ``"location = 'CA1'"``.
        units : str or bool, optional
            ``"float32"`` or ``"float64"``: values in the unit of the series; True is float64.
        edge : str
            ``"drop"`` leaves out windows that reach over an end of the series, or, where it has timestamps, over a gap
            in them. ``"clip"`` has all of them.
        fill : number, optional
            What stands in place of rows that a clipped window does not have; NaN, of integers 0 if not given.

        Returns
        -------
        Windows
            ``values`` of shape (events, rows, ...) with ``time_s``, ``event_s``, ``event``, ``present``.

        Raises
        ------
        SelectionError
            For a dataset without a clock, or one whose timestamps decrease.
        NotFoundError
            For a table or column that is not there.

        Examples
        --------
        >>> hits = raw.windows("intervals/trials", (-0.5, 1.0), where="outcome = 'hit'")  # doctest: +SKIP
        >>> hits.values.mean(axis=0)  # doctest: +SKIP
        """
        from . import windows

        return windows.read(self, events, window, where=where, channels=channels, units=units, edge=edge, fill=fill)

    def to_arrow(self, selection: Any = None, *, layout: str = "auto", asked: bytes = b"") -> pa.Table:
        """Read into an Arrow table.

        Parameters
        ----------
        selection : optional
            As in ``dataset[selection]``, or numpy's text of it; None is everything.
        layout : str
            ``auto``, ``tensor``, ``columns`` or ``tidy``.
        asked : bytes
            What `h5flight.units.encode` made of a time range, channels and units.
        """
        request = dataclasses.replace(self._request(encode(selection), layout), series=asked)
        return self.client._connection.table(request)

    def to_pandas(
        self,
        selection: Any = None,
        *,
        time: tuple[float | None, float | None] | None = None,
        channels: Sequence[int] | str | None = None,
        units: str | bool | None = None,
        layout: str | None = None,
        progress: Wish = None,
    ) -> pd.DataFrame:
        """Read into a frame, see `h5flight.get_data`."""
        from .frames import read_frame

        return read_frame(self, selection, layout, progress, series.encode(time, channels, units))

    def to_numpy(self, selection: Any = None) -> Array:
        """Read into an array, as ``dataset[selection]`` does; None is everything, a scalar an array of rank 0."""
        return np.asarray(self[...] if selection is None else self[selection])

    def to_polars(self, selection: Any = None, *, layout: str = "auto") -> Any:
        """Read into a polars frame, with the columns of `to_arrow`; needs the extra ``polars``."""
        polars = optional("polars", "polars")
        return polars.from_arrow(self.to_arrow(selection, layout=layout))

    def to_dask(self) -> Any:
        """Make a lazy dask array; needs the extra ``dask``.

        Blocks are whole chunks of the file, about 16 MiB each. All are of the version that is read now.

        Examples
        --------
        >>> movie.to_dask().mean(axis=0).compute()  # doctest: +SKIP
        """
        return dask_array(self)

    def to_xarray(self) -> Any:
        """Make a lazy xarray array with named axes and coordinates; needs the extra ``xarray``.

        An axis has the name of its label, else of its scale, else ``dim_0``, ``dim_1``, ...; scales are coordinates
        where the current version is read. Values are read when they are computed, as with `to_dask`.
        """
        return data_array(self)

    def _repr_html_(self) -> str:
        from .notebook import dataset_html

        return dataset_html(self)

    def __repr__(self) -> str:
        try:
            facts = self._describe()
        except H5FlightError as error:
            return f'<h5flight dataset "{self._full_name}": {error}>'
        if facts.get("is_null"):
            return f'<h5flight dataset "{self._full_name}": no value, type "{facts.get("dtype")}">'
        return f'<h5flight dataset "{self._full_name}": shape {self.shape}, type "{facts.get("dtype")}">'


@dataclass(frozen=True)
class Now:
    """A dataset that grows, at one moment: its version, its rows, and the bytes of one of them."""

    version: int
    rows: int
    row_bytes: int


@dataclass(frozen=True)
class Dimension:
    """One axis of a dataset.

    Attributes
    ----------
    label : str
        Its label; empty when it has none.
    size : int
        Elements along it.
    scales : list of Dataset
        Scales attached to it; ``dimension[0]`` is the first one, as in h5py.
    coordinate : Dataset or None
        The dataset with the coordinates along it, the dataset itself where it is its own scale.
    """

    label: str
    size: int
    scales: list[Dataset]
    coordinate: Dataset | None

    def __len__(self) -> int:
        return len(self.scales)

    def __getitem__(self, at: int) -> Dataset:
        return self.scales[at]


class PointIndexer:
    """What `Dataset.vindex` gives: brackets that take one list of indices, or one index, for every axis.

    Parameters
    ----------
    dataset : Dataset
        What is read.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        """Read the elements; lists are broadcast, and the result has their shape."""
        if isinstance(key, np.ndarray) and key.dtype == np.bool_:
            return self._dataset[key]
        try:
            axes = np.broadcast_arrays(*(key if isinstance(key, tuple) else (key,)))
        except ValueError as error:
            raise SelectionError(f"the lists of all axes are paired: {error}", "bad_selection") from None
        found = self._dataset.points(np.stack([axis.reshape(-1) for axis in axes], axis=1))
        return found.reshape(axes[0].shape + found.shape[1:])


def encode(selection: Any) -> bytes | str | None:
    """Encode a selection for the wire: text as it is, None as everything, the rest as in ``dataset[...]``."""
    return selection if selection is None or isinstance(selection, str) else selections.parse(selection).encode()


def dtype_of(words: str) -> np.dtype[Any]:
    """Understand the server's name of an element type: the type that reading gives.

    Strings of no fixed size are objects, as everything is that numpy has no type for.

    Examples
    --------
    >>> dtype_of(">u2"), dtype_of("|S16"), dtype_of("float128")
    (dtype('uint16'), dtype('S16'), dtype('float64'))
    >>> dtype_of("[('x', '<i4'), ('of', [('name', '|S4')])]")
    dtype([('x', '<i4'), ('of', [('name', 'S4')])])
    """
    try:
        return _as_read(np.dtype(ast.literal_eval(words) if words.startswith("[") else words))
    except (TypeError, ValueError, SyntaxError):
        return np.dtype(object)


def _as_read(stored: np.dtype[Any]) -> np.dtype[Any]:
    if stored.subdtype is not None:
        base, dims = stored.subdtype
        return np.dtype((_as_read(base), dims))
    if stored.names:
        return np.dtype([(name, _as_read(stored[name])) for name in stored.names])
    if stored.kind == "f" and stored.itemsize > 8:
        return np.dtype(np.float64)
    return stored.newbyteorder("=")
