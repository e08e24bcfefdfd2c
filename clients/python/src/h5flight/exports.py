"""Datasets as objects of other libraries. Each library is optional: it is imported when it is wanted."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .dataset import Dataset

BLOCK_BYTES = 16 << 20
"""Bytes of decoded values that a block of a dask array has at most, unless one chunk of the file has more."""


def optional(module: str, extra: str) -> Any:
    """Import a library that an extra of the package brings.

    Raises
    ------
    ImportError
        When it is missing, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Something that the library itself misses is another trouble: that message says it best.
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(
            f"{module.split('.')[0]} is not installed: pip install 'h5flight[{extra}]'", name=error.name
        ) from None


def block_shape(shape: tuple[int, ...], chunks: tuple[int, ...] | None, itemsize: int) -> tuple[int, ...]:
    """Choose the shape of blocks: whole chunks of the file, grown from the last axis on to `BLOCK_BYTES`.

    Examples
    --------
    >>> block_shape((4000, 512, 512), (1, 512, 512), 2)
    (32, 512, 512)
    """
    block = [min(size, chunk) for size, chunk in zip(shape, chunks or (1,) * len(shape), strict=True)]
    for axis in reversed(range(len(shape))):
        room = BLOCK_BYTES // max(math.prod(block) * itemsize, 1)
        block[axis] = min(shape[axis], block[axis] * max(room, 1))
    return tuple(block)


def dask_array(dataset: Dataset) -> Any:
    """Make a lazy dask array whose blocks are read when they are computed, see `Dataset.to_dask`."""
    da = optional("dask.array", "dask")
    # Blocks are read at different times: all of them must be of one version.
    fixed = dataset.at(dataset.version or None)
    dtype, shape = dataset.dtype, dataset.shape
    return da.from_array(
        fixed,
        chunks=block_shape(shape, dataset.chunks, dtype.itemsize),
        name=False,
        lock=False,
        fancy=False,
        meta=np.empty((0,) * len(shape), dtype),
    )


def data_array(dataset: Dataset) -> Any:
    """Make a lazy xarray array over a dask array, see `Dataset.to_xarray`."""
    xarray = optional("xarray", "xarray")
    lazy, dims = dask_array(dataset), dataset.dims
    names: list[str] = []
    coords: dict[str, Any] = {}
    for axis, dim in enumerate(dims):
        scale = dim.coordinate
        name = dim.label or (scale.name.rsplit("/", 1)[-1] if scale else "") or f"dim_{axis}"
        names.append(name if name not in names else f"dim_{axis}")
        # Scales are datasets with versions of their own: those of an older version of this one are not known.
        if scale is not None and dataset._at.is_current and scale.shape == (dim.size,):
            coords[names[-1]] = (names[-1], scale.to_numpy(), dict(scale.attrs))
    return xarray.DataArray(
        lazy, dims=names, coords=coords, name=dataset.name.rsplit("/", 1)[-1], attrs=dict(dataset.attrs)
    )
