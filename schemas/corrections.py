"""Corrections: rows of an upload that were refused, each sent once more as a message of its own (`schemas.redrive`).

The id `<event>:<line>~r<n>` names the message that the row came in, its line in its chunk, and the how-manieth
correction of that row it is: two corrections of one row under one id are a duplicate or a conflict, of two rows never.
"""

import re
from typing import Final
from uuid import UUID

from schemas.redrive import redriven_id

_ID: Final = re.compile(r"(.+):[0-9]{1,9}~r([1-9][0-9]{0,5})", re.DOTALL)


def correction_id(event_id: str, line: int, n: int) -> str:
    """The id of the `n`th correction of a row that came as this line in the event."""
    return redriven_id(f"{event_id}:{line}", n)


def number_of(event_id: str, upload: UUID | str | None) -> int | None:
    """The how-manieth correction of its row an event of an upload is; None of an event that is none."""
    found = None if upload is None else _ID.fullmatch(event_id)
    return int(found[2]) if found else None


def corrected_event(event_id: str) -> str:
    """The event whose row a correction is of; of anything else the id itself."""
    found = _ID.fullmatch(event_id)
    return found[1] if found else event_id
