"""`File`: an experiment with the manners of a whole `h5py.File`, so that pynwb opens it unchanged.

hdmf, which is below pynwb, asks `isinstance(x, h5py.Dataset)` and has its arguments checked against `h5py.File`,
`h5py.Group`, `h5py.Dataset` and `h5py.Reference`: what only behaves like them is refused. Where h5py is installed the
classes here are therefore subclasses of h5py's, without a file below them: none of h5py's own code that would need one
is reached, because every method that reads is replaced, and what would write says that it cannot. Without h5py they are
the same classes without these bases, and no more is lost than the `isinstance`.

Facts of objects are asked for when they are first needed, members of a group several at once, and the last 4,096 are
kept. Values are never kept: a dataset is read when it is sliced, at the version that it had when it was looked at.

What the server does not tell, and what is given instead: the fill value (zero), whether a string's character set is
ASCII (it is UTF-8, or bytes where it is not), which region a region reference stands for (its dataset), by which kind
of link a second name is made (a soft link to the first name), byte order of values in memory (always native).
"""

from __future__ import annotations

import json
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from . import arrays
from .attributes import value_of
from .dataset import Dataset
from .errors import H5FlightError, LimitError, NotFoundError, UnsupportedError

try:
    import h5py
except ImportError:
    h5py = None

if TYPE_CHECKING:
    from .client import Client

    _Group = Mapping[str, Any]
    _Dataset = object
    _File = object
    _Reference = object
    _RegionReference = object
else:
    # h5py's classes where there are any; see above.
    _Group = h5py.Group if h5py else Mapping
    _Dataset = h5py.Dataset if h5py else object
    _File = h5py.File if h5py else object
    _Reference = h5py.Reference if h5py else object
    _RegionReference = h5py.RegionReference if h5py else object

Facts = dict[str, Any]

_KEPT = 4096
"""Objects whose facts are kept: about 2 KB each."""

_ASKED_AT_ONCE = 8
"""Calls under way while the members of a group are looked at: a round trip each."""

_AHEAD = 64
"""Members of a group that are looked at ahead of whoever goes through them."""


class ObjectReference(_Reference):
    """A reference to an object: ``file[reference]`` is the object.

    Parameters
    ----------
    path : str or None
        Path of the object; None is a null reference.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path

    def __bool__(self) -> bool:
        return self.path is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectReference) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f"<h5flight reference to {self.path!r}>"


class RegionReference(ObjectReference, _RegionReference):
    """A reference to a region of a dataset, of which only the dataset is known: ``file[reference]`` is the dataset."""


class ObjectId:
    """In place of h5py's low-level identifier: which object of which experiment; equal where these are.

    Parameters
    ----------
    filename : str
        Of the `File`.
    path : str
        Of the object, after links.
    dataset : FileDataset or None
        What it identifies, for its shape and its settings.
    """

    def __init__(self, filename: str, path: str, dataset: FileDataset | None = None) -> None:
        self.filename, self.path, self._dataset = filename, path, dataset
        self.valid = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectId) and (self.filename, self.path) == (other.filename, other.path)

    def __hash__(self) -> int:
        return hash((self.filename, self.path))

    def __bool__(self) -> bool:
        return bool(self.valid)

    def _of(self) -> FileDataset:
        if self._dataset is None:
            raise AttributeError(f"{self.path!r} is no dataset")
        return self._dataset

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements by axis."""
        return self._of().shape

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._of().dtype

    def get_storage_size(self) -> int:
        """Bytes in the file."""
        return self._of().stored_bytes

    def get_space(self) -> Any:
        """Dataspace, as h5py has it in memory."""
        dataset = self._of()
        if dataset._is_empty:
            return h5py.h5s.create(h5py.h5s.NULL)
        if not dataset.shape:
            return h5py.h5s.create(h5py.h5s.SCALAR)
        largest = tuple(h5py.h5s.UNLIMITED if size is None else size for size in dataset.maxshape)
        return h5py.h5s.create_simple(dataset.shape, largest)

    def get_create_plist(self) -> Any:
        """How it was made, as h5py has it in memory: chunks and the filters that h5py knows."""
        dataset, settings = self._of(), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if dataset.chunks:
            settings.set_chunk(dataset.chunks)
        if dataset.shuffle:
            settings.set_shuffle()
        if dataset.compression == "gzip":
            settings.set_deflate(4)
        return settings

    def read(self, mspace: Any, fspace: Any, dest: np.ndarray[Any, Any], *_types: Any, **_how: Any) -> None:
        """Read a box into a box of an array: hdmf's wrapper of texts reaches this through methods that it inherits."""
        dest[_box(mspace)] = self._of()[_box(fspace)].reshape(dest[_box(mspace)].shape)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.path!r} is served by h5flight: h5py's low-level {name!r} is not there")


def _box(space: Any) -> tuple[slice, ...]:
    """The box that is selected in a dataspace."""
    first, last = space.get_select_bounds()
    box = tuple(slice(start, end + 1) for start, end in zip(first, last, strict=True))
    if np.prod([part.stop - part.start for part in box]) != space.get_select_npoints():
        raise UnsupportedError("only boxes are read by h5py's low-level interface; slice the dataset instead")
    return box


class FileAttributes(Mapping[str, Any]):
    """Attributes of one object, as h5py gives them: references as references, strings of a fixed size as bytes.

    Parameters
    ----------
    facts : dict
        What the server tells of the object.
    """

    def __init__(self, facts: Facts) -> None:
        self._values: Facts = facts.get("attributes", {})
        self._types: Facts = facts.get("attribute_types") or {}

    def __getitem__(self, name: str) -> Any:
        value, told = self._values[name], self._types.get(name)
        kind, shape = (told[0], told[1]) if isinstance(told, list) else (told, [])
        if shape is None:
            return empty(dtype_of(kind) if isinstance(kind, dict) else np.dtype(kind if kind != "str" else object))
        if isinstance(value, dict) and len(value) == 1 and not (isinstance(kind, dict) and kind["kind"] == "compound"):
            if "omitted" in value:
                raise LimitError(f"attribute {name!r} of {value['omitted']} bytes is too large to be served")
            if "error" in value:
                raise H5FlightError(f"attribute {name!r} cannot be read: {value['error']}")
        found = value_of(value, told)
        if isinstance(kind, str) and kind.startswith("|S"):
            encoded = np.frompyfunc(lambda text: text if isinstance(text, bytes) else text.encode(), 1, 1)(found)
            return np.bytes_(encoded) if np.ndim(encoded) == 0 else np.asarray(encoded).astype(kind[1:])
        return as_h5py(found, dtype_of(kind)) if isinstance(kind, dict) else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<h5flight attributes: {', '.join(self._values)}>"


def empty(dtype: np.dtype[Any]) -> Any:
    """What stands for a null dataspace: h5py's own object, None without h5py."""
    return h5py.Empty(dtype) if h5py else None


def dtype_of(told: Facts) -> np.dtype[Any]:
    """The type in numpy with what h5py adds to it: what is in an object, the names of an enum.

    Examples
    --------
    >>> dtype_of({"kind": "var_string", "text": "utf8"}).metadata["vlen"]
    <class 'str'>
    """
    kind = told["kind"]
    if kind == "var_string":
        return np.dtype(object, metadata={"vlen": str if told.get("text") == "utf8" else bytes})
    if kind == "reference":
        region, plain = (h5py.RegionReference, h5py.Reference) if h5py else (RegionReference, ObjectReference)
        return np.dtype(object, metadata={"ref": region if told.get("region") else plain})
    if kind == "var_len":
        return np.dtype(object, metadata={"vlen": dtype_of(told["item"])})
    if kind == "enum":
        return np.dtype(dtype_of(told["base"]), metadata={"enum": dict(told["members"])})
    if kind == "array":
        return np.dtype((dtype_of(told["item"]), tuple(told["dims"])))
    if kind == "compound":
        return np.dtype([(member["name"], dtype_of(member["element"])) for member in told["members"]])
    return arrays.element_of(told).dtype


def as_h5py(values: Any, dtype: np.dtype[Any]) -> Any:
    """Make of what a `Dataset` gives what h5py gives: texts of their own length are bytes, paths are references."""
    if dtype.subdtype is not None:
        return as_h5py(values, dtype.subdtype[0])
    if dtype.names:
        if not dtype.hasobject or not getattr(values.dtype, "names", None):
            return values
        names = values.dtype.names
        out = np.empty(np.shape(values), np.dtype([(name, dtype[name]) for name in names]))
        for name in names:
            out[name] = as_h5py(values[name], dtype[name])
        return out if out.ndim or isinstance(values, np.ndarray) else out[()]
    make = _maker(dtype.metadata or {})
    if dtype.kind != "O" or make is None:
        return values
    if not isinstance(values, np.ndarray):
        return make(values)
    made = np.empty(values.shape, dtype)
    for at, value in enumerate(values.flat):
        made.flat[at] = make(value)
    return made


def _maker(metadata: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    if "ref" in metadata:
        return RegionReference if metadata["ref"].__name__ == "RegionReference" else ObjectReference
    if metadata.get("vlen") in (str, bytes):
        return lambda value: value.encode() if isinstance(value, str) else value
    return None


class _Object:
    """What groups and datasets have in common."""

    _file: File
    _id: ObjectId
    _name: str
    _facts: Facts

    def _set_up(self, file: File, name: str, facts: Facts) -> None:
        self._file, self._name, self._facts = file, name, facts

    @property
    def file(self) -> File:
        """The `File` that it is in."""
        return self._file

    @property
    def id(self) -> ObjectId:
        """Which object it is: equal for two names of one object."""
        return self._id

    @property
    def name(self) -> str:
        """Path by which it was opened."""
        return self._name

    @property
    def parent(self) -> Any:
        """The group above."""
        return self._file[posixpath.dirname(self._name) or "/"]

    @property
    def ref(self) -> ObjectReference:
        """A reference to it."""
        return ObjectReference("/" + self._facts["path"].strip("/"))

    @property
    def attrs(self) -> FileAttributes:
        """Its attributes."""
        return FileAttributes(self._facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __bool__(self) -> bool:
        return self._file._is_open

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (self._file, self._name)

    def _refuse(self, *_arguments: Any, **_options: Any) -> Any:
        raise UnsupportedError(
            f"{self._name!r} is served and read-only here: write with put(), append() or ingest() of the client"
        )


def _open(file: File, name: str) -> Any:
    return file[name]


class FileGroup(_Object, _Group):
    """A group: a mapping of its members; see `h5py.Group`, of which it has what reads."""

    __setitem__ = __delitem__ = create_group = create_dataset = require_group = require_dataset = _Object._refuse
    create_dataset_like = create_virtual_dataset = build_virtual_dataset = move = copy = _Object._refuse

    def __init__(self, file: File, name: str, facts: Facts) -> None:
        self._set_up(file, name, facts)
        self._id = ObjectId(file.filename, facts["path"])
        self._kinds = {child["name"]: child["kind"] for child in facts.get("children", ())}

    def _path_of(self, name: str | bytes) -> tuple[str, str]:
        """Path by which a member is opened, and the one that the server is asked by."""
        name = name.decode() if isinstance(name, bytes) else name
        if name.startswith("/"):
            path = posixpath.normpath(name)
            return path, path.strip("/")
        opened = posixpath.normpath(posixpath.join(self._name, name))
        return opened, posixpath.normpath(posixpath.join("/", self._facts["path"], name)).strip("/")

    def __getitem__(self, name: Any) -> Any:
        """Open a member by its path, or what a reference leads to."""
        if isinstance(name, ObjectReference):
            if name.path is None:
                raise ValueError("a null reference leads to no object")
            name = name.path
        if not isinstance(name, (str, bytes)):
            raise TypeError(f"members of a group are named by text, not by {type(name).__name__}")
        opened, asked = self._path_of(name)
        facts = self._file._describe(asked)
        if facts["kind"] == "dataset":
            return FileDataset(self._file, opened, facts)
        if facts["kind"] == "group":
            return FileGroup(self._file, opened, facts) if facts["path"] else self._file
        raise UnsupportedError(f"{opened!r} is a {facts['kind'].replace('_', ' ')}: only groups and datasets open")

    def get(self, name: Any, default: Any = None, getclass: bool = False, getlink: bool = False) -> Any:
        """Open a member, or tell what link leads to it.

        Parameters
        ----------
        name : str
            Its path.
        default : optional
            What is given when there is none, or when it leads nowhere.
        getclass, getlink : bool
            Give its class, and with `getlink` the link (or its class) in place of the object.
        """
        if getlink:
            link = self._link(name)
            return default if link is None else (type(link) if getclass else link)
        try:
            found = self[name]
        except (NotFoundError, UnsupportedError):
            return default
        if not getclass:
            return found
        bases = (h5py.Dataset, h5py.Group) if h5py else (FileDataset, FileGroup)
        return bases[0] if isinstance(found, FileDataset) else bases[1]

    def _link(self, name: str) -> Any:
        if h5py is None:
            raise ImportError("links are h5py's objects: pip install 'h5flight[nwb]'")
        opened, asked = self._path_of(name)
        above = self if name in self._kinds else self.get(posixpath.dirname(opened))
        kind = above._kinds.get(posixpath.basename(name)) if isinstance(above, FileGroup) else None
        if kind == "external_link":
            return h5py.ExternalLink("", asked)
        if kind == "soft_link":
            return h5py.SoftLink("")
        if kind is None:
            return None
        target = self._file._describe(asked)["path"]
        return h5py.HardLink() if target == asked else h5py.SoftLink(f"/{target}")

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str) and name in self._kinds:
            return self._kinds[name] not in ("soft_link", "external_link", "user_link")
        return isinstance(name, (str, bytes)) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        names = list(self._kinds)
        for start in range(0, len(names), _AHEAD):
            ahead = names[start : start + _AHEAD]
            self._file._describe_ahead(self._path_of(name)[1] for name in ahead)
            yield from ahead

    def __reversed__(self) -> Iterator[str]:
        yield from reversed(list(self._kinds))

    def __len__(self) -> int:
        return len(self._kinds)

    def visititems(self, func: Callable[[str, Any], Any]) -> Any:
        """Call a function with the path and object of everything below, each object once; ends at what is not None."""
        seen = {self._id.path}

        def visit(group: FileGroup, above: str) -> Any:
            for name in group:
                found = group.get(name)
                if found is None or found.id.path in seen:
                    continue
                seen.add(found.id.path)
                said = func(above + name, found)
                if said is None and isinstance(found, FileGroup):
                    said = visit(found, f"{above}{name}/")
                if said is not None:
                    return said
            return None

        return visit(self, "")

    def visit(self, func: Callable[[str], Any]) -> Any:
        """Call a function with the path of everything below, see `visititems`."""
        return self.visititems(lambda name, _: func(name))

    def __repr__(self) -> str:
        return f'<h5flight group "{self._name}" ({len(self)} members)>'


class File(FileGroup, _File):
    """An experiment, as `h5py.File` would open it for reading.

    Parameters
    ----------
    client : Client
        Where it is.
    animal, experiment : str
        Its name.

    Raises
    ------
    NotFoundError
        When there is no such experiment; it is a `KeyError`.

    Notes
    -----
    Threads may share it, and it can be pickled. Values are as h5py gives them: texts of their own length are bytes
    (``dataset.asstr()`` gives text), references lead to objects by ``file[reference]``. Each dataset is read at the
    version that it had when it was first looked at.

    Examples
    --------
    >>> from pynwb import NWBHDF5IO  # doctest: +SKIP
    >>> file = h5flight.File(client, "m01", "day1")  # doctest: +SKIP
    >>> with NWBHDF5IO(file=file, mode="r") as io:  # doctest: +SKIP
    ...     nwb = io.read()
    ...     nwb.acquisition["ElectricalSeries"].data[:1000, 3]
    """

    def __init__(self, client: Client, animal: str, experiment: str) -> None:
        self._client, self._animal, self._experiment = client, animal, experiment
        self._is_open = True
        self._kept: OrderedDict[str, Facts] = OrderedDict()
        self._lock = threading.Lock()
        FileGroup.__init__(self, self, "/", self._describe(""))

    @property
    def filename(self) -> str:
        """A name that is an absolute path, for hdmf makes one of it; it is in no file system."""
        return f"/h5flight/{urlsplit(self._client.url).netloc or 'local'}/{self._animal}/{self._experiment}"

    @property
    def mode(self) -> str:
        """Always for reading."""
        return "r"

    @property
    def driver(self) -> str:
        """What reads it."""
        return "h5flight"

    @property
    def libver(self) -> tuple[str, str]:
        """Bounds of the format: all of them."""
        return ("earliest", "latest")

    @property
    def userblock_size(self) -> int:
        """Bytes before the file: none."""
        return 0

    @property
    def swmr_mode(self) -> bool:
        """Never."""
        return False

    def flush(self) -> None:
        """Do nothing: nothing is written."""

    def close(self) -> None:
        """Let go of what is known of it; the client stays open."""
        self._is_open, self._id.valid = False, 0
        with self._lock:
            self._kept.clear()

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return File, (self._client, self._animal, self._experiment)

    def __repr__(self) -> str:
        return f'<h5flight file "{self._animal}/{self._experiment}" of {self._client.url}>'

    def _describe(self, path: str) -> Facts:
        """What an object is, from what is kept or from the server."""
        if not self._is_open:
            raise ValueError(f"the file {self._animal}/{self._experiment} is closed")
        with self._lock:
            if path in self._kept:
                self._kept.move_to_end(path)
                return self._kept[path]
        names = {"animal": self._animal, "experiment": self._experiment}
        facts = self._client._connection.ask("describe", **names, path=path)
        with self._lock:
            for name in {path, facts["path"]}:
                self._kept.setdefault(name, facts)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept.get(path, facts)

    def _describe_ahead(self, paths: Iterable[str]) -> None:
        """Ask for several objects at once; those that are not there are found missing when they are used."""
        missing = [path for path in paths if path not in self._kept]
        if len(missing) < 2:
            return

        def ask(path: str) -> None:
            try:
                self._describe(path)
            except NotFoundError:
                return

        with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(missing))) as pool:
            list(pool.map(ask, missing))


class FileDataset(_Object, _Dataset):
    """A dataset, read by slicing it; see `h5py.Dataset`, of which it has what reads.

    ``served`` is the same dataset as `h5flight.Dataset`, which gives text as text and knows units and versions.
    """

    __setitem__ = resize = write_direct = make_scale = _Object._refuse

    def __init__(self, file: File, name: str, facts: Facts) -> None:
        self._set_up(file, name, facts)
        self._id = ObjectId(file.filename, facts["path"], self)
        told = facts["dataset"]
        where = (file._client, told["animal"], told["experiment"], told["dataset"])
        self.served = Dataset(*where, version=int(told["version"]), facts=told)
        self.served._details = facts
        self._dtype: np.dtype[Any] | None = None
        # h5py's own properties look here, for wrappers of hdmf that inherit them.
        self._cache_props: dict[str, Any] = {}
        self._readonly = True
        self._dxpl = None

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements by axis; None where there is no value at all."""
        return None if self._is_empty else self.served.shape  # type: ignore[return-value]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements as h5py tells it, in native byte order."""
        if self._dtype is None:
            words = str(self._facts["dataset"].get("dtype", ""))
            self._dtype = self.served.dtype if "O" not in words else dtype_of(self._told_type())
        return self._dtype

    def _told_type(self) -> Facts:
        # A description names the type only as numpy does, for whom texts and references are objects.
        schema = self._file._client._connection.schema(self.served._request(None))
        told: Facts = json.loads(schema.metadata[arrays.TYPE])
        return told

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.served.ndim

    @property
    def size(self) -> int | None:
        """Number of elements; None where there is no value at all."""
        return None if self._is_empty else self.served.size

    @property
    def nbytes(self) -> int:
        """Bytes of the values in numpy."""
        return (self.size or 0) * self.dtype.itemsize

    @property
    def maxshape(self) -> tuple[int | None, ...]:
        """Largest shape; None for an axis without limit."""
        return self.served.maxshape

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of a chunk; None where it is stored in one piece."""
        return self.served.chunks

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file; 0 where that is not known."""
        return int(self._facts["dataset"].get("stored_bytes", 0))

    @property
    def compression(self) -> str | None:
        """Name of the compression: h5py's, or the server's for filters that h5py has no name for."""
        names = {"deflate": "gzip", "lzf": "lzf", "szip": "szip"}
        others = [name for name in self.served.filters if name not in ("shuffle", "fletcher32", "scaleoffset")]
        return names.get(others[0], others[0]) if others else None

    @property
    def compression_opts(self) -> None:
        """Not told by the server."""
        return

    @property
    def shuffle(self) -> bool:
        """Whether bytes are shuffled before they are compressed."""
        return "shuffle" in self.served.filters

    @property
    def fletcher32(self) -> bool:
        """Whether chunks have a checksum."""
        return "fletcher32" in self.served.filters

    @property
    def scaleoffset(self) -> None:
        """Not told by the server."""
        return

    @property
    def external(self) -> None:
        """Never: data in other files is not served."""
        return

    @property
    def fillvalue(self) -> Any:
        """Zero: the server does not tell another one, though it reads with it."""
        return np.zeros((), self.dtype)[()]

    @property
    def is_virtual(self) -> bool:
        """Not told by the server; a virtual dataset is read as any other."""
        return False

    @property
    def is_scale(self) -> bool:
        """Whether it is a dimension scale."""
        return self.attrs.get("CLASS") in (b"DIMENSION_SCALE", "DIMENSION_SCALE")

    @property
    def dims(self) -> Any:
        """What each axis means, see `h5flight.Dataset.dims`."""
        return self.served.dims

    @property
    def _is_empty(self) -> bool:
        return bool(self._facts["dataset"].get("is_null"))

    # Its values

    def __getitem__(self, args: Any, new_dtype: Any = None) -> Any:
        """Read a part, as h5py does; selections that h5py has not are understood too."""
        if self._is_empty:
            return empty(self.dtype)
        found = as_h5py(self.served[args], self.dtype)
        if isinstance(found, np.ndarray) and not found.ndim and args == ():
            found = found[()]
        return found if new_dtype is None else np.asarray(found).astype(new_dtype)

    def __len__(self) -> int:
        return len(self.served)

    def len(self) -> int:
        """Elements of the first axis."""
        return len(self)

    def __iter__(self) -> Iterator[Any]:
        dtype = self.dtype
        return (as_h5py(row, dtype) for row in self.served)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("values come over the network: they cannot be had without a copy")
        found = np.asarray(self[...])
        return found if dtype is None else found.astype(dtype, copy=False)

    def asstr(self, encoding: str | None = None, errors: str = "strict") -> View:
        """Give a view whose slices are text."""

        def decode(value: bytes) -> str:
            return value.decode(encoding or "utf-8", errors)

        return View(self, lambda found: np.frompyfunc(decode, 1, 1)(found) if np.ndim(found) else decode(found))

    def astype(self, dtype: Any) -> View:
        """Give a view whose slices have another type."""
        return View(self, lambda found: np.asarray(found).astype(dtype)[()])

    def fields(self, names: Any) -> View:
        """Give a view that reads only these members of a compound."""
        if isinstance(names, str):
            return View(self, lambda found: found[names], (names,))
        return View(self, lambda found: found, tuple(names))

    def iter_chunks(self, sel: Any = None) -> Iterator[tuple[slice, ...]]:
        """Go through the slices of all chunks."""
        if self.chunks is None:
            raise TypeError(f"{self._name!r} is stored in one piece, it has no chunks")
        if sel not in (None, (), Ellipsis):
            raise UnsupportedError("chunks of a part are not told, only those of the whole dataset")
        counts = [-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True)]
        for at in np.ndindex(*counts):
            bounds = zip(at, self.chunks, self.shape, strict=True)
            yield tuple(slice(i * chunk, min((i + 1) * chunk, size)) for i, chunk, size in bounds)

    def read_direct(self, dest: np.ndarray[Any, Any], source_sel: Any = None, dest_sel: Any = None) -> None:
        """Read into an array that is there already."""
        dest[... if dest_sel is None else dest_sel] = self[... if source_sel is None else source_sel]

    def __repr__(self) -> str:
        words = self._facts["dataset"].get("dtype")
        return f'<h5flight dataset "{posixpath.basename(self._name)}": shape {self.shape}, type "{words}">'


class View:
    """A dataset of which each slice is made into something else.

    Parameters
    ----------
    dataset : FileDataset
        What is read.
    make : callable
        Makes it of a slice.
    fields : tuple of str
        Members of a compound that alone are read.
    """

    def __init__(self, dataset: FileDataset, make: Callable[[Any], Any], fields: tuple[str, ...] = ()) -> None:
        self._dataset, self._make, self._fields = dataset, make, fields

    def __getitem__(self, args: Any) -> Any:
        if self._fields:
            args = (list(self._fields), *(args if isinstance(args, tuple) else (args,)))
        return self._make(self._dataset[args])

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements by axis."""
        return self._dataset.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("values come over the network: they cannot be had without a copy")
        return np.asarray(self[...], dtype=dtype)
