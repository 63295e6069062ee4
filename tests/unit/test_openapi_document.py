"""The OpenAPI document is whole: nothing that the gateway has is missing in it, and nothing else is there."""

import ast
import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest
import schemathesis

import gateway
import producers.tenant
from gateway import openapi
from gateway.app import create_app
from gateway.codes import STATUS_OF
from gateway.operations import OPERATIONS
from producers.stored import moment
from schemas.settings import Settings

APP = create_app(Settings(secret="x" * 32))
DOCUMENT: dict[str, Any] = json.loads(msgspec.json.encode(openapi.document(APP.routes)))
DOCUMENTED = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
OF_CONNECTIONS = {"malformed_request", "method_not_allowed"}
"""Codes that belong to no operation."""


def test_every_route_is_documented_and_nothing_else_is() -> None:
    routes = {f"{method} {path}" for method, path, _ in openapi.endpoints(APP.routes)}
    assert routes == OPERATIONS.keys() == DOCUMENTED.keys()


def test_a_route_that_is_left_out_is_the_twin_of_one_that_is_not() -> None:
    paths = {route.path for route in APP.routes if route.include_in_schema}
    for route in APP.routes:
        twin = route.path.removesuffix("/") if route.path.endswith("/") else route.path + "/"
        assert route.include_in_schema or twin in paths, route.path


def test_the_document_is_valid_openapi() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": components()})
    assert not [reference for reference in references(DOCUMENT) if resolved(reference) is None]


def test_every_operation_says_what_it_does() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for name, operation in DOCUMENTED.items():
        assert 5 < len(operation["summary"]) < 80, name
        assert set(operation["tags"]) < tags, name
    assert Counter(operation["operationId"] for operation in DOCUMENTED.values()).most_common(1)[0][1] == 1


def problems(path: Path) -> Iterator[tuple[int, str]]:
    """Status and code of each problem that a module can raise, where both are written out."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(args=[ast.Constant(value=int(status)), ast.Constant(value=str(code)), *_]):
                yield status, code


def test_every_problem_of_the_gateway_is_documented_with_its_status() -> None:
    raised = {found for path in Path(gateway.__path__[0]).glob("*.py") for found in problems(path)}
    assert len(raised) > 30
    assert {(status, code) for status, code in raised if STATUS_OF.get(code) != status} == set()
    used = {code for operation in OPERATIONS.values() for code in operation.codes}
    assert used == STATUS_OF.keys() - OF_CONNECTIONS


def test_everything_that_a_change_of_a_tenant_rejects_is_documented() -> None:
    rejected = {
        code
        for module in (producers.tenant.__file__, gateway.__path__[0] + "/admin.py")
        for node in ast.walk(ast.parse(Path(module).read_text()))
        for code in [rejection(node)]
        if code
    }
    assert len(rejected) > 5
    assert rejected <= STATUS_OF.keys()


def rejection(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Name(id="Rejected"), args=[ast.Constant(value=str(code)), *_]):
            return code
    return ""


def examples() -> Iterator[Any]:
    """Each example of a request: its operation, its schema and its value."""
    for name, operation in DOCUMENTED.items():
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            for title, example in content["examples"].items():
                schema = content.get("x-itemSchema", content["schema"])
                yield pytest.param(media_type, schema, example["value"], id=f"{name} {media_type} {title}")


@pytest.mark.parametrize(("media_type", "schema", "value"), list(examples()))
def test_an_example_fits_its_schema(media_type: str, schema: dict[str, Any], value: Any) -> None:
    lines = media_type == "application/x-ndjson"
    for each in map(json.loads, value.splitlines()) if lines else [value]:
        jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]}).validate(each)


def components() -> dict[str, Any]:
    """The schemas, as one schema."""
    found: dict[str, Any] = DOCUMENT["components"]["schemas"]
    return found


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def resolved(reference: str) -> Any:
    found: Any = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        found = found.get(name, {})
    return found or None


@pytest.mark.parametrize(
    ("method", "path", "takes"),
    [
        ("DELETE", "/products/P-1/price-event", "POST"),
        ("POST", "/products/P/1/price-limits/", "PUT"),
        ("POST", "/products/P-1", "GET, HEAD"),
        ("PATCH", "/uploads/token", "DELETE, GET, HEAD"),
    ],
)
def test_allow_names_what_the_documented_path_takes(method: str, path: str, takes: str) -> None:
    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://gateway") as client:
            return await client.request(method, f"/api/v1/tenants/acme{path}")

    answer = asyncio.run(asked())
    assert (answer.status_code, answer.headers["Allow"]) == (405, takes)
    assert answer.json()["detail"].endswith(f"it takes {takes}")


def test_a_moment_is_a_date_or_a_time_with_its_offset() -> None:
    takes = jsonschema_rs.validator_for(DOCUMENT["components"]["parameters"]["orders.from"]["schema"]).is_valid
    good = ("2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31t12:00:00.123456+01:00")
    assert all(map(takes, good))
    assert all(map(moment, good))
    assert not any(map(takes, ("", "yesterday", "2026-01-31T12:00:00", "2026-1-31", "20260131", "2026-01-31T12:00Z")))
