"""The metric catalogue: every metric of every process, its labels and what it tells.

`tenant` is one of the busiest tenants or "other" (`schemas.top_tenants`); "none" is a request without a good key.
`topic` is without the installation's prefix, save where messages are produced.
"""

import sys
from importlib.metadata import version
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info, disable_created_metrics

from schemas.top_tenants import TopTenants

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

TOP = TopTenants()
REGISTRY.register(TOP)

BUILD = Info("tillstream_build", "Version and role of this process, and its Python.")
BROKERS_UP = Gauge(
    "tillstream_brokers_up",
    "Brokers that the gateway's `producer` or a sink's `consumer` is connected to; 1 while Kafka answers the `admin`"
    " client of streams; 0: Kafka is away.",
    ["client"],
)
DATABASE_UP = Gauge(
    "tillstream_database_up",
    "1 while PostgreSQL answers for a gateway's `read` or a sink's `write`, else 0.",
    ["access"],
)

# streams and sinks
ASSIGNED = Gauge("tillstream_assigned_partitions", "Partitions that this worker or sink has now.")
LAG_MESSAGES = Gauge(
    "tillstream_lag_messages", "Messages of a partition that are not processed yet.", ["topic", "partition"]
)
LAG_SECONDS = Gauge(
    "tillstream_lag_seconds",
    "How long the oldest of them has waited at most; 0 where there is none.",
    ["topic", "partition"],
)

# gateway
REQUESTS = Counter("tillstream_requests_total", "HTTP requests answered.", ["route", "tenant", "status"])
REQUEST_SECONDS = Histogram("tillstream_request_seconds", "Time to answer a request.", ["route"], buckets=_SECONDS)
ROWS_RECEIVED = Counter(
    "tillstream_rows_received_total", "Rows that the gateway accepted or rejected.", ["entity", "verdict", "tenant"]
)
INFLIGHT_BYTES = Gauge("tillstream_inflight_bytes", "Bytes of request bodies held now.")
RATE_LIMITED = Counter("tillstream_rate_limited_total", "Requests refused with 429.", ["policy"])
RATE_LIMIT_UNCHECKED = Counter(
    "tillstream_rate_limit_unchecked_total", "Counts left out because the shared store of rate limits was away."
)
STREAMS = Gauge("tillstream_read_streams", "Reads that are streamed now.")
WAITING = Gauge("tillstream_waiting_requests", "Requests that wait for what becomes of their event.")
ALERT_STREAMS = Gauge("tillstream_alert_streams", "Clients that watch alerts on prices.")
ALERT_READERS_DROPPED = Counter("tillstream_alert_readers_dropped", "Of those, told to go because they fell behind.")
TENANTS = Gauge("tillstream_tenants", "Tenants in this gateway's registry.")
POOL_WAIT_SECONDS = Histogram(
    "tillstream_pool_wait_seconds", "How long a read waited for a connection to PostgreSQL.", buckets=_SECONDS
)
POOL_TIMEOUTS = Counter(
    "tillstream_pool_timeouts_total", "Reads that got no connection, since all were busy, or their tenant's share."
)
POOL_BUSY = Gauge("tillstream_pool_busy_connections", "Connections to PostgreSQL that reads hold now.")

# every producer
PRODUCED = Counter("tillstream_produced_total", "Messages that Kafka acknowledged.", ["topic"])
PRODUCE_ERRORS = Counter("tillstream_produce_errors_total", "Messages that Kafka did not take.", ["topic", "error"])
QUEUE_MESSAGES = Gauge("tillstream_producer_queue_messages", "Messages that wait for Kafka's acknowledgement.")
QUEUE_BYTES = Gauge("tillstream_producer_queue_bytes", "Their bytes.")
PRODUCE_RETRIES = Gauge("tillstream_producer_retries", "Requests to Kafka sent again, since the start.")
BROKER_SECONDS = Gauge("tillstream_broker_seconds", "Kafka's answer to a request, 99th percentile of 5 s.")

# streams
STEPS = Counter("tillstream_steps_total", "Messages decided, by what became of them.", ["topic", "decision"])
PRICES_JUDGED = Counter("tillstream_prices_judged_total", "Price changes and decisions by their verdict.", ["status"])
PRICE_FINDINGS = Counter("tillstream_price_findings_total", "What was found about prices, by detector.", ["finding"])
PRICE_BREAKER = Counter("tillstream_price_breaker_total", "Bodies held since most of their prices moved too far.")
STEPS_WAITING = Gauge("tillstream_steps_waiting", "Records that wait for a transaction.")
FLUSH_SECONDS = Histogram("tillstream_flush_seconds", "Time of one transaction.", buckets=_SECONDS)
FLUSH_MESSAGES = Histogram(
    "tillstream_flush_messages",
    "Source messages in one transaction.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
TABLE_ENTRIES = Gauge("tillstream_table_entries", "Entries of a table in memory.", ["table"])
RESTORED = Counter("tillstream_table_restored_total", "Changelog records read to restore a table.", ["table"])
RESTORE_LEFT = Gauge("tillstream_table_restore_left", "Changelog records still to be read, at most.", ["table"])
RESTORE_SECONDS = Histogram("tillstream_table_restore_seconds", "Time of one restore.", ["table"], buckets=_SECONDS)

# sinks
ROWS_WRITTEN = Counter(
    "tillstream_rows_written_total", "Rows by outcome in the ledger.", ["entity", "outcome", "tenant"]
)
WRITE_SECONDS = Histogram("tillstream_write_seconds", "Time of one transaction of a sink.", buckets=_SECONDS)
COPY_SECONDS = Histogram("tillstream_copy_seconds", "Time of one COPY into staging.", ["table"], buckets=_SECONDS)
BATCH_ROWS = Histogram(
    "tillstream_batch_rows",
    "Rows in one transaction of a sink.",
    buckets=(1, 10, 100, 1_000, 5_000, 10_000, 50_000),
)
FRESHNESS_SECONDS = Histogram(
    "tillstream_freshness_seconds",
    "From acceptance of a message to its rows being applied.",
    ["topic", "tenant"],
    buckets=_SECONDS,
)
UNSETTLED = Gauge(
    "tillstream_unsettled_messages",
    "Accepted messages since this sink took the partition, less their lines in the ledger: those in flight.",
    ["topic"],
)
UNSETTLED_SECONDS = Gauge(
    "tillstream_unsettled_seconds",
    "How long the first of those in flight has been the first of its partition.",
    ["topic"],
)
UNACCOUNTED = Counter(
    "tillstream_unaccounted_messages_total",
    "Accepted messages that have no line in the ledger though later ones have had theirs for long: the law is broken.",
    ["topic"],
)
SINK_WAITS = Counter("tillstream_sink_waits_total", "Times a sink waited for PostgreSQL to come back.")
DAYS_COUNTED = Counter("tillstream_days_counted_total", "Days of tenants whose daily metrics were counted again.")
REFRESH_SECONDS = Histogram(
    "tillstream_metrics_refresh_seconds", "Time of one refresh of all days that changed.", buckets=_SECONDS
)
REFRESHED_AT = Gauge(
    "tillstream_metrics_refreshed_timestamp_seconds",
    "Unix time at which this sink last brought daily metrics up to date, or began to.",
)
EXPORTS_ENDED = Counter("tillstream_exports_total", "Exports that ended, done or failed.", ["state"])
EXPORTS_OPEN = Gauge("tillstream_exports_open", "Exports that are queued or run, of all sinks together.", ["state"])
EXPORTS_WAIT = Gauge("tillstream_exports_wait_seconds", "How long the oldest queued export has waited.")
REGISTRY_WAITS = Counter(
    "tillstream_registry_waits_total", "Times a message waited for the schema registry to come back."
)
DEAD_LETTERED = Counter("tillstream_dead_letters_total", "Messages dead-lettered.", ["reason"])

TOP.metrics = (REQUESTS, ROWS_RECEIVED, ROWS_WRITTEN, FRESHNESS_SECONDS)


def of_role(role: str) -> None:
    """Say what this process is. It shows no `_created` series, which would double the counters."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    BUILD.info({"role": role, "version": version("tillstream"), "python": sys.version.split()[0]})
