"""POST /ingest/{customers,products,orders}: check every line, publish the good ones, answer what became of each."""

from typing import Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway import bodies, idempotency
from gateway.headers import header
from gateway.problems import Problem, json
from gateway.publishing import Answer, Body, Publishing, unavailable
from gateway.tenants import authenticated
from gateway.wording import sentence
from producers.tenants import Tenant
from schemas import envelope
from schemas.rows import ENTITIES

_PARAMETERS: Final = {"on_error", "validate_only"}


class Validated(Answer):
    """What would become of the rows; nothing was published."""

    validated_only: bool = True


async def ingest(request: Request) -> Response:
    """Send rows: many as NDJSON, one as JSON.

    202 once Kafka has acknowledged the good rows; what is wrong with the others stands in `errors`. A row replaces the
    record whole: an optional field that is absent is null, or its default. Unknown fields are kept.
    """
    key = request.state.idempotency_key = idempotency.key_of(request)
    entity = ENTITIES.get(request.path_params["entity"])
    if entity is None:
        raise Problem(404, "not_found", f"there is nothing at this path; ingest takes {', '.join(ENTITIES)}")
    tenant = authenticated(request)
    single = is_json(request)
    if single:
        await request.state.limits.take(request, tenant)
    known_parameters(request, _PARAMETERS)
    all_or_nothing = choice(request, "on_error", ("skip", "reject")) == "reject"
    dry = choice(request, "validate_only", ("false", "true")) == "true"
    if not dry and not request.state.kafka.reachable:
        raise unavailable("Kafka is away")
    raw = await bodies.read(request, tenant.tenant_id, request.state.settings, request.state.inflight)
    try:
        bodies.must_be_rows(request, raw)
        if entity.name == "products" and single:
            await request.state.limits.take_product(request, tenant, raw)
        body = Body(raw, single=single, one_message=all_or_nothing)
        id_ = envelope.request_id(tenant.tenant_id, f"ingest/{entity.name}", key)
        origin = envelope.Request(id_, 1, body.lines, body.lines)
        if not dry and idempotency.was_given(request):
            first = await idempotency.first_answer(request.state.database, tenant.tenant_id, origin, body)
            if first is not None:
                return answered(first, {"Idempotency-Key": key, "Idempotent-Replayed": "true"})
        publishing = Publishing(request, tenant, entity, origin, body.hash, dry=dry, all_or_nothing=all_or_nothing)
        return answered(await publishing.publish(body), {"Idempotency-Key": key}, dry=dry)
    finally:
        request.state.inflight.give_back(tenant.tenant_id, len(raw))


def answered(answer: Answer, headers: dict[str, str], *, dry: bool = False) -> Response:
    """202, 200 of a dry run. Raises Problem 422 where no row was accepted."""
    if not answer.accepted:
        raise Problem(
            422,
            "rows_rejected",
            f"no row was accepted; {answer.rejected} are wrong",
            errors=answer.errors,
            headers=headers,
            errors_omitted=answer.errors_omitted,
            rejected_ids=answer.rejected_ids,
        )
    if dry:
        return json(200, Validated([], answer.accepted, answer.rejected, answer.errors, answer.errors_omitted), headers)
    return json(202, answer, headers)


def known_parameters(request: Request, known: set[str]) -> None:
    """Raises Problem 400 for another parameter: a misspelled validate_only must not publish."""
    if not request.scope["query_string"]:
        return
    for name in request.query_params.keys() - known:
        detail = f"{name[:50]!r} is no parameter of this path; it takes {', '.join(sorted(known))}"
        raise Problem(400, "bad_parameter", detail, parameter=name)


def choice(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """A query parameter that knows few words; the first is its default."""
    if not request.scope["query_string"]:
        return choices[0]
    given = request.query_params.get(name, choices[0]).lower()
    if given not in choices:
        raise Problem(400, "bad_parameter", f"{name} takes {' or '.join(choices)}, not {given!r}", parameter=name)
    return given


Document = TypeVar("Document")


async def json_body(request: Request, tenant: Tenant, kind: type[Document]) -> tuple[Document, str]:
    """The JSON document of a body as `kind`, and the body's text. Raises Problem 400 naming the field that is wrong."""
    raw = await bodies.read(request, tenant.tenant_id, request.state.settings, request.state.inflight)
    request.state.inflight.give_back(tenant.tenant_id, len(raw))
    try:
        return msgspec.json.decode(raw, type=kind), raw.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Problem(400, "bad_document", f"the body is not what this path takes: {sentence(exc, kind)}") from exc


def is_json(request: Request) -> bool:
    """Whether the body is one JSON document, not NDJSON."""
    return header(request, b"content-type").partition(";")[0].strip().lower() == "application/json"
