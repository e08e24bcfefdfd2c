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

import posixpath
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .errors import NotFoundError, UnsupportedError
from .file_dataset import FileDataset
from .file_objects import Facts, FileBase, FileObject, GroupBase, ObjectId, ObjectReference

try:
    import h5py
except ImportError:
    h5py = None

if TYPE_CHECKING:
    from .client import Client

_KEPT = 4096
"""Objects whose facts are kept: about 2 KB each."""

_ASKED_AT_ONCE = 8
"""Calls under way while the members of a group are looked at: a round trip each."""

_AHEAD = 64
"""Members of a group that are looked at ahead of whoever goes through them."""


class FileGroup(FileObject, GroupBase):
    """A group: a mapping of its members; see `h5py.Group`, of which it has what reads."""

    __setitem__ = __delitem__ = create_group = create_dataset = require_group = require_dataset = FileObject._refuse
    create_dataset_like = create_virtual_dataset = build_virtual_dataset = move = copy = FileObject._refuse

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


class File(FileGroup, FileBase):
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
