"""xarray's engine ``h5flight``: groups of an experiment as lazy xarray datasets.

``xr.open_dataset("h5flight://ANIMAL/EXPERIMENT", engine="h5flight", group="...")`` has the datasets of one group as
variables; nothing is read before values are needed, and then only the chunks of the selection. Axes have the name of
their label, else of their scale, else ``dim_0``, ``dim_1``, ... of the variable where their sizes differ.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from .client import Client

if TYPE_CHECKING:
    from .client import Experiment
    from .dataset import Dataset

SCHEME = "h5flight"


class LazyArray(BackendArray):
    """Values of a dataset, read when they are indexed; threads may share it, and it can be pickled.

    Parameters
    ----------
    dataset : Dataset
        What is read, of one version.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.shape, self.dtype = dataset, dataset.shape, dataset.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Read a part: slices, and lists of indices by axis."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        parts = tuple(part.tolist() if isinstance(part, np.ndarray) else part for part in key)
        return np.asarray(self.dataset[parts])


class Engine(BackendEntrypoint):
    """What `xarray.open_dataset` and `xarray.open_datatree` call.

    ``filename_or_obj`` is ``h5flight://ANIMAL/EXPERIMENT`` (of the server of ``client=``, else of ``H5FLIGHT_URL``) or
    an `h5flight.Experiment`.
    """

    description = "Recordings served by h5flight"
    url = "https://pypi.org/project/h5flight"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "group", "client")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is one of ours."""
        return isinstance(filename_or_obj, str) and urlsplit(filename_or_obj).scheme == SCHEME

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str = "",
        client: Client | None = None,
    ) -> xr.Dataset:
        """Open one group; see `xarray.open_dataset`.

        Parameters
        ----------
        filename_or_obj : str or Experiment
            Which experiment.
        drop_variables : str or iterable of str, optional
            Datasets that are left out.
        group : str
            Path of the group.
        client : Client, optional
            Where the experiment is.
        """
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        return _open_group(_experiment(filename_or_obj, client), group.strip("/"), dropped)

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        """Open all groups, by their paths."""
        experiment = _experiment(filename_or_obj, options.pop("client", None))
        dropped = set(options.pop("drop_variables", None) or ())
        names = [dataset.name for dataset in experiment.datasets()]
        groups = {""} | {above for name in names for above in _above(name)}
        return {f"/{group}": _open_group(experiment, group, dropped) for group in sorted(groups)}

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """Open all groups as a tree."""
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))


def _above(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _experiment(where: Any, client: Client | None) -> Experiment:
    if not isinstance(where, str):
        found: Experiment = where
        return found
    parts = urlsplit(where)
    if parts.scheme != SCHEME or not parts.netloc or not parts.path.strip("/"):
        raise ValueError(f"{where!r} is not of the form {SCHEME}://ANIMAL/EXPERIMENT")
    return (client or Client())[unquote(parts.netloc)][unquote(parts.path.strip("/"))]


def _open_group(experiment: Experiment, path: str, dropped: set[str]) -> xr.Dataset:
    group = experiment.group(path)
    variables: dict[str, xr.Variable] = {}
    sizes: dict[str, int] = {}
    for name in (name for name, kind in group.kinds.items() if kind == "dataset" and name not in dropped):
        dataset = experiment[posixpath.join(group.name, name)]
        if dataset.size == 0 and dataset._describe().get("is_null"):
            continue
        fixed = dataset.at(dataset.version or None)
        lazy = indexing.LazilyIndexedArray(LazyArray(fixed))
        names = _dims(dataset, name, sizes)
        encoding = {"preferred_chunks": dict(zip(names, dataset.chunks, strict=True))} if dataset.chunks else {}
        variables[name] = xr.Variable(names, lazy, dict(dataset.attrs), encoding, fastpath=True)
    found = xr.Dataset(variables, attrs=dict(group.attrs))
    # As netCDF has it: what has the name of its only axis are the coordinates along it.
    return found.set_coords([name for name in variables if variables[name].dims == (name,)])


def _dims(dataset: Dataset, variable: str, sizes: dict[str, int]) -> tuple[str, ...]:
    """Names of the axes; one that others of the group have with another size is the variable's own."""
    names: list[str] = []
    for axis, dim in enumerate(dataset.dims):
        scale = dim.coordinate.name.rsplit("/", 1)[-1] if dim.coordinate else ""
        name = dim.label or scale or f"dim_{axis}"
        if name in names or sizes.get(name, dim.size) != dim.size:
            name = f"{variable}_dim_{axis}"
        sizes[name] = dim.size
        names.append(name)
    return tuple(names)
