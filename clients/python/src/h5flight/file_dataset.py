"""`FileDataset`: a dataset of a `File`, with h5py's manners."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays
from .dataset import Dataset
from .errors import UnsupportedError
from .file_objects import DatasetBase, Facts, FileObject, ObjectId, as_h5py, dtype_of, empty

if TYPE_CHECKING:
    from .file import File


class FileDataset(FileObject, DatasetBase):
    """A dataset, read by slicing it; see `h5py.Dataset`, of which it has what reads.

    ``served`` is the same dataset as `h5flight.Dataset`, which gives text as text and knows units and versions.
    """

    __setitem__ = resize = write_direct = make_scale = FileObject._refuse

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
