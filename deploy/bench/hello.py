"""The limit of every request: a bare Starlette app under the gateway's server. `python -m deploy.bench.hello PORT`."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


async def hello(request: Request) -> Response:
    """Answer without a look at the request."""
    return PlainTextResponse("hello\n")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/", hello, methods=["GET", "POST"])])
    port = int(sys.argv[1])
    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", access_log=False, log_config=None,
        server_header=False,
    )  # fmt: skip
