"""Writes the dashboards: `python -m deploy.dashboards`."""

import json
from pathlib import Path
from typing import Final

from deploy.dashboards.operations import OPERATIONS
from deploy.dashboards.overview import OVERVIEW
from deploy.dashboards.panels import Dashboard, as_json
from deploy.dashboards.stock_prices import STOCK_PRICES
from deploy.dashboards.tenant import TENANT

ALL: Final = (OVERVIEW, TENANT, STOCK_PRICES, OPERATIONS)
FOLDER: Final = Path(__file__).parents[1] / "grafana" / "dashboards"


def file_of(dashboard: Dashboard) -> Path:
    """Where a dashboard is kept."""
    return FOLDER / f"{dashboard.uid.removeprefix('tillstream-')}.json"


def text_of(dashboard: Dashboard) -> str:
    """What stands there."""
    return json.dumps(as_json(dashboard), indent=2) + "\n"


if __name__ == "__main__":
    for dashboard in ALL:
        file_of(dashboard).write_text(text_of(dashboard))
