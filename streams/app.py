"""The streams app: every agent and table, and what is forgotten in time."""

import time
from typing import Final

from schemas.settings import Settings
from streams import dedup, ingestion, lag, movements, verdicts
from streams.faust_app import App, new_app

_SWEEP_S: Final = 600.0


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
                for key in [key for key, value in view.items() if dedup.expired(value, now_ms)]:
                    view.forget(key)

    return app
