"""A real Prometheus scrapes the stack under load: every panel has data, every rule is sound."""

import json
import math
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
from pipeline import Pipeline, eventually
from prometheus import Prometheus, program, promtool, running

from deploy import scrape
from deploy.dashboards.__main__ import ALL
from producers.client import config
from schemas import topics

RULES = Path(scrape.RULES)
_CHOSEN = {"$tenant": ".*", "$__rate_interval": "10s", "$__range": "5m"}
"""What Grafana puts in the place of its variables."""


def test_every_panel_has_data(own_pipeline: Pipeline, tmp_path: Path) -> None:
    program("prometheus")
    own_pipeline.start("streams", "sinks", "gateway")
    urls = {role: url.replace("readyz", "metrics") for role, url in own_pipeline.urls.items()}
    settings = scrape.write(tmp_path, urls, own_pipeline.settings.admin_token, interval="1s")
    promtool("check", "config", str(settings), folder=tmp_path)
    with running(settings, tmp_path) as prometheus, load(own_pipeline):
        eventually(lambda: sorted(prometheus.values('up{job="tillstream"}')) == [1, 1, 1])
        queries = {
            f"{dashboard.title}: {panel.title} ({legend})": query
            for dashboard in ALL
            for panel in dashboard.panels()
            for legend, query in panel.queries.items()
        }
        missing: list[str] = []

        def answered() -> bool:
            missing[:] = not_answered(prometheus, queries)
            return not missing

        eventually(answered, within=90)
        for dashboard in ALL:
            for name, query in dashboard.variables.items():
                metric, label = query.removeprefix("label_values(").removesuffix(")").split(", ")
                assert prometheus.get(f"/label/{label}/values", **{"match[]": metric}), name
        [group] = prometheus.get("/rules")["groups"]
        eventually(lambda: {rule["health"] for rule in prometheus.get("/rules")["groups"][0]["rules"]} == {"ok"}, 40)
        assert len(group["rules"]) == len(alerts())


def not_answered(prometheus: Prometheus, queries: dict[str, str]) -> list[str]:
    """Where there is no number yet."""
    missing = []
    for name, query in queries.items():
        for variable, value in _CHOSEN.items():
            query = query.replace(variable, value)
        if all(math.isnan(value) for value in prometheus.values(query)):
            missing.append(f"{name}: {query}")
    return missing


@contextmanager
def load(pipeline: Pipeline) -> Iterator[None]:
    """Rows, movements, prices and reads, good and bad, until the block ends."""
    stop, failed = threading.Event(), []

    def send() -> None:
        try:
            for n in range(10_000):
                if stop.wait(0.2):
                    return
                _send(pipeline, tenant, key, n)
        except Exception as exc:  # whatever it is, the test must hear of it
            failed.append(exc)

    tenant, key = pipeline.tenant()
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()
    assert not failed, failed


def _send(pipeline: Pipeline, tenant: str, key: str, n: int) -> None:
    path, headers = f"/api/v1/tenants/{tenant}", {"X-API-Key": key}
    order = {"currency": "EUR", "order_status": "paid", "order_date": "2026-01-31T12:00:00Z"}
    orders = [order | {"external_order_id": f"A-{n}-{m}", "total_amount": f"{m}.50"} for m in range(20)]
    bad = order | {"external_order_id": "bad", "total_amount": "-1"}
    prices = [{"product_id": f"P-{m}", "new_price": f"{100 + n % 2 * 200}", "currency": "EUR"} for m in range(30)]
    name = str(uuid.uuid4())
    for _ in range(2):  # the second time it is known
        pipeline.post(tenant, key, "orders", ndjson([*orders, bad]), Idempotency_Key=name)
    for where, lines in (
        ("/stock-events", [{"product_id": f"P-{m}", "kind": "received", "quantity": m + 1} for m in range(30)]),
        ("/stock-events", [{"product_id": "P-0", "kind": "sold", "quantity": 1_000_000}]),
        ("/price-events", prices),
    ):
        assert pipeline.http.post(path + where, content=ndjson(lines), headers=headers).status_code == 202, where
    pipeline.http.post(
        f"{path}/products/P-0/price-event", json={"new_price": "5.00", "currency": "EUR"}, headers=headers
    )
    pipeline.http.get(f"{path}/orders", headers=headers)
    undecodable = confluent_kafka.Producer(config(pipeline.settings))
    undecodable.produce(pipeline.settings.named(topics.INGESTION), b"?", topics.partition_key(tenant))
    assert undecodable.flush(10) == 0


def ndjson(lines: list[dict[str, object]]) -> bytes:
    return "\n".join(map(json.dumps, lines)).encode()


def alerts() -> set[str]:
    """The alerts that there are."""
    lines = map(str.strip, RULES.read_text().splitlines())
    return {line.removeprefix("- alert: ") for line in lines if line.startswith("- alert: ")}


def test_rules_are_sound_and_fire_when_they_should() -> None:
    said = promtool("check", "rules", RULES.name, folder=RULES.parent)
    assert f"{len(alerts())} rules found" in said
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml", folder=RULES.parent)
