"""The corpus of real files: what is expected, the canonical form of an answer, and the verdict on it.

The corpus lies at $H5FLIGHT_CORPUS or at ../shared/corpus beside the checkout. Its files are never opened here: only
the server does, for some of them kill the library that reads them.
"""

from __future__ import annotations

import base64
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
    # h5py does not swap the items of big-endian sequences; this is the text "para\u0140lel" in 32-bit code points.
    ("PyTables+PyTables/tables__tests/vlunicode_endian.h5", "vlunicode_big"): "[[112,97,114,97,320,108,101,108]]",
}
"""Canonical forms where the recorded expectation is a mistake of h5py."""


def find() -> Path | None:
    """The folder of the corpus, where there is one."""
    named = os.environ.get("H5FLIGHT_CORPUS")
    folder = Path(named) if named else ROOT.parent / "shared" / "corpus"
    return folder if (folder / "expectations.jsonl").is_file() else None


WRONG_EXPECTATIONS = {
    # h5py does not swap the bytes of big-endian sequences: it expects 1879048192 where the file says 112. The server's
    # answer is the one of the dataset's little-endian twin in the same file.
    ("PyTables+PyTables/tables__tests/vlunicode_endian.h5", "vlunicode_big"): "[[112,97,114,97,320,108,101,108]]",
}
"""Lines whose expectation is not what the file says, with the canonical form of what it does say."""


class Verdict(Enum):
    """What is to be said of one answer."""

    EQUAL = "equal"
    CLEAN_ERROR = "clean error"
    UNVERIFIED = "answered, nothing to compare with"
    DIFFERS = "differs"


@dataclass(frozen=True)
class Line:
    """One expectation."""

    file: str
    path: str
    kind: str
    dtype: str
    selection: tuple[slice, ...] | None
    sha256: str | None
    may_fail: bool
    why: str

    @property
    def strict(self) -> bool:
        """Whether only the right bytes will do."""
        return self.sha256 is not None and not self.may_fail

    def judge(self, values: Any, references: bool) -> tuple[Verdict, str]:
        """Compare an answer.

        Parameters
        ----------
        values : ndarray, scalar
            What the server returned.
        references : bool
            Whether texts are paths of references.
        """
        if self.kind == "refused" and self.why != "virtual, same file":
            return Verdict.DIFFERS, f"data came although it must be refused: {self.why}"
        if self.sha256 is None:
            return Verdict.UNVERIFIED, ""
        form = canonical_bytes(values, self.dtype) if self.kind == "bytes" else canonical_json(values, references)
        if (right := WRONG_EXPECTATIONS.get((self.file, self.path))) is not None:
            return (Verdict.EQUAL if form == right.encode() else Verdict.DIFFERS), form[:100].decode(errors="replace")
        if hashlib.sha256(form).hexdigest() == self.sha256:
            return Verdict.EQUAL, ""
        shape, dtype = np.shape(values), getattr(values, "dtype", type(values).__name__)
        return Verdict.DIFFERS, f"{self.kind} of {self.dtype} became shape {shape}, {dtype}: {form[:100]!r}"


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
        may_fail="or_error" in found,
        why=found.get("why", ""),
    )


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
    """What came out, to be shown and to be studied."""

    verdicts: dict[tuple[str, str], Counter[Verdict]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    files: Counter[str] = field(default_factory=Counter)
    refused_files: Counter[str] = field(default_factory=Counter)

    def add(self, file: File, line: Line, verdict: Verdict, reason: str, message: str) -> None:
        """Count one line."""
        kind = "strict" if line.strict else "other"
        self.verdicts.setdefault((file.group, kind), Counter())[verdict] += 1
        if verdict is Verdict.DIFFERS or (line.strict and verdict is not Verdict.EQUAL):
            entry = {"file": line.file, "path": line.path, "group": file.group, "kind": line.kind, "dtype": line.dtype}
            told = {"verdict": verdict.value, "reason": reason, "message": message, "strict": line.strict}
            self.failures.append({**entry, "selection": str(line.selection), **told})

    def count(self, group: str, kind: str, verdict: Verdict) -> int:
        """Number of lines of a group, ``strict`` or ``other``, with a verdict."""
        return self.verdicts.get((group, kind), Counter())[verdict]

    def differing(self) -> list[dict[str, Any]]:
        """Lines with wrong data."""
        return [failure for failure in self.failures if failure["verdict"] == Verdict.DIFFERS.value]

    def strict_share(self, group: str) -> float:
        """Share of a group's strict lines that are equal."""
        total = sum(self.verdicts.get((group, "strict"), Counter()).values())
        return self.count(group, "strict", Verdict.EQUAL) / total if total else 1.0

    def table(self) -> list[str]:
        """The report for people."""
        rows = [
            "group       files refused | strict  equal  error  differ  share | other  equal  error  differ  unverified"
        ]
        for group in sorted(self.files):
            told = (Verdict.EQUAL, Verdict.CLEAN_ERROR, Verdict.DIFFERS)
            strict = [self.count(group, "strict", verdict) for verdict in told]
            other = [self.count(group, "other", verdict) for verdict in (*told, Verdict.UNVERIFIED)]
            left = f"{group:11} {self.files[group]:5} {self.refused_files[group]:7} | {sum(strict):6}"
            middle = f"{strict[0]:6} {strict[1]:6} {strict[2]:7} {self.strict_share(group):6.1%}"
            right = f"{sum(other):5} {other[0]:6} {other[1]:6} {other[2]:7} {other[3]:11}"
            rows.append(f"{left} {middle} | {right}")
        reasons = Counter(failure["reason"] for failure in self.failures if failure["reason"])
        if reasons:
            rows.append("reasons of strict errors: " + ", ".join(f"{k} {n}" for k, n in reasons.most_common()))
        rows.append(f"slowest file: {self.slowest[1]}, {self.slowest[0]:.1f} s; server crashes: {len(self.crashes)}")
        return rows

    def as_json(self) -> str:
        """Everything, for study."""
        told = {"crashes": self.crashes, "slowest": self.slowest, "table": self.table(), "failures": self.failures}
        return json.dumps(told, indent=1)
