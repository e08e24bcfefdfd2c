"""Slices of HDF5 and NWB files from an h5flight server, as numpy arrays and pandas frames.

>>> import h5flight
>>> client = h5flight.connect()  # doctest: +SKIP
>>> client["m01"]["day1"]["acquisition/TwoPhotonSeries/data"][0:100, ::2, ::2]  # doctest: +SKIP
>>> h5flight.get_data("m01", "day1", "traces", "0:1000")  # doctest: +SKIP
"""

from .client import Animal, Client, Experiment, connect
from .dataset import Dataset
from .errors import (
    DataLossError,
    FileStateError,
    H5FlightError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    PermissionDeniedError,
    SelectionError,
    ServerUnavailableError,
    UnsupportedError,
)
from .frames import get_data

__all__ = [
    "Animal",
    "Client",
    "DataLossError",
    "Dataset",
    "Experiment",
    "FileStateError",
    "H5FlightError",
    "InvalidRequestError",
    "LimitError",
    "NotFoundError",
    "PermissionDeniedError",
    "SelectionError",
    "ServerUnavailableError",
    "UnsupportedError",
    "connect",
    "get_data",
]
__version__ = "0.1.0"
