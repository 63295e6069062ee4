"""Lag where there is none: behind the last message of a quiet partition lie a transaction's markers."""

import threading
import time

import httpx
from pipeline import Pipeline, eventually
from test_end_to_end import order

TENANTS = 'tillstream_lag_messages{partition="0",topic="tenants"}'


def test_markers_are_no_lag_though_others_messages_never_stop(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", "sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    stopped = threading.Event()

    def send() -> None:
        for n in range(100_000):
            if stopped.is_set():
                return
            own_pipeline.post(tenant, key, "orders", order(n))

    def lag() -> float:
        told = httpx.get(own_pipeline.urls["sinks"]).text
        return next(float(line.split()[-1]) for line in told.splitlines() if line.startswith(TENANTS))

    traffic = [threading.Thread(target=send) for _ in range(4)]
    for thread in traffic:
        thread.start()
    try:
        for name in ("Other", "Third"):
            admin = {"Authorization": f"Bearer {own_pipeline.settings.admin_token}"}
            changed = own_pipeline.http.patch(f"/api/v1/admin/tenants/{tenant}", json={"name": name}, headers=admin)
            assert changed.status_code == 200  # it was a transaction, with its marker
            eventually(lambda name=name: own_pipeline.sql("SELECT name FROM tenants") == [(name,)])
            time.sleep(3)  # the lag is told once a second
            eventually(lambda: lag() == 0, within=10)
    finally:
        stopped.set()
        for thread in traffic:
            thread.join()
