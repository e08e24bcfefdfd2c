"""Tables: groups of NWB with a column of names, and datasets of records, as Arrow tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from . import wire
from .connection import Connection
from .history import VersionAt
from .retries import repeated
from .units import Around


@dataclass(frozen=True)
class GetTable:
    """A `GetTableRequest`.

    Attributes
    ----------
    animal, experiment, table : str
        What is read.
    columns : sequence of str
        Which columns, in order; none is all.
    where : str
        Which rows; empty is all.
    rows : (int, int) or None
        First row and the one behind the last, before `where` is asked.
    at : VersionAt
        Which version.
    expand : sequence of str
        Regions that are delivered as the rows of their table.
    compression : str or None
        Of batches on the wire: None, ``lz4`` or ``zstd``.
    event_lists : (str, Around) or None
        Rows times events: a column of lists, and around what.
    """

    animal: str
    experiment: str
    table: str
    columns: Sequence[str] = ()
    where: str = ""
    rows: tuple[int, int] | None = None
    at: VersionAt = field(default_factory=VersionAt)
    expand: Sequence[str] = ()
    compression: str | None = None
    event_lists: tuple[str, Around] | None = None

    def encode(self) -> bytes:
        """Encode the message itself."""
        names = wire.text(1, self.animal) + wire.text(2, self.experiment) + wire.text(3, self.table)
        columns = b"".join(wire.block(4, name.encode()) for name in self.columns)
        rows = b""
        if self.rows is not None:
            rows = wire.block(6, wire.number(1, self.rows[0]) + wire.number(2, self.rows[1]))
        at = wire.version_selector(self.at.version, self.at.as_of_us, self.at.tag)
        expand = b"".join(wire.block(8, name.encode()) for name in self.expand)
        how = wire.number(10, wire.COMPRESSIONS[self.compression])
        lists = b""
        if self.event_lists is not None:
            column, around = self.event_lists
            lists = wire.block(11, wire.text(1, column) + wire.block(2, around.encode()))
        at = wire.block(7, at) if at else b""
        return names + columns + wire.text(5, self.where) + rows + at + expand + how + lists

    def ticket(self) -> bytes:
        """Encode the message in a `google.protobuf.Any`, which is what a Flight ticket or command carries."""
        return wire.text(1, wire.GET_TABLE_TYPE_URL) + wire.block(2, self.encode())


def read_table(connection: Connection, request: GetTable) -> pa.Table:
    """Read a table whole; it begins anew where the connection breaks."""

    def read() -> pa.Table:
        with connection.stream(request) as reader:
            return reader.read_all()

    return repeated(read)
