"""Partitions change hands while a message waits for the schema registry: nothing is lost, nothing counted twice."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from apicurio import Apicurio, apicurio
from pipeline import Pipeline, eventually
from relay import Relay
from stock_log import Sender, assert_as_the_model, settled
from test_recovery import log_of

from producers.registry import Registry
from schemas import codec, stock, topics
from schemas.codec import Record

ROW: Record = {"line": 0, "product_id": "P", "kind": "received", "quantity": 1}
WAITS = "a message waits for it"


class Place:
    """Workers that reach the registry through a relay, and a producer whose schemas they have not seen."""

    def __init__(self, pipeline: Pipeline, registry: Apicurio, relay: Relay) -> None:
        self.pipeline, self.relay, self._registry = pipeline, relay, registry
        self.sender = Sender(pipeline)

    def unseen(self, messages: int) -> None:
        """So many messages of each tenant, each under an id that nobody has asked for yet."""
        subject, _, text = codec.newest(stock.MOVEMENTS)
        for n in range(messages * len(self.sender.tenants)):
            tenant_id = self.sender.tenants[n % len(self.sender.tenants)]
            token = secrets.token_hex(4)
            schema_id = self._registry.register(f"{subject}-{token}", json.dumps(json.loads(text) | {"doc": token}))
            value = codec.encode(stock.MOVEMENTS, {"tenant_id": tenant_id, "rows": [ROW]})
            framed = codec.CONFLUENT + schema_id.to_bytes(4, "big") + value[10:]
            self.sender.send(tenant_id, framed, stock.MOVEMENTS, f"unseen-{token}", 1)
        self.sender.flush()

    def lookups(self) -> int:
        """How often an id was asked for."""
        return self._registry.log().count("/schemas/ids/")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A worker `streams@a` that has folded a little."""
    (folder := tmp_path / "pipeline").mkdir()
    with apicurio(tmp_path) as registry, Relay(registry.url) as relay:
        relay.up()
        with Pipeline(folder, schema_registry_url=relay.url) as pipeline:
            codec.read_ids_with(Registry(registry.url).fingerprint)
            place = Place(pipeline, registry, relay)
            pipeline.start("streams@a")
            place.sender.anything(20)
            settled(pipeline, place.sender.sent)
            yield place
    codec.read_ids_with(None)


def test_workers_that_join_while_messages_wait_for_a_registry_that_is_away(place: Place) -> None:
    place.relay.down()
    place.unseen(3)
    place.sender.anything(20)
    eventually(lambda: WAITS in place.pipeline.log("streams@a"))
    place.pipeline.start("streams@b")
    eventually(lambda: place.pipeline.children["streams@a"].restarts > 0)
    assert "a message still waits for the schema registry; ending this process" in place.pipeline.log("streams@a")
    assert len(log_of(place.pipeline, topics.OUTCOMES)) < place.sender.sent
    place.relay.up()
    assert_as_the_model(place.pipeline, place.sender.sent, within=90)


def test_workers_that_join_while_a_slow_registry_is_asked(place: Place) -> None:
    place.relay.delay_s, asked = 2.0, place.lookups()
    place.unseen(4)
    place.sender.anything(20)
    eventually(lambda: place.lookups() > asked)
    place.pipeline.start("streams@b")
    eventually(lambda: place.pipeline.assigned("streams@b") == 2, within=60)
    assert len(log_of(place.pipeline, topics.OUTCOMES)) < place.sender.sent
    assert_as_the_model(place.pipeline, place.sender.sent, within=90)
