import json
import re
from pathlib import Path

import prometheus_client
import pytest

from deploy import scrape
from deploy.dashboards.__main__ import ALL, file_of, text_of
from deploy.dashboards.panels import Dashboard, as_json
from schemas import metrics

DEPLOY = Path(scrape.__file__).parent
RULES = scrape.RULES.read_text()
RULE_TESTS = scrape.RULES.with_name("alerts_test.yml").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)
NAME = re.compile(r"\b(?:tillstream|process|up)(?:_\w+)?\b(?=[\[{) ]|$)")
ROLES = ("schemas", "producers", "gateway", "streams", "sinks")


def known() -> set[str]:
    """The names of all series that a process may show, and Prometheus's own."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "info": ["_info"]}
    families = prometheus_client.REGISTRY.collect()
    return {"up"} | {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard.uid)
def test_the_json_is_that_of_the_python(dashboard: Dashboard) -> None:
    assert file_of(dashboard).read_text() == text_of(dashboard), "run: python -m deploy.dashboards"


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard.uid)
def test_a_rate_says_that_it_is_one(dashboard: Dashboard) -> None:
    for panel in dashboard.panels():
        if any("rate(" in query and " / " not in query and "quantile" not in query for query in panel.queries.values()):
            assert panel.unit in {"ops", "reqps", "Bps", "percentunit"}, panel.title


@pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard.uid)
def test_panels_fill_the_grid_without_overlap(dashboard: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    panels = as_json(dashboard)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for at in (panel["gridPos"] for panel in panels):
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_queries_and_rules_name_only_metrics_that_there_are() -> None:
    queries = [query for dashboard in ALL for panel in dashboard.panels() for query in panel.queries.values()]
    rules = re.findall(r"expr: (?:>\n)?(.+?)\n        (?:for|labels)", RULES, re.DOTALL)
    assert len(rules) == len(ALERTS)
    series = {"tillstream_requests_total"}
    for query in (*queries, *rules):
        bare = re.sub(r'"[^"]*"', '""', query)
        found = set(NAME.findall(bare))
        assert found, query
        series |= found
    assert series <= known(), series - known()


def test_every_metric_of_the_catalogue_is_set_somewhere() -> None:
    root = Path(metrics.__file__).parents[1]
    code = "".join(path.read_text() for role in ROLES for path in (root / role).rglob("*.py"))
    names = [name for name, of in vars(metrics).items() if isinstance(of, prometheus_client.metrics.MetricWrapperBase)]
    assert len(names) > 40
    assert [name for name in names if f"metrics.{name}" not in code and f"    {name}.info" not in code] == []


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tested_both_ways_and_has_its_page(alert: str) -> None:
    quiet = re.findall(rf"alertname: {alert}, exp_alerts: \[\]", RULE_TESTS)
    fires = re.findall(rf"alertname: {alert}\n        exp_alerts:\n          - exp_labels", RULE_TESTS)
    assert quiet
    assert fires
    [rule] = re.findall(rf"- alert: {alert}\n(.+?)(?:\n\n|\Z)", RULES, re.DOTALL)
    [file, section] = re.findall(r"runbook: (\S+)#(\S+)", rule)[0]
    headings = re.findall(r"^## (.+)$", (DEPLOY.parent / file).read_text(), re.MULTILINE)
    assert section in {heading.lower().replace(" ", "-") for heading in headings}


def test_prometheus_finds_the_processes_of_now(tmp_path: Path) -> None:
    config = scrape.write(
        tmp_path, {"gateway": "http://127.0.0.1:1/metrics", "streams@b": "http://127.0.0.1:2/metrics"}
    )
    targets = tmp_path / "prometheus" / "targets.json"
    assert str(targets) in config.read_text()
    assert json.loads(targets.read_text()) == [
        {"targets": ["127.0.0.1:1"], "labels": {"role": "gateway"}},
        {"targets": ["127.0.0.1:2"], "labels": {"role": "streams"}},
    ]
