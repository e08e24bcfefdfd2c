"""Slices of HDF5 and NWB files from an h5flight server, as numpy arrays and pandas frames.

>>> import h5flight
>>> client = h5flight.connect()  # doctest: +SKIP
>>> client["m01"]["day1"]["acquisition/TwoPhotonSeries/data"][0:100, ::2, ::2]  # doctest: +SKIP
>>> h5flight.get_data("m01", "day1", "traces", "0:1000")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from .attributes import Attributes
from .client import Animal, Client, Experiment, Group, connect
from .dataset import Dataset, Dimension
from .errors import (
    ConflictError,
    DataLossError,
    DeadlineError,
    FileStateError,
    H5FlightError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    PermissionDeniedError,
    PutError,
    SelectionError,
    ServerUnavailableError,
    UnsupportedError,
)
from .frames import get_data
from .history import Difference, Version
from .put import Put
from .selection import Points
from .writer import Writer

if TYPE_CHECKING:
    from .file import File
    from .windows import Windows

__all__ = [
    "Animal",
    "Attributes",
    "Client",
    "ConflictError",
    "DataLossError",
    "Dataset",
    "DeadlineError",
    "Difference",
    "Dimension",
    "Experiment",
    "File",
    "FileStateError",
    "Group",
    "H5FlightError",
    "InvalidRequestError",
    "LimitError",
    "NotFoundError",
    "PermissionDeniedError",
    "Points",
    "Put",
    "PutError",
    "SelectionError",
    "ServerUnavailableError",
    "UnsupportedError",
    "Version",
    "Windows",
    "Writer",
    "connect",
    "get_data",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # It imports h5py where that is installed, which takes longer than all the rest.
    if name == "File":
        from .file import File

        return File
    if name == "Windows":
        from .windows import Windows

        return Windows
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
