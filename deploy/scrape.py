"""What Prometheus needs to scrape a stack: a configuration that is usable as it is, and the targets of now.

    prometheus --config.file .tillstream/prometheus/prometheus.yml

The ports of streams and sinks change with every start; Prometheus reads the targets again when their file changes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

FOLDER: Final = "prometheus"
RULES: Final = Path(__file__).parent / "prometheus" / "alerts.yml"
_CONFIG: Final = """\
global:
  scrape_interval: {interval}
  evaluation_interval: 15s
rule_files: [{rules}]
scrape_configs:
  - job_name: tillstream
{authorization}    file_sd_configs:
      - files: [{targets}]
"""


def write(data_dir: Path, metrics_urls: Mapping[str, str], admin_token: str = "", *, interval: str = "5s") -> Path:
    """Write both files into a folder of a data directory; return the configuration's path.

    `metrics_urls` are by role; what follows an `@` in a role tells its processes apart. Gateways name tenants only to
    who has the admin token, so that the configuration is its owner's alone (mode 0600).
    """
    folder = data_dir / FOLDER
    folder.mkdir(exist_ok=True)
    groups = [
        {"targets": [urlsplit(url).netloc], "labels": {"role": role.partition("@")[0]}}
        for role, url in metrics_urls.items()
    ]
    targets, config, unfinished = folder / "targets.json", folder / "prometheus.yml", folder / ".targets.json"
    unfinished.write_text(json.dumps(groups, indent=2))
    unfinished.replace(targets)
    config.touch(mode=0o600)
    authorization = f"    authorization: {{credentials: {json.dumps(admin_token)}}}\n" if admin_token else ""
    values = {"interval": interval, "rules": json.dumps(str(RULES)), "targets": json.dumps(str(targets))}
    config.write_text(_CONFIG.format(authorization=authorization, **values))
    return config
