"""A proxy that cuts connections after so many bytes, as networks do."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class CuttingProxy:
    """Forwards connections to a server, and ends the first few in the middle.

    Parameters
    ----------
    url : str
        Of the server.
    cuts : int
        How many connections are cut.
    after_bytes : int
        Bytes from the server after which each of them is.
    """

    def __init__(self, url: str, cuts: int, after_bytes: int) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self.cuts_left, self.after_bytes, self.connections, self.bytes = cuts, after_bytes, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"grpc://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self.connections += 1
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        here = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
                here += len(data)
                self.bytes += len(data)
                if self.cuts_left and here >= self.after_bytes:
                    self.cuts_left -= 1
                    break
        for side in (client, server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()
