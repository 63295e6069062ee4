"""The console: a page that shows a tenant its own data, from three files and with no other host.

It holds no data itself: a browser asks the API with the key that was typed, which stays in the page's memory.
"""

import mimetypes
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.problems import Problem
from gateway.schema_pages import PAGE_HEADERS, Static

PAGE: Final = "/console/"
FILES: Final = ("console.js", "console.css")
_FOLDER: Final = Path(__file__).parent / "console_page"


async def console(request: Request) -> Response:
    """Show the console, a page for people."""
    return _file("index.html").answer(request)


async def console_file(request: Request) -> Response:
    """Load a file of the console."""
    name = request.path_params["asset"]
    if name not in FILES:
        raise Problem(404, "not_found", "there is nothing at this path")
    return _file(name).answer(request)


async def to_console(request: Request) -> Response:
    """The page's relative links need its trailing slash."""
    return RedirectResponse("console/", 308)


@cache
def _file(name: str) -> Static:
    return Static((_FOLDER / name).read_bytes(), mimetypes.guess_type(name)[0] or "text/html", PAGE_HEADERS)
