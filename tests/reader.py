"""A tenant that reads, for tests."""

import json
from typing import Any

import httpx
from pipeline import Pipeline


class Reader:
    """One tenant that reads."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.tenant, self.key = pipeline.tenant()

    def get(self, path: str, accept: str = "*/*", **query: Any) -> httpx.Response:
        headers = {"X-API-Key": self.key, "Accept": accept}
        return self.pipeline.http.get(f"/api/v1/tenants/{self.tenant}/{path}", params=query or None, headers=headers)

    def page(self, path: str, **query: Any) -> dict[str, Any]:
        answer = self.get(path, **query)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    def pages(self, path: str, **query: Any) -> list[Any]:
        """The rows of all pages."""
        rows: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.page(path, **query, **cursor)
            rows += page["data"]
            if page["next_cursor"] is None:
                return rows
            cursor = {"cursor": page["next_cursor"]}

    def send(self, entity: str, *rows: dict[str, Any]) -> None:
        body = "\n".join(json.dumps(row) for row in rows)
        assert self.pipeline.post(self.tenant, self.key, entity, body).status_code == 202

    def ids(self, where: str = "true") -> list[str]:
        """Ids of the orders that a condition holds for, in the order of their pages."""
        query = f"SELECT external_order_id FROM orders o WHERE tenant_id = %s AND ({where})"
        order = " ORDER BY order_date DESC, external_order_id DESC"
        return [row[0] for row in self.pipeline.sql(query + order, self.tenant)]
