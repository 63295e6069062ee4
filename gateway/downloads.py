"""GET /exports/{id}/file: the file of an export, whole or in ranges (RFC 9110, section 14), with what proves it whole.

Starlette's FileResponse reads ranges and If-Range; here it answers with our problems, and ignores a Range that it does
not understand, as the RFC has it.
"""

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate, parsedate_to_datetime
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from gateway import filters
from gateway.exports import Row, asked_for
from gateway.problems import Problem
from gateway.tenants import authenticated
from producers.export_files import Files
from schemas.exports import file_name

_MEDIA_TYPES: Final = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
GZIP: Final = "application/gzip"


async def download_export(request: Request) -> Response:
    """Load the file of an export that is done.

    Whole, or a range of it: with `If-Range` a download goes on where it was. `Repr-Digest` (RFC 9530) has the SHA-256
    of the whole file, whatever part is sent.
    """
    tenant_id = authenticated(request).tenant_id
    filters.none(request.query_params)
    known = await asked_for(request, tenant_id)
    match known.state:
        case "expired":
            raise Problem(410, "export_expired", "the file has been removed; ask for another export")
        case "cancelled":
            raise Problem(410, "export_cancelled", "the export was cancelled; ask for another")
        case "failed":
            raise Problem(409, "export_failed", f"there is no file: {known.reason}")
        case "queued" | "running":
            raise Problem(409, "export_not_done", "the file is not written yet; GET on the export says how far it is")
    assert isinstance(known, Row)
    name = file_name(tenant_id, str(known.export_id), known.attempt, known.format, gzip=known.gzip)
    found = await _stat(request.state.files, name, known.bytes or 0)
    etag, changed = f'"{known.sha256}"', int(found.st_mtime)
    headers = {
        "ETag": etag,
        "Last-Modified": formatdate(changed, usegmt=True),
        "Cache-Control": "private, no-cache",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(known.sha256 or '')).decode()}:",
    }
    if _is_other(request.headers, etag, changed):
        raise Problem(
            412, "other_file", f"the file is {etag} of {headers['Last-Modified']}, and none that is asked for"
        )
    if _is_known(request.headers, etag, changed):
        return Response(status_code=304, headers=headers)
    return Download(request.state.files, name, found, known, headers)


async def _stat(files: Files, name: str, size: int) -> os.stat_result:
    """Raises Problem: 410 where the file is not there, or another; 503 where the store cannot say."""
    try:
        found = await files.stat(name)
    except FileNotFoundError as exc:
        detail = "the file is not in its store any more: somebody removed it; ask for another export"
        raise Problem(410, "file_gone", detail) from exc
    except OSError as exc:
        detail = "the store of files (TILLSTREAM_EXPORTS_URL) cannot be read; sinks and gateways share one"
        raise Problem(503, "file_unavailable", detail, retry_after=30) from exc
    if found.st_size != size:
        raise Problem(410, "file_gone", "the file in its store is another than was written; ask for another export")
    return found


class Download(FileResponse):
    """A file, or ranges of it. Raises Problem 416."""

    def __init__(self, files: Files, name: str, found: os.stat_result, known: Row, headers: dict[str, str]) -> None:
        self._files = files
        day = known.requested_at.strftime("%Y-%m-%d")
        suffix = f"{known.format}{'.gz' if known.gzip else ''}"
        super().__init__(
            name,
            headers=headers,
            media_type=GZIP if known.gzip else _MEDIA_TYPES[known.format],
            filename=f"{known.entity}-{day}-{str(known.export_id)[:8]}.{suffix}",
            stat_result=found,
        )

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[Any]:  # the one place where FileResponse opens what it sends
        async with self._files.open(str(self.path)) as file:
            yield file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def judged(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                raise _BadRange(message["status"])
            await send(message)

        if scope["method"] == "HEAD":  # a range is something of GET alone (RFC 9110, section 14.2)
            scope = _whole(scope)
        try:
            await super().__call__(scope, receive, judged)
        except _BadRange as exc:
            if exc.status == 416:
                size = self.headers["content-length"]
                detail = f"the file has {size} bytes, and no such range"
                raise Problem(
                    416, "range_not_satisfiable", detail, headers={"Content-Range": f"bytes */{size}"}
                ) from exc
            await super().__call__(_whole(scope), receive, send)

    @classmethod
    def _parse_ranges(cls, range_: str, file_size: int) -> list[tuple[int, int]]:
        """Of several ranges those that there are: one is enough (RFC 9110, section 15.5.17)."""
        ranges = super()._parse_ranges(range_, file_size)
        return [(start, end) for start, end in ranges if start < file_size] or ranges


def _whole(scope: Scope) -> Scope:
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}


class _BadRange(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _is_other(headers: Headers, etag: str, changed: int) -> bool:
    """Whether the client wants another file than this (RFC 9110, sections 13.1.1 and 13.1.4)."""
    if (tags := headers.get("if-match")) is not None:
        return not {"*", etag} & _tags(tags)
    since = _unix_s(headers.get("if-unmodified-since"))
    return since is not None and changed > since


def _is_known(headers: Headers, etag: str, changed: int) -> bool:
    """Whether the client has this file (RFC 9110, sections 13.1.2 and 13.1.3)."""
    if (tags := headers.get("if-none-match")) is not None:
        return bool({"*", etag} & {tag.removeprefix("W/") for tag in _tags(tags)})
    since = _unix_s(headers.get("if-modified-since"))
    return since is not None and changed <= since


def _tags(header: str) -> set[str]:
    return {tag.strip() for tag in header.split(",")}


def _unix_s(date: str | None) -> float | None:
    """An HTTP date; None where it is none, which is ignored."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None
