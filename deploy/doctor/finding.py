"""What a look found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: what was looked at, what it is like, and what to do about it."""

    level: Level
    what: str
    found: str
    remedy: str = ""


def ok(what: str, found: str) -> Finding:
    """As it should be."""
    return Finding(Level.OK, what, found)


def warn(what: str, found: str, remedy: str) -> Finding:
    """It works; somebody should look at it."""
    return Finding(Level.WARN, what, found, remedy)


def fail(what: str, found: str, remedy: str) -> Finding:
    """It does not work, or will not for long."""
    return Finding(Level.FAIL, what, found, remedy)
