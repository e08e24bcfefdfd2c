"""The corpus of real files: what is expected, the canonical form of an answer, and the verdict on it.

The corpus lies at $H5FLIGHT_CORPUS or at ../shared/corpus beside the checkout. Its files are never opened here: only
the server does, for some of them kill the library that reads them.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


CORRECTED = {
    # h5py does not swap the items of big-endian sequences: it expects 1879048192 where the file says 112. This is the
    # value of the dataset's little-endian twin in the same file.
    ("PyTables+PyTables/tables__tests/vlunicode_endian.h5", "vlunicode_big"): "[[112,97,114,97,320,108,101,108]]",
}
"""Canonical forms where the recorded expectation is a mistake of h5py."""

EXCEPTIONS_PAGE = ROOT / "docs" / "support.md"
EXCEPTIONS = "corpus exceptions"
"""Name of the table of strict lines that are answered by an error."""
EXCEPTIONS_SHARE_MAX = 0.01
"""Of all strict lines of the corpus."""


def find() -> Path | None:
    """The folder of the corpus, where there is one."""
    named = os.environ.get("H5FLIGHT_CORPUS")
    folder = Path(named) if named else ROOT.parent / "shared" / "corpus"
    return folder if (folder / "expectations.jsonl").is_file() else None


def between(page: str, name: str) -> str:
    """What stands between the markers of a table in a page."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    assert page.count(begin) == 1 == page.count(end), f"the page must have one table between {begin.strip()} and {end}"
    return page.split(begin)[1].split(end)[0]


def rewrite(page: Path, name: str, table: str) -> None:
    """Put a table where the page has the one of that name."""
    text = page.read_text()
    page.write_text(text.replace(_marked(name, between(text, name)), _marked(name, table)))


def _marked(name: str, table: str) -> str:
    return f"<!-- {name}: begin -->\n{table}<!-- {name}: end -->"


def exceptions_table(failures: list[tuple[Line, Answer]]) -> str:
    """The table of the page for strict lines that failed; wrong data cannot be excepted."""
    rows = {
        f"| `{line.file}` | `{line.path}` | `{answer.reason}` |"
        for line, answer in failures
        if answer.verdict is Verdict.CLEAN_ERROR
    }
    return "\n".join(["| file | path | reason |", "|---|---|---|", *sorted(rows)]) + "\n"


def exceptions() -> dict[tuple[str, str], str]:
    """Strict lines that are known not to be read: file and path, with the reason that the server gives."""
    rows = between(EXCEPTIONS_PAGE.read_text(), EXCEPTIONS).splitlines()[2:]
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows if row]
    return {(file, path): reason for file, path, reason in cells}


class Verdict(Enum):
    """What is to be said of one answer."""

    EQUAL = "equal"
    CLEAN_ERROR = "clean error"
    UNVERIFIED = "answered, nothing to compare with"
    DIFFERS = "differs"


class Demand(Enum):
    """What a line asks of the server."""

    STRICT = "strict"
    """The right bytes."""
    OR_ERROR = "or_error"
    """The right bytes or a clean error."""
    REFUSED = "refused"
    """A clean error: data must not come."""
    CLEAN = "clean"
    """A clean error or an answer: h5py has none to compare with."""


@dataclass(frozen=True)
class Answer:
    """What the server said to one line."""

    verdict: Verdict
    reason: str = ""
    message: str = ""
    digest: str = ""
    """Of the values, or the reason of the error: equal in every run."""


@dataclass(frozen=True)
class Line:
    """One expectation."""

    file: str
    path: str
    kind: str
    dtype: str
    selection: tuple[slice, ...] | None
    sha256: str | None
    demand: Demand

    def judge(self, values: Any) -> Answer:
        """Compare what the server returned."""
        shape, dtype = np.shape(values), getattr(values, "dtype", type(values).__name__)
        form = self._canonical(values)
        digest = hashlib.sha256(form).hexdigest()
        if self.demand is Demand.REFUSED:
            return Answer(Verdict.DIFFERS, "", "data came although it must be refused", digest)
        if self.sha256 is None:
            return Answer(Verdict.UNVERIFIED, digest=digest)
        if digest == self.sha256:
            return Answer(Verdict.EQUAL, digest=digest)
        message = f"{self.kind} of {self.dtype} became shape {shape}, {dtype}: {form[:100]!r}"
        return Answer(Verdict.DIFFERS, "", message, digest)

    def _canonical(self, values: Any) -> bytes:
        with contextlib.suppress(TypeError, ValueError):
            if self.kind == "bytes":
                return canonical_bytes(values, self.dtype)
        return canonical_json(values, references=self.kind == "refs")


@dataclass(frozen=True)
class File:
    """One file with its expectations."""

    name: str
    group: str
    lines: tuple[Line, ...]


def load(folder: Path, only: str = "") -> list[File]:
    """All files of the manifest, or those whose names contain `only`."""
    lines: dict[str, list[Line]] = {}
    with (folder / "expectations.jsonl").open() as source:
        for text in source:
            found = json.loads(text)
            if found.get("path") is not None:
                lines.setdefault(found["file"], []).append(_line(found))
    with (folder / "manifest.tsv").open(newline="") as source:
        rows = list(csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE))
    files = [File(row["name"], row["group"], tuple(lines.get(row["name"], ()))) for row in rows]
    return [file for file in files if only in file.name]


def _line(found: dict[str, Any]) -> Line:
    selection = found.get("selection")
    path, sha256 = escaped(found["path"]), found.get("sha256")
    if right := CORRECTED.get((found["file"], path)):
        sha256 = hashlib.sha256(right.encode()).hexdigest()
    return Line(
        file=found["file"],
        path=path,
        kind=found.get("kind", "error"),
        dtype=found.get("dtype", ""),
        selection=None if selection is None else tuple(slice(*axis) for axis in selection),
        sha256=sha256,
        demand=_demand(found),
    )


def _demand(found: dict[str, Any]) -> Demand:
    if found.get("kind") in ("refused", "must_error"):
        # What a file's virtual dataset shows of the file itself may be read.
        return Demand.CLEAN if found.get("why") == "virtual, same file" else Demand.REFUSED
    if "sha256" not in found:
        return Demand.CLEAN
    return Demand.OR_ERROR if "or_error" in found else Demand.STRICT


def escaped(path: str | dict[str, str]) -> str:
    """The name by which the server knows a path: what cannot be shown is percent-escaped."""
    raw = base64.b64decode(path["b64"]) if isinstance(path, dict) else path.encode()
    out = []
    for letter in raw.decode("utf-8", "surrogateescape").strip("/"):
        if "\udc80" <= letter <= "\udcff":
            out.append(f"%{ord(letter) - 0xDC00:02X}")
        elif letter == "%" or ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0:
            out += [f"%{byte:02X}" for byte in letter.encode()]
        else:
            out.append(letter)
    return "".join(out)


def canonical_bytes(values: Any, dtype: str) -> bytes:
    """Little-endian, C order, compounds packed."""
    array = np.asarray(values)
    if dtype == "float128":
        # Delivered as the nearest float64: equal where the file holds nothing finer. The padding bytes are zero.
        wide = np.zeros(array.shape, np.longdouble)
        wide[...] = array
        return wide.tobytes()
    return np.ascontiguousarray(array.astype(_packed(array.dtype), copy=False)).tobytes()


def _packed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.subdtype:
        return np.dtype((_packed(dtype.subdtype[0]), dtype.subdtype[1]))
    if dtype.names:
        return np.dtype([(name, _packed(dtype[name])) for name in dtype.names])
    return dtype.newbyteorder("<")


def canonical_json(values: Any, references: bool) -> bytes:
    """Nested lists; floats as hexadecimal text, references as objects, bytes that are no text in base64."""
    form = _plain(values, references)
    return json.dumps(form, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()


def _plain(value: Any, references: bool) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(item, references) for item in value] if value.ndim else _plain(value[()], references)
    if references and (value is None or isinstance(value, str)):
        return {"ref": value or None}
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.void):
        if value.dtype.names:
            return {name: _plain(value[name], references) for name in value.dtype.names}
        return {"b64": base64.b64encode(value.tobytes()).decode()}
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.complexfloating):
        return [float(value.real).hex(), float(value.imag).hex()]
    if isinstance(value, np.floating):
        return float(value).hex()
    return value


@dataclass
class Report:
    """What came out of one run, to be shown and to be studied."""

    answers: list[tuple[Line, Answer]] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    """The group of each file."""
    refused_files: set[str] = field(default_factory=set)
    crashes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """By file: registration, all its reads, and the question whether the server lives."""
    peak_bytes: int = 0
    """The most memory that the server's process had."""

    def count(self, demand: Demand, verdict: Verdict | None = None, group: str | None = None) -> int:
        """Number of lines with a demand and, where they are given, a verdict and a group."""
        return sum(
            line.demand is demand
            and (verdict is None or answer.verdict is verdict)
            and (group is None or self.groups[line.file] == group)
            for line, answer in self.answers
        )

    def failures(self, *demands: Demand) -> list[tuple[Line, Answer]]:
        """Lines that did not get what they demand."""
        return [
            (line, answer) for line, answer in self.answers if line.demand in demands and not satisfied(line, answer)
        ]

    def slowest(self) -> tuple[float, str]:
        """The file that took longest."""
        return max(((seconds, name) for name, seconds in self.seconds.items()), default=(0.0, ""))

    def table(self) -> list[str]:
        """The report by groups of files, for people."""
        verdicts = list(Verdict)
        rows = ["group       files refused | demand    lines " + " ".join(f"{v.value:>11}" for v in verdicts)]
        for group in sorted(set(self.groups.values())):
            names = {name for name, other in self.groups.items() if other == group}
            for demand in Demand:
                if lines := self.count(demand, group=group):
                    left = f"{group:11} {len(names):5} {len(names & self.refused_files):7} | {demand.value:8} {lines:6}"
                    rows.append(" ".join([left, *(f"{self.count(demand, v, group):11}" for v in verdicts)]))
        reasons = Counter(answer.reason for _, answer in self.failures(Demand.STRICT))
        if reasons:
            rows.append("strict lines fail with: " + ", ".join(f"{k} {n}" for k, n in reasons.most_common()))
        return rows

    def summary(self, memory_bytes_max: int) -> str:
        """All counts in one line."""
        strict, excepted = self.count(Demand.STRICT), len(self.failures(Demand.STRICT))
        seconds, _ = self.slowest()
        refused, equal = Demand.REFUSED, Verdict.EQUAL
        return (
            f"corpus: {len(self.groups)} files, "
            f"strict {strict - excepted} of {strict} equal ({excepted} excepted), "
            f"or_error {self.count(Demand.OR_ERROR, equal)} equal "
            f"{self.count(Demand.OR_ERROR, Verdict.CLEAN_ERROR)} errors, "
            f"refused {self.count(refused, Verdict.CLEAN_ERROR)} of {self.count(refused)}, "
            f"slowest {seconds:.1f} s, crashes {len(self.crashes)}, "
            f"peak server memory {self.peak_bytes >> 20} MiB of {memory_bytes_max >> 20} allowed"
        )

    def as_json(self) -> str:
        """Everything that failed, for study."""
        failures = [
            {
                "file": line.file,
                "path": line.path,
                "demand": line.demand.value,
                "kind": line.kind,
                "dtype": line.dtype,
                "selection": str(line.selection),
                "verdict": answer.verdict.value,
                "reason": answer.reason,
                "message": answer.message,
            }
            for line, answer in self.failures(*Demand)
        ]
        told = {"crashes": self.crashes, "slowest": self.slowest(), "table": self.table(), "failures": failures}
        return json.dumps(told, indent=1)


def satisfied(line: Line, answer: Answer) -> bool:
    """Whether an answer is what a line demands."""
    if line.demand is Demand.STRICT:
        return answer.verdict is Verdict.EQUAL
    return answer.verdict is not Verdict.DIFFERS
