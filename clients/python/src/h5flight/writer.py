"""Appending block by block, each exactly once: what a rig uses."""

from __future__ import annotations

import dataclasses
import secrets
from typing import TYPE_CHECKING, Any

from . import wire
from .put import Put, put

if TYPE_CHECKING:
    from .connection import Connection


class Writer:
    """Appends to one dataset, block by block, each exactly once.

    A block goes with the writer's name, a number that counts the blocks, and the row that its first row must become.
    When the answer to a block is lost, the same block is sent again with the same numbers: the server knows it, and
    answers as it did the first time.

    A program that starts again makes a writer anew. It asks the server how many rows there are (`rows`), and whoever
    feeds it goes on from there. Every block that was acknowledged is among them; one that was not is there completely
    or not at all. The name on the wire has a part that is different for each `Writer`: otherwise the first block after
    a restart could be taken for a repetition of the last one before it, and be acknowledged without being kept. What
    was still on its way when the program ended may become visible after `rows` was asked for; the next block then is a
    `ConflictError`, not data in the wrong place: make a writer anew. The same happens when there are two writers.

    Parameters
    ----------
    connection : Connection
        To which server.
    request : wire.PutRequest
        Names, and how chunks are made.
    rows : int
        Rows that are there already.

    Attributes
    ----------
    rows : int
        Rows that are acknowledged: the next block begins at this one.
    last : Put or None
        The answer to the last block.
    """

    def __init__(self, connection: Connection, request: wire.PutRequest, rows: int) -> None:
        self._connection = connection
        self._request = dataclasses.replace(request, writer=f"{request.writer}#{secrets.token_hex(8)}")
        self._sequence = 0
        self.rows = rows
        self.last: Put | None = None

    def append(self, data: Any) -> Put:
        """Append a block; it is durable and visible when this returns.

        When it raises, the block may be called for again: it keeps its number until it is acknowledged. Call it again
        with the same block, or make a writer anew and go on from its `rows`.

        Parameters
        ----------
        data : array_like, pandas.DataFrame, pyarrow.Table
            Rows, see `Client.put`. An iterator is not tried again when the connection breaks.

        Raises
        ------
        ConflictError
            When rows have been appended by somebody else: ``facts`` tells.
        """
        request = dataclasses.replace(self._request, sequence=self._sequence + 1, expected_first_row=self.rows)
        made = put(self._connection, request, data)
        self._sequence += 1
        self.rows, self.last = made.first_row + made.rows, made
        return made

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        # Each block is durable when `append` returns: nothing is left to do.
        return None
