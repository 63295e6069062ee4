import json

from prometheus_client import REGISTRY

from producers import statistics


def document(**brokers: str) -> str:
    """As librdkafka writes it, of brokers by their state; names with an underscore have no id."""
    of = {
        name: {"nodeid": -1 if "_" in name else n, "state": state, "rtt": {"p99": n * 1000}, "txretries": n, "more": 1}
        for n, (name, state) in enumerate(brokers.items())
    }
    return json.dumps({"name": "x", "msg_cnt": 5, "msg_size": 700, "brokers": of, "topics": {}})


def test_a_producer_tells_what_waits_and_who_answers() -> None:
    statistics.of_producer(document(bootstrap_1="UP", a="UP", b="UP", c="DOWN"))
    told = {
        "tillstream_producer_queue_messages": 5,
        "tillstream_producer_queue_bytes": 700,
        "tillstream_producer_retries": 6,
        "tillstream_broker_seconds": 0.003,
    }
    assert {name: REGISTRY.get_sample_value(name) for name in told} == told
    assert REGISTRY.get_sample_value("tillstream_brokers_up", {"client": "producer"}) == 2


def test_a_consumer_that_reaches_nobody_says_so() -> None:
    statistics.of_consumer(document(bootstrap_1="UP", a="DOWN"))
    assert REGISTRY.get_sample_value("tillstream_brokers_up", {"client": "consumer"}) == 0
