"""A tenant that exports, for the tests of exports."""

from pathlib import Path
from typing import Any

import httpx
from pipeline import eventually
from reader import Reader

NDJSON, CSV = "application/x-ndjson", "text/csv"


class Exporter(Reader):
    """A tenant that exports."""

    def ask(self, entity: str, format_: str, **more: Any) -> httpx.Response:
        headers = {"X-API-Key": self.key}
        key = more.pop("key", None)
        if key:
            headers["Idempotency-Key"] = key
        asked = {"entity": entity, "format": format_, **more}
        return self.pipeline.http.post(f"/api/v1/tenants/{self.tenant}/exports", json=asked, headers=headers)

    def begin(self, entity: str, format_: str, **more: Any) -> str:
        """The id of an export that was accepted."""
        answer = self.ask(entity, format_, **more)
        assert answer.status_code == 202, answer.text
        export_id: str = answer.json()["export_id"]
        assert answer.headers["location"].endswith(f"/exports/{export_id}")
        return export_id

    def state(self, export_id: str) -> dict[str, Any]:
        return self.page(f"exports/{export_id}")

    def cancel(self, export_id: str) -> httpx.Response:
        url = f"/api/v1/tenants/{self.tenant}/exports/{export_id}"
        return self.pipeline.http.delete(url, headers={"X-API-Key": self.key})

    def ended(self, export_id: str, as_: str = "done") -> dict[str, Any]:
        eventually(lambda: self.state(export_id)["state"] not in ("queued", "running"), within=40)
        state = self.state(export_id)
        assert state["state"] == as_, state
        return state

    def file(self, export_id: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"/api/v1/tenants/{self.tenant}/exports/{export_id}/file"
        return self.pipeline.http.get(url, headers={"X-API-Key": self.key, **named})


def files_of(exporter: Exporter, export_id: str) -> list[Path]:
    folder = Path(exporter.pipeline.settings.exports_url) / exporter.tenant
    return list(folder.glob(f"{export_id}.*"))
