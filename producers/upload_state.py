"""What a gateway says of an upload, as a client reads it."""

from typing import Any, Final

from msgspec import Struct

FINISHED: Final = ("completed", "partially_completed")


class Chunks(Struct):
    """Of the state document."""

    declared: int | None
    applied: int
    missing: list[int]
    missing_count: int


class Rows(Struct):
    """Of the state document: rows by outcome; `rejected` counts those that the gateway refused, too."""

    applied: int
    superseded: int
    duplicate: int
    conflict: int
    rejected: int


class State(Struct):
    """What GET /uploads/{token} says."""

    state: str
    chunks: Chunks
    rows: Rows
    eta_s: float | None = None


class RowErrors(Struct):
    """A line of GET /uploads/{token}/errors."""

    chunk: int
    line: int
    errors: list[dict[str, Any]]
