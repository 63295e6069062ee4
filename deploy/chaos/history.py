"""The history of a run: one JSON object a line, in the order in which things happened. A check needs nothing else.

| kind | what |
|---|---|
| `run` | seed, seconds, tenants, the nemesis's schedule, when it began (Unix seconds) |
| `asked` | a request as a client makes it: what, for whom, under which key, the body, what must be refused |
| `answered` | what came of an attempt: status (0: no answer), code, event ids, rows accepted and rejected |
| `given_up` | a request whose outcome stays unknown |
| `struck`, `healed` | a fault of the nemesis begins and ends; `restarted` is the supervisor's doing |
| `logged` | a message of a source topic, in the order of the log |
| `derived` | a message that streams wrote, with the place of its source |
| `row` | a row of a table at the end; `moved` and `written` are what PostgreSQL saw the sinks do |
| `law` | what `sinks.audit` says |
| `end` | all was read back: without it a history cannot be judged |
| `found` | a fault: lost, doubled or wrong |

`at` is in seconds since the run began.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from schemas.errors import Misconfigured

Event = dict[str, Any]
KINDS: Final = (
    "run", "asked", "answered", "given_up", "struck", "healed", "restarted", "logged", "derived", "row", "moved",
    "written", "law", "end", "found",
)  # fmt: skip


class History:
    """Writes a history. Several threads may add to it; what was added is in the file even when the run is killed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("wb", buffering=0)
        self._turn = threading.Lock()
        self._began = time.monotonic()
        self._encode = msgspec.json.Encoder().encode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def add(self, kind: str, **what: Any) -> None:
        """Append an event."""
        self.add_all(kind, [what])

    def add_all(self, kind: str, events: list[Event]) -> None:
        """Append events of one kind that are known together."""
        head = {"at": round(self.elapsed, 3), "kind": kind}
        lines = [self._encode(head | event) for event in events]
        with self._turn:
            self._file.write(b"".join(line + b"\n" for line in lines))


def read(path: Path) -> Iterator[Event]:
    """The events of a history. Raises Misconfigured for a file that is none; a torn last line is left out."""
    decode = msgspec.json.Decoder(Event).decode
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    event = decode(line)
                except msgspec.DecodeError as exc:
                    raise Misconfigured(f"{path} is no history: line {number}: {exc}") from exc
                if event.get("kind") not in KINDS or (number == 1 and event["kind"] != "run"):
                    raise Misconfigured(f"{path} is no history: line {number} is of kind {event.get('kind')!r}")
                yield event
    except FileNotFoundError as exc:
        raise Misconfigured(f"there is no history at {path}") from exc
