"""Rows sent once more: dead letters that are redriven, rows that are corrected.

The message is a new one, under an id that says what it repeats and the how-manieth try it is: `<id>~r<n>`. Dedup and
ledger know it by that id alone, never by the request that the first message was a part of. `ts-redrive-of` says where
the first one lay; rows keep the version they had there, so that they overwrite nothing that came since.
"""

import re
import uuid
from typing import Final

from schemas.envelope import NAMESPACE, Headers, Redrive, headers_of

_NUMBERED: Final = re.compile(r"(.+)~r[1-9][0-9]{0,5}", re.DOTALL)
_MAX_BASE: Final = 190
"""Characters of an id to which a number can still be added."""


def original_id(event_id: str) -> str:
    """The id of the event that came first: what stands before `~r<n>`, or the id itself."""
    numbered = _NUMBERED.fullmatch(event_id)
    return numbered[1] if numbered else event_id


def redriven_id(event_id: str, n: int) -> str:
    """The id under which an event is sent for the `n`th time after the first; redrives of redrives do not pile up."""
    base = original_id(event_id)
    if len(base) > _MAX_BASE:
        base = str(uuid.uuid5(NAMESPACE, base))
    return f"{base}~r{n}"


def redriven(
    *, event_id: str, type: str, source: str, accepted_ms: int, rows: int, value: bytes, redrive: Redrive
) -> Headers:
    """Headers of rows that come once more; `event_id` is a `redriven_id`, `accepted_ms` when they came first."""
    headers = headers_of(
        event_id=event_id, type=type, source=source, accepted_ms=accepted_ms, rows=rows, value=value, traceparent=None
    )
    return headers + redrive.headers()
