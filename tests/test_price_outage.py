"""Live alerts while Kafka is away: who watches is kept waiting, misses nothing, and can come back."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import Pipeline, eventually
from shop import problem
from test_price_http import Trader, to
from test_price_live import Told, missed, slip, watching

from deploy.broker import Broker
from deploy.supervisor import Child
from producers import admin

QUICK = "from gateway import alerts; alerts.HEARTBEAT_S = 0.3"


@pytest.fixture
def kafka(own_pipeline: Pipeline, tmp_path: Path) -> Iterator[Child]:
    """A broker of the test's own, which the pipeline is on."""
    broker = Broker(tmp_path / "kafka")
    child = Child("kafka", broker.command, tmp_path / "kafka.log", stop_within=broker.stop_within)
    child.start()
    try:
        broker.wait_ready(child.alive)
        own_pipeline.settings = replace(
            own_pipeline.settings, kafka_bootstrap_servers=broker.bootstrap_servers, delivery_timeout_s=2.0
        )
        admin.ensure(own_pipeline.settings)
        own_pipeline.start("gateway", "streams", "sinks", patch=QUICK)
        yield child
        own_pipeline.supervisor.stop()
    finally:
        child.stop()


def send_signal(kafka: Child, number: signal.Signals) -> None:
    assert kafka.process is not None
    kafka.process.send_signal(number)


def alerts(stream: Iterator[Told]) -> Iterator[Told]:
    """Without what only says how far the stream is."""
    return (event for event in stream if event[0])


def accepted(trader: Trader, product: str) -> None:
    """A price and its slip, taken as soon as the gateway takes any."""
    for price in (10, 100):
        eventually(lambda price=price: trader.bulk(to(price, product)).status_code == 202, within=60)


@pytest.mark.parametrize("outage", ["killed", "stopped", "frozen"])
def test_a_stream_outlives_kafkas_absence_and_its_reader_can_come_back(
    own_pipeline: Pipeline, kafka: Child, outage: str
) -> None:
    trader = Trader(own_pipeline)
    slip(trader, "P-0")
    with watching(trader) as gone:
        slip(trader, "P-1")
        _, first, _ = next(gone)
    with watching(trader, first) as stream:
        assert next(stream)[0] == ""
        slip(trader, "P-2")
        assert next(alerts(stream))[2]["product_id"] == "P-2"
        if outage == "frozen":
            send_signal(kafka, signal.SIGSTOP)
        elif outage == "killed":
            send_signal(kafka, signal.SIGKILL)
        else:
            kafka.stop()
        eventually(lambda: trader.pipeline.http.get("/readyz").status_code == 503)
        problem(trader.request("GET", "price-alerts/stream", Last_Event_ID=first), 503, "kafka_unavailable")
        waits = [next(stream) for _ in range(5)]  # a keep-alive is due every 0.3 s
        assert {name for name, _, _ in waits} == {""}
        waited = waits[-1][1]
        if outage == "frozen":
            send_signal(kafka, signal.SIGCONT)
        else:
            kafka.start()
        accepted(trader, "P-3")
        _, last, data = next(alerts(stream))
        assert data["product_id"] == "P-3"
    assert missed(trader, first, last) == ["P-2", "P-3"]
    assert missed(trader, waited, last) == ["P-3"]
