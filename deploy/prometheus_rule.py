"""Writes the alert rules as Prometheus's operator reads them in Kubernetes: `python -m deploy.prometheus_rule`.

Prometheus itself refuses a rule file with the fields of a resource, and kustomize cannot put one file's structure into
another, so that the rules stand twice. A test holds the second to the first.
"""

from pathlib import Path
from textwrap import indent
from typing import Final

from deploy.scrape import RULES

FILE: Final = RULES.with_name("rule.yaml")
_HEAD: Final = """\
# Made of alerts.yml by `python -m deploy.prometheus_rule`; change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: tillstream}
spec:
"""


def text_of(rules: Path = RULES) -> str:
    """What stands there."""
    return _HEAD + indent(rules.read_text(), "  ")


if __name__ == "__main__":
    FILE.write_text(text_of())
