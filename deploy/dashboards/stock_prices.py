"""What became of movements of stock and of changes of prices."""

from typing import Final

from deploy.dashboards.panels import Dashboard, Panel, Row, or_zero, quantile, rate

STOCK_PRICES: Final = Dashboard(
    "tillstream-stock-prices",
    "tillstream / Stock and prices",
    "Movements folded, prices judged, what was found about them.",
    (
        Row(
            "Stock",
            (
                Panel(
                    "Movements by outcome",
                    {"{{outcome}}": rate("tillstream_rows_written_total", "outcome", 'entity="stock"')},
                    "ops",
                    stacked=True,
                ),
                Panel(
                    "Messages by decision",
                    {"{{decision}}": rate("tillstream_steps_total", "decision", 'topic="stock"')},
                    "ops",
                ),
                Panel(
                    "From acceptance to PostgreSQL",
                    {
                        "p50": quantile(0.5, "tillstream_freshness_seconds", where='topic="stock"'),
                        "p95": quantile(0.95, "tillstream_freshness_seconds", where='topic="stock"'),
                    },
                    "s",
                ),
            ),
        ),
        Row(
            "Prices",
            (
                Panel(
                    "Verdicts", {"{{status}}": rate("tillstream_prices_judged_total", "status")}, "ops", stacked=True
                ),
                Panel("Findings", {"{{finding}}": rate("tillstream_price_findings_total", "finding")}, "ops"),
                Panel(
                    "Bodies held by the breaker",
                    {"held": "sum(increase(tillstream_price_breaker_total[$__rate_interval]))"},
                    about="Most of their prices moved too far together: somebody has to decide.",
                ),
            ),
        ),
        Row(
            "Kept and watched",
            (
                Panel(
                    "Levels and prices in memory",
                    {"{{table}}": 'sum by (table) (tillstream_table_entries{table=~"stock.levels|prices.current"})'},
                ),
                Panel(
                    "Who watches",
                    {
                        "alerts on prices": "sum(tillstream_alert_streams)",
                        "outcomes (?wait=)": "sum(tillstream_waiting_requests)",
                    },
                ),
                Panel(
                    "Watchers told to go",
                    {"a second": or_zero(rate("tillstream_alert_readers_dropped_total"))},
                    "ops",
                    about="They did not keep up; a client connects again with Last-Event-ID.",
                ),
            ),
        ),
    ),
    {},
)
