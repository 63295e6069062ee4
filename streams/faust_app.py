"""Faust, set up so that nothing is lost: the app's settings, its transport and how topics are named to it."""

import asyncio
import inspect
import logging
import ssl
import time
import types
from collections.abc import Generator
from typing import Any, Final

import faust
from confluent_kafka import KafkaException
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from mode.services import WaitResults

from producers.registry import Registry, backoff, reading
from schemas import metrics, topics
from schemas.errors import Unavailable
from schemas.settings import Settings
from streams.dedup import fence_of
from streams.sources import Sources
from streams.steps import Steps, fail_stop
from streams.tables import Table

_REGISTRY_WAIT_S: Final = 2.0
_WATCHED_S: Final = 60.0

log = logging.getLogger(__name__)


class _Thread(driver.AIOKafkaConsumerThread):
    """Faust reads uncommitted records unless its own transactions are on; a direct producer may abort one."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer

    async def seek_to_committed(self) -> Any:
        """Also where nothing is committed yet: to the log's beginning.

        Faust drops what it has read ahead when partitions change hands, and aiokafka's own leaves a partition without
        a committed offset where it is: after what was dropped, which would be lost.
        """
        committed = await super().seek_to_committed()
        # What Faust left out it commits with what came next. The tables know better.
        for tp, offset in committed.items():
            if offset and offset > (known := self.app.sources.next.get((tp.topic, tp.partition), offset)):
                await self.call_thread(self._ensure_consumer().seek, tp, known)
                committed[tp] = known
        fresh = [tp for tp, offset in committed.items() if not offset]
        if fresh:
            await self.call_thread(self._ensure_consumer().seek_to_beginning, *fresh)
        return committed

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Look for a stream that stands still where a position is known: Faust's crashes right after an assignment."""
        assignment = self._ensure_consumer()._fetcher._subscriptions.subscription.assignment
        state = assignment and assignment.state_value(driver.TopicPartition(tp.topic, tp.partition))
        if state and state.has_valid_position:
            super().verify_event_path(now, tp)

    async def on_thread_stop(self) -> None:
        """Leave the group first where this worker does not come back: aiokafka says nothing for a static member.

        All that was read is flushed by now (`stream_wait_empty`), so that the next owner fences nobody at work.
        """
        if self.app.leaving and self._consumer is not None:
            self._consumer._coordinator._group_instance_id = None
        await super().on_thread_stop()


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def wait_first(self, delivery: Any, *others: Any, timeout: Any = None) -> Any:
        """Deliver a message, or stop waiting for room because a rebalance began.

        Faust makes four tasks a message for that, a third of its time; nearly all deliveries need not wait at all.
        """
        if not inspect.iscoroutine(delivery):  # an event
            return await super().wait_first(delivery, *others, timeout=timeout)
        try:
            blocked = delivery.send(None)
        except StopIteration as delivered:
            for other in others:
                other.close()
            return WaitResults([delivery], [delivered.value], False)
        return await super().wait_first(_resumed(delivery, blocked), *others, timeout=timeout)


async def _resumed(coroutine: Any, blocked: Any) -> Any:
    """Go on with a coroutine that waits for `blocked`."""
    return await _after(coroutine, blocked)


@types.coroutine
def _after(coroutine: Any, blocked: Any) -> Generator[Any, Any, Any]:
    try:
        yield blocked
    except asyncio.CancelledError:
        coroutine.close()
        raise
    return (yield from coroutine)


class _Transport(driver.Transport):
    Consumer = _Consumer


class _Recovery(Recovery):
    """Stores have read their changelogs while partitions were assigned; what is left is to let the sources flow."""

    _revoked = False

    def need_recovery(self) -> bool:
        """Never. What our own late flush has added to a changelog since is in the tables.

        Faust would wait for all of it to be read again, the transaction's marker too, which no consumer ever sees: the
        partitions would stand still.
        """
        return False

    def on_partitions_revoked(self, revoked: Any) -> None:
        """The next rebalance has begun."""
        self._revoked = True
        super().on_partitions_revoked(revoked)

    async def on_rebalance(self, *what: Any, **named: Any) -> None:
        """It has ended, and everything stands still."""
        self._revoked = False
        await super().on_rebalance(*what, **named)

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Let the sources flow, from where they are committed.

        Faust lets them flow first, then seeks, then empties the agents' queues: what came in between is dropped, what
        comes next moves the fence past it, and it is lost when it comes again. And it goes on where another rebalance
        has stopped everything meanwhile.
        """
        app, consumer = self.app, self.app.consumer
        await app.on_rebalance_complete.send()
        self._set_recovery_ended()
        if assignment := consumer.assignment():
            await self._wait(consumer.perform_seek(), timeout=app.conf.broker_request_timeout)
        if self._revoked or app.consumer_generation_id != generation_id:
            log.info("another rebalance has begun: it is followed by a recovery of its own")
            return
        app.watched_until = time.monotonic() + _WATCHED_S
        self.completed.set()
        app.flow_control.resume()  # empties the queues too
        consumer.resume_partitions({tp for tp in assignment if not self._is_changelog_tp(tp)})
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        app.on_rebalance_end()
        log.info("%d partitions flow", len(assignment))


class _Tables(TableManager):
    _recovery: Recovery | None = None

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = _Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class App(faust.App):
    """A Faust app whose steps are transactions."""

    settings: Settings
    steps: Steps
    forgetful: list[Table]
    """Tables of ids that are forgotten in time."""
    registry: Registry | None
    sources: Sources
    watched_until: float = 0.0
    """Until when, by the monotonic clock, gaps are looked into."""
    leaving: bool = False
    """Whether this worker, when it stops, hands its partitions on at once instead of being waited for."""

    async def schema_known(self, value: bytes | None) -> None:
        """Wait until what the schema id in a value means is known, so that a step need not ask the registry.

        A stop or a rebalance would wait for the message too, so it ends the process: the message comes again.
        """
        if self.registry is None:
            return
        for pause in backoff():
            try:
                await self.registry.learned(value)
                return
            except Unavailable as exc:
                log.warning("%s; a message waits for it, next try in %.1f s", exc, pause)
                metrics.REGISTRY_WAITS.inc()
                if self.should_stop or self.rebalancing:
                    fail_stop("a message still waits for the schema registry", exc)
            await self.sleep(min(pause, _REGISTRY_WAIT_S))

    async def nothing_left_out(self, message: Any, table: Table) -> None:
        """End the process where Faust has left out messages between the fence and this one: they come again.

        It is looked at for a while after partitions were assigned, when such things happen: where there is a gap of
        offsets, Kafka must be asked whether anything but markers lies in it.
        """
        if time.monotonic() > self.watched_until or message.partition not in table.data.partitions:
            return
        fence = fence_of(table.partition(message.partition))
        if fence is None or message.offset <= fence.offset + 1:
            return
        at = message.topic, message.partition, fence.offset + 1, message.offset
        try:
            missing = await asyncio.to_thread(self.sources.left_out, *at)
        except KafkaException as exc:
            fail_stop(f"Kafka does not say what lies in {at[0]}[{at[1]}] between {at[2]} and {at[3]}", exc)
        if missing is not None:
            fail_stop(f"{at[0]}[{at[1]}]@{missing} was left out: {at[3]} came after {fence.offset}", None)

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)


class Worker(faust.Worker):
    """Told by SIGTERM to stop, it is expected back and keeps its partitions for the session; SIGINT is for good."""

    def _on_sigint(self) -> None:
        self.app.leaving = True
        super()._on_sigint()


def new_app(settings: Settings, partitions: int) -> App:
    """An app without agents, over topics that have `partitions` partitions each."""
    app_id = settings.named(topics.STREAMS_GROUP)
    app = App(
        app_id,
        broker=[f"kafka://{server}" for server in settings.kafka_bootstrap_servers.split(",")],
        broker_credentials=_credentials(settings),
        datadir=settings.streams_data_dir,
        consumer_group_instance_id=settings.streams_worker_id,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_s,
        broker_max_poll_interval=600.0,
        broker_commit_interval=1.0,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        stream_buffer_maxsize=512,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=partitions,
        web_enabled=False,
        Table=Table,
        TableManager=_Tables,
    )
    app.settings = settings
    app.steps = Steps(app_id, settings)
    app.forgetful = []
    app.registry = reading(settings)
    app.sources = Sources(settings)
    return app


def _credentials(settings: Settings) -> Any:
    """What `Settings.kafka` says to librdkafka, in Faust's words; None without TLS and SASL."""
    protocol, context = settings.kafka_security_protocol, None
    if protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.kafka_ssl_ca_file or None)
        if settings.kafka_ssl_certificate_file:
            context.load_cert_chain(settings.kafka_ssl_certificate_file, settings.kafka_ssl_key_file or None)
    if protocol.startswith("SASL_"):
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password,
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def source(app: App, name: str) -> Any:
    """A source topic of the catalogue. Raw: Faust acknowledges and forgets what its own codecs cannot decode."""
    return app.topic(app.settings.named(name), key_serializer="raw", value_serializer="raw")


def changelog(app: App, name: str) -> Any:
    """The changelog topic of a table."""
    return app.topic(app.settings.named(name), key_serializer="raw", value_serializer="raw", internal=True, acks=False)
