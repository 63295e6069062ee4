"""Where does it wait, how full is it, what failed?"""

from typing import Final

from deploy.dashboards.panels import Dashboard, Panel, Row, or_zero, quantile, rate

OPERATIONS: Final = Dashboard(
    "tillstream-operations",
    "tillstream / Operations",
    "Lag, transactions, stores, memory, faults.",
    (
        Row(
            "Lag",
            (
                Panel("Messages", {"{{role}} {{topic}}": "sum by (role, topic) (tillstream_lag_messages)"}),
                Panel(
                    "Seconds, the partitions that wait longest",
                    {"{{topic}}[{{partition}}]": "topk(10, max by (topic, partition) (tillstream_lag_seconds))"},
                    "s",
                ),
                Panel(
                    "Partitions a process",
                    {"{{role}} {{instance}}": 'tillstream_assigned_partitions{role=~"streams|sinks"}'},
                ),
            ),
        ),
        Row(
            "Streams",
            (
                Panel(
                    "Messages by decision",
                    {"{{topic}} {{decision}}": rate("tillstream_steps_total", "topic, decision")},
                    "ops",
                ),
                Panel(
                    "A transaction takes",
                    {
                        "p50": quantile(0.5, "tillstream_flush_seconds"),
                        "p95": quantile(0.95, "tillstream_flush_seconds"),
                    },
                    "s",
                ),
                Panel(
                    "Messages a transaction",
                    {"mean": f"{rate('tillstream_flush_messages_sum')} / {rate('tillstream_flush_messages_count')}"},
                ),
                Panel("Records that wait for one", {"{{instance}}": 'tillstream_steps_waiting{role="streams"}'}),
            ),
        ),
        Row(
            "Tables",
            (
                Panel("Entries", {"{{table}}": "sum by (table) (tillstream_table_entries)"}),
                Panel(
                    "Restoring: records left",
                    {"{{instance}} {{table}}": "tillstream_table_restore_left"},
                    about="At most: what compaction took away is counted.",
                ),
                Panel(
                    "Restored",
                    {"{{table}}": "sum by (table) (tillstream_table_restored_total)"},
                ),
            ),
        ),
        Row(
            "Sinks",
            (
                Panel(
                    "A transaction takes",
                    {
                        "p50": quantile(0.5, "tillstream_write_seconds"),
                        "p95": quantile(0.95, "tillstream_write_seconds"),
                    },
                    "s",
                ),
                Panel("COPY takes, p95", {"{{table}}": quantile(0.95, "tillstream_copy_seconds", "table")}, "s"),
                Panel(
                    "Rows a transaction",
                    {"p50": quantile(0.5, "tillstream_batch_rows"), "p95": quantile(0.95, "tillstream_batch_rows")},
                ),
                Panel("Messages in flight", {"{{topic}}": "sum by (topic) (tillstream_unsettled_messages)"}),
            ),
        ),
        Row(
            "Exports",
            (
                Panel("Open exports", {"{{state}}": "max by (state) (tillstream_exports_open)"}),
                Panel("The oldest queued export waits", {"": "max(tillstream_exports_wait_seconds)"}, "s"),
                Panel("Ended", {"{{state}}": rate("tillstream_exports_total", "state")}, "ops"),
            ),
        ),
        Row(
            "Gateways",
            (
                Panel("Bytes held", {"{{instance}}": 'tillstream_inflight_bytes{role="gateway"}'}, "bytes"),
                Panel(
                    "Waiting for Kafka's acknowledgement",
                    {"{{instance}}": 'tillstream_producer_queue_messages{role="gateway"}'},
                ),
                Panel("Kafka answers, p99", {"{{instance}}": 'tillstream_broker_seconds{role="gateway"}'}, "s"),
                Panel(
                    "Waiting for a connection to PostgreSQL, p95",
                    {"": quantile(0.95, "tillstream_pool_wait_seconds")},
                    "s",
                ),
                Panel(
                    "Connections and streams",
                    {
                        "busy connections": 'sum(tillstream_pool_busy_connections{role="gateway"})',
                        "reads streamed": "sum(tillstream_read_streams)",
                    },
                ),
            ),
        ),
        Row(
            "Faults",
            (
                Panel("Dead letters", {"{{reason}}": or_zero(rate("tillstream_dead_letters_total", "reason"))}, "ops"),
                Panel(
                    "Not taken by Kafka",
                    {"{{error}}": or_zero(rate("tillstream_produce_errors_total", "error"))},
                    "ops",
                ),
                Panel(
                    "Waits",
                    {
                        "for PostgreSQL, sinks": rate("tillstream_sink_waits_total"),
                        "for the schema registry": rate("tillstream_registry_waits_total"),
                        "for a connection, gave up": rate("tillstream_pool_timeouts_total"),
                    },
                    "ops",
                ),
                Panel(
                    "Rate limits",
                    {
                        "refused by {{policy}}": or_zero(rate("tillstream_rate_limited_total", "policy")),
                        "not checked": rate("tillstream_rate_limit_unchecked_total"),
                    },
                    "ops",
                ),
            ),
        ),
        Row(
            "Processes",
            (
                Panel("Memory", {"{{role}} {{instance}}": 'process_resident_memory_bytes{job="tillstream"}'}, "bytes"),
                Panel(
                    "CPU",
                    {"{{role}} {{instance}}": 'rate(process_cpu_seconds_total{job="tillstream"}[$__rate_interval])'},
                    "percentunit",
                ),
                Panel(
                    "Stores that answer",
                    {
                        "Kafka, {{role}}": "min by (role) (tillstream_brokers_up)",
                        "PostgreSQL, {{role}}": "min by (role) (tillstream_database_up)",
                    },
                ),
                Panel("Versions", {"": "count by (role, version, python) (tillstream_build_info)"}, kind="table"),
            ),
        ),
    ),
    {},
)
