"""The streams app: every agent and table, what is forgotten in time, and the look whether its sources still are."""

import asyncio
import logging
import time
from typing import Final

from confluent_kafka import KafkaException

from schemas import metrics
from schemas.errors import Misconfigured
from schemas.settings import Settings
from streams import dedup, ingestion, lag, movements, verdicts
from streams.faust_app import App, new_app
from streams.steps import refuse

log = logging.getLogger(__name__)

_SWEEP_S: Final = 600.0
_LOOK_S: Final = 5.0
"""What a source topic that was made again takes in meanwhile is not counted: a restart tells it by its UUID too."""


def create_app(settings: Settings, partitions: int) -> App:
    """The app over topics that have `partitions` partitions each."""
    app = new_app(settings, partitions)
    ingestion.install(app, partitions)
    movements.install(app, partitions)
    verdicts.install(app, partitions)
    lag.install(app)

    @app.timer(_SWEEP_S)
    async def forget_expired() -> None:
        now_ms = time.time_ns() // 1_000_000
        for table in app.forgetful:
            for partition in list(table.data.partitions):
                view = table.partition(partition)
                for key in [key for key, value in view.items() if dedup.expired(key, value, now_ms)]:
                    view.forget(key)

    @app.timer(_LOOK_S)
    async def look_at_sources() -> None:
        try:
            await asyncio.to_thread(app.sources.look)
            metrics.BROKERS_UP.labels("admin").set(1)
        except Misconfigured as exc:
            refuse(exc)
        except KafkaException as exc:
            metrics.BROKERS_UP.labels("admin").set(0)
            log.info("Kafka does not describe the source topics now: %s", exc)

    return app
