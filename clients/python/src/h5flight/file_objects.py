"""What the objects of a `File` are made of: h5py's classes as bases, references, types and attributes as h5py has them.

Where h5py is installed these are subclasses of its classes, without a file below them; `h5flight.file` says why.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays
from .attributes import value_of
from .errors import H5FlightError, LimitError, UnsupportedError

try:
    import h5py
except ImportError:
    h5py = None

if TYPE_CHECKING:
    from .file import File
    from .file_dataset import FileDataset

    GroupBase = Mapping[str, Any]
    DatasetBase = object
    FileBase = object
    ReferenceBase = object
    RegionReferenceBase = object
else:
    # h5py's classes where there are any.
    GroupBase = h5py.Group if h5py else Mapping
    DatasetBase = h5py.Dataset if h5py else object
    FileBase = h5py.File if h5py else object
    ReferenceBase = h5py.Reference if h5py else object
    RegionReferenceBase = h5py.RegionReference if h5py else object

Facts = dict[str, Any]


class ObjectReference(ReferenceBase):
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


class RegionReference(ObjectReference, RegionReferenceBase):
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


class FileObject:
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
        return isinstance(other, FileObject) and self._id == other._id

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
