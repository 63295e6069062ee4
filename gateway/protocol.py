"""uvicorn's HTTP protocol with a bound on headers, which httptools does not have, and a way to abort an answer."""

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES: Final = 65_536
_ANSWER: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/problem+json\r\nconnection: close\r\n\r\n"
    b'{"type":"urn:tillstream:problem:headers_too_large","title":"headers too large","status":431,'
    b'"detail":"headers may have 65536 bytes together","code":"headers_too_large","retriable":false}'
)


class BoundedHeaders(HttpToolsProtocol):
    """Closes a connection whose request headers pass the bound (RFC 6585, section 5).

    The extension `tillstream.abort` drops the connection at once, so that an answer cut short does not look complete.
    """

    _in_headers = True
    _header_bytes = 0

    def on_message_begin(self) -> None:
        self._in_headers, self._header_bytes = True, 0
        super().on_message_begin()
        self.scope["extensions"] = {"tillstream.abort": {"abort": self._abort}}

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

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abort()

    def _refuse(self) -> None:
        transport: Any = self.transport
        if not transport.is_closing():
            transport.write(_ANSWER)
            transport.close()
