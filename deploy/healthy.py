"""Whether the role that runs in this container answers: `python -m deploy.healthy`, for Docker's HEALTHCHECK.

A container runs one role, so that one of the two addresses answers: a gateway's /healthz, or /metrics of the others.
"""

import sys
import urllib.request

from schemas.settings import Settings

_WITHIN_S = 3.0


def main() -> int:
    """0 when it answers, else 1."""
    settings = Settings.from_env()
    urls = [f"http://127.0.0.1:{settings.gateway_port}/healthz"]
    if settings.metrics_port:
        urls.append(f"http://127.0.0.1:{settings.metrics_port}/metrics")
    return 0 if any(_answers(url) for url in urls) else 1


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_WITHIN_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
