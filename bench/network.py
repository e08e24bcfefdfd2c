"""Below what bandwidth it pays to have batches compressed on the wire.

A section of `make bench`. A slice is read again and again from the server's memory: plain, as LZ4 and as Zstandard. A
network of b bytes a second adds size / b to what a read takes here, so compression pays below
(plain size - compressed size) / (compressed time - plain time).
"""

from __future__ import annotations

import statistics
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data import Case
from peers import Connection, Server, wire
from workloads import bulk, markdown

REPEATS = 7


@dataclass(frozen=True)
class Form:
    """One way of sending a slice."""

    case: str
    compression: str | None
    wire_bytes: int
    seconds: float
    nbytes: int


@dataclass
class Wire:
    """What came out."""

    forms: list[Form] = field(default_factory=list)

    def tables(self) -> str:
        """A row for each file and compression."""
        if not self.forms:
            return ""
        rows = []
        for form in self.forms:
            plain = next(other for other in self.forms if other.case == form.case and other.compression is None)
            size = f"{form.wire_bytes / form.nbytes:.2f}"
            speed = f"{form.nbytes / form.seconds / 1e6:,.0f} MB/s"
            rows.append([form.case, form.compression or "none", size, speed, pays_below(plain, form)])
        intro = "Compression on the wire: 64 MB from the server's memory into batches of a client on this machine."
        head = ["file", "compression", "bytes sent, of the values'", "read here", "pays on networks below"]
        return "\n\n".join([intro, markdown(head, rows)])


def pays_below(plain: Form, form: Form) -> str:
    """In bits of the network a second."""
    saved, longer = plain.wire_bytes - form.wire_bytes, form.seconds - plain.seconds
    if form is plain or saved <= 0:
        return "" if form is plain else "never"
    return f"{saved * 8 / longer / 1e9:.1f} Gbit/s" if longer > 0 else "always"


def run(files: dict[str, tuple[Case, Path]]) -> Wire:
    """Measure all forms of a slice of each file."""
    found = Wire()
    for name, (case, path) in files.items():
        found.forms += measured(name, case, path)
    return found


def measured(name: str, case: Case, path: Path) -> list[Form]:
    """One file; the forms take turns."""
    (part,) = bulk(case, np.random.default_rng(1))
    text = ", ".join(f"{axis.start}:{axis.stop}" for axis in part)
    nbytes = case.row_bytes * (part[0].stop - part[0].start)
    seconds: dict[str | None, list[float]] = {None: [], "lz4": [], "zstd": []}
    sizes: dict[str | None, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), {"lab": path.parent}).start()
        try:
            server.command("register", str(path), "--animal", "a", "--experiment", "e", check=True)
            connection = Connection(server.url)
            for at in range(REPEATS + 2):
                for compression, times in seconds.items():
                    request = wire.GetData("a", "e", "data", text, compression=compression)
                    before, began = received(server), time.perf_counter()
                    with connection.stream(request) as reader:
                        for _ in reader:
                            pass
                    if at >= 2:  # The first reads fill the cache.
                        times.append(time.perf_counter() - began)
                    sizes[compression] = received(server) - before
        finally:
            server.stop()
    return [Form(name, form, sizes[form], statistics.median(times), nbytes) for form, times in seconds.items()]


def received(server: Server) -> int:
    """Bytes of batches that the server has sent."""
    with urllib.request.urlopen(f"{server.http_url}/metrics") as page:
        lines = page.read().decode().splitlines()
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith("h5flight_sent_bytes_total"))
