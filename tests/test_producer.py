"""The awaitable producer against a real Kafka: each message gets its own outcome, busy or idle."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import Pipeline

from producers import Producer
from schemas import metrics, topics
from schemas.errors import Rejected, Unavailable
from schemas.settings import Settings


def test_each_of_many_messages_gets_its_own_outcome(tmp_path: Path) -> None:
    with Pipeline(tmp_path) as pipeline:
        topic = pipeline.settings.named(topics.INGESTION)

        async def story() -> None:
            async with Producer(pipeline.settings) as producer:
                sent = [producer.send(topic, b"acme", bytes(5_000_000 if n == 7 else 100)) for n in range(500)]
                sent[11].cancel()  # its caller went away
                outcomes = await asyncio.gather(*sent, return_exceptions=True)
                assert isinstance(outcomes[7], Rejected)
                assert outcomes[7].code == "message_too_large"
                assert isinstance(outcomes[11], asyncio.CancelledError)
                offsets = [outcome for outcome in outcomes if isinstance(outcome, int)]
                assert (len(offsets), len(set(offsets))) == (498, 498)

                for _ in range(3):
                    await asyncio.sleep(0.3)  # the loop idles, and the thread waits
                    began = time.monotonic()
                    assert await producer.send(topic, b"acme", b"x") > max(offsets)
                    assert time.monotonic() - began < 1
                late = [producer.send(topic, b"acme", b"x") for _ in range(50)]
            assert all(future.done() and future.exception() is None for future in late)  # closing waits for them

        asyncio.run(story())
        assert metrics.PRODUCED.labels(topic)._value.get() == 498 + 3 + 50


def test_a_topic_that_is_not_there_is_told_to_who_sends(tmp_path: Path) -> None:
    with Pipeline(tmp_path, delivery_timeout_s=1.0) as pipeline:

        async def story() -> None:
            async with Producer(pipeline.settings) as producer:
                with pytest.raises(Unavailable, match="Kafka did not acknowledge"):
                    await producer.send("no-such-topic", b"acme", b"x")

        asyncio.run(story())


def test_what_still_waits_when_a_producer_is_closed_is_told_and_never_sent() -> None:
    nowhere = replace(Settings.from_env(), kafka_bootstrap_servers="127.0.0.1:9", delivery_timeout_s=30.0)

    async def story() -> None:
        closed = Producer(nowhere)
        await closed.__aenter__()
        closed._longest_s = 0.1  # closes before the message has timed out
        sent = closed.send("ingestion", b"acme", b"x")
        with pytest.raises(Unavailable):
            await closed.__aexit__(None, None, None)
        assert "Purged in queue" in str(sent.exception())

    asyncio.run(story())
