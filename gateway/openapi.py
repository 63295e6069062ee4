"""The OpenAPI 3.1 document, made once at start from the routes, the table of operations, and the types themselves.

Schemas come from the structs that decode requests and that answers are encoded from, summaries from the endpoints'
docstrings. A route without an operation is left out; a test holds that there is none.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any, Final

import msgspec
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Route

from gateway.codes import CODES, RETRIABLE, STATUS_OF
from gateway.operation import NDJSON, Content, Operation
from gateway.operations import OPERATIONS
from gateway.parameters import HEADERS, PARAMETERS
from gateway.problems import ProblemDetails
from schemas.rows import ENTITIES

PROBLEM: Final = "application/problem+json"
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_CONVERTOR: Final = re.compile(r"{(\w+):\w+}")
_IN_PATH: Final = re.compile(r"{(\w+)}")
_KEEPS_UNKNOWN: Final = {
    "Customer": "`attributes`",
    "Product": "`attributes`",
    "Order": "`raw_payload`",
    "OrderItem": "`raw_payload` of the order",
}

_ABOUT: Final = """
Multi-tenant ingestion on Kafka: nothing lost, nothing doubled.

- **Keys.** Send your API key as `X-API-Key: <key>` or `Authorization: Bearer <key>`. It opens its own tenant's paths.
- **Rows** travel as NDJSON (one JSON object a line), compressed with gzip or zstd where you like. Money is a decimal
  string, or a number, with at most 2 decimals; integers have no decimal point; times are RFC 3339 with an offset;
  identifiers are your own strings. A row replaces the record whole. Unknown fields are no error: they are kept, in
  `raw_payload` of orders and in `attributes` of customers and products.
- **2xx** means that Kafka has acknowledged. After a **503**, or no answer at all, send the same request again under the
  same `Idempotency-Key`: it counts once.
- **Errors** are problem details (RFC 9457). Programs go by `code`, which never changes its meaning, and by `retriable`.
- **Every path** works with and without a slash at its end.
"""
_TAGS: Final = {
    "Ingest": "Rows of customers, products and orders.",
    "Stock": "Movements, which change levels.",
    "Prices": "Changes of prices, each of which is judged; alerts, live; limits, and decisions about held prices.",
    "Uploads": "Large bodies in chunks, which may come in any order, in parallel, and again.",
    "Reads": "What is stored, a page at a time or all of it, and what became of an event.",
    "Exports": "What is stored, as a file that a sink writes.",
    "Figures": "What was sold on which day, and other counts.",
    "Admin": "Tenants, their keys, limits and policies; for who has the admin token.",
    "Health": "For orchestrators and Prometheus.",
    "Console": "A page for people.",
    "Schema": "This document.",
}
_SECURITY: Final = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "A tenant's API key."},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "A tenant's API key as a bearer token."},
    "AdminToken": {"type": "http", "scheme": "bearer", "description": "The gateway's TILLSTREAM_ADMIN_TOKEN."},
}


def endpoints(routes: Iterable[Route]) -> Iterator[tuple[str, str, Any]]:
    """Method, path as OpenAPI writes it, and endpoint, of each route but for trailing-slash twins.

    The one route of ingest is a path an entity, since each takes rows of its own.
    """
    for route in routes:
        if not route.include_in_schema:
            continue
        path = _CONVERTOR.sub(r"{\1}", route.path)
        for each in [path.replace("{entity}", name) for name in ENTITIES] if "{entity}" in path else [path]:
            for method in _METHODS:
                if inspect.isclass(route.endpoint) and issubclass(route.endpoint, HTTPEndpoint):
                    if endpoint := getattr(route.endpoint, method.lower(), None):
                        yield method, each, endpoint
                elif method in (route.methods or ()):
                    yield method, each, route.endpoint


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document, ready to be encoded."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}
    for method, path, endpoint in endpoints(routes):
        if (operation := OPERATIONS.get(f"{method} {path}")) is not None:
            paths.setdefault(path, {})[method.lower()] = _operation(path, operation, endpoint, schemas)
    for name, where in _KEEPS_UNKNOWN.items():
        schemas[name]["additionalProperties"] = True  # the struct refuses them only to keep them by a slower path
        schemas[name]["description"] += f" Unknown fields are kept, in {where}."
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "tillstream",
            "version": version("tillstream"),
            "description": _ABOUT.strip(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This gateway."}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "examples": _examples(),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": _SECURITY,
        },
    }


def _operation(path: str, operation: Operation, endpoint: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    summary, _, description = (inspect.getdoc(endpoint) or "").partition("\n\n")
    said: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": (operation.summary or " ".join(summary.split())).removesuffix("."),
        "description": " ".join(description.split()),
        "parameters": [
            {"$ref": f"#/components/parameters/{name}"} for name in (*_IN_PATH.findall(path), *operation.parameters)
        ],
        "responses": {
            str(status): answer
            for status, answer in sorted((_problems(operation, schemas) | _answers(operation, schemas)).items())
        },
        "security": [{scheme: []} for scheme in operation.security],
    }
    if (taken := operation.taken) is not None:
        content = _contents(taken.content, schemas)
        said["requestBody"] = {"description": taken.description, "required": taken.required, "content": content}
    return said


def _answers(operation: Operation, schemas: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {
        status: {
            "description": said.description,
            "headers": _headers(operation, said.headers),
            "content": _contents(said.content, schemas),
        }
        for status, said in operation.answers.items()
    }


def _problems(operation: Operation, schemas: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The problems of an operation, by status; the schema of each admits its codes only."""
    problem = _schema(ProblemDetails, schemas)
    answers = {}
    for status in {STATUS_OF[code] for code in operation.codes}:
        codes = {code: meaning for code, meaning in CODES[status].items() if code in operation.codes}
        required = ("Retry-After",) if status in RETRIABLE else ("WWW-Authenticate",) if status == 401 else ()
        answers[status] = {
            "description": "\n".join(f"- `{code}`: {meaning}" for code, meaning in codes.items()),
            "headers": _headers(operation, required),
            "content": {
                PROBLEM: {
                    "schema": {**problem, "properties": {"code": {"enum": list(codes)}}},
                    "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
                }
            },
        }
    return answers


def _examples() -> dict[str, Any]:
    return {
        code: {"summary": meaning, "value": ProblemDetails.of(status, code, meaning, retriable=status in RETRIABLE)}
        for status, codes in CODES.items()
        for code, meaning in codes.items()
    }


def _headers(operation: Operation, required: tuple[str, ...]) -> dict[str, Any]:
    optional = {name: {"$ref": f"#/components/headers/{name}"} for name in operation.headers}
    return optional | {name: {**HEADERS[name], "required": True} for name in required}


def _contents(contents: dict[str, Content], schemas: dict[str, Any]) -> dict[str, Any]:
    return {media_type: _content(media_type, content, schemas) for media_type, content in contents.items()}


def _content(media_type: str, content: Content, schemas: dict[str, Any]) -> dict[str, Any]:
    """To OpenAPI 3.1 lines are text; what one of them is stands in `x-itemSchema`, as 3.2's `itemSchema` will say it.

    (JSON Schema's `contentMediaType` and `contentSchema` would do, but make Swagger UI ask for a file.)
    """
    said: dict[str, Any] = {}
    if content.type is not None:
        said["schema"] = schema = _schema(content.type, schemas)
        if media_type == NDJSON:
            text = {"type": "string", "minLength": schema.get("minItems", 0), "description": "One JSON object a line."}
            said = {"schema": text, "x-itemSchema": schema["items"]}
    if content.examples:
        said["examples"] = {name: {"summary": name, "value": value} for name, value in content.examples.items()}
    return said


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a type; what it refers to goes into `schemas`."""
    (schema,), components = msgspec.json.schema_components((kind,), ref_template="#/components/schemas/{name}")
    schemas |= components
    return schema
