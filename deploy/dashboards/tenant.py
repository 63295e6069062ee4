"""What one merchant sends, gets and waits for."""

from typing import Final

from deploy.dashboards.panels import Dashboard, Panel, Row, or_zero, quantile, rate, stat

_WHOSE: Final = 'tenant=~"$tenant"'

TENANT: Final = Dashboard(
    "tillstream-tenant",
    "tillstream / Tenant",
    'Only the busiest tenants have a name here; all others are "other" (schemas/top_tenants.py).',
    (
        Row(
            "Now",
            (
                stat(
                    "Rows accepted",
                    rate("tillstream_rows_received_total", where=f'verdict="accepted", {_WHOSE}'),
                    "ops",
                ),
                stat(
                    "Rows applied", rate("tillstream_rows_written_total", where=f'outcome="applied", {_WHOSE}'), "ops"
                ),
                stat("Freshness, p95", quantile(0.95, "tillstream_freshness_seconds", where=_WHOSE), "s"),
                stat(
                    "Requests that were limited",
                    or_zero(rate("tillstream_requests_total", where=f'status="429", {_WHOSE}')),
                    "reqps",
                ),
            ),
        ),
        Row(
            "Requests",
            (
                Panel("By route", {"{{route}}": rate("tillstream_requests_total", "route", _WHOSE)}, "reqps"),
                Panel("By status", {"{{status}}": rate("tillstream_requests_total", "status", _WHOSE)}, "reqps"),
            ),
        ),
        Row(
            "Rows",
            (
                Panel(
                    "At the gateways",
                    {"{{entity}} {{verdict}}": rate("tillstream_rows_received_total", "entity, verdict", _WHOSE)},
                    "ops",
                    stacked=True,
                ),
                Panel(
                    "In the ledger",
                    {"{{entity}} {{outcome}}": rate("tillstream_rows_written_total", "entity, outcome", _WHOSE)},
                    "ops",
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Freshness",
            (
                Panel(
                    "By tenant, p95",
                    {"{{tenant}}": quantile(0.95, "tillstream_freshness_seconds", "tenant", _WHOSE)},
                    "s",
                ),
                Panel(
                    "By topic, p95",
                    {"{{topic}}": quantile(0.95, "tillstream_freshness_seconds", "topic", _WHOSE)},
                    "s",
                ),
            ),
        ),
    ),
    {"tenant": "label_values(tillstream_requests_total, tenant)"},
)
