"""Runs the streams worker until SIGTERM or SIGINT: `python -m streams`, or `tillstream streams`."""

import logging
import sys

import mode.loop

from producers import admin
from schemas import logs, metrics, tracing
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings


def main() -> None:
    """Verify the topics, then run the app. Exits 2 when the topics do not fit."""
    settings = Settings.from_env()
    logs.setup(settings)
    mode.loop.use("uvloop")
    import prometheus_client

    from streams.app import create_app  # after the event loop's policy is set
    from streams.faust_app import Worker

    try:
        tracing.setup("streams")
        partitions = admin.verify(settings)
    except (Misconfigured, Unavailable) as exc:
        print(f"tillstream streams: {exc}", file=sys.stderr)  # noqa: T201
        sys.exit(2 if isinstance(exc, Misconfigured) else 75)
    if settings.metrics_port:
        prometheus_client.start_http_server(settings.metrics_port, settings.metrics_host)
    metrics.of_role("streams")
    app = create_app(settings, partitions)
    worker = Worker(app, override_logging=False, redirect_stdouts=False, quiet=True)
    worker.spinner = None  # it would write escape codes between the lines of the log
    # Faust is talkative: what it reports at INFO is of use only to those who debug Faust.
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.WARNING)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
