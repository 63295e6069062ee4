"""The OpenAPI document and Swagger UI, whose files come from a package: a browser asks no other host for anything."""

import hashlib
import mimetypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.problems import Problem

DOCUMENT: Final = "/api/schema/openapi.json"
SWAGGER_UI: Final = "/api/schema/swagger-ui/"
FILES: Final = ("initializer.js", "page.css", "swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
"""All that the page loads; the package has more, such as an editor, which nobody needs here."""
_OURS: Final = Path(__file__).parent / "swagger_ui"
PAGE_HEADERS: Final = {
    # Scripts may set an element's style without 'unsafe-inline'; Swagger UI's icons are data: URLs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Static:
    """Bytes that stay as they are while the process runs, and the ETag by which a client need not load them again."""

    def __init__(self, body: bytes, media_type: str, headers: dict[str, str]) -> None:
        self._body, self._media_type = body, media_type
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._headers = {**headers, "ETag": self._etag, "Cache-Control": "public, max-age=300"}

    def answer(self, request: Request) -> Response:
        """200, or 304 where If-None-Match names what the client has (RFC 9110, section 13.1.2)."""
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if known & {self._etag, "*"}:
            return Response(status_code=304, headers=self._headers)
        return Response(self._body, headers=self._headers, media_type=self._media_type)


def static_document(document: dict[str, Any]) -> Static:
    """The OpenAPI document, encoded once."""
    return Static(msgspec.json.encode(document), "application/json", {})


async def openapi_document(request: Request) -> Response:
    """Load this document."""
    document: Static = request.state.document
    return document.answer(request)


async def swagger_ui(request: Request) -> Response:
    """Show this document as a page where requests can be tried (Swagger UI)."""
    return _file("index.html").answer(request)


async def swagger_ui_file(request: Request) -> Response:
    """Load a file of the page."""
    name = request.path_params["file"]
    if name not in FILES:
        raise Problem(404, "not_found", "there is nothing at this path")
    return _file(name).answer(request)


async def to_swagger_ui(request: Request) -> Response:
    """The page's relative links need its trailing slash."""
    return RedirectResponse("swagger-ui/", 308)


@cache
def _file(name: str) -> Static:
    """A file of ours, or of the package."""
    ours = _OURS / name
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Static((ours if ours.exists() else _theirs() / name).read_bytes(), media_type, PAGE_HEADERS)


def _theirs() -> Path:
    """Where the package keeps Swagger UI; it is not imported, since all else in it would be, too."""
    spec = find_spec("swagger_ui")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "static"
