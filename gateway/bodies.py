"""Request bodies: read whole, decompressed, never larger than allowed however small they were sent."""

import asyncio
import re
import zlib
from typing import Final

import zstandard
from starlette.requests import ClientDisconnect, Request

from gateway.headers import header
from gateway.problems import Problem
from schemas import metrics
from schemas.settings import Settings

_MAX_ZSTD_WINDOW: Final = 8 * 1024 * 1024
_TENANT_SHARE: Final = 3
"""One tenant may hold a third of the bytes in flight."""
_BODY_S: Final = 60.0
_ROWS: Final = {"", "application/x-ndjson", "application/json"}
_TABLE: Final = re.compile(
    r"text/(csv|tab-separated-values|xml|html)|multipart/.*|application/(csv|xml|.*(excel|sheet).*)"
)
_FORM: Final = "application/x-www-form-urlencoded"
_PAIR: Final = re.compile(rb"[\w.%+\[\]-]+=")


class Inflight:
    """Bytes of the bodies that one gateway holds at a time; above a bound it answers 503 instead of queueing.

    A tenant may hold a part of it only, so that one with slow or many clients does not shut out the others.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tenant_limit = limit // _TENANT_SHARE
        self._held: dict[str, int] = {}
        self._total = 0
        metrics.INFLIGHT_BYTES.set_function(lambda: self._total)

    def take(self, tenant_id: str, size: int) -> None:
        """Count bytes in; raises Problem 503."""
        held = self._held.get(tenant_id, 0) + size
        if self._total + size > self._limit or held > self._tenant_limit:
            raise Problem(503, "overloaded", "too many bytes are being taken in right now", retry_after=1)
        self._held[tenant_id] = held
        self._total += size

    def give_back(self, tenant_id: str, size: int) -> None:
        """Count bytes out."""
        self._total -= size
        if left := self._held.get(tenant_id, 0) - size:
            self._held[tenant_id] = left
        else:
            self._held.pop(tenant_id, None)


async def read(request: Request, tenant_id: str, settings: Settings, inflight: Inflight) -> bytes:
    """The decompressed body. Its bytes count as in flight until the caller gives back its length.

    Raises Problem: 400 for a broken encoding, 408 when it comes too slowly, 413 when too large, 415 for an unknown
    encoding, 503 when overloaded.
    """
    try:
        async with asyncio.timeout(_BODY_S):
            return await _read(request, tenant_id, settings, inflight)
    except TimeoutError as exc:
        detail = f"a body has {_BODY_S:.0f} s to arrive; send smaller chunks"
        raise Problem(408, "body_too_slow", detail, retry_after=1) from exc


def must_be_rows(request: Request, raw: bytes) -> None:
    """Raises Problem 415 for what is surely neither NDJSON nor JSON. Other types pass: curl names a form by itself."""
    type_ = header(request, b"content-type").partition(";")[0].strip().lower()
    if type_ in _ROWS:
        return
    if _TABLE.fullmatch(type_) or (type_ == _FORM and _PAIR.match(raw)):
        detail = f"{type_[:100]} is not read here: send one JSON object a line as application/x-ndjson, or one as"
        hint = "'tillstream ingest FILE' sends CSV files"
        raise Problem(415, "unknown_media_type", f"{detail} application/json; {hint}")


async def _read(request: Request, tenant_id: str, settings: Settings, inflight: Inflight) -> bytes:
    limit = settings.max_body_bytes
    declared = header(request, b"content-length")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    encoding = header(request, b"content-encoding", "identity").strip().lower()
    decoder = _decoder(encoding)
    parts: list[bytes] = []
    size = received = 0
    try:
        async for chunk in request.stream():
            if not chunk:
                continue
            received += len(chunk)
            if received > limit:  # padding and empty members decompress to nothing, for ever
                raise _too_large(limit)
            plain = decoder.feed(chunk, limit - size + 1)
            inflight.take(tenant_id, len(plain))
            size += len(plain)
            parts.append(plain)
            if size > limit:
                raise _too_large(limit)
        if not decoder.finished:
            raise Problem(400, "broken_encoding", f"the {encoding} body ends early; send it again whole")
    except (zlib.error, zstandard.ZstdError) as exc:
        inflight.give_back(tenant_id, size)
        raise Problem(400, "broken_encoding", f"the body is not valid {encoding}: {exc}") from exc
    except (Problem, ClientDisconnect, asyncio.CancelledError):
        inflight.give_back(tenant_id, size)
        raise
    return b"".join(parts)


def _too_large(limit: int) -> Problem:
    return Problem(413, "body_too_large", f"a body may have {limit} bytes after decompression; send smaller chunks")


class _Identity:
    finished = True

    def feed(self, chunk: bytes, room: int) -> bytes:
        return chunk


class _Gzip:
    """RFC 1952, several members included; `feed` yields at most `room` bytes, which is one more than allowed."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    @property
    def finished(self) -> bool:
        return self._stream.eof

    def feed(self, chunk: bytes, room: int) -> bytes:
        out = b""
        while chunk and len(out) < room:
            if self._stream.eof:
                chunk = chunk.lstrip(b"\0")  # padding after a member
                if not chunk:
                    break
                self._stream = zlib.decompressobj(wbits=31)
            out += self._stream.decompress(chunk, room - len(out))
            chunk = self._stream.unused_data
        return out


class _Zstd:
    """RFC 8878, several frames included. The window is bounded, so that a frame cannot ask for gigabytes."""

    def __init__(self) -> None:
        self._frames = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
        self._stream = self._frames.decompressobj()

    @property
    def finished(self) -> bool:
        return bool(self._stream.eof)

    def feed(self, chunk: bytes, room: int) -> bytes:
        # A block of zstd holds 128 KB at most, and 3 bytes can make one: small pieces bound what comes at once.
        out = b""
        for start in range(0, len(chunk), 256):
            piece = chunk[start : start + 256]
            while piece and len(out) < room:
                if self._stream.eof:
                    self._stream = self._frames.decompressobj()
                out += self._stream.decompress(piece)
                piece = self._stream.unused_data
        return out


def _decoder(encoding: str) -> _Identity | _Gzip | _Zstd:
    match encoding:
        case "identity" | "":
            return _Identity()
        case "gzip" | "x-gzip":
            return _Gzip()
        case "zstd":
            return _Zstd()
    raise Problem(415, "unknown_encoding", f"Content-Encoding {encoding!r} is not read; send gzip, zstd or none")
