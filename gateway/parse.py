"""Lines of a body into Avro rows, and for each line that is wrong every reason why.

The fast path decodes a line straight into its struct. What that refuses (a wrong field, an unknown one, anything odd)
goes through `_explain`, which looks at one field at a time.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Final, TypedDict

import msgspec
from msgspec import Meta, Struct

from gateway.wording import explained
from schemas import topics
from schemas.rows import TIMES, Entity, Money, OptionalMoney, OrderItem
from schemas.values import IDENTIFIERS, Invalid, amount_of, currency_code, identifier, micros, money

_MAX_PART_BYTES: Final = 800_000
"""Bytes of lines in one message; their Avro form is smaller, so that it stays under MAX_MESSAGE_BYTES."""
_TURN_S: Final = 0.005
_NUL_ESCAPE: Final = b"\\u0000"
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_MAX_EXPONENT: Final = 308  # of a double, beyond which few readers follow
_MAX_SHOWN: Final = 100
_MAX_ROW_ERRORS: Final = 100
"""Of one line; a last one counts the others, so that the first answer and a replayed one say the same."""


class FieldError(TypedDict):
    """What is wrong with one field."""

    pointer: Annotated[str, Meta(description="JSON pointer (RFC 6901) of the field; empty for the whole row.")]
    code: str
    detail: str


class RowError(FieldError):
    """What is wrong with one field of one row."""

    line: Annotated[int, Meta(description="Of the body, from 1.")]


RowErrors = list[RowError]
Line = tuple[int, bytes]
Row = tuple[int, bytes]
"""A good line: its number, and its part of an Avro batch."""
Fault = tuple[str, str, str]
"""Code, detail, JSON pointer (RFC 6901)."""


def lines_of(body: bytes, *, single: bool) -> Iterator[Line]:
    """Numbered, non-empty lines of an NDJSON body, or a JSON body's one document; a byte order mark is dropped."""
    start, end = (3 if body.startswith(b"\xef\xbb\xbf") else 0), len(body)
    number = 1
    while start < end:
        stop = -1 if single else body.find(b"\n", start)
        if line := body[start : end if stop < 0 else stop].strip():
            yield number, line
        if stop < 0:
            break
        start, number = stop + 1, number + 1


def parts_of(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Split lines into messages. It depends on the body alone, so that a resend is split alike."""
    part: list[Line] = []
    size = 0
    for line in lines:
        if part and (len(part) == topics.MAX_ROWS or size + len(line[1]) > _MAX_PART_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line[1])
    if part:
        yield part


async def parse(entity: Entity, lines: list[Line], currency: str, max_line: int) -> tuple[list[Row], RowErrors]:
    """The good lines as Avro, and the errors of the others: `{line, pointer, code, detail}`, several a line.

    Other requests have their turn every few milliseconds: a line that is refused costs twenty times a good one.
    """
    rows: list[Row] = []
    errors: RowErrors = []
    decode, encode, now = _decoder(entity.row).decode, entity.encode, time.perf_counter
    until = now() + _TURN_S
    for number, line in lines:
        try:
            if _NUL_ESCAPE in line or len(line) > max_line:
                raise msgspec.DecodeError
            rows.append((number, encode(decode(line), number, {}, currency)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Invalid):
            good, wrong = _explain(entity, number, line, currency, max_line)
            errors += wrong
            if good is not None:
                rows.append((number, good))
        if now() > until:
            await asyncio.sleep(0)
            until = now() + _TURN_S
    return rows, errors


def one(entity: Entity, body: bytes, currency: str) -> bytes | None:
    """A body that is one good row as Avro; None where `parse` must look."""
    if _NUL_ESCAPE in body:
        return None
    try:
        return entity.encode(_decoder(entity.row).decode(body), 1, {}, currency)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Invalid):
        return None


@cache
def _decoder(row: type[Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(row)


_untyped: Final = msgspec.json.Decoder(float_hook=Decimal)
_plain: Final = msgspec.json.Encoder(decimal_format="number")


def _explain(entity: Entity, number: int, line: bytes, currency: str, max_line: int) -> tuple[bytes | None, RowErrors]:
    """The row after all, where only unknown fields were in the way; else all that is wrong with the line."""
    faults: list[Fault]
    try:
        if len(line) > max_line:
            raise Invalid("line_too_long", "", f"{len(line)} bytes; a line may have {max_line}")
        raw = _object(line)
        unknown = () if entity.keeps_unknown else _unknown_fields(entity.row, raw)
        by_pointer = {fault[2]: fault for fault in (*unknown, *_unstorable(raw), *_bad_fields(entity.row, raw))}
        faults = list(by_pointer.values())
        if not faults:
            known, extra = _split(entity.row, raw)
            return entity.encode(_decoder(entity.row).decode(_plain.encode(known)), number, extra, currency), []
    except Invalid as exc:
        faults = [(exc.code, exc.detail, exc.pointer)]
    except msgspec.ValidationError as exc:  # what only the whole row shows, as too many items
        faults = [_reason(exc, "")]
    except RecursionError:
        faults = [("malformed_json", "nested too deeply", "")]
    if len(faults) > _MAX_ROW_ERRORS:
        more = len(faults) - _MAX_ROW_ERRORS + 1
        faults = [*faults[: _MAX_ROW_ERRORS - 1], ("more_errors", f"{more:,} more things are wrong with this row", "")]
    return None, [_fault(number, *fault) for fault in faults]


def _fault(number: int, code: str, detail: str, pointer: str) -> RowError:
    return {"line": number, "pointer": pointer, "code": code, "detail": detail}


def _object(line: bytes) -> dict[str, Any]:
    """The line's JSON object; raises Invalid."""
    try:
        line.decode()
        raw = _untyped.decode(line)
    except UnicodeDecodeError as exc:
        raise Invalid("invalid_utf8", "", f"byte {exc.start} of the line is not UTF-8") from exc
    except msgspec.ValidationError as exc:  # all that an untyped value can be wrong in
        raise Invalid(
            "out_of_range", _beyond(line), "expected an integer of 4300 digits at most, its sign counted"
        ) from exc
    except msgspec.DecodeError as exc:
        if _SURROGATE.search(line):
            raise Invalid("lone_surrogate", "", "text may not contain half of a surrogate pair") from exc
        raise Invalid("malformed_json", "", f"{exc}{_hint(line)}") from exc
    if not isinstance(raw, dict):
        hint = "; send one object a line (NDJSON), without brackets around them" if isinstance(raw, list) else ""
        if isinstance(raw, str):  # a client's reason why it has no row, as of a CSV line with too many cells
            hint = f", {raw if len(raw) <= _MAX_SHOWN else f'{raw[:_MAX_SHOWN]}…'!r}"
        raise Invalid("not_an_object", "", f"expected a JSON object, got {_json_type(raw)}{hint}")
    return raw


def _hint(line: bytes) -> str:
    """What to do where a line may be a part of a larger document, or a document several lines."""
    if b"\n" in line:
        return "; application/json is one object: send several as application/x-ndjson, one a line"
    if line[:1] in (b"{", b"[") and line[-1:] not in (b"}", b"]"):
        return "; send one object a line (NDJSON), or a single one over several lines as Content-Type: application/json"
    return ""


def _beyond(line: bytes) -> str:
    """Pointer to the field of a line with an integer that Python does not read."""
    for name, raw in msgspec.json.decode(line, type=dict[str, msgspec.Raw]).items():
        try:
            _untyped.decode(raw)
        except msgspec.ValidationError:
            return f"/{_escape(name)}"
    return ""


@cache
def _fields(row: type[Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Kept: msgspec evaluates the annotations anew at each call, which took most of a refused line's time."""
    return msgspec.structs.fields(row)


def _bad_fields(row: type[Struct], raw: dict[str, Any], at: str = "") -> Iterator[Fault]:
    """Each field that is missing or does not convert, those of nested rows included."""
    for field in _fields(row):
        name, pointer = field.encode_name, f"{at}/{field.encode_name}"
        if name not in raw:
            if field.required:
                yield "missing_field", f"{name} is required", pointer
            continue
        if name == "items" and isinstance(raw[name], list):
            for i, item in enumerate(raw[name]):
                if isinstance(item, dict):
                    yield from _bad_fields(OrderItem, item, f"{pointer}/{i}")
                else:
                    yield "wrong_type", f"expected an object, got {_json_type(item)}", f"{pointer}/{i}"
            continue
        try:
            if field.type in (Money, OptionalMoney):
                given = raw[name]
                if given is None and field.type == OptionalMoney:
                    continue
                money(amount_of(given if isinstance(given, str) else msgspec.convert(given, Decimal), pointer), pointer)
                continue
            value = msgspec.convert(raw[name], field.type)
            if isinstance(value, datetime):
                micros(value, pointer)
            elif name == "currency" and value is not None:
                currency_code(value)
            elif name in IDENTIFIERS and value is not None:
                identifier(value, pointer)
        except msgspec.ValidationError as exc:
            yield _not_a_moment(raw[name], pointer) if name in TIMES else _reason(exc, pointer, field.type)
        except Invalid as exc:
            yield exc.code, exc.detail, exc.pointer


def _unknown_fields(row: type[Struct], raw: dict[str, Any]) -> Iterator[Fault]:
    """Each field that the row does not have, where there is no place to keep it."""
    names = [field.encode_name for field in _fields(row)]
    for name in [name for name in raw if name not in names]:
        yield "unknown_field", f"there is no such field; there are {', '.join(names)}", f"/{_escape(name)}"


def _split(row: type[Struct], raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that the row names, and the others; those of items stand under `items`, item by item."""
    names = {field.encode_name for field in _fields(row)}
    known = {name: value for name, value in raw.items() if name in names}
    extra = {name: value for name, value in raw.items() if name not in names}
    if known.get("items"):
        split = [_split(OrderItem, item) for item in known["items"]]
        known["items"] = [item for item, _ in split]
        if any(unknown for _, unknown in split):
            extra["items"] = [unknown for _, unknown in split]
    return known, extra


def _not_a_moment(given: Any, pointer: str) -> Fault:
    example = "expected a time with its offset, such as 2026-01-31T12:00:00Z"
    if isinstance(given, str):
        return "invalid_value", f"{example}, got {given[:40]!r}", pointer
    return "wrong_type", f"{example}, got {_json_type(given)}", pointer


def _reason(exc: msgspec.ValidationError, pointer: str, type_: Any = None) -> Fault:
    """What msgspec says of one field; `type_` tells what an enumeration takes."""
    wrong_type = str(exc).startswith("Expected `") and ", got `" in str(exc)
    text, within = explained(exc, type_)
    return ("wrong_type" if wrong_type else "invalid_value"), text, pointer + within


def _unstorable(value: Any, pointer: str = "") -> Iterator[Fault]:
    """What PostgreSQL's text and jsonb cannot hold: NUL, and numbers beyond its range."""
    if isinstance(value, str):
        if "\x00" in value:
            yield "nul_character", "text may not contain NUL (U+0000)", pointer
    elif isinstance(value, Decimal):
        if abs(value.adjusted()) > _MAX_EXPONENT:
            yield "out_of_range", f"expected an exponent of {_MAX_EXPONENT} at most", pointer
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _unstorable(name, f"{pointer}/{_escape(name)}")
            yield from _unstorable(item, f"{pointer}/{_escape(name)}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _unstorable(item, f"{pointer}/{i}")


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1").replace("\x00", "\\u0000")


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
