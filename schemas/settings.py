"""Settings of every process, read once from the environment (README, "Configuration")."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, get_type_hints

from schemas.errors import Misconfigured

_WORDS: Final = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False, "no": False, "off": False, "0": False
}  # fmt: skip
_UNPREFIXED: Final = {"database_url", "schema_registry_url"}
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_LEAST: Final = {
    **dict.fromkeys(("partitions", "replication", "sink_batch_rows"), 1),
    **dict.fromkeys(("max_body_bytes", "max_line_bytes", "max_inflight_bytes"), 1),
    **dict.fromkeys(("gateway_port", "metrics_port", "linger_ms", "dead_letter_limit"), 0),
    **dict.fromkeys(("delivery_timeout_s", "session_timeout_s"), 0.001),
}
_PORTS: Final = {"gateway_port": 65_535, "metrics_port": 65_535}
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True)
class Settings:
    """One field a variable: its name in capitals, with `TILLSTREAM_` before it save for those of the stores."""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    """Brokers, comma-separated."""
    kafka_security_protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, for every Kafka client."""
    kafka_sasl_mechanism: str = "SCRAM-SHA-512"
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""
    kafka_sasl_username: str = ""
    """Needed with SASL."""
    kafka_sasl_password: str = field(default="", repr=False)
    """Needed with SASL."""
    kafka_ssl_ca_file: str = ""
    """PEM of who vouches for the brokers; the system's authorities where it is not given."""
    kafka_ssl_certificate_file: str = ""
    """PEM by which brokers know this client, where they ask."""
    kafka_ssl_key_file: str = ""
    """PEM of its key, without a password."""
    database_url: str = field(default="postgresql://127.0.0.1:5432/tillstream", repr=False)
    """PostgreSQL, as libpq's URL, `?sslmode=verify-full&sslrootcert=...` included; the sinks write with it."""
    schema_registry_url: str = ""
    """A Confluent-compatible registry: gateways and producers then write Confluent's format. Both are always read."""
    prefix: str = ""
    """Put before the name of every topic, consumer group and transactional id, so that several tillstreams can share a
    cluster."""
    partitions: int = 8
    """Partitions of each topic, fixed when the topics are made."""
    replication: int = 1
    """Replicas of each partition; 3 in production."""
    gateway_host: str = "127.0.0.1"
    """Address the gateway listens on."""
    gateway_port: int = 8080
    """Port the gateway listens on."""
    metrics_host: str = "127.0.0.1"
    """Address where streams and sinks serve /metrics."""
    metrics_port: int = 0
    """Port of /metrics of streams and sinks; 0 serves none."""
    max_body_bytes: int = 16_000_000
    """Largest request body, after decompression."""
    max_line_bytes: int = 500_000
    """Longest line of a body."""
    max_inflight_bytes: int = 64_000_000
    """Bodies held by one gateway at a time, together; above it the answer is 503 at once."""
    delivery_timeout_s: float = 10.0
    """How long a gateway waits for Kafka's acknowledgement before it answers 503."""
    linger_ms: float = 0.5
    """How long a producer waits for more messages to share a request."""
    streams_worker_id: str = "streams-0"
    """Static membership: one name a worker slot, so that a restarted worker takes its partitions back at once."""
    streams_data_dir: str = ".tillstream/streams"
    """Where Faust keeps its files; nothing in it is needed to recover."""
    exports_url: str = ".tillstream/exports"
    """Where sinks write exports and gateways read them: a folder that all share, or s3://bucket/folder with
    `tillstream[s3]` and the AWS_* variables."""
    session_timeout_s: float = 30.0
    """A worker that is silent for so long loses its partitions."""
    sink_batch_rows: int = 10_000
    """Rows a sink writes in one transaction, roughly."""
    secret: str = field(default="", repr=False)
    """Signs upload tokens and event ids: 32 characters or more, the same for every gateway; a gateway needs it."""
    admin_token: str = field(default="", repr=False)
    """Bearer token of the admin API; without one that API is off."""
    reader_database_url: str = field(default="", repr=False)
    """PostgreSQL as gateways read it: a login whose only role is tillstream_reader. Without it there are no reads."""
    rate_limit_url: str = field(default="memory://", repr=False)
    """Where request counts are kept: in each gateway, or in a redis:// or valkey:// that they share."""
    dead_letter_limit: float = 0.01
    """The share of messages above which streams and sinks stop instead of dead-lettering, the worst tenant left out; 1
    for none."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    log_format: str = "text"
    """text, or json: an object a line."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read all variables; raises Misconfigured naming the variable that does not fit."""
        hints = get_type_hints(cls)
        given = {
            each.name: _parse(variable(each.name), env[variable(each.name)], hints[each.name])
            for each in fields(cls)
            if env.get(variable(each.name), "") != ""
        }
        return cls(**given)

    @property
    def kafka(self) -> dict[str, Any]:
        """How any client of librdkafka reaches the brokers, and proves who it is; what it says goes to our logs."""
        said: dict[str, Any] = {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            "security.protocol": self.kafka_security_protocol,
            "logger": logging.getLogger("librdkafka"),
        }
        if self.kafka_security_protocol.startswith("SASL_"):
            said["sasl.mechanism"] = self.kafka_sasl_mechanism
            said["sasl.username"], said["sasl.password"] = self.kafka_sasl_username, self.kafka_sasl_password
        if self.kafka_security_protocol.endswith("SSL"):
            files = {
                "ssl.ca.location": self.kafka_ssl_ca_file,
                "ssl.certificate.location": self.kafka_ssl_certificate_file,
                "ssl.key.location": self.kafka_ssl_key_file,
            }
            said.update({name: file for name, file in files.items() if file})
        return said

    def __post_init__(self) -> None:
        """Raises Misconfigured for words that nobody knows, numbers that make no sense, and SASL without a name."""
        for name, words in (
            ("kafka_security_protocol", _PROTOCOLS),
            ("kafka_sasl_mechanism", _MECHANISMS),
            ("log_level", _LEVELS),
            ("log_format", ("text", "json")),
        ):
            if (given := getattr(self, name)) not in words:
                raise Misconfigured(f"{variable(name)} takes {', '.join(words)}, not {given!r}")
        for name, least in _LEAST.items():
            number, most = getattr(self, name), _PORTS.get(name, math.inf)
            if not least <= number <= most or math.isinf(number):
                takes = f"{least} or more" if math.isinf(most) else f"{least} to {most}"
                raise Misconfigured(f"{variable(name)} takes {takes}, not {number}")
        sasl = self.kafka_security_protocol.startswith("SASL_")
        if sasl and not (self.kafka_sasl_username and self.kafka_sasl_password):
            raise Misconfigured(
                f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs KAFKA_SASL_USERNAME and"
                " KAFKA_SASL_PASSWORD"
            )

    def named(self, name: str) -> str:
        """The name of a topic or consumer group in this installation."""
        return self.prefix + name

    def env(self) -> dict[str, str]:
        """The same settings as environment variables, for a child process."""
        return {variable(each.name): str(getattr(self, each.name)) for each in fields(self)}


def variable(name: str) -> str:
    """The environment variable of a field."""
    stores = name in _UNPREFIXED or name.startswith("kafka_")
    return name.upper() if stores else f"TILLSTREAM_{name.upper()}"


def _parse(name: str, raw: str, kind: type) -> Any:
    try:
        if kind is bool:
            return _WORDS[raw.strip().lower()]
        return kind(raw.strip())
    except (ValueError, KeyError) as exc:
        expected = "true or false" if kind is bool else kind.__name__
        raise Misconfigured(f"{name}={raw!r} is not {expected}; see README, 'Configuration'") from exc
