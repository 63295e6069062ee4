"""Runs a gateway until SIGTERM: `python -m gateway`, or `tillstream gateway`."""

import gc
import logging
import signal
import sys
from typing import Final

import uvicorn

from gateway import isolation, same_log
from gateway.app import create_app
from gateway.protocol import BoundedHeaders
from producers import admin
from schemas import logs, metrics, tracing
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings

GRACE_S: Final = 8
"""How long requests that are under way have when it is told to stop."""
IDLE_S: Final = 75
"""After which an idle connection is closed: a proxy before us must be the first (60 s in nginx and AWS)."""
_MIN_SECRET: Final = 32


def main() -> None:
    """Verify the topics, hold them against the database, prove that tenants are isolated, then serve.

    Exits 2 where something must be mended.
    """
    settings = Settings.from_env()
    logs.setup(settings)
    metrics.of_role("gateway")
    try:
        tracing.setup("gateway")
        app = create_app(settings)
        _check(settings)
    except Misconfigured as exc:
        print(f"tillstream gateway: {exc}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    for number in (signal.SIGTERM, signal.SIGINT):  # which uvicorn raises once more when it has drained
        signal.signal(number, lambda *_: None)
    gc.freeze()  # what lives as long as the process need not be looked at again
    gc.set_threshold(50_000, 20, 50)  # rows come and go by thousands and hold no cycles
    uvicorn.run(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        loop="uvloop",
        http=BoundedHeaders,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


def _check(settings: Settings) -> None:
    """Raises Misconfigured. What is away is checked again when it comes back."""
    if len(settings.secret) < _MIN_SECRET:
        raise Misconfigured(
            f"TILLSTREAM_SECRET needs {_MIN_SECRET} characters or more, the same for every gateway."
            " Make one with: openssl rand -hex 32"
        )
    try:
        partitions = admin.verify(settings)
        if settings.reader_database_url:
            same_log.prove(settings, partitions)
    except Unavailable as exc:
        logging.warning("%s; serving 503 until it does", exc)
    try:
        if settings.reader_database_url:
            isolation.prove(settings.reader_database_url)
    except Unavailable as exc:
        logging.warning("%s; reads answer 503 until it does", exc)


if __name__ == "__main__":
    main()
