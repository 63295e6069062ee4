"""Stock through real workers: levels and outcomes are the model's, whatever dies, pauses, joins or comes again."""

import shutil
import signal
import threading
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from pipeline import Pipeline, eventually
from stock_log import Sender, assert_as_the_model, settled
from test_recovery import log_of

from schemas import codec, stock, topics
from schemas.codec import Record

ROW: Record = {"line": 0, "product_id": "P", "kind": "received", "quantity": 1}


def test_a_worker_with_an_empty_disk_goes_on_with_the_same_levels(own_pipeline: Pipeline) -> None:
    sender = Sender(own_pipeline)
    own_pipeline.start("streams@a", restarted=False)
    sender.anything(300)
    sender.movements(sender.tenants[0], [ROW], "before")
    sender.flush()
    outcomes = assert_as_the_model(own_pipeline, sender.sent)
    assert min(outcomes[kind] for kind in ("applied", "superseded", "duplicate", "conflict", "rejected")) > 0
    own_pipeline.stop("streams@a")
    shutil.rmtree(Path(own_pipeline.settings.streams_data_dir) / "streams@a")
    own_pipeline.start("streams@b", restarted=False)
    sender.movements(sender.tenants[0], [ROW], "before")
    sender.anything(300)
    assert_as_the_model(own_pipeline, sender.sent)


def test_what_comes_again_from_the_log_changes_nothing(own_pipeline: Pipeline) -> None:
    sender = Sender(own_pipeline)
    own_pipeline.start("streams@a", restarted=False)
    sender.anything(100)
    settled(own_pipeline, sender.sent)
    own_pipeline.stop("streams@a")
    _rewind(own_pipeline)
    own_pipeline.start("streams@a", restarted=False)
    sender.anything(50)
    assert_as_the_model(own_pipeline, sender.sent)


def _rewind(pipeline: Pipeline) -> None:
    """The group reads `stock` from its beginning again."""
    settings, stock_topic = pipeline.settings, pipeline.settings.named(topics.STOCK)
    start = [confluent_kafka.TopicPartition(stock_topic, n, 0) for n in range(settings.partitions)]
    group = confluent_kafka.ConsumerGroupTopicPartitions(settings.named("tillstream-streams"), start)
    admin = AdminClient({**settings.kafka})

    def moved() -> bool:  # a static member that left stays in the group until its session ends
        [future] = admin.alter_consumer_group_offsets([group]).values()
        try:
            return not any(at.error for at in future.result().topic_partitions)
        except confluent_kafka.KafkaException as exc:
            assert exc.args[0].code() in _STILL_THERE
            return False

    eventually(moved)


_STILL_THERE = (confluent_kafka.KafkaError.UNKNOWN_MEMBER_ID, confluent_kafka.KafkaError.NON_EMPTY_GROUP)

FAILING = """
import pathlib, streams.steps as steps
commit, flag = steps.Steps._commit, pathlib.Path({flag!r})
class Half:
    def __init__(self, producer): self.producer = producer
    def __getattr__(self, name): return getattr(self.producer, name)
    def commit_transaction(self, timeout):
        self.producer.flush()
        raise RuntimeError("written, not committed")
def failing(self, producer, partition, steps):
    if flag.exists() and partition == {partition}:
        what = flag.read_text(); flag.unlink()
        commit(self, Half(producer) if what == "before" else producer, partition, steps)
        raise RuntimeError("committed, its answer lost")
    commit(self, producer, partition, steps)
steps.Steps._commit = failing
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_flush_that_failed_ends_the_process_and_nothing_is_lost(
    own_pipeline: Pipeline, tmp_path: Path, when: str
) -> None:
    sender, flag = Sender(own_pipeline), tmp_path / "flag"
    own_pipeline.start("streams", patch=FAILING.format(flag=str(flag), partition=1))
    sender.anything(60)
    flag.write_text(when)
    sender.anything(60)
    assert_as_the_model(own_pipeline, sender.sent)
    assert own_pipeline.children["streams"].restarts == 1
    assert "flush of partition 1 failed; ending this process" in own_pipeline.log("streams")


RAISING = """
import streams.movements as movements
fold_batch = movements.fold_batch
def raising(levels, rows, source, oversell):
    written = fold_batch(levels, rows, source, oversell)
    if source.event_id == "poison": raise ZeroDivisionError("injected, with the levels changed")
    return written
movements.fold_batch = raising
"""


def test_the_third_crash_at_one_offset_dead_letters_that_message_alone(own_pipeline: Pipeline) -> None:
    sender = Sender(own_pipeline)
    tenant_id = sender.tenants[0]
    own_pipeline.start("streams", patch=RAISING)
    for event_id in ("one", "poison", "two"):
        sender.movements(tenant_id, [ROW], event_id)
    sender.flush()
    by_offset = {message.offset(): message for message in settled(own_pipeline, sender.sent, within=90)}
    kinds = [dict(message.headers())["ce_type"].decode() for _, message in sorted(by_offset.items())]
    assert kinds == [stock.OUTCOME, "tillstream.outcome.v1", stock.OUTCOME]
    [letter] = log_of(own_pipeline, topics.DEAD_LETTERS)
    assert dict(letter.headers())["ts-dlq-reason"] == b"processing_error"
    assert own_pipeline.children["streams"].restarts == 3
    levels = {message.key(): message.value() for message in log_of(own_pipeline, topics.STOCK_LEVELS)}
    level = codec.decode(stock.LEVEL, levels[topics.level_key(tenant_id.encode(), "P")])
    assert (level["quantity"], level["version"]) == (2, 2)


def test_what_cannot_be_read_is_a_dead_letter_with_a_reason_and_the_rest_goes_on(own_pipeline: Pipeline) -> None:
    sender = Sender(own_pipeline)
    tenant_id = sender.tenants[0]
    own_pipeline.start("streams")
    batch = codec.encode(stock.MOVEMENTS, {"tenant_id": tenant_id, "rows": [ROW]})
    foreign = codec.encode(stock.MOVEMENTS, {"tenant_id": "another", "rows": [ROW]})
    too_many = codec.encode(stock.MOVEMENTS, {"tenant_id": tenant_id, "rows": [ROW] * 5_001})
    slashed = codec.encode(stock.MOVEMENTS, {"tenant_id": "a/b", "rows": [ROW]})
    for key, value, type_ in (
        (tenant_id, batch[:-3], stock.MOVEMENTS), (tenant_id, batch + b"x", stock.MOVEMENTS),
        (tenant_id, foreign, stock.MOVEMENTS), (tenant_id, too_many, stock.MOVEMENTS),
        (tenant_id, batch, stock.POLICY), (tenant_id, batch, "tillstream.orders.v1"), ("a/b", slashed, stock.MOVEMENTS),
        (tenant_id, batch, stock.MOVEMENTS),
    ):  # fmt: skip
        sender.send(key, value, type_, f"event-{sender.sent}", 1)
    sender.flush()
    outcomes = settled(own_pipeline, sender.sent)
    plain = [message for message in outcomes if dict(message.headers())["ce_type"] == b"tillstream.outcome.v1"]
    codes = [codec.decode("tillstream.outcome.v1", message.value())["code"] for message in plain]
    assert sorted(codes) == sorted(
        ["truncated", "trailing_bytes", "foreign_tenant", "too_many_rows", "wrong_schema", "unknown_type", "bad_key"]
    )
    assert len(log_of(own_pipeline, topics.DEAD_LETTERS)) == 7
    assert len(outcomes) == 8


PAUSING = """
import pathlib, time, streams.steps as steps
commit, flag = steps.Steps._commit, pathlib.Path({flag!r})
class Slow:
    def __init__(self, producer): self.producer = producer
    def __getattr__(self, name): return getattr(self.producer, name)
    def commit_transaction(self, timeout):
        if flag.exists():
            flag.unlink(missing_ok=True)
            time.sleep(2)  # the test stops the process meanwhile
        self.producer.commit_transaction(timeout)
steps.Steps._commit = lambda self, producer, partition, steps: commit(self, Slow(producer), partition, steps)
"""


def test_no_movement_is_lost_or_counted_twice_though_workers_are_killed_paused_and_join(
    own_pipeline: Pipeline, tmp_path: Path
) -> None:
    flag, done = tmp_path / "flag", threading.Event()
    sender = Sender(own_pipeline)
    own_pipeline.start("streams@a", patch=PAUSING.format(flag=str(flag)))
    own_pipeline.start("streams@b")

    def load() -> None:
        while not done.wait(0.2):
            sender.anything(10)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        eventually(lambda: own_pipeline.assigned("streams@a") == own_pipeline.assigned("streams@b") == 2)
        before = len(log_of(own_pipeline, topics.OUTCOMES))
        own_pipeline.kill("streams@b")
        eventually(lambda: own_pipeline.children["streams@b"].restarts == 1)
        eventually(lambda: own_pipeline.assigned("streams@b") == 2)
        eventually(lambda: len(log_of(own_pipeline, topics.OUTCOMES)) > before)
        paused = own_pipeline.children["streams@a"].process
        assert paused is not None
        flag.touch()
        eventually(lambda: not flag.exists())
        paused.send_signal(signal.SIGSTOP)
        eventually(lambda: own_pipeline.assigned("streams@b") == 4, within=30)
        paused.send_signal(signal.SIGCONT)
        eventually(lambda: own_pipeline.children["streams@a"].restarts == 1)
        eventually(lambda: own_pipeline.assigned("streams@a") == 2, within=30)
        own_pipeline.start("streams@c")
        eventually(lambda: own_pipeline.assigned("streams@c") > 0, within=30)
    finally:
        done.set()
        loading.join()
    assert_as_the_model(own_pipeline, sender.sent)
    assert "ending this process, nothing of it is committed" in own_pipeline.log("streams@a")


def test_a_partition_that_comes_back_to_its_first_owner_has_what_the_other_made_of_it(own_pipeline: Pipeline) -> None:
    own_pipeline.settings = own_pipeline.settings_with(session_timeout_s=60.0)
    sender = Sender(own_pipeline)
    own_pipeline.start("streams@a", restarted=False)
    sender.anything(100)
    settled(own_pipeline, sender.sent)
    own_pipeline.start("streams@b", restarted=False)
    eventually(lambda: own_pipeline.assigned("streams@a") == own_pipeline.assigned("streams@b") == 2, within=30)
    for tenant_id in sender.tenants:
        sender.movements(tenant_id, [ROW], f"while-two-{tenant_id}")
    sender.anything(100)
    settled(own_pipeline, sender.sent)
    own_pipeline.children["streams@b"].stop_signal = signal.SIGINT  # for good: nobody waits for its session to end
    own_pipeline.stop("streams@b")
    eventually(lambda: own_pipeline.assigned("streams@a") == 4, within=30)
    for tenant_id in sender.tenants:
        sender.movements(tenant_id, [ROW], f"while-two-{tenant_id}")
    sender.anything(100)

    def folded() -> bool:
        """By the process that owned the partitions first: it is not restarted."""
        assert own_pipeline.children["streams@a"].alive(), own_pipeline.log("streams@a")[-4_000:]
        return len(log_of(own_pipeline, topics.OUTCOMES)) >= sender.sent

    eventually(folded, within=60)
    assert_as_the_model(own_pipeline, sender.sent)


LATE = """
import streams.tables as tables
restore = tables.Store._restore
def late(self, changelog, mine):
    restore(self, changelog, mine)
    for partition in mine if changelog.endswith("stock.levels") else ():
        producer = self.app.steps._producers[partition]
        producer.begin_transaction()
        producer.produce(changelog, b"", b"\\0late", partition)
        producer.commit_transaction(20)
tables.Store._restore = late
"""
"""A step that was under way is flushed when the table has been restored."""


def test_what_is_flushed_after_a_table_was_restored_does_not_hold_it_up(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams@a", restarted=False, patch=LATE)
    sender = Sender(own_pipeline)
    sender.anything(50)
    settled(own_pipeline, sender.sent, within=30)


DROPPING = """
import pathlib, streams.faust_app as made
from mode.services import WaitResults
wait, flag, seen = made._Consumer.wait_first, pathlib.Path({flag!r}), []
async def dropping(self, delivery, *others, timeout=None):
    if made.inspect.iscoroutine(delivery):
        seen.append(delivery)
        if len(seen) == 40 and not flag.exists():
            flag.touch()
            for one in (delivery, *others):
                one.close()
            return WaitResults([delivery], [None], False)
    return await wait(self, delivery, *others, timeout=timeout)
made._Consumer.wait_first = dropping
"""
"""A message is read and not delivered, as Faust does where rebalances follow each other."""


def test_a_message_that_faust_leaves_out_is_noticed_and_comes_again(own_pipeline: Pipeline, tmp_path: Path) -> None:
    own_pipeline.start("streams@a", patch=DROPPING.format(flag=str(tmp_path / "flag")))
    sender = Sender(own_pipeline)
    sender.anything(100)
    assert_as_the_model(own_pipeline, sender.sent)
    assert own_pipeline.children["streams@a"].restarts == 1
    assert "was left out" in own_pipeline.log("streams@a")
