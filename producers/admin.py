"""Makes the topics of the catalogue, and refuses to go on with a missing or different one."""

import time
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings
from schemas.topics import CATALOGUE, INGESTION, Topic

_VISIBLE_S: Final = 20.0
_NEVER_CHANGES: Final = (
    "A number of partitions cannot be taken back: begin anew with other topics (TILLSTREAM_PREFIX) and an empty"
    " database"
)


def ensure(settings: Settings) -> list[str]:
    """Create the missing topics, verify them all, return the names of those created. Raises Misconfigured."""
    admin = _admin(settings)
    existing = _partitions(admin)
    missing = [topic for topic in CATALOGUE.values() if settings.named(topic.name) not in existing]
    wanted = [
        NewTopic(
            settings.named(topic.name),
            num_partitions=1 if topic.single_partition else settings.partitions,
            replication_factor=settings.replication,
            config=topic.config(),
        )
        for topic in missing
    ]
    for created in admin.create_topics(wanted).values() if wanted else ():
        created.result()
    _await_visible(admin, {topic.topic for topic in wanted})
    verify(settings)
    return [settings.named(topic.name) for topic in missing]


def _await_visible(admin: AdminClient, created: set[str]) -> None:
    """A broker may answer with metadata from before the creation for a moment."""
    deadline = time.monotonic() + _VISIBLE_S
    while missing := created - _partitions(admin).keys():
        if time.monotonic() > deadline:
            raise Unavailable(f"Kafka created {', '.join(sorted(missing))} but does not show them")
        time.sleep(0.05)


def verify(settings: Settings) -> int:
    """Return the partition count that all topics share.

    Raises Misconfigured naming each topic that is missing or differs from the catalogue, Unavailable without Kafka.
    """
    admin = _admin(settings)
    existing = _partitions(admin)
    catalogue = {settings.named(name): topic for name, topic in CATALOGUE.items()}
    wrong = [f"{name} is missing" for name in catalogue if name not in existing]
    if wrong:
        raise Misconfigured(f"topics: {'; '.join(wrong)}. Run: tillstream topics ensure")
    # Counts never change, so the one that exists rules; the setting only says how to make them.
    partitions = existing[settings.named(INGESTION)]
    for name, topic in catalogue.items():
        expected = 1 if topic.single_partition else partitions
        if existing[name] != expected:
            wrong.append(f"{name} has {existing[name]} partitions, not {expected}")
    settable = [
        f"{name} has {setting}={actual}, not {wanted}"
        for name, differing in _differences(admin, catalogue).items()
        for setting, (actual, wanted) in differing.items()
    ]
    if wrong or settable:
        advice = [_NEVER_CHANGES] if wrong else []
        advice += ["To set what differs: tillstream topics ensure --alter"] if settable else []
        said = "; ".join(wrong + settable)
        raise Misconfigured(f"topics differ from the catalogue (schemas/topics.py): {said}. {'. '.join(advice)}")
    return partitions


def alter(settings: Settings) -> list[str]:
    """Set what differs from the catalogue on topics that exist, and say what. Other settings stay as they are."""
    admin = _admin(settings)
    existing = _partitions(admin)
    catalogue = {name: topic for topic in CATALOGUE.values() if (name := settings.named(topic.name)) in existing}
    differences = {name: differing for name, differing in _differences(admin, catalogue).items() if differing}
    wanted = [
        ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
                for setting, (_, value) in differing.items()
            ],
        )
        for name, differing in differences.items()
    ]
    for altered in admin.incremental_alter_configs(wanted).values() if wanted else ():
        altered.result()
    return [
        f"{name}: {setting}={value}, was {before}"
        for name, differing in differences.items()
        for setting, (before, value) in differing.items()
    ]


def _differences(admin: AdminClient, catalogue: dict[str, Topic]) -> dict[str, dict[str, tuple[str, str]]]:
    """By topic and setting: what it is, and what the catalogue wants."""
    found = {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in catalogue]
    for resource, described in admin.describe_configs(resources).items() if resources else ():
        actual = {name: entry.value for name, entry in described.result().items()}
        wanted = catalogue[resource.name].config()
        found[resource.name] = {
            setting: (actual[setting], value)
            for setting, value in wanted.items()
            if set(actual[setting].split(",")) != set(value.split(","))
        }
    return found


def _admin(settings: Settings) -> AdminClient:
    return AdminClient({**settings.kafka, "log_level": 0})


@dataclass(frozen=True, slots=True)
class Described:
    """A topic as Kafka has it: its UUID, which changes when it is deleted and made again, and its partition count."""

    id: str
    partitions: int


def describe(admin: AdminClient, topics: list[str]) -> dict[str, Described]:
    """Each topic as Kafka has it. Raises KafkaException."""
    described = admin.describe_topics(TopicCollection(topics), request_timeout=10)
    found = {name: future.result() for name, future in described.items()}
    return {name: Described(str(topic.topic_id), len(topic.partitions)) for name, topic in found.items()}


def refuse_other_count(topic: str, partitions: int, known: int, filled: str = "this database was filled") -> None:
    """Raises Misconfigured where a topic has not the number of partitions that something was `filled` from."""
    if partitions != known:
        raise Misconfigured(
            f"{topic} has {partitions} partitions, and {filled} from {known}: a tenant's new messages may lie on"
            f" another partition than its old ones, in no order. Point at the cluster that has {known}, or begin anew"
            " with other topics (TILLSTREAM_PREFIX) and an empty database"
        )


def topic_ids(admin: AdminClient, topics: list[str]) -> dict[str, str]:
    """Kafka's UUID of each topic. Raises KafkaException."""
    return {name: topic.id for name, topic in describe(admin, topics).items()}


def _partitions(admin: AdminClient) -> dict[str, int]:
    try:
        metadata = admin.list_topics(timeout=10)
    except KafkaException as exc:
        raise Unavailable(f"Kafka does not answer: {exc.args[0].str()}") from exc
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}
