"""Cursors of keyset pages: the key of the last row, opaque to clients, good for the same filters only."""

import base64
import binascii
import hashlib
from typing import Any

import msgspec

from gateway.filters import bad


def encode(scope: list[Any], key: list[str]) -> str:
    """The cursor after the row with this key; `scope` is whose rows of what kind, and the filters."""
    return base64.urlsafe_b64encode(msgspec.json.encode([_digest(scope), *key])).decode().rstrip("=")


def decode(scope: list[Any], cursor: str, length: int) -> list[str]:
    """The key in a cursor, of `length` parts. Raises Problem 400 when it is none, or was made for another scope."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        digest, *key = msgspec.json.decode(raw, type=list[str])
    except (binascii.Error, ValueError, msgspec.DecodeError) as exc:
        raise bad("cursor", "cursor takes the next_cursor of the page before, whole") from exc
    if digest != _digest(scope):
        raise bad("cursor", "this cursor belongs to other filters; send those of its page, or leave it out")
    if len(key) != length or any("\x00" in part for part in key):
        raise bad("cursor", "cursor takes the next_cursor of the page before, whole")
    return key


def _digest(scope: list[Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(scope)).hexdigest()[:16]
