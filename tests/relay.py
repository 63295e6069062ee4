"""A TCP relay before a real server, by which a test makes it vanish, come back and be slow."""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from deploy.broker import HOST, free_port


class Relay:
    """`up()` and `down()`, as often as wanted; `url` is the server's, through the relay."""

    def __init__(self, server_url: str) -> None:
        url = urlsplit(server_url)
        self._target = (url.hostname, url.port)
        self.port = free_port()
        self.url = urlunsplit(url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@{HOST}:{self.port}"))
        self.delay_s = 0.0
        """How long each piece of an answer is kept back."""
        self._listener: socket.socket | None = None
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.down()

    def up(self) -> None:
        """Take connections."""
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and break those that there are."""
        if self._listener is not None:
            _close(self._listener)
            self._listener = None
        for one in self._sockets:
            _close(one)
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                inside, _ = listener.accept()
                outside = socket.create_connection(self._target)
                self._sockets += [inside, outside]
                for here, there in ((inside, outside), (outside, inside)):
                    threading.Thread(target=self._pass_on, args=[here, there, here is outside], daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := here.recv(65_536):
                if answers:
                    time.sleep(self.delay_s)
                there.sendall(data)
        _close(here)
        _close(there)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
