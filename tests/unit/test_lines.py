"""Answers that are lines: how they end, whatever their client does. The client here is ASGI's two callables."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway import lines
from gateway.lines import Lines

Send = Callable[[Any], Awaitable[None]]


async def ticks() -> AsyncIterator[bytes]:
    """Two lines, and then nothing more for ever."""
    yield b"1\n"
    yield b"2\n"
    await asyncio.Event().wait()


async def served(answer: Lines, send: Send, receive: Callable[[], Awaitable[Any]]) -> list[str]:
    """Serve an answer until it has ended; what was done to its connection."""
    done: list[str] = []
    scope = {"type": "http", "extensions": {"tillstream.abort": {"abort": lambda: done.append("aborted")}}}
    async with asyncio.timeout(5):
        await answer(scope, receive, send)
    return done


async def stays() -> Any:
    await asyncio.Event().wait()


def test_lines_are_sent_as_they_come_and_the_last_one_ends_the_answer() -> None:
    sent: list[Any] = []
    closed: list[bool] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def two() -> AsyncIterator[bytes]:
        yield b"1\n"
        yield b"2\n"

    answer = Lines(202, two(), {"X": "y"}, lambda: closed.append(True))
    assert asyncio.run(served(answer, send, stays)) == []
    start, *bodies = sent
    assert start["status"] == 202
    assert {(b"x", b"y"), (b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")} <= set(
        start["headers"]
    )
    assert b"content-length" not in dict(start["headers"])
    assert [(body["body"], body.get("more_body", False)) for body in bodies] == [
        (b"1\n", True), (b"2\n", True), (b"", False),
    ]  # fmt: skip
    assert closed == [True]


def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "STALL_S", 0.05)
    closed: list[bool] = []

    async def send(message: Any) -> None:
        if message.get("body") == b"2\n":
            await asyncio.Event().wait()

    assert asyncio.run(served(Lines(202, ticks(), {}, lambda: closed.append(True)), send, stays)) == ["aborted"]
    assert closed == [True]


@pytest.mark.parametrize("reads_on", [True, False])
def test_a_client_that_was_dropped_is_told_at_the_end_of_a_line_where_it_reads_on(
    monkeypatch: pytest.MonkeyPatch, reads_on: bool
) -> None:
    monkeypatch.setattr(lines, "STALL_S", 0.05)
    monkeypatch.setattr(lines, "FAREWELL_S", 5.0 if reads_on else 0.05)
    sent: list[bytes] = []
    closed: list[list[bytes]] = []
    takes = asyncio.Event()

    async def send(message: Any) -> None:
        if message.get("body") == b"2\n":
            await takes.wait()
        if message.get("body") == b"dropped\n":
            if reads_on:
                takes.set()
            await takes.wait()
        sent.append(message.get("body"))

    answer = Lines(202, ticks(), {}, lambda: closed.append(list(sent)), farewell=lambda: b"dropped\n")
    assert asyncio.run(served(answer, send, stays)) == ([] if reads_on else ["aborted"])
    assert sent == [None, b"1\n", *([b"dropped\n", b""] if reads_on else [])]
    assert closed[0] == [None, b"1\n"]  # the place is given up before


def test_a_client_that_leaves_ends_the_wait() -> None:
    closed: list[bool] = []

    async def send(message: Any) -> None:
        pass

    async def leaves() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    assert asyncio.run(served(Lines(202, ticks(), {}, lambda: closed.append(True)), send, leaves)) == []
    assert closed == [True]
