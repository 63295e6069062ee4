"""A letter as the message that sends it once more: whole as it was, or its rows, patched where somebody says so.

Only rows, movements and price changes are sent again: a policy, a decision or what is said of an upload would overwrite
what was said since, and is better said anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jsonpatch
import jsonpointer

from producers.rows import encoded
from schemas import codec, topics
from schemas.envelope import Position, Redrive, tenant_text
from schemas.errors import Misconfigured, Rejected, Undecodable
from schemas.movements import MOVEMENT
from schemas.price_events import PRICE
from schemas.prices import PRICE_CHANGES
from schemas.redrive import original_id
from schemas.rows import ENTITIES, Entity
from sinks.quarantine import Letter, contents

Patch = jsonpatch.JsonPatch

_ENTITIES: Final[dict[str, Entity]] = {entity.type: entity for entity in (*ENTITIES.values(), MOVEMENT, PRICE)}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that sends `letters` once more, all of them of one message."""

    letters: Sequence[Letter]
    key: bytes
    value: bytes
    rows: int
    redrive: Redrive

    @property
    def row_indexes(self) -> list[int]:
        """Which rows of the first message these are; none for all of it."""
        return [letter.row_index for letter in self.letters if letter.row_index is not None]


def read_patch(text: str) -> Patch:
    """A JSON Patch (RFC 6902). Raises Misconfigured."""
    try:
        return Patch.from_string(text)
    except (ValueError, TypeError, jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as exc:
        raise Misconfigured(f"not a JSON Patch (RFC 6902), an array of operations: {exc}") from exc


def outgoing(letters: Sequence[Letter], patch: Patch | None, first: Position) -> Outgoing:
    """The message that sends these letters once more; `first` is where their event came first.

    The letters are one whole message, or rows of one. Raises Rejected where they cannot be sent, with what to do.
    """
    letter = letters[0]
    if letter.type not in codec.types():
        raise Rejected("not_redrivable", f"{letter.type} is no type of ours: send it again from where it came")
    if letter.type not in _ENTITIES:
        raise Rejected("not_redrivable", f"{letter.type} is not sent again: say it anew, for things were said since")
    if letter.kind == "row":
        redrive = Redrive(first, tuple(one.row_index for one in letters if one.row_index is not None))
        rows = [(patched(contents(one)[0], patch), one.line or 0) for one in letters]
        value, count = _batch(letter, rows), len(rows)
    else:
        redrive = _of_headers(letter, first)
        value, count = _message(letter, patch)
    key = letter.key if letter.key is not None else topics.partition_key(letter.claimed)
    if len(value) > topics.MAX_MESSAGE_BYTES:
        raise Rejected("too_large", f"{len(value):,} bytes; a message has {topics.MAX_MESSAGE_BYTES:,} at most")
    return Outgoing(letters, key, value, count, redrive)


def patched(row: Any, patch: Patch | None) -> Any:
    """A document after a patch. Raises Rejected where the patch does not fit it."""
    if patch is None:
        return row
    try:
        return patch.apply(row)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError) as exc:
        raise Rejected("patch_failed", f"the patch does not fit: {exc}") from exc


def _message(letter: Letter, patch: Patch | None) -> tuple[bytes, int]:
    """The value of a whole message, and its rows."""
    value = letter.payload
    if letter.key is None or tenant_text(letter.key).encode() != letter.key or not letter.key:
        raise Rejected("no_tenant", "its key names no tenant: send it again from where it came")
    if value is None or len(value) != letter.payload_bytes:
        raise Rejected("not_whole", f"{letter.payload_bytes or 0:,} bytes; of more than a megabyte only that is kept")
    if patch is None:
        return value, letter.rows
    if letter.tenant_id is None:
        raise Rejected("no_tenant", "whose rows they are is not sure, and a patch would make them the key's")
    lines = [row["line"] for row in codec.decode(letter.type, value)["rows"]]
    document = patched({"rows": contents(letter)}, patch)
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list) or len(rows) > len(lines):
        raise Rejected("patch_failed", 'the patch must leave {"rows": [...]}, and add no row')
    return _batch(letter, list(zip(rows, lines, strict=False))), len(rows)


def _batch(letter: Letter, rows: list[tuple[Any, int]]) -> bytes:
    """Rows as JSON, with their lines, as the value of a message. Raises Rejected for a row that is still wrong."""
    entity = _ENTITIES[letter.type]
    currency = None if letter.type == PRICE_CHANGES else ""  # a price that came here without one stays without
    parts = []
    for row, line in rows:
        if not isinstance(row, dict):
            raise Rejected("patch_failed", "a row is a JSON object")
        parts.append(encoded(entity, _as_given(row), line, currency))
    return codec.frame(letter.type, letter.claimed, parts)


def _as_given(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was before its unknown fields were gathered in `raw_payload`."""
    extra = row.get("raw_payload")
    if not isinstance(extra, dict):
        return row
    known = {name: value for name, value in row.items() if name != "raw_payload"}
    more, items = extra.get("items"), known.get("items")
    if isinstance(more, list) and isinstance(items, list) and len(more) <= len(items):
        known["items"] = [{**(more[n] if n < len(more) else {}), **item} for n, item in enumerate(items)]
        extra = {name: value for name, value in extra.items() if name != "items"}
    return {**extra, **known}


def _of_headers(letter: Letter, first: Position) -> Redrive:
    """A message that was a redrive already repeats what that one did."""
    headers = letter.headers or {}
    if original_id(letter.event_id) == letter.event_id or "ts-redrive-of" not in headers:
        return Redrive(first)
    try:
        rows = headers.get("ts-redrive-rows", "")
        return Redrive(
            Position.parse(headers["ts-redrive-of"].encode()), tuple(map(int, rows.split(","))) if rows else ()
        )
    except (Undecodable, ValueError) as exc:
        raise Rejected("bad_header", f"what it repeats cannot be read: {exc}") from exc
