"""What a log holds, whatever strangers put into it."""

import json
import logging
import sys
from typing import Any

import pytest

from schemas.logs import Seldom, handler
from schemas.settings import Settings

NASTY = "acme\n2026-01-01 00:00:00,000 CRITICAL sinks: all is lost\r\x1b[2J\u2028\x85"


def written(capsys: pytest.CaptureFixture[str], format_: str, message: str, *args: Any, **more: Any) -> str:
    """What a record becomes."""
    made = handler(Settings(log_format=format_))
    record = logging.LogRecord("sinks.consumer", logging.WARNING, "", 0, message, args, more.pop("exc_info", None))
    vars(record).update(more)
    made.setStream(sys.stderr)
    made.emit(record)
    return capsys.readouterr().err


@pytest.mark.parametrize("format_", ["text", "json"])
def test_nobody_can_write_a_line_of_his_own(capsys: pytest.CaptureFixture[str], format_: str) -> None:
    line = written(capsys, format_, "%s: refused", NASTY, tenant_id=NASTY)
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert "all is lost" in line


def test_an_object_a_line_with_what_belongs_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        line = written(capsys, "json", "of %s", "acme", event_id="e-1", tenant_id="acme", exc_info=sys.exc_info())
    said = json.loads(line)
    assert (said["level"], said["logger"], said["message"]) == ("WARNING", "sinks.consumer", "of acme")
    assert (said["event_id"], said["tenant_id"]) == ("e-1", "acme")
    assert "ValueError: bad" in said["exception"]
    assert said["time"].endswith("Z")


def test_text_is_for_people_and_keeps_a_trace_readable(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(NASTY)
    except ValueError:
        lines = written(capsys, "text", "of %s", "acme", event_id="e-1", exc_info=sys.exc_info()).splitlines()
    assert lines[0].endswith("WARNING sinks.consumer: of acme event_id=e-1")
    assert lines[1].startswith("    Traceback")
    assert all(line.startswith("    ") for line in lines[1:])


def test_a_client_that_cannot_connect_says_so_seldom() -> None:
    now = 0.0
    seldom = Seldom(clock=lambda: now)

    def said(facility: str, client: str) -> bool:
        args = (facility, client, f"Connect failed at {now}")
        return seldom.filter(logging.LogRecord("librdkafka", logging.ERROR, "", 0, "%s [%s] %s", args, None))

    passed = []
    for n in range(400):  # 20 s
        now = n / 20
        passed.append((said("FAIL", "sink"), said("FAIL", "producer")))
    assert [n for n, both in enumerate(passed) if both == (True, True)] == [0, 200]
    assert sum(map(sum, passed)) == 4
    assert said("ERROR", "sink")
