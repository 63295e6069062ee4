"""Is everything well, and what goes through?"""

from typing import Final

from deploy.dashboards.panels import Dashboard, Panel, Row, or_zero, quantile, quantiles, rate, stat

OVERVIEW: Final = Dashboard(
    "tillstream-overview",
    "tillstream / Overview",
    "Rows from acceptance to PostgreSQL, how fresh they are, and whether all are accounted for.",
    (
        Row(
            "Now",
            (
                stat("Rows accepted", rate("tillstream_rows_received_total", where='verdict="accepted"'), "ops"),
                stat("Rows applied", rate("tillstream_rows_written_total", where='outcome="applied"'), "ops"),
                stat("Freshness, p95", quantile(0.95, "tillstream_freshness_seconds"), "s"),
                stat(
                    "Messages in flight",
                    "sum(tillstream_unsettled_messages)",
                    about="Accepted, and without a line in the ledger.",
                ),
                stat(
                    "Unaccounted for",
                    or_zero("sum(increase(tillstream_unaccounted_messages_total[$__range]))"),
                    about="More than 0: the conservation law is broken. See RUNBOOK.md, Law.",
                ),
                stat("Processes", or_zero('count(up{job="tillstream"} == 1)')),
            ),
        ),
        Row(
            "Rows",
            (
                Panel(
                    "At the gateways",
                    {"{{entity}} {{verdict}}": rate("tillstream_rows_received_total", "entity, verdict")},
                    "ops",
                    "What came over HTTP; direct producers are not in it.",
                    stacked=True,
                ),
                Panel(
                    "In the ledger",
                    {"{{outcome}}": rate("tillstream_rows_written_total", "outcome")},
                    "ops",
                    "Every accepted row ends as exactly one of these.",
                    stacked=True,
                ),
                Panel(
                    "Of the busiest tenants",
                    {"{{tenant}}": f"topk(10, {rate('tillstream_rows_written_total', 'tenant')})"},
                    "ops",
                    '"other" is all that are not among the busiest of their process.',
                ),
            ),
        ),
        Row(
            "Time",
            (
                Panel("From acceptance to PostgreSQL", quantiles("tillstream_freshness_seconds"), "s"),
                Panel(
                    "By topic, p95",
                    {"{{topic}}": quantile(0.95, "tillstream_freshness_seconds", "topic")},
                    "s",
                ),
                Panel(
                    "Lag",
                    {"{{role}} {{topic}}": "max by (role, topic) (tillstream_lag_seconds)"},
                    "s",
                    "How long the oldest message that is not processed has waited.",
                ),
            ),
        ),
        Row(
            "HTTP",
            (
                Panel("Requests by status", {"{{status}}": rate("tillstream_requests_total", "status")}, "reqps"),
                Panel("Requests by route", {"{{route}}": rate("tillstream_requests_total", "route")}, "reqps"),
                Panel(
                    "Time to answer",
                    quantiles("tillstream_request_seconds", 'route!~".*stream|healthz|readyz|metrics"'),
                    "s",
                    "Without live streams, which are answered as long as somebody watches.",
                ),
            ),
        ),
    ),
    {},
)
