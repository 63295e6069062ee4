"""More gateways on a pipeline's Kafka, each a process of its own, and the admin API as a client sees it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from pipeline import Pipeline

from deploy.broker import HOST, free_port
from deploy.stack import wait_until
from deploy.supervisor import Child

ADMIN = "/api/v1/admin/tenants"
PRODUCT = {"product_id": "P-1", "name": "A product", "price": "12.50"}


@contextmanager
def gateway(pipeline: Pipeline, log: Path, ready: str = "readyz", **overrides: Any) -> Iterator[httpx.Client]:
    """A running gateway with some settings changed, as a client that bears the admin token."""
    settings = replace(pipeline.settings, gateway_port=free_port(), **overrides)
    url = f"http://{HOST}:{settings.gateway_port}"
    child = Child("gateway", lambda: [sys.executable, "-m", "gateway"], log, env=settings.env())
    child.start()
    try:
        wait_until(child, f"{url}/{ready}", 60)
        headers = {"Authorization": f"Bearer {settings.admin_token}"} if settings.admin_token else {}
        with httpx.Client(base_url=url, timeout=30, headers=headers) as client:
            yield client
    finally:
        child.stop()


def send(client: httpx.Client, tenant: str, key: str, row: Any = PRODUCT, entity: str = "products") -> httpx.Response:
    """One event, as one JSON object."""
    return client.post(
        f"/api/v1/tenants/{tenant}/ingest/{entity}", json=row, headers={"Authorization": f"Bearer {key}"}
    )
