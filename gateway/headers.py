"""Request headers by name. Starlette's own lookup encodes the name and goes through three calls, eight times a request."""

from starlette.requests import Request


def header(request: Request, name: bytes, default: str = "") -> str:
    """The first value of a header, `name` in lower case; `default` where there is none."""
    for key, value in request.scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return default
