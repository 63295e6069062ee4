"""Runs a sink until SIGTERM: `python -m sinks`, or `tillstream sinks`."""

import argparse
import contextlib
import gc
import logging
import signal
import sys

import prometheus_client

from producers import admin
from schemas import logs, metrics, tracing
from schemas.errors import Misconfigured, TillstreamError, Unavailable
from schemas.settings import Settings
from sinks.connection import Stopped
from sinks.consumer import Sink
from sinks.daily_metrics import Refresher
from sinks.exports.worker import Exports


def main(argv: list[str] | None = None) -> None:
    """Verify the topics, then consume, and beside it count days and write exports.

    Exits 2 when something must be put right first, 75 when a store is away.
    """
    parser = argparse.ArgumentParser("tillstream sinks", description="Topics into PostgreSQL.")
    parser.add_argument("--accept-gap", action="store_true", help="go on past records that the log no longer has")
    options = parser.parse_args(argv)
    settings = Settings.from_env()
    logs.setup(settings)
    if settings.metrics_port:
        prometheus_client.start_http_server(settings.metrics_port, settings.metrics_host)
    metrics.of_role("sinks")
    try:
        tracing.setup("sinks")
        admin.verify(settings)
        sink = Sink(settings, accept_gap=options.accept_gap)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sink.stop())
        gc.freeze()  # what lives as long as the process need not be looked at again
        gc.set_threshold(50_000, 20, 50)  # rows come and go by thousands and hold no cycles
        with contextlib.suppress(Stopped), Refresher(settings, sink.stop), Exports(settings, sink.stop):
            sink.run()
    except Misconfigured as exc:
        logging.getLogger("sinks").critical("%s", exc)
        sys.exit(2)
    except TillstreamError as exc:
        logging.getLogger("sinks").critical("%s; ending, the supervisor restarts", exc)
        sys.exit(75 if isinstance(exc, Unavailable) else 70)


if __name__ == "__main__":
    main()
