"""Gateway, streams and sinks: whether they run, and whether the gateway says that it can serve."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from deploy.doctor.finding import Finding, fail, ok, warn
from deploy.stack import STACK_FILE
from schemas.settings import Settings

_WITHIN_S: Final = 5.0


def look(settings: Settings, gateway_url: str, data_dir: Path) -> Iterator[Finding]:
    """The gateway's readiness; the other roles of a local stack; registry and store of limits where there are any."""
    try:
        said = httpx.get(f"{gateway_url}/readyz", timeout=_WITHIN_S)
        if said.status_code == 200:
            yield ok("gateway", f"{gateway_url} serves")
        else:
            reasons = "; ".join(said.json().get("reasons", [])) or f"answers {said.status_code}"
            yield fail("gateway", f"{gateway_url}: {reasons}", "mend that first; it serves again by itself")
    except (httpx.HTTPError, ValueError) as exc:
        remedy = "tillstream gateway (or up); TILLSTREAM_GATEWAY_HOST and _PORT say where to look"
        yield fail("gateway", f"{gateway_url}: {type(exc).__name__} {exc}", remedy)
    known = data_dir / STACK_FILE
    urls: dict[str, str] = json.loads(known.read_text())["metrics_urls"] if known.exists() else {}
    for role, url in urls.items():
        if role != "gateway" and not _answers(url):
            yield fail(role, f"{url} does not answer", f"why is in {data_dir / 'logs' / role}.log")
    if settings.schema_registry_url:
        where = settings.schema_registry_url
        if _answers(f"{where}/subjects"):
            yield ok("registry", f"{where} answers")
        else:
            yield warn("registry", f"{where} does not answer", "known schemas go on; new ones wait for it")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_WITHIN_S).is_success
    except httpx.HTTPError:
        return False
