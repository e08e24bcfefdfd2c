"""Versions of a dataset: how one is named, what a history tells, and what is different between two."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

Time = datetime | str
"""A datetime with a time zone, or text in RFC 3339."""
VersionName = int | str | datetime
"""A number counted from 1, a tag, or a time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def parse_time(time: Time) -> datetime:
    """Understand a time.

    Examples
    --------
    >>> parse_time("2026-05-01T12:00:00Z")
    datetime.datetime(2026, 5, 1, 12, 0, tzinfo=datetime.timezone.utc)
    """
    at = datetime.fromisoformat(time.replace("Z", "+00:00")) if isinstance(time, str) else time
    if at.tzinfo is None:
        raise ValueError(f"{time} has no time zone: which moment it means depends on where it is read")
    return at


@dataclass(frozen=True)
class VersionAt:
    """Which version is meant; the current one where nothing is said.

    Attributes
    ----------
    version : int
        Number, counted from 1; 0 for none.
    as_of_us : int or None
        The one that was current then, in microseconds since 1970 UTC.
    tag : str
        The one with this tag; empty for none.
    """

    version: int = 0
    as_of_us: int | None = None
    tag: str = ""

    @classmethod
    def of(cls, version: int | None, as_of: Time | None, tag: str | None) -> VersionAt:
        """From what a caller said, at most one of the three."""
        if sum(said is not None for said in (version, as_of, tag)) > 1:
            raise ValueError("a version is named by one of version, as_of and tag")
        if version is not None and version < 1:
            raise ValueError(f"version {version}: versions count from 1")
        if tag == "":
            raise ValueError("a tag is not empty")
        micros = None if as_of is None else (parse_time(as_of) - _EPOCH) // timedelta(microseconds=1)
        return cls(version or 0, micros, tag or "")

    @classmethod
    def named(cls, name: VersionName) -> VersionAt:
        """From a number, a tag or a time. A tag begins with a letter; other text is a time."""
        if isinstance(name, int):
            return cls.of(name, None, None)
        if isinstance(name, str) and name[:1].isalpha():
            return cls.of(None, None, name)
        return cls.of(None, name, None)

    @property
    def is_current(self) -> bool:
        """Whether nothing else than the current one is meant."""
        return not (self.version or self.tag) and self.as_of_us is None

    def as_json(self) -> dict[str, Any]:
        """Give the form that actions take."""
        if self.as_of_us is not None:
            at = _EPOCH + timedelta(microseconds=self.as_of_us)
            return {"as_of": at.isoformat(timespec="microseconds")}
        return {"tag": self.tag} if self.tag else {"version": self.version} if self.version else {}


@dataclass(frozen=True)
class Version:
    """A version in the history of a dataset.

    Attributes
    ----------
    number : int
        Counted from 1.
    created : datetime
        When it was published, UTC.
    principal : str
        Who published it.
    shape : tuple of int
        Elements by axis.
    dtype : str
        Element type, in numpy's words.
    source_name : str
        Name of the file that it came with.
    managed : bool
        Whether that file was uploaded; the bytes of a registered one are gone when it changes.
    restored : int or None
        The version that it is again, after a rollback.
    tags : tuple of str
        Its tags.
    """

    number: int
    created: datetime
    principal: str
    shape: tuple[int, ...]
    dtype: str
    source_name: str
    managed: bool
    restored: int | None
    tags: tuple[str, ...]

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Version:
        """From the server's words."""
        return cls(
            facts["version"],
            parse_time(facts["created_at"]),
            facts["principal"],
            tuple(facts["shape"]),
            facts["dtype"],
            facts["source_name"],
            facts["managed"],
            facts["restored"] or None,
            tuple(facts["tags"]),
        )


@dataclass(frozen=True)
class Difference:
    """What is different between two versions, as the catalogue knows it; values were not read.

    Attributes
    ----------
    versions : tuple of int
        Numbers of the two.
    changes : dict
        ``shape``, ``dtype``, ``chunks``, ``filters``, ``storage``, ``source``, ``dims`` where they differ: a pair each.
    attributes : dict
        Attributes that differ: a pair each, None where there is none.
    shared : list of (slice, slice)
        Rows that are the same stored bytes in both. Others may be equal all the same.
    """

    versions: tuple[int, int]
    changes: dict[str, tuple[Any, Any]]
    attributes: dict[str, tuple[Any, Any]]
    shared: list[tuple[slice, slice]]

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Difference:
        """From the server's words."""

        def rows(start: int, count: int) -> slice:
            return slice(start, start + count)

        shared = [(rows(r["from_row"], r["rows"]), rows(r["to_row"], r["rows"])) for r in facts["shared"]]
        changes, attributes = (
            {change["name"]: (change["from"], change["to"]) for change in facts[which]}
            for which in ("changes", "attributes")
        )
        return cls((facts["from"], facts["to"]), changes, attributes, shared)
