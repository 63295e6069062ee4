"""Requests again, against a real HTTP server that answers by a script."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from producers.calls import Patience, Refused, accepted, persist
from schemas.errors import Unavailable

PROBLEM = "application/problem+json"
Scripted = tuple[int, dict[str, str], bytes]
LATER: Scripted = (503, {"Content-Type": PROBLEM}, b'{"code":"overloaded","detail":"too much","retriable":true}')
DONE: Scripted = (202, {"Content-Type": "application/json"}, b'{"good":1}')


@contextmanager
def server(answers: list[Scripted]) -> Iterator[str]:
    """Answers in turn, the last one for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    serving.server_close()


def get(url: str, patience: Patience) -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient() as http:
            return await persist(lambda: http.get(url), patience)

    return asyncio.run(run())


def test_it_goes_on_until_an_answer_that_stays() -> None:
    heard: list[str] = []
    with server([LATER, (502, {"Content-Type": "text/html"}, b"<h1>Bad gateway"), LATER, DONE]) as url:
        assert accepted(get(url, Patience(30, heard.append))) == {"good": 1}
    assert heard == ["too much", "status 502", "too much"]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    later = (429, {"Content-Type": PROBLEM, "Retry-After": "2" if form == "seconds" else date}, LATER[2])
    with server([later, DONE]) as url:
        started = time.monotonic()
        assert get(url, Patience(30)).status_code == 202
        assert time.monotonic() - started > 1.8


def test_patience_ends_with_the_reason() -> None:
    with server([LATER]) as url, pytest.raises(Unavailable, match="no progress for 1 s: too much"):
        get(url, Patience(1))
    with pytest.raises(Unavailable, match="no answer"):
        get("http://127.0.0.1:9", Patience(0.5))


def test_where_nothing_listens_patience_may_end_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="no gateway listens at http://127.0.0.1:9 "):
        get("http://127.0.0.1:9/any", Patience(60, must_listen=True))
    assert time.monotonic() - started < 5
    with server([LATER, DONE]) as url:
        patience = Patience(1, must_listen=True)
        assert get(url, patience).status_code == 202
    with pytest.raises(Unavailable, match="no progress for 1 s"):
        get(url, patience)


def test_what_stays_wrong_is_said_at_once() -> None:
    said = b'{"code":"wrong_key","detail":"that key","retriable":false}'
    with server([(401, {"Content-Type": PROBLEM}, said)]) as url, pytest.raises(Refused, match="that key") as told:
        accepted(get(url, Patience(30)))
    assert (told.value.status, told.value.code) == (401, "wrong_key")
    with server([(200, {"Content-Type": "text/html"}, b"<html>")]) as url, pytest.raises(Refused, match="gateway"):
        accepted(get(url, Patience(30)))
    with server([(404, {}, b"nothing")]) as url, pytest.raises(Refused, match="http_404"):
        accepted(get(url, Patience(30)))
