"""Logs of every process: text for people, or a JSON object a line for machines; never two lines for one of ours.

What strangers send stands in some messages (an id, a reason): control characters are escaped, so that nobody can write
a line of his own into a log. In text, the trace of an exception goes over several lines, all of them indented.
"""

import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from schemas.settings import Settings

_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_SELDOM_S: Final = 10.0
_OWN: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "color_message"}


def escaped(text: str) -> str:
    """The text with control characters as Python writes them: a line feed is `\\n`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Text(logging.Formatter):
    """`2026-01-31 12:00:00,000 WARNING sinks.consumer: ...`, with what `extra` said at its end."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = escaped(record.message)
        line = super().formatMessage(record)
        return line + "".join(f" {name}={escaped(str(value))}" for name, value in _extra(record).items())

    def formatException(self, ei: Any) -> str:
        """The trace, indented, so that a line in an exception's text is none of the log's."""
        return "\n".join(f"    {escaped(line)}" for line in super().formatException(ei).splitlines())


class Json(logging.Formatter):
    """One object a line: time, level, logger, message, what `extra` said (event_id, tenant_id, ...), exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


class Seldom(logging.Filter):
    """What a client of librdkafka says of one kind, once in 10 s: while a broker is away it is 20 times a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._said = clock, dict[tuple[Any, ...], float]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written."""
        kind = record.args[:2] if isinstance(record.args, tuple) else ()  # such as FAIL, and the client's name
        if (now := self._clock()) < self._said.get(kind, -math.inf) + _SELDOM_S:
            return False
        self._said[kind] = now
        return True


def handler(settings: Settings) -> logging.Handler:
    """What writes to stderr in the format that the settings name."""
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(Json() if settings.log_format == "json" else Text(_TEXT))
    return made


def setup(settings: Settings) -> None:
    """For a process that is ours from its beginning."""
    logging.basicConfig(level=settings.log_level, handlers=[handler(settings)], force=True)
    logging.getLogger("librdkafka").addFilter(Seldom())


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}
