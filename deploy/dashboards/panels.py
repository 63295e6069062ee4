"""Panels in rows, and the JSON that Grafana reads of them (its dashboard schema, version 39)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]
_SOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
_HEIGHTS: Final = {"timeseries": 8, "stat": 4, "table": 8}


@dataclass(frozen=True)
class Panel:
    """`queries` are PromQL by legend; a legend may name labels: `{{topic}}`. `unit` is one of Grafana's."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels side by side under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """`variables` are queries by name, to choose values of."""

    uid: str
    title: str
    about: str
    rows: tuple[Row, ...]
    variables: Mapping[str, str]

    def panels(self) -> Iterator[Panel]:
        """All of them."""
        for row in self.rows:
            yield from row.panels


def stat(title: str, query: str, unit: str = "short", about: str = "") -> Panel:
    """One number."""
    return Panel(title, {"": query}, unit, about, "stat")


def rate(metric: str, by: str = "", where: str = "") -> str:
    """What a counter grows by a second, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "", where: str = "") -> str:
    """A share of what a histogram saw was below this."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', labels, where)})"


def quantiles(histogram: str, where: str = "") -> dict[str, str]:
    """Median and the two that people ask for."""
    return {f"p{round(share * 100)}": quantile(share, histogram, where=where) for share in (0.5, 0.95, 0.99)}


def or_zero(query: str) -> str:
    """For what is counted only when it happens: a line at zero says more than no data."""
    return f"{query} or vector(0)"


def as_json(dashboard: Dashboard) -> Json:
    """What Grafana provisions."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["tillstream"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource(), *(_variable(*each) for each in dashboard.variables.items())]},
        "links": [
            {"type": "dashboards", "tags": ["tillstream"], "title": "tillstream", "asDropdown": True, "keepTime": True}
        ],
        "panels": list(_placed(dashboard.rows)),
    }


def _placed(rows: tuple[Row, ...]) -> Iterator[Json]:
    number, y = 1, 0
    for row in rows:
        yield _at(number, 0, y, _WIDTH, 1) | {"type": "row", "title": row.title, "collapsed": False, "panels": []}
        number, y = number + 1, y + 1
        width, height = _WIDTH // len(row.panels), max(_HEIGHTS[panel.kind] for panel in row.panels)
        for n, panel in enumerate(row.panels):
            yield _at(number, n * width, y, width, height) | _panel(panel)
            number += 1
        y += height


def _at(number: int, x: int, y: int, width: int, height: int) -> Json:
    return {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(panel: Panel) -> Json:
    once = panel.kind != "timeseries"
    targets = [
        {
            "refId": chr(ord("A") + n),
            "expr": query,
            "legendFormat": legend or "__auto",
            "datasource": _SOURCE,
            "instant": once,
            "range": not once,
            "format": "table" if panel.kind == "table" else "time_series",
        }
        for n, (legend, query) in enumerate(panel.queries.items())
    ]
    custom: Json = {"fillOpacity": 10, "showPoints": "never"} if not once else {}
    if panel.stacked:
        custom |= {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": _OPTIONS[panel.kind],
    }


_OPTIONS: Final[dict[str, Json]] = {
    "timeseries": {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list", "showLegend": True}},
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}, "colorMode": "value", "graphMode": "none"},
    "table": {"showHeader": True},
}


def _datasource() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }
