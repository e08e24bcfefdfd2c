"""`connect` and `Client`: animals, their experiments, and the datasets in these."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import notebook
from .attributes import Attributes
from .blake3 import file_blake3
from .columns import BATCH_BYTES
from .connection import DEFAULT_URL, Connection
from .dataset import Dataset
from .errors import H5FlightError, NotFoundError
from .history import Time, VersionAt
from .progress import Progress, Wish
from .put import Put, put, request_of
from .tables import GetTable, read_table
from .units import Around
from .uploads import Upload
from .writer import Writer

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Entry = TypeVar("Entry")


def connect(
    url: str | None = None,
    token: str | None = None,
    *,
    timeout_s: float | None = None,
    tls_root_certs: bytes | None = None,
    compression: str | None = None,
) -> Client:
    """Connect to a server, and see that it answers.

    Parameters
    ----------
    url : str, optional
        ``grpc://HOST:PORT``, ``grpc+tls://HOST:PORT`` or ``grpc+unix:///PATH``. Else ``$H5FLIGHT_URL``, else
        ``grpc://127.0.0.1:8815``.
    token : str, optional
        Bearer token. Else ``$H5FLIGHT_TOKEN``, else none.
    timeout_s : float, optional
        Seconds that a call may take, a whole read included; without it there is no limit.
    tls_root_certs : bytes, optional
        PEM of the certificate authorities to trust in place of the system's.
    compression : {'lz4', 'zstd'}, optional
        How what is read is compressed on the wire. It pays below about 300 Mbit/s, for tables and
        other repetitive values below 1 to 3 Gbit/s (docs/performance.md).

    Notes
    -----
    The first connection of a process has glibc keep up to 64 MiB of freed memory, which makes large reads up to twice
    as fast; ``H5FLIGHT_MALLOC=0`` in the environment leaves glibc as it is.

    Raises
    ------
    ServerUnavailableError
        When nothing answers.
    PermissionDeniedError
        When the token is not accepted.

    Examples
    --------
    >>> import h5flight
    >>> with h5flight.connect("grpc://127.0.0.1:8815") as client:  # doctest: +SKIP
    ...     client["m01"]["day1"]["traces"][0:100]
    """
    client = Client(url, token, timeout_s=timeout_s, tls_root_certs=tls_root_certs, compression=compression)
    try:
        _compare_versions(str(client.server_info().get("version", "")))
    except BaseException:
        client.close()
        raise
    return client


@functools.cache
def _compare_versions(server: str) -> None:
    """Warn, once a process, when the server is of another version than this package."""
    ours = importlib.import_module("h5flight").__version__
    if server and server.split(".")[:2] != ours.split(".")[:2]:
        warnings.warn(
            f"the server is h5flight {server}, this package is {ours}: `pip install h5flight=={server}` fits it",
            stacklevel=3,
        )


class _Named(Mapping[str, Entry], Generic[Entry]):
    """A level of names. An entry costs nothing to make: whether it exists, the server tells when it is used."""

    @abstractmethod
    def _entries(self, page_size: int = 1000) -> Iterator[Entry]: ...

    @abstractmethod
    def _name_of(self, entry: Entry) -> str: ...

    def __iter__(self) -> Iterator[str]:
        return map(self._name_of, self._entries())

    def __len__(self) -> int:
        return sum(1 for _ in self._entries())

    def __bool__(self) -> bool:
        # Without this `if client:` would count all animals.
        return True

    def __contains__(self, name: object) -> bool:
        return any(name == other for other in self)

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of this name, else `default`. Asks the server."""
        return self[name] if name in self else default  # noqa: SIM401, this is what get() is

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    # Two levels are the same when they are the same object: comparing their entries would read all of both.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Client(_Named["Animal"]):
    """A server: a mapping of its animals.

    Threads may share a client. It can be pickled and then connects anew where it is unpickled. In a forked process it
    makes its own connection; gRPC itself prefers processes that are spawned.

    Parameters
    ----------
    url, token, timeout_s, tls_root_certs, compression
        See `connect`, which also sees that the server answers.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float | None = None,
        tls_root_certs: bytes | None = None,
        compression: str | None = None,
    ) -> None:
        url = url or os.environ.get("H5FLIGHT_URL") or DEFAULT_URL
        token = token if token is not None else os.environ.get("H5FLIGHT_TOKEN", "")
        how: dict[str, Any] = {"timeout_s": timeout_s, "tls_root_certs": tls_root_certs, "compression": compression}
        self._connection = Connection(url, token, **how)

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._connection.url

    def close(self) -> None:
        """Close the connection; the client cannot be used any more."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        return notebook.client_html(self)

    def __repr__(self) -> str:
        return f"<h5flight client of {self.url}>"

    def _entries(self, page_size: int = 1000) -> Iterator[Animal]:
        for facts in self._connection.pages("list-animals", "animals", page_size):
            yield Animal(self, facts["animal"], facts)

    def _name_of(self, entry: Animal) -> str:
        return entry.name

    def __getitem__(self, animal: str) -> Animal:
        return Animal(self, animal)

    def animals(self) -> list[Animal]:
        """All animals, by name."""
        return list(self._entries())

    def experiments(self, animal: str) -> list[Experiment]:
        """All experiments of an animal, by name."""
        return self[animal].experiments()

    def datasets(self, animal: str, experiment: str) -> list[Dataset]:
        """All datasets of an experiment, by name."""
        return self[animal][experiment].datasets()

    def search(self, words: str) -> list[Dataset]:
        """Find datasets whose names, experiment or attributes contain all words, and that meet conditions.

        Parameters
        ----------
        words : str
            Words, in any order; upper and lower case are the same. Between them conditions:
            ``"speed unit = 'm/s' AND rate > 100"``; docs/usage.md has the names and the grammar.
        """
        return [_dataset(self, facts) for facts in self._connection.pages("search", "datasets", query=words)]

    def search_experiments(self, words: str) -> list[Experiment]:
        """Find the experiments that have at least one dataset that `search` finds.

        Parameters
        ----------
        words : str
            As for `search`: ``"species = 'Mus musculus' AND sex = 'F' AND unit_count > 100"``.

        Returns
        -------
        list of Experiment
            By animal and name, each with its ``facts``.
        """
        found = self._connection.pages("search-experiments", "experiments", query=words)
        return [Experiment(self, facts["animal"], facts["experiment"], facts) for facts in found]

    def get_data(
        self,
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
    ) -> pd.DataFrame:
        """Read into a frame, see `h5flight.get_data`."""
        found = Dataset(self, animal, experiment, dataset, at=VersionAt.of(version, as_of, tag))
        return found.to_pandas(selection, time=time, channels=channels, units=units, layout=layout, progress=progress)

    def table(
        self,
        animal: str,
        experiment: str,
        table: str,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        *,
        rows: tuple[int, int] | None = None,
        expand: Sequence[str] = (),
        version: int | None = None,
        as_of: Time | None = None,
        tag: str | None = None,
    ) -> pa.Table:
        """Read rows of a table: ``units``, ``intervals/trials``, or a dataset of records.

        Parameters
        ----------
        animal, experiment : str
            Where it is.
        table : str
            HDF5 path of the group or dataset.
        columns : sequence of str, optional
            Only these, in this order. Else ``id`` and those that the table names.
        where : str, optional
            Only rows for which it is true: ``"start_time > 10 AND condition IN ('a', 'b')"``. The server reads
            nothing else of the other columns.
        rows : (int, int), optional
            First row and the one behind the last, before `where` is asked.
        expand : sequence of str
            Regions that are delivered as the rows of their table, as structs; else they are row numbers.
        version, as_of, tag
            Which version, see `h5flight.get_data`; a group has no numbers.

        Returns
        -------
        pyarrow.Table
            Ragged columns are lists.

        Examples
        --------
        >>> with h5flight.connect() as client:  # doctest: +SKIP
        ...     client.table("m01", "day1", "units", ["id", "spike_times"], "quality = 'good'")
        """
        request = GetTable(
            animal,
            experiment,
            table,
            columns=tuple(columns or ()),
            where=where or "",
            rows=rows,
            at=VersionAt.of(version, as_of, tag),
            expand=tuple(expand),
        )
        return read_table(self._connection, request)

    def register(
        self, path: str | os.PathLike[str], *, animal: str = "", experiment: str = "", replace: bool = False
    ) -> list[dict[str, Any]]:
        """Index a file, or every HDF5 file of a folder, where it lies.

        Parameters
        ----------
        path : str or path
            Absolute path on the server, below one of its roots, or ``root:relative/path``.
        animal, experiment : str
            Names to give; without them the file decides.
        replace : bool
            Whether datasets that are served from another file are replaced.

        Returns
        -------
        list of dict
            One report per file: ``path``, ``publication`` (None when it was refused), ``reason``, ``message``,
            ``millis``.
        """
        body = {"path": os.fspath(path), "animal": animal, "experiment": experiment, "replace": replace}
        return self._connection.act("register", **body)

    def ingest(
        self,
        path: str | os.PathLike[str],
        *,
        animal: str = "",
        experiment: str = "",
        replace: bool = False,
        key: str = "",
        progress: Wish = None,
        failures_max: int = 10,
    ) -> dict[str, Any]:
        """Upload a file; it is durable and visible when this returns.

        The file is hashed first. An upload that broke off, also one of another process, goes on where the server has it
        durable: call this again. What the server has already is not sent again.

        Parameters
        ----------
        path : str or path
            A file of this machine.
        animal, experiment : str
            Names to give; without them the file decides.
        replace : bool
            Whether datasets that are served from another file are replaced.
        key : str
            Idempotency key: repeating the upload with it gives the first answer again.
        progress : bool or callable, optional
            As for `h5flight.get_data`: a function is told the bytes sent so far and the size of the file.
        failures_max : int
            Broken connections in a row, without progress between them, before it is given up: with waits that double
            up to 20 s, 10 are about two minutes.

        Returns
        -------
        dict
            ``content`` (blake3 of the file), ``publication`` (what became visible), ``message`` (what was left out).

        Examples
        --------
        >>> with h5flight.connect() as client:  # doctest: +SKIP
        ...     client.ingest("recording.nwb", animal="m01", experiment="day1")
        """
        size = os.path.getsize(path)
        header = {
            "file_name": os.path.basename(os.fspath(path)),
            "file_bytes": size,
            "blake3": file_blake3(path),
            "idempotency_key": key,
            "animal": animal,
            "experiment": experiment,
            "replace": replace,
        }
        with Progress(size, os.path.basename(os.fspath(path)), progress) as shown:
            return Upload(self._connection, path, header, progress=shown.reach, failures_max=failures_max).run()

    def put(
        self,
        animal: str,
        experiment: str,
        dataset: str,
        data: Any,
        *,
        mode: str = "create",
        chunks: tuple[int, ...] | None = None,
        codec: str | None = None,
        level: int | None = None,
        shuffle: bool | None = None,
        attrs: Mapping[str, Any] | None = None,
        writer: str = "",
        sequence: int = 0,
        expected_version: int | None = None,
        batch_bytes: int = BATCH_BYTES,
    ) -> Put:
        """Write a dataset; it is durable and visible when this returns, completely or not at all.

        Parameters
        ----------
        animal, experiment, dataset : str
            Its name; animal, experiment and groups are made where they are missing.
        data : array_like, pandas.DataFrame, pandas.Series, pyarrow.Table, or iterator of these
            Numbers, booleans, texts, times, bytes, complex numbers; of any rank. Structured arrays, frames and tables
            become a compound, one member a column (an index with a name too). An iterator is sent piece by piece.
        mode : {'create', 'replace', 'append'}
            ``create`` refuses a name that is taken, ``replace`` makes the next version, see also `append`.
        chunks : tuple of int, optional
            Shape of the chunks, rows first; else about 1 MiB, whole rows where they are small.
        codec : {'zstd', 'gzip', 'lz4', 'none'}, optional
            Compression; else zstd with byte shuffle.
        level : int, optional
            Its level: 0 to 9 for gzip (4), 1 to 19 for zstd (3).
        shuffle : bool, optional
            Whether bytes are shuffled before; else for values of 2 to 16 bytes.
        attrs : mapping, optional
            Attributes of the dataset: texts, numbers, booleans, and lists of these.
        writer, sequence : str, int
            Who writes, and which of its puts this is: with them a broken connection is tried again, and what the
            server has already changes nothing.
        expected_version : int, optional
            The version that it is based on, 0 for none; another one by then is a `ConflictError`.
        batch_bytes : int
            Bytes that travel in one piece.

        Returns
        -------
        Put
            Version, first row, rows, rows of the version.

        Raises
        ------
        ConflictError
            When the name is taken, or another version came first.
        PutError
            When the connection broke and it is not known whether the rows were taken; not with a writer.
        TypeError
            For values that have no form in HDF5.

        Examples
        --------
        >>> with h5flight.connect() as client:  # doctest: +SKIP
        ...     client.put("m01", "day1", "analysis/rates", rates, attrs={"unit": "Hz"})
        """
        names = {"animal": animal, "experiment": experiment, "dataset": dataset.strip("/")}
        options = {"chunks": chunks, "codec": codec, "level": level, "shuffle": shuffle, "attrs": attrs}
        options |= {"writer": writer, "sequence": sequence, "expected_version": expected_version}
        return put(self._connection, request_of(names, mode, options), data, batch_bytes)

    def append(
        self,
        animal: str,
        experiment: str,
        dataset: str,
        data: Any,
        *,
        first_row: int | None = None,
        batch_bytes: int = BATCH_BYTES,
        **options: Any,
    ) -> Put:
        """Write more rows behind a dataset, or its first ones.

        Parameters
        ----------
        animal, experiment, dataset : str
            Its name.
        data : array_like, pandas.DataFrame, pyarrow.Table, or iterator of these
            Rows of the dataset's type and shape, see `put`.
        first_row : int, optional
            The row that the first of them must become; another one by then is a `ConflictError`.
        batch_bytes : int
            Bytes that travel in one piece.
        **options
            As for `put`: chunks, codec, level, shuffle, attrs, writer, sequence, expected_version.

        Examples
        --------
        >>> client.append("m01", "day1", "traces", block)  # doctest: +SKIP
        Put(version=2, first_row=30000, rows=30000, total_rows=60000, already=False, content='...')
        """
        names = {"animal": animal, "experiment": experiment, "dataset": dataset.strip("/")}
        request = request_of(names, "append", {**options, "first_row": first_row})
        return put(self._connection, request, data, batch_bytes)

    def writer(self, name: str, animal: str, experiment: str, dataset: str, **options: Any) -> Writer:
        """Append to a dataset block by block, each exactly once, also over broken connections and restarts.

        Parameters
        ----------
        name : str
            Who writes: a rig's name.
        animal, experiment, dataset : str
            What is written; made with the first block where it is missing.
        **options
            As for `put`: chunks, codec, level, shuffle, attrs.

        Examples
        --------
        >>> with client.writer("rig-1", "m01", "day1", "traces") as rig:  # doctest: +SKIP
        ...     for block in blocks(first_row=rig.rows):
        ...         rig.append(block)
        """
        names = {"animal": animal, "experiment": experiment, "dataset": dataset.strip("/")}
        rows = self[animal][experiment][dataset]._rows_now()
        return Writer(self._connection, request_of(names, "append", {**options, "writer": name}), rows)

    def server_info(self) -> dict[str, Any]:
        """What the server is and how it is doing: version, catalogue, totals, cache, who asks."""
        return self._connection.ask("server-info")


class Animal(_Named["Experiment"]):
    """An animal: a mapping of its experiments.

    Attributes
    ----------
    name : str
        Its name.
    facts : dict
        What the list of animals tells: ``species``, number of ``experiments``; empty when it was named directly.
    """

    def __init__(self, client: Client, name: str, facts: dict[str, Any] | None = None) -> None:
        self.client, self.name, self.facts = client, name, facts or {}

    def _repr_html_(self) -> str:
        return notebook.animal_html(self)

    def __repr__(self) -> str:
        return f'<h5flight animal "{self.name}">'

    def _entries(self, page_size: int = 1000) -> Iterator[Experiment]:
        for facts in self.client._connection.pages("list-experiments", "experiments", page_size, animal=self.name):
            yield Experiment(self.client, self.name, facts["experiment"], facts)

    def _name_of(self, entry: Experiment) -> str:
        return entry.name

    def __getitem__(self, experiment: str) -> Experiment:
        return Experiment(self.client, self.name, experiment)

    def experiments(self) -> list[Experiment]:
        """All experiments, by name."""
        return list(self._entries())


class Experiment(_Named[Dataset]):
    """An experiment: a mapping of its datasets, named by their HDF5 paths.

    Attributes
    ----------
    animal, name : str
        Its name.
    facts : dict
        What the list of experiments tells: ``start_time``, ``identifier``, ``session_id``, ``nwb_version``,
        ``species``, number of ``datasets``, and ``details``: what else the recording says of its session, subject and
        devices (``sex``, ``keywords``, ``unit_count``, ...); empty when it was named directly.
    """

    def __init__(self, client: Client, animal: str, name: str, facts: dict[str, Any] | None = None) -> None:
        self.client, self.animal, self.name, self.facts = client, animal, name, facts or {}

    def _repr_html_(self) -> str:
        return notebook.experiment_html(self)

    def __repr__(self) -> str:
        return f'<h5flight experiment "{self.animal}/{self.name}">'

    def _entries(self, page_size: int = 1000) -> Iterator[Dataset]:
        names = {"animal": self.animal, "experiment": self.name}
        for facts in self.client._connection.pages("list-datasets", "datasets", page_size, **names):
            yield _dataset(self.client, facts)

    def _name_of(self, entry: Dataset) -> str:
        return entry.name

    def __getitem__(self, dataset: str) -> Dataset:
        return Dataset(self.client, self.animal, self.name, dataset)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            return bool(self.describe(name).get("dataset"))
        except NotFoundError:
            return False

    def datasets(self) -> list[Dataset]:
        """All datasets, by name, with what they are: no further call for their shapes."""
        return list(self._entries())

    def describe(self, path: str = "") -> dict[str, Any]:
        """Tell of a group or dataset: its ``kind``, ``attributes``, ``children``, ``aliases``, ``dataset``.

        Parameters
        ----------
        path : str
            HDF5 path inside the experiment; empty is its root group.
        """
        return self.client._connection.ask("describe", animal=self.animal, experiment=self.name, path=path.strip("/"))

    def spikes(
        self,
        events: str | tuple[str, str] | Sequence[float],
        window: tuple[float, float] = (-0.5, 1.0),
        *,
        where: str | None = None,
        units_where: str | None = None,
        columns: Sequence[str] = ("id",),
        table: str = "units",
        column: str = "spike_times",
    ) -> pa.Table:
        """Read the spikes of units around events, as a raster and a histogram over time (PSTH) need them.

        Parameters
        ----------
        events : str, (str, str) or sequence of float
            Path of a table whose ``start_time`` the events are, the table and another column, or seconds. At most
            65,536.
        window : (float, float)
            Start and stop, in seconds from the event; the stop is not part of it.
        where : str, optional
            Which rows of the table of events: ``"outcome = 'hit'"``.
        units_where : str, optional
            Which units: ``"quality = 'good'"``.
        columns : sequence of str
            What else is told of a unit, from columns with one value each.
        table, column : str
            Any other table with a column of lists of numbers, which are taken as times.

        Returns
        -------
        pyarrow.Table
            All events of the first unit, then of the next one: `columns`, ``event`` (its place in `events`, or its row
            in their table), ``event_s``, and `column`: the times from the event in seconds, ascending.

        Examples
        --------
        >>> experiment.spikes("intervals/trials", (-0.5, 1), units_where="quality = 'good'")  # doctest: +SKIP
        """
        around = Around.of(events, window, where)
        request = GetTable(
            self.animal,
            self.name,
            table,
            [*columns, column],
            units_where or "",
            event_lists=(column, around),
        )
        return read_table(self.client._connection, request)

    def table(self, table: str, columns: Sequence[str] | None = None, where: str | None = None, **how: Any) -> pa.Table:
        """Read rows of a table, see `Client.table`."""
        return self.client.table(self.animal, self.name, table, columns, where, **how)

    def tag(self, name: str, *, as_of: Time | None = None, move: bool = False) -> int:
        """Give the current versions of all datasets a name to read them by, all or none.

        Parameters
        ----------
        name : str
            A letter, then letters, digits, ``.``, ``_`` and ``-``: ``paper-2026``.
        as_of : datetime or str, optional
            The versions that were current then, see `Dataset.at`.
        move : bool
            Whether a tag that other versions have is moved; else that is a `ConflictError`.

        Returns
        -------
        int
            How many datasets have it now.
        """
        names = {"animal": self.animal, "experiment": self.name}
        at = VersionAt.of(None, as_of, None).as_json()
        return int(self.client._connection.ask("set-tag", **names, tag=name, at=at, move=move)["datasets"])

    def untag(self, name: str) -> int:
        """Remove a tag from all datasets; gives how many had it."""
        names = {"animal": self.animal, "experiment": self.name}
        return int(self.client._connection.ask("delete-tag", **names, tag=name)["datasets"])

    def group(self, path: str = "") -> Group:
        """A group, or a named type, for its attributes and members; empty is the root group.

        Asks the server, which says when there is no such group.
        """
        return Group(self, self.describe(path))

    @property
    def attrs(self) -> Attributes:
        """Attributes of the root group, as h5py gives them; see `Attributes` for what differs."""
        return self.group().attrs


class Group:
    """A group of an experiment, as it was when it was asked for.

    Attributes
    ----------
    experiment : Experiment
        Where it is.
    name : str
        HDF5 path inside the experiment, after links.
    kind : str
        ``group``, ``named_type`` or ``dataset``.
    kinds : dict
        Kind of each member by its name: ``group``, ``dataset``, ``named_type``; ``soft_link`` for a link that leads
        nowhere, ``external_link`` and ``user_link`` for those that are never followed.
    """

    def __init__(self, experiment: Experiment, found: dict[str, Any]) -> None:
        self.experiment, self.name, self.kind = experiment, found["path"], found["kind"]
        self.kinds: dict[str, str] = {child["name"]: child["kind"] for child in found.get("children", ())}
        self._found = found

    @property
    def attrs(self) -> Attributes:
        """HDF5 attributes, as h5py gives them; see `Attributes` for what differs."""
        return Attributes(self._found.get("attributes", {}), self._found.get("attribute_types"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    def __contains__(self, name: object) -> bool:
        return name in self.kinds

    def __getitem__(self, name: str) -> Group | Dataset:
        path = f"{self.name}/{name}".strip("/")
        return self.experiment[path] if self.kinds.get(name) == "dataset" else self._any(path)

    def _any(self, path: str) -> Group | Dataset:
        found = self.experiment.group(path)
        return self.experiment[path] if found.kind == "dataset" else found

    def _repr_html_(self) -> str:
        return notebook.group_html(self)

    def __repr__(self) -> str:
        where = f"{self.experiment.animal}/{self.experiment.name}/{self.name}"
        return f'<h5flight {self.kind.replace("_", " ")} "{where}": {len(self)} members>'


def _dataset(client: Client, facts: dict[str, Any]) -> Dataset:
    try:
        return Dataset(client, facts["animal"], facts["experiment"], facts["dataset"], facts=facts)
    except KeyError as missing:
        raise H5FlightError(f"the server lists a dataset without its {missing}") from None
