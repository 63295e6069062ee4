"""Rows as plain Python values into their part of a batch, by the code that judges them over HTTP (`schemas.rows`)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec

from schemas import topics
from schemas.errors import Rejected
from schemas.movements import MOVEMENT
from schemas.price_events import PRICE
from schemas.rows import ENTITIES, Entity, OrderItem
from schemas.values import Invalid

Row = Mapping[str, Any]
"""Fields as over HTTP: money is a Decimal, an int or text, a time a datetime with an offset or RFC 3339 text."""

_json: Final = msgspec.json.Encoder(decimal_format="number")
_ESCAPED_BACKSLASH: Final = b"\\\\"
_NUL_ESCAPE: Final = b"\\u0000"
_AT: Final = re.compile(r" - at `\$(.*)`$")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a producer can send: rows of one entity, the topic they go to, and how many a message takes at most."""

    entity: Entity
    topic: str
    max_rows: int


KINDS: Final[dict[str, Kind]] = {
    **{name: Kind(entity, topics.INGESTION, topics.MAX_ROWS) for name, entity in ENTITIES.items()},
    MOVEMENT.name: Kind(MOVEMENT, topics.STOCK, topics.MAX_MOVEMENTS),
    PRICE.name: Kind(PRICE, topics.PRICES, topics.MAX_ROWS),
}


def kind_of(name: str) -> Kind:
    """The kind of rows of this name. Raises Rejected."""
    if name not in KINDS:
        raise Rejected("unknown_entity", f"{name!r} is none of {', '.join(KINDS)}")
    return KINDS[name]


def encoded(entity: Entity, row: Row, line: int, currency: str | None) -> bytes:
    """A row as its part of a batch, in line `line` of it; unknown fields are kept or refused as over HTTP.

    `currency` is that of rows that name none; '' where each must, None where none need be. Raises Invalid.
    """
    known, extra = _split(_names(entity.row), row)
    if extra and not entity.keeps_unknown:
        raise Invalid("unknown_field", f"/{next(iter(extra))}", f"line {line}: {entity.name} has no such field")
    if currency == "" and "currency" in _names(entity.row) and known.get("currency") is None:
        raise Invalid("missing_field", "/currency", f"line {line}: name a currency in the row or for all of them")
    try:
        raw = _json.encode(known)
        if _NUL_ESCAPE in (raw + _json.encode(extra)).replace(_ESCAPED_BACKSLASH, b""):
            raise Invalid("nul_character", "", "text may not contain NUL (U+0000)")
        return entity.encode(_decoder(entity).decode(raw), line, extra, currency or "")
    except Invalid as exc:
        raise Invalid(exc.code, exc.pointer, f"line {line}: {exc.detail}") from exc
    except msgspec.MsgspecError as exc:
        detail, at = str(exc), _AT.search(str(exc))
        pointer = at.group(1).replace("[", "/").replace("]", "").replace(".", "/") if at else ""
        raise Invalid("invalid_value", pointer, f"line {line}: {detail}") from exc
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:  # no JSON has such a value
        raise Invalid("wrong_type", "", f"line {line}: {exc}") from exc


@cache
def _decoder(entity: Entity) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(entity.row)


@cache
def _names(row: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(row))


def _split(names: frozenset[str], row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that are known, and the others; those of items stand under `items`, item by item."""
    if row.keys() <= names and not row.get("items"):
        return dict(row), {}
    known = {name: value for name, value in row.items() if name in names}
    extra = {name: value for name, value in row.items() if name not in names}
    if isinstance(items := known.get("items"), list) and all(isinstance(item, Mapping) for item in items):
        split = [_split(_names(OrderItem), item) for item in items]
        known["items"] = [item for item, _ in split]
        if any(unknown for _, unknown in split):
            extra["items"] = [unknown for _, unknown in split]
    return known, extra
