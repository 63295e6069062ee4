"""The gateway's routes as one table, and what lives as long as it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from gateway import activity, admin, console, exports, figures, health, openapi, reads, schema_pages, uploads
from gateway.alerts import price_alerts_stream
from gateway.bodies import Inflight
from gateway.corrections import correct_rows
from gateway.database import Database
from gateway.downloads import download_export
from gateway.events import event
from gateway.ingest import ingest
from gateway.kafka import Reachability
from gateway.live import Live
from gateway.measured import Measured
from gateway.movements import stock_events
from gateway.price_changes import price_event, price_events
from gateway.price_rules import price_decisions, price_limits
from gateway.problems import Problem, render
from gateway.rate_limits import RateLimitHeaders, RateLimits
from gateway.schema_pages import Static
from gateway.single import SingleEvents
from gateway.stream import Streams
from gateway.tail import Tail
from gateway.tenants import Registry
from producers import Producer
from producers.export_files import Files, files_at
from schemas import topics
from schemas.errors import Unavailable
from schemas.settings import Settings

BASE = "/api/v1/tenants/{tenant_id:str}"


class State(TypedDict):
    """What every request finds in `request.state`."""

    settings: Settings
    producer: Producer
    registry: Registry
    inflight: Inflight
    kafka: Reachability
    database: Database
    limits: RateLimits
    document: Static
    streams: Streams
    outcomes: Tail
    live: Live
    files: Files


def create_app(settings: Settings) -> Starlette:
    """The ASGI application. Raises Misconfigured."""
    limits, files = RateLimits(settings), files_at(settings.exports_url)
    routes = _routes()
    document = schema_pages.static_document(openapi.document(routes))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[State]:
        registry = Registry(settings)
        registry.start()
        live = Live(settings)
        async with (
            Producer(settings) as producer,
            Reachability(settings) as kafka,
            Database(settings) as database,
            Tail(settings, [topics.OUTCOMES, topics.PRICES_VERDICTS], live.seen, live.begins) as outcomes,
        ):
            yield State(
                settings=settings,
                producer=producer,
                registry=registry,
                inflight=Inflight(settings.max_inflight_bytes),
                kafka=kafka,
                database=database,
                limits=limits,
                document=document,
                outcomes=outcomes,
                live=live,
                files=files,
                streams=(streams := Streams(settings.reader_database_url)),
            )
        await asyncio.to_thread(streams.close)
        await asyncio.to_thread(live.close)
        await asyncio.to_thread(registry.stop)

    app = Starlette(
        routes=routes,
        exception_handlers={
            Problem: render,
            Unavailable: _unavailable,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _bug,
        },
        middleware=[Middleware(Measured), Middleware(SingleEvents, settings), Middleware(RateLimitHeaders)],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # what has no twin is nothing, and a client's Host header names no place to go
    return app


def _routes() -> list[Route]:
    return [
        *_both(BASE + "/ingest/{entity}", ingest, "POST"),
        *_both(BASE + "/stock-events", stock_events, "POST"),
        *_both(BASE + "/price-events", price_events, "POST"),
        *_both(BASE + "/products/{product_id:path}/price-event", price_event, "POST"),
        *_both(BASE + "/products/{product_id:path}/price-limits", price_limits, "PUT"),
        *_both(BASE + "/price-decisions", price_decisions, "POST"),
        *_both(BASE + "/price-alerts/stream", price_alerts_stream, "GET"),
        *_both(BASE + "/uploads", uploads.open_upload, "POST"),
        *_both(BASE + "/uploads", activity.list_uploads, "GET"),
        *_both(BASE + "/activity", activity.activity, "GET"),
        *_both(BASE + "/uploads/{token}", uploads.get_upload, "GET"),
        *_both(BASE + "/uploads/{token}", uploads.cancel_upload, "DELETE"),
        *_both(BASE + "/uploads/{token}/chunks/{n}", uploads.put_chunk, "PUT"),
        *_both(BASE + "/uploads/{token}/complete", uploads.complete_upload, "POST"),
        *_both(BASE + "/uploads/{token}/errors", uploads.get_errors, "GET"),
        *_both(BASE + "/uploads/{token}/corrections", correct_rows, "POST"),
        *_both(BASE + "/exports", exports.create_export, "POST"),
        *_both(BASE + "/exports", exports.list_exports, "GET"),
        *_both(BASE + "/exports/{export_id}", exports.show_export, "GET"),
        *_both(BASE + "/exports/{export_id}", exports.cancel_export, "DELETE"),
        *_both(BASE + "/exports/{export_id}/file", download_export, "GET"),
        *_both(admin.BASE, admin.Tenants),
        *_both(admin.BASE + "/{tenant_id:str}", admin.OneTenant),
        *_both(admin.BASE + "/{tenant_id:str}/keys", admin.Keys),
        *_both(admin.BASE + "/{tenant_id:str}/keys/{key_id:str}", admin.Key),
        *_both(BASE + "/events/{event_id:path}", event, "GET"),
        *(
            route
            for path, endpoint in (*reads.ROUTES, *figures.ROUTES)
            for route in _both(BASE + path, endpoint, "GET")
        ),
        *_both("/healthz", health.healthz, "GET"),
        *_both("/readyz", health.readyz, "GET"),
        *_both("/metrics", health.metrics, "GET"),
        *_both(schema_pages.DOCUMENT, schema_pages.openapi_document, "GET"),
        Route(schema_pages.SWAGGER_UI, schema_pages.swagger_ui),
        Route(schema_pages.SWAGGER_UI.rstrip("/"), schema_pages.to_swagger_ui, include_in_schema=False),
        Route(schema_pages.SWAGGER_UI + "{file:str}", schema_pages.swagger_ui_file),
        Route(console.PAGE, console.console),
        Route(console.PAGE.rstrip("/"), console.to_console, include_in_schema=False),
        Route(console.PAGE + "{asset:str}", console.console_file),
    ]


def _both(path: str, endpoint: Any, *methods: str) -> list[Route]:
    """A route with and without its trailing slash; an HTTPEndpoint knows its methods itself."""
    return [
        Route(each, endpoint, methods=list(methods) or None, include_in_schema=each == path)
        for each in (path, path + "/")
    ]


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    headers = dict(exc.headers or {})
    if exc.status_code == 405 and (allowed := _allowed(request)):
        headers["Allow"] = ", ".join(sorted(allowed))
    takes = f"this path does not take {request.method[:20]}; it takes {headers.get('Allow', 'none')}"
    known = {404: "there is nothing at this path", 405: takes}
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "http_error")
    return await render(
        request, Problem(exc.status_code, code, known.get(exc.status_code, exc.detail), headers=headers)
    )


def _allowed(request: Request) -> set[str]:
    """The methods of the path that a request means: Starlette's own answer names those of its first route only.

    The first that fits is meant: `…/price-event` could also be the end of a product's id, which nobody looks for there.
    """
    routes: list[Route] = request.app.routes
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    meant = {route.path.rstrip("/") for route in fitting[:1]}
    return {method for route in fitting if route.path.rstrip("/") in meant for method in route.methods or ()}


async def _bug(request: Request, exc: Exception) -> Response:
    detail = "a fault of ours; part of the request may have been taken, so send it again with the same Idempotency-Key"
    return await render(request, Problem(500, "internal_error", detail, retry_after=5))


async def _unavailable(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Unavailable)
    return await render(request, Problem(503, "reads_unavailable", str(exc), retry_after=round(exc.retry_after)))


async def _gone(request: Request, exc: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it
