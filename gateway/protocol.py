"""uvicorn's HTTP protocol with a bound on headers, which httptools does not have, and a way to abort an answer."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.problems import ProblemDetails

MAX_HEADER_BYTES: Final = 65_536


def _answer(status_line: bytes, problem: ProblemDetails) -> bytes:
    body = msgspec.json.encode(problem)
    length = b"content-length: %d" % len(body)
    lines = (status_line, b"content-type: application/problem+json", length, b"connection: close", b"", body)
    return b"\r\n".join(lines)


_TOO_LARGE: Final = _answer(
    b"HTTP/1.1 431 Request Header Fields Too Large",
    ProblemDetails.of(431, "headers_too_large", f"headers may have {MAX_HEADER_BYTES} bytes together", retriable=False),
)
_MALFORMED: Final = _answer(
    b"HTTP/1.1 400 Bad Request",
    ProblemDetails.of(400, "malformed_request", "this is not HTTP/1.1; the connection is closed", retriable=False),
)


class BoundedHeaders(HttpToolsProtocol):
    """Closes a connection whose request headers pass the bound (RFC 6585, section 5), or are not HTTP.

    The extension `tillstream.abort` drops the connection at once, so that an answer cut short does not look complete.
    What `tillstream.closing` was told to call is called when the gateway is told to stop: an answer without an end then
    has to find one.
    """

    _in_headers = True
    _header_bytes = 0
    _closing: list[Callable[[], object]] = []  # noqa: RUF012

    def on_message_begin(self) -> None:
        self._in_headers, self._header_bytes = True, 0
        super().on_message_begin()
        self._closing = []
        self.scope["extensions"] = {
            "tillstream.abort": {"abort": self._abort},
            "tillstream.closing": {"call": self._closing.append},
        }

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._header_bytes + sum(len(name) + len(value) for name, value in self.headers) <= MAX_HEADER_BYTES:
            super().on_headers_complete()
        else:
            self._refuse()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, but a problem like every other error."""
        self.transport.write(_MALFORMED)
        self.transport.close()

    def shutdown(self) -> None:
        """As uvicorn's, which waits for answers that are under way."""
        for call in self._closing:
            call()
        super().shutdown()

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abort()

    def _refuse(self) -> None:
        transport: Any = self.transport
        if not transport.is_closing():
            transport.write(_TOO_LARGE)
            transport.close()
