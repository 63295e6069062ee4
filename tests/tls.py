"""TLS before a PostgreSQL whose build has none: it answers SSLRequest, and passes on what comes through."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from deploy.broker import HOST, free_port

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class Tls:
    """`url` is the server's through TLS; `refused` counts those who would not encrypt."""

    def __init__(self, server_url: str, context: ssl.SSLContext) -> None:
        url = urlsplit(server_url)
        self._target, self._context, self._port = (url.hostname, url.port), context, free_port()
        self.url = urlunsplit(url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@{HOST}:{self._port}"))
        self.encrypted = self.refused = 0

    async def start(self) -> None:
        """Take connections."""
        await asyncio.start_server(self._serve, HOST, self._port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(8) != SSL_REQUEST:
                self.refused += 1
                writer.close()
                return
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(self._context)
            self.encrypted += 1
            inside, outside = await asyncio.open_connection(*self._target)
            await asyncio.gather(_pass_on(reader, outside), _pass_on(inside, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextmanager
def encrypted(server_url: str, context: ssl.SSLContext) -> Iterator[Tls]:
    """A running one."""
    tls, loop = Tls(server_url, context), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(tls.start(), loop).result(5)
    yield tls
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
