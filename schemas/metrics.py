"""The metric catalogue: every metric of every process, its labels and what it tells."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Info

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

BUILD = Info("tillstream_build", "Version and role of this process.")

ASSIGNED = Gauge("tillstream_assigned_partitions", "Partitions that this worker or sink has now.")

# gateway
REQUESTS = Counter("tillstream_requests_total", "HTTP requests answered.", ["route", "status"])
REQUEST_SECONDS = Histogram("tillstream_request_seconds", "Time to answer a request.", ["route"], buckets=_SECONDS)
ROWS_RECEIVED = Counter("tillstream_rows_received_total", "Rows by the gateway's verdict.", ["entity", "verdict"])
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

# every producer
PRODUCED = Counter("tillstream_produced_total", "Messages that Kafka acknowledged.", ["topic"])
PRODUCE_ERRORS = Counter("tillstream_produce_errors_total", "Messages that Kafka did not take.", ["topic", "error"])

# streams
STEPS = Counter("tillstream_steps_total", "Messages decided, by what became of them.", ["topic", "decision"])
PRICES_JUDGED = Counter("tillstream_prices_judged_total", "Price changes and decisions by their verdict.", ["status"])
PRICE_FINDINGS = Counter("tillstream_price_findings_total", "What was found about prices, by detector.", ["finding"])
FLUSH_SECONDS = Histogram("tillstream_flush_seconds", "Time of one transaction.", buckets=_SECONDS)
FLUSH_MESSAGES = Histogram(
    "tillstream_flush_messages",
    "Source messages in one transaction.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
TABLE_ENTRIES = Gauge("tillstream_table_entries", "Entries of a table in memory.", ["table"])
RESTORED = Counter("tillstream_table_restored_total", "Changelog records read to restore a table.", ["table"])
RESTORE_SECONDS = Histogram("tillstream_table_restore_seconds", "Time of one restore.", ["table"], buckets=_SECONDS)

# sinks
ROWS_WRITTEN = Counter("tillstream_rows_written_total", "Rows by outcome in the ledger.", ["entity", "outcome"])
WRITE_SECONDS = Histogram("tillstream_write_seconds", "Time of one transaction of a sink.", buckets=_SECONDS)
BATCH_ROWS = Histogram(
    "tillstream_batch_rows",
    "Rows in one transaction of a sink.",
    buckets=(1, 10, 100, 1_000, 5_000, 10_000, 50_000),
)
FRESHNESS_SECONDS = Histogram(
    "tillstream_freshness_seconds",
    "From acceptance of a message to its rows being applied.",
    buckets=_SECONDS,
)
SINK_WAITS = Counter("tillstream_sink_waits_total", "Times a sink waited for PostgreSQL to come back.")
DAYS_COUNTED = Counter("tillstream_days_counted_total", "Days of tenants whose daily metrics were counted again.")
REFRESH_SECONDS = Histogram(
    "tillstream_metrics_refresh_seconds", "Time of one refresh of all days that changed.", buckets=_SECONDS
)
REGISTRY_WAITS = Counter(
    "tillstream_registry_waits_total", "Times a message waited for the schema registry to come back."
)
DEAD_LETTERED = Counter("tillstream_dead_letters_total", "Messages dead-lettered.", ["reason"])
