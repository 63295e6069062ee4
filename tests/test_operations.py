"""Stopping on request, and a database that is away while rows go on coming."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import psutil
from pipeline import Pipeline, eventually
from relay import Relay
from test_end_to_end import order

ROWS = 500
_STOPS_WITHIN_S = 10.0
_AWAY_S = 15.0
_GROWTH = 60_000_000
"""Bytes that a process may grow by while nothing leaves it: queues of its clients, which are bounded."""


class Load(threading.Thread):
    """Posts bodies one after another, each under its own key and again until it is accepted."""

    def __init__(self, pipeline: Pipeline, tenant: str, key: str) -> None:
        super().__init__(daemon=True)
        self._pipeline, self._tenant, self._key = pipeline, tenant, key
        self.accepted, self.stopping = 0, threading.Event()
        self.refusals = 0

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            body = b"".join(order(number * ROWS + n) for n in range(ROWS))
            try:
                answer = self._pipeline.post(self._tenant, self._key, "orders", body, Idempotency_Key=f"load-{number}")
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.status_code == 202:
                self.accepted += ROWS
                number += 1
            else:
                assert answer.json()["retriable"], answer.text
                self.refusals += 1
                time.sleep(0.1)


@contextmanager
def loaded(pipeline: Pipeline) -> Iterator[tuple[str, Load]]:
    """A tenant whose rows come without a break."""
    tenant, key = pipeline.tenant()
    load = Load(pipeline, tenant, key)
    load.start()
    eventually(lambda: load.accepted)
    yield tenant, load
    load.stopping.set()
    load.join()


def test_every_process_stops_when_told_to_with_nothing_lost(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", "sinks", "gateway", restarted=False)
    with loaded(own_pipeline) as (tenant, load):
        for role in ("sinks", "streams", "gateway"):
            before = load.accepted
            eventually(lambda: load.accepted > before)  # noqa: B023
            process = own_pipeline.children[role].process
            assert process is not None
            began = time.monotonic()
            process.terminate()
            assert process.wait(30) == 0, own_pipeline.log(role)
            assert time.monotonic() - began < _STOPS_WITHIN_S, role
            own_pipeline.stop(role)
            own_pipeline.start(role, restarted=False)
    assert own_pipeline.drained().tenants[tenant].outcomes["applied"] == load.accepted
    assert own_pipeline.sql("SELECT count(*) FROM orders WHERE tenant_id = %s", tenant) == [(load.accepted,)]


def test_while_postgresql_is_away_rows_are_accepted_and_no_process_grows(own_pipeline: Pipeline) -> None:
    direct = own_pipeline.settings
    with Relay(direct.database_url) as relay, Relay(direct.reader_database_url) as reads:
        relay.up()
        reads.up()
        own_pipeline.settings = replace(direct, database_url=relay.url, reader_database_url=reads.url)
        own_pipeline.start("streams", "sinks", "gateway")
        own_pipeline.settings = direct
        with loaded(own_pipeline) as (tenant, load):
            eventually(lambda: load.accepted > 20 * ROWS)
            roles = {role: psutil.Process(own_pipeline.children[role].pid) for role in ("streams", "sinks", "gateway")}
            before = {role: process.memory_info().rss for role, process in roles.items()}
            relay.down()
            reads.down()
            accepted = load.accepted
            time.sleep(_AWAY_S)
            assert load.accepted > accepted + 20 * ROWS, "the gateway went on accepting"
            assert load.refusals == 0
            grown = {role: process.memory_info().rss - before[role] for role, process in roles.items()}
            assert max(grown.values()) < _GROWTH, grown
            relay.up()
            reads.up()
        assert own_pipeline.drained(within=90).tenants[tenant].outcomes["applied"] == load.accepted
    assert [own_pipeline.children[role].restarts for role in roles] == [0, 0, 0]


def test_a_sink_that_waits_for_postgresql_stops_and_the_next_one_goes_on(own_pipeline: Pipeline) -> None:
    direct = own_pipeline.settings
    own_pipeline.start("streams", "gateway")
    with Relay(direct.database_url) as relay:
        relay.up()
        own_pipeline.settings = replace(direct, database_url=relay.url)
        own_pipeline.start("sinks", restarted=False)
        own_pipeline.settings = direct
        relay.down()
        tenant, key = own_pipeline.tenant()
        assert own_pipeline.post(tenant, key, "orders", order(1)).status_code == 202
        eventually(lambda: "waiting" in own_pipeline.log("sinks"))
        process = own_pipeline.children["sinks"].process
        assert process is not None
        process.terminate()
        assert process.wait(_STOPS_WITHIN_S) == 0, own_pipeline.log("sinks")
        own_pipeline.stop("sinks")
    own_pipeline.start("sinks")
    assert own_pipeline.drained().tenants[tenant].outcomes["applied"] == 1
