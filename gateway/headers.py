"""Request headers by name: a request asks for eight, and Starlette's own lookup takes three calls for each."""

from starlette.requests import Request


def header(request: Request, name: bytes, default: str = "") -> str:
    """The first value of a header, `name` in lower case; `default` where there is none."""
    for key, value in request.scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return default
