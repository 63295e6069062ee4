"""What is said of uploads, folded into their table in log order."""

from typing import Any, Final

import psycopg

from schemas.envelope import UPLOAD_CANCELLED, UPLOAD_COMPLETED, UPLOAD_OPENED
from sinks.batch import Message
from sinks.sql import statement

_SAYS: Final = {
    UPLOAD_OPENED: "open_upload",
    UPLOAD_COMPLETED: "complete_upload",
    UPLOAD_CANCELLED: "cancel_upload",
}


def follow(db: psycopg.Connection[Any], messages: list[Message]) -> None:
    """Apply what these messages say of uploads: opened, completed with so many chunks, cancelled."""
    for message in messages:
        if message.upload is not None and not message.duplicate:
            db.execute(statement(_SAYS[message.envelope.type]), message.upload)
