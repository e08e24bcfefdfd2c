"""What can go wrong, as Python's own kinds of errors.

Every error of the server is an `H5FlightError` and, where Python has one, also the built-in error that numpy or h5py
would raise: a missing name is a `KeyError`, a bad slice an `IndexError`. `H5FlightError.reason` is stable and
documented; the text is for people.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from . import wire


class H5FlightError(Exception):
    """An error of the server, or of reaching it.

    Parameters
    ----------
    message : str
        For people.
    reason : str
        Stable, to act on: ``dataset_not_found``, ``file_changed``, ...; empty when the server gave none.
    facts : dict of str to str
        The numbers and names behind it, where the server tells them: ``current_version`` of a conflict.
    """

    retry_after_s: float = 0.0
    """Seconds after which a busy server asks to be called again; 0 where it said nothing of it."""

    def __init__(self, message: str, reason: str = "", facts: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.facts = facts or {}

    def __str__(self) -> str:
        # KeyError would show the repr of its argument, quotes and all.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.reason, self.facts)


class NotFoundError(H5FlightError, KeyError):
    """There is no animal, experiment, dataset, version or file of this name."""


class SelectionError(H5FlightError, IndexError, ValueError):
    """The selection is malformed, does not fit the array, or leaves it."""


class InvalidRequestError(H5FlightError, ValueError):
    """A request means nothing to the server: a layout that cannot show this array, a file that is not HDF5."""


class PermissionDeniedError(H5FlightError, PermissionError):
    """The token is missing, wrong or expired, or its role does not allow this."""


class FileStateError(H5FlightError):
    """The file cannot be read as it is now: it changed since it was indexed, or it leads to other files."""


class ConflictError(H5FlightError):
    """Another publication came first, or the tag is at another version; ``facts`` tells which one."""


class LimitError(H5FlightError):
    """A limit of the server is reached; reason ``busy`` means that a repetition may succeed."""


class PutError(H5FlightError):
    """A put broke off, and whether its rows are there is not known: a writer's name makes repeating it safe."""


class DataLossError(H5FlightError, OSError):
    """The file is damaged where it was read."""


class UnsupportedError(H5FlightError, NotImplementedError):
    """The server has no decoder for a filter, or no Arrow form for a type."""


class ServerUnavailableError(H5FlightError, ConnectionError):
    """No server answers, or it cannot answer now; a repetition may succeed."""


class DeadlineError(H5FlightError, TimeoutError):
    """A call took longer than `timeout_s` of the client, or than the server lets it take."""


# By gRPC status code. OK and what is not named here is H5FlightError.
_BY_CODE: dict[int, type[H5FlightError]] = {
    3: InvalidRequestError,
    4: DeadlineError,
    5: NotFoundError,
    6: ConflictError,
    7: PermissionDeniedError,
    8: LimitError,
    9: FileStateError,
    10: ConflictError,
    11: SelectionError,
    12: UnsupportedError,
    14: ServerUnavailableError,
    15: DataLossError,
    16: PermissionDeniedError,
}

_SELECTION_REASONS = frozenset({"bad_selection", "out_of_bounds"})

# Without details of the server only pyarrow's class is left; order matters, the first match wins.
_BY_CLASS: tuple[tuple[type[BaseException], int], ...] = (
    (flight.FlightUnavailableError, 14),
    (flight.FlightTimedOutError, 4),
    (flight.FlightUnauthenticatedError, 16),
    (flight.FlightUnauthorizedError, 7),
    (pa.ArrowKeyError, 5),
    (pa.ArrowNotImplementedError, 12),
    (pa.ArrowInvalid, 3),
)

_PASSING = frozenset({"busy", "catalog_unavailable", "draining"})

# What pyarrow and gRPC put around a message.
_BEFORE = re.compile(r"^(?:Unknown: )?(?:Flight|gRPC) (?:returned|RPC failed|cancelled).*?with message: ", re.DOTALL)
_BEHIND = re.compile(r"\s*\.? (?:gRPC client debug context|Client context): .*$", re.DOTALL)


def is_passing(error: H5FlightError) -> bool:
    """Whether a repetition may succeed: the connection broke, or the server is away for now.

    A stream that a dying server leaves has neither a reason nor a code of its own.
    """
    if error.reason:
        return error.reason in _PASSING
    return isinstance(error, ServerUnavailableError) or type(error) is H5FlightError


def from_flight(error: Exception, details: bytes | None) -> H5FlightError:
    """Make our error of pyarrow's.

    Parameters
    ----------
    error : Exception
        What pyarrow raised.
    details : bytes or None
        The trailer ``grpc-status-details-bin`` of the call: pyarrow keeps neither the reason nor the code.

    Returns
    -------
    H5FlightError
        The most specific class, with the server's own words.
    """
    told = _parse(details)
    code = told.code if told else next((code for kind, code in _BY_CLASS if isinstance(error, kind)), 2)
    reason = told.reason if told else ""
    # str() of pyarrow's KeyError would be the repr of its text.
    said = str(error.args[0]) if error.args else str(error)
    message = (told.message if told else "") or _BEHIND.sub("", _BEFORE.sub("", said))
    kind = SelectionError if reason in _SELECTION_REASONS else _BY_CODE.get(code, H5FlightError)
    found = kind(message, reason, told.metadata if told else None)
    found.retry_after_s = told.retry_after_s if told else 0.0
    return found


def _parse(details: bytes | None) -> wire.Status | None:
    try:
        return wire.status(details) if details else None
    except ValueError:
        return None
