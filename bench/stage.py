"""The servers and clients of a run, and how one pass over slices is carried out. What is read lives elsewhere."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import h5py

from crew import Crew, Order, Timing
from peers import Peer, Recipe, Redis, Server, Slice, Where, cpu_s, h5flight
from workloads import Result, rows_of_bulk

FROM_MEMORY = ("redis", "memory", "hot")
"""Peers of whom no read is a first one."""


class Stage:
    """What a whole run shares; all of it ends with the run.

    Parameters
    ----------
    files : Path
        Folder of the files.
    """

    def __init__(self, files: Path) -> None:
        with ExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="h5flight-bench-")))
            self.redis = Redis(folder)
            ends.callback(self.redis.kill)
            self.server = Server(folder / "server", {"bench": files.resolve()})
            ends.callback(self.server.stop)
            self._ends = ends.pop_all()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()


class Scene:
    """One workload, with its clients and the other servers that it is measured against.

    Parameters
    ----------
    stage : Stage
        What the run shares.
    result : Result
        Of the workload.
    path : Path
        The file that is read.
    """

    def __init__(self, stage: Stage, result: Result, path: Path) -> None:
        self.path = path
        self._stage = stage
        with ExitStack() as ends:
            # Each peer has clients of its own: how fast a process gets memory depends on what it did before.
            self._crews = {peer: ends.enter_context(Crew(result.workload.clients)) for peer in result.workload.peers}
            self._peers: dict[str, Peer] = {}
            for kind, arguments in (("naive", ()), ("memory", (rows_of_bulk(result.case),))):
                if kind in result.workload.peers:
                    self._peers[kind] = Peer(kind, path, *arguments)
                    ends.callback(self._peers[kind].stop)
            self._ends = ends.pop_all()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def begin(self) -> None:
        """Start h5flight anew, with the file in the page cache."""
        with self.path.open("rb") as file:
            while file.read(64 << 20):
                pass
        self._stage.server.stop()
        self._stage.server.start()
        with h5flight.connect(self._stage.server.url) as client:
            client.register(self.path.resolve(), animal="bench", experiment=self.path.stem)

    def keep(self, slices: list[Slice]) -> None:
        """Put slices into Redis, as the recipe does when it has read them once."""
        recipe = Recipe(str(self._stage.redis.port))
        with h5py.File(self.path) as file:
            for key in slices:
                recipe[key] = file["data"][key]
        recipe.close()

    def where(self, peer: str) -> Where:
        """How a peer is read."""
        if peer == "h5py":
            return "h5py", str(self.path)
        if peer == "redis":
            return "redis", str(self._stage.redis.port)
        if peer in self._peers:
            return "arrow", self._peers[peer].url
        return "h5flight", self._stage.server.url, self.path.stem

    def read(self, peer: str, slices: list[list[Slice]]) -> Timing:
        """Read the slices of all clients; what comes from memory is read once before."""
        where = self.where(peer)
        self._crews[peer].ready([Order(where, each, each if peer in FROM_MEMORY else []) for each in slices])
        # The clients of h5py have no server: what they take is their own.
        pid = self._peers[peer].pid if peer in self._peers else self._stage.server.pid
        before = cpu_s(pid)
        timing = self._crews[peer].read()
        timing.cpu_s = cpu_s(pid) - before
        return timing

    def peak_bytes(self) -> int:
        """The most memory that h5flight had in this round."""
        return self._stage.server.peak_bytes()
