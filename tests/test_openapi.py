"""What the gateway answers is what its OpenAPI document says, and nothing else, whatever is sent to it."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest
import schemathesis
from pipeline import Pipeline, eventually
from schemathesis import Case, engine
from schemathesis.checks import load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from shop import problem

from gateway.examples import CUSTOMERS, MOVEMENTS, ORDERS, PRICE_EVENT, PRODUCTS

DOCUMENT, SWAGGER_UI = "/api/schema/openapi.json", "/api/schema/swagger-ui/"
NDJSON = "application/x-ndjson"
SEED = 20261124
BEYOND_SCHEMA = {
    "bad_currency", "bad_filter", "bad_name", "bad_price_rule", "idempotency_key_reused", "negative_quantity",
    "nul_character", "out_of_range", "too_long", "too_many_decimals",
}  # fmt: skip
"""Codes of what a schema cannot say, or not in a way that readers would thank us for."""
NOT_SAID = ("cursor", "limit", "from", "to", "updated_since")
"""Parameters of which a schema does not say all."""
ENDLESS = "watch_price_alerts"
"""An answer that does not end: tests/test_price_live.py has it."""
UNTRIED = {"include-operation-id": ENDLESS, "enabled": False}
NOT_WHOLE = re.compile("xpected (an integer|`int).*, got (a number|`(float|decimal)`)")
"""Of rows and of documents: to JSON Schema 1.0 is an integer, here it is not."""
OF_EVERY_ANSWER = {"date", "content-length", "content-type", "transfer-encoding", "connection"}

load_all_checks()


def test_the_document_is_public_and_cached(pipeline: Pipeline) -> None:
    first = pipeline.http.get(DOCUMENT)
    assert (first.status_code, first.headers["content-type"]) == (200, "application/json")
    assert first.headers["cache-control"].startswith("public, max-age=")
    assert first.json()["openapi"].startswith("3.1.")
    etag = first.headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        again = pipeline.http.get(DOCUMENT, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert pipeline.http.get(DOCUMENT + "/", headers={"If-None-Match": '"other"'}).json() == first.json()


class Links(HTMLParser):
    """What a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def test_swagger_ui_needs_no_other_host(pipeline: Pipeline) -> None:
    page = pipeline.http.get(SWAGGER_UI)
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe" not in policy
    links = Links(page.text).found
    assert len(links) > 4
    for link in links:
        url = urljoin(SWAGGER_UI, link)
        assert url.startswith("/api/schema/"), link
        assert pipeline.http.get(url).status_code == 200, link
    assert "/api/schema/openapi.json" in {urljoin(SWAGGER_UI, link) for link in links}
    redirected = pipeline.http.get(SWAGGER_UI.removesuffix("/"))
    assert redirected.status_code == 308
    assert urljoin(SWAGGER_UI.removesuffix("/"), redirected.headers["location"]) == SWAGGER_UI


@pytest.mark.parametrize("name", ["swagger-editor.js", "LICENSE", "..%2findex.html", "%00", "index.html", "%ff"])
def test_of_the_package_only_the_page_is_served(pipeline: Pipeline, name: str) -> None:
    problem(pipeline.http.get(SWAGGER_UI + name), 404, "not_found")


class Access:
    """A tenant to send things as, another to change as the admin, and what their paths need."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.admin = {"Authorization": f"Bearer {pipeline.settings.admin_token}"}
        self.tenant, self.key = pipeline.tenant()
        self.changed, _ = pipeline.tenant()
        self.headers = {"X-API-Key": self.key}
        self.customer, self.product, self.order = "C-7", "P-1", "A-1001"
        self.event = self.send("orders", ORDERS["one order"])
        self.send("customers", CUSTOMERS["one customer"])
        self.send("products", PRODUCTS["one product"])
        self.request(
            "POST", f"/api/v1/tenants/{self.tenant}/stock-events", self.headers, json=MOVEMENTS["one delivery"]
        )
        read = (f"customers/{self.customer}", f"products/{self.product}", f"orders/{self.order}")
        price = f"/api/v1/tenants/{self.tenant}/products/{self.product}/price-event"
        self.request("POST", price, self.headers, json=PRICE_EVENT["a sale"])
        for path in (*read, f"stock/{self.product}", f"prices/{self.product}"):
            url = f"/api/v1/tenants/{self.tenant}/{path}"
            eventually(lambda url=url: pipeline.http.get(url, headers=self.headers).is_success)
        limits = {"limits": {"requests_per_minute": 1_000_000, "product_events_per_minute": 1_000_000}}
        self.request("PATCH", f"/api/v1/admin/tenants/{self.tenant}", self.admin, json=limits)

    def request(self, method: str, path: str, headers: dict[str, str], **given: Any) -> Any:
        answer = self.pipeline.http.request(method, path, headers=headers, **given)
        assert answer.is_success, answer.text
        return answer.json()

    def send(self, entity: str, row: dict[str, Any]) -> str:
        """The event id of a row that was taken."""
        path = f"/api/v1/tenants/{self.tenant}/ingest/{entity}"
        return str(self.request("POST", path, self.headers, json=row)["event_ids"][0])

    def upload(self) -> str:
        """The token of a new upload."""
        opened = self.request("POST", f"/api/v1/tenants/{self.tenant}/uploads", self.headers, json={"entity": "orders"})
        return str(opened["token"])

    def refused(self) -> str:
        """The token of an upload whose first row was refused."""
        token = self.upload()
        path = f"/api/v1/tenants/{self.tenant}/uploads/{token}"
        answer = self.pipeline.http.put(f"{path}/chunks/1", content=b"{}", headers=self.headers)
        assert answer.json()["rejected"] == 1
        eventually(lambda: self.pipeline.http.get(f"{path}/errors", headers=self.headers).content)
        return token

    def export(self) -> str:
        """The id of an export that is done."""
        path = f"/api/v1/tenants/{self.tenant}/exports"
        asked = {"entity": "orders", "format": "ndjson"}
        export_id = str(self.request("POST", path, self.headers, json=asked)["export_id"])
        eventually(lambda: self.request("GET", f"{path}/{export_id}", self.headers)["state"] == "done")
        return export_id

    def key_id(self) -> str:
        """A new key of the tenant that is changed."""
        return str(self.request("POST", f"/api/v1/admin/tenants/{self.changed}/keys", self.admin)["key_id"])


@pytest.fixture(scope="module")
def access(pipeline: Pipeline) -> Access:
    return Access(pipeline)


def test_every_example_is_accepted(access: Access) -> None:
    """As people would try it in Swagger UI, with a tenant of theirs in place of acme."""
    document = access.pipeline.http.get(DOCUMENT).json()
    sent = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            admin = operation["tags"] == ["Admin"]
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                for example in content["examples"].values():
                    tenant = access.changed if admin else access.tenant
                    values = {"tenant_id": tenant, "n": 1, "product_id": access.product}
                    if "{token}" in path:
                        values["token"] = access.refused() if "corrections" in path else access.upload()
                    body = example["value"] if media_type == NDJSON else json.dumps(example["value"])
                    headers = access.admin if admin else access.headers
                    url = path.format(**values)
                    answer = access.pipeline.http.request(
                        method, url, content=body, headers=headers | {"Content-Type": media_type}
                    )
                    assert answer.is_success, (method, path, answer.text)
                    assert answer.json().get("rejected", 0) == 0, answer.text
                    sent += 1
    assert sent > 15


# Schemathesis


def tightened(part: Any) -> Any:
    """The document as the tests take it: a field that it does not name is an error, and lines are a list."""
    if isinstance(part, list):
        return [tightened(each) for each in part]
    if not isinstance(part, dict):
        return part
    if "x-itemSchema" in part:
        rows = {"type": "array", "items": part["x-itemSchema"], "minItems": part["schema"]["minLength"]}
        part = {**part, "schema": rows}
    said = {name: tightened(each) for name, each in part.items()}
    if said.get("type") == "object" and "properties" in said:
        said.setdefault("additionalProperties", False)
    return said


@schemathesis.serializer(NDJSON)
def lines_of(ctx: Any, value: Any) -> bytes:
    """Rows as lines; an example is text already."""
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    rows = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@schemathesis.deserializer(NDJSON)
def rows_of(ctx: Any, response: Any) -> list[Any]:
    return [json.loads(line) for line in response.content.splitlines()]


def first_of(response: Any) -> dict[str, Any]:
    """The answer, which is the first line where there are several."""
    return dict(json.loads(response.content.splitlines()[0]))


@schemathesis.check
def headers_are_documented(ctx: Any, response: Any, case: Case) -> None:
    """The counterpart of response_headers_conformance."""
    answers = case.operation.definition.raw["responses"]
    if response.request.method == case.operation.method.upper() and str(response.status_code) in answers:
        documented = {name.lower() for name in answers[str(response.status_code)]["headers"]}
        assert {name.lower() for name in response.headers} - documented <= OF_EVERY_ANSWER, dict(response.headers)


@schemathesis.check
def what_fits_the_schema_is_taken(ctx: Any, response: Any, case: Case) -> None:
    """Stricter than positive_data_acceptance: of rows, each must be taken, save for what no schema can say."""
    if case.meta is None or case.meta.generation.mode.is_negative or response.status_code not in (202, 400, 422):
        return
    if response.status_code == 400 and response.json().get("parameter") in NOT_SAID:
        return  # a cursor is another page's, how large a page may be depends on Accept, and a moment has two forms
    if "%00" in response.request.url:
        return  # PostgreSQL knows no NUL
    rows_of_any_kind = case.operation.definition.raw["operationId"] in ("send_chunk", "correct_rows")
    if response.request.method == case.operation.method.upper() and not rows_of_any_kind:
        said = first_of(response)
        wrong = said.get("errors") or ([said] if response.status_code != 202 else [])
        unexpected = [
            each for each in wrong if each["code"] not in BEYOND_SCHEMA and not NOT_WHOLE.search(each["detail"])
        ]
        assert not unexpected, unexpected


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Case, response: Any) -> bool:
    """Of lines that are wrong in part, the others are taken: 202, or 200 of a dry run, and it says which are not."""
    taken_in_part = case.media_type == NDJSON and response.status_code < 300 and first_of(response).get("rejected")
    return not (isinstance(failure, AcceptedNegativeData) and taken_in_part)


def api(access: Access, **config: Any) -> Any:
    """The document as schemathesis reads it."""
    always = {
        "seed": SEED,
        "base-url": str(access.pipeline.http.base_url),
        "suppress-health-check": ["all"],
        "continue-on-failure": True,
        "operations": [UNTRIED, *config.pop("operations", ())],
        "checks": {"positive_data_acceptance": {"enabled": False}},
        "auth": {
            "openapi": {
                "ApiKey": {"api_key": access.key},
                "Bearer": {"bearer": access.key},
                "AdminToken": {"bearer": access.pipeline.settings.admin_token},
            }
        },
    }
    raw = tightened(access.pipeline.http.get(DOCUMENT).json())
    return schemathesis.openapi.from_dict(raw, config=SchemathesisConfig.from_dict(always | config))


def run(schema: Any) -> Counter[tuple[str, int]]:
    """How often each operation answered with each status. Fails with all that schemathesis has found."""
    answers: Counter[tuple[str, int]] = Counter()
    failures: dict[tuple[Any, ...], str] = {}
    for event in engine.from_schema(schema).execute():
        if isinstance(event, NonFatalError):
            raise event.value
        if isinstance(event, FatalError):
            raise event.exception
        if not isinstance(event, ScenarioFinished):
            continue
        for case_id, interaction in event.recorder.interactions.items():
            assert interaction.response is not None
            operation, status = event.recorder.cases[case_id].value.operation, interaction.response.status_code
            answers[operation.definition.raw["operationId"], status] += 1
            for check in event.recorder.checks.get(case_id, []):
                if (found := check.failure_info) is not None:
                    said = f"{status} {interaction.response.content[:500]!r}"
                    failure = f"{found.failure.title}: {found.failure.message}\n{found.code_sample}\n{said}"
                    failures.setdefault((operation.label, check.name, status), failure)
    assert not failures, "\n\n".join(failures.values())
    return answers


def test_what_is_sent_to_things_that_exist_is_answered_as_documented(access: Access) -> None:
    def to(tenant: str, **more: str) -> dict[str, str]:
        return {"path.tenant_id": tenant} | {f"path.{name}": value for name, value in more.items()}

    export_id = access.export()

    schema = api(
        access,
        generation={"max-examples": 4, "database": "none"},
        phases={"coverage": {"unexpected-methods": ["TRACE"]}, "stateful": {"enabled": False}},
        parameters=to(access.tenant, token=access.upload()),
        operations=[
            # Each of its hundred cases is a Kafka transaction, and change_tenant takes the same fields.
            {"include-operation-id": "make_tenant", "phases": {"coverage": {"enabled": False}}},
            {"include-tag": "Admin", "parameters": to(access.changed, key_id=access.key_id())},
            *(
                {"include-operation-id": operation, "parameters": to(access.tenant, **more)}
                for operation, more in {
                    "cancel_upload": {"token": access.upload()},
                    "complete_upload": {"token": access.upload()},
                    "show_customer": {"record_id": access.customer},
                    "show_product": {"record_id": access.product},
                    "show_order": {"record_id": access.order},
                    "show_stock": {"record_id": access.product},
                    "list_stock_history": {"record_id": access.product},
                    "show_price": {"record_id": access.product},
                    "list_price_history": {"record_id": access.product},
                    "show_event": {"event_id": access.event},
                    "show_export": {"export_id": export_id},
                    "download_export": {"export_id": export_id},
                }.items()
            ),
        ],
    )
    answers = run(schema)
    good = {operation for operation, status in answers if status < 300 or status == 409}
    paths = access.pipeline.http.get(DOCUMENT).json()["paths"].values()
    assert good == {operation["operationId"] for methods in paths for operation in methods.values()} - {ENDLESS}


def test_what_is_sent_anywhere_is_answered_as_documented(access: Access) -> None:
    schema = api(
        access,
        generation={"max-examples": 4, "database": "none"},
        phases={"coverage": {"enabled": False}, "stateful": {"enabled": False}},
    )
    run(schema)
