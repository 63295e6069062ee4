"""Lines of a body into Avro records, and for each line that is wrong every reason why.

The fast path decodes a line straight into its struct. What that refuses (a wrong field, an unknown one, anything odd)
goes through `_explain`, which looks at one field at a time.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any, Final

import msgspec

from schemas import topics
from schemas.codec import Record
from schemas.rows import Entity, Invalid

_MAX_PART_BYTES: Final = 800_000
"""Bytes of lines in one message; their Avro form is smaller, so that it stays under MAX_MESSAGE_BYTES."""
_NUL_ESCAPE: Final = b"\\u0000"
_AT: Final = re.compile(r" - at `\$(.*)`$")

RowErrors = list[dict[str, Any]]
Line = tuple[int, bytes]


def lines_of(body: bytes, *, single: bool) -> list[Line]:
    """Numbered, non-empty lines of an NDJSON body, or a JSON body's one document; a byte order mark is dropped."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    if single:
        return [(1, stripped)] if (stripped := body.strip()) else []
    return [(n, line) for n, raw in enumerate(body.split(b"\n"), start=1) if (line := raw.strip())]


def parts_of(lines: list[Line]) -> Iterator[list[Line]]:
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


def parse(entity: Entity, lines: list[Line], currency: str, max_line: int) -> tuple[list[Record], RowErrors]:
    """Records of the good lines, and the errors of the others: `{line, pointer, code, detail}`, several a line."""
    records: list[Record] = []
    errors: RowErrors = []
    decode, record = _decoder(entity).decode, entity.record
    for number, line in lines:
        try:
            if _NUL_ESCAPE in line or len(line) > max_line:
                raise msgspec.DecodeError
            records.append(record(decode(line), number, {}, currency))
        except (msgspec.DecodeError, UnicodeDecodeError, Invalid):
            good, wrong = _explain(entity, number, line, currency, max_line)
            errors += wrong
            if good is not None:
                records.append(good)
    return records, errors


@cache
def _decoder(entity: Entity) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(entity.row)


_untyped: Final = msgspec.json.Decoder(float_hook=Decimal)


def _explain(entity: Entity, number: int, line: bytes, currency: str, max_line: int) -> tuple[Record | None, RowErrors]:
    """The record after all, where only unknown fields were in the way; else all that is wrong with the line."""

    def wrong(code: str, detail: str, pointer: str = "") -> dict[str, Any]:
        return {"line": number, "pointer": pointer, "code": code, "detail": detail}

    if len(line) > max_line:
        return None, [wrong("line_too_long", f"{len(line)} bytes; a line may have {max_line}")]
    try:
        line.decode()
        raw = _untyped.decode(line)
    except UnicodeDecodeError as exc:
        return None, [wrong("invalid_utf8", f"byte {exc.start} of the line is not UTF-8")]
    except msgspec.DecodeError as exc:
        return None, [wrong("malformed_json", str(exc))]
    except RecursionError:
        return None, [wrong("malformed_json", "nested too deeply")]
    if not isinstance(raw, dict):
        return None, [wrong("not_an_object", f"expected a JSON object, got {_json_type(raw)}")]
    errors = [wrong(code, detail, pointer) for pointer, code, detail in _bad_text(raw)]
    known = {field.encode_name: field for field in msgspec.structs.fields(entity.row)}
    for name, field in known.items():
        if name not in raw:
            if field.required:
                errors.append(wrong("missing_field", f"{name} is required", f"/{name}"))
            continue
        try:
            msgspec.convert(raw[name], field.type)
        except msgspec.ValidationError as exc:
            errors.append(wrong(*_reason(exc, name)))
    if errors:
        return None, errors
    extra = {name: value for name, value in raw.items() if name not in known}
    try:
        row = msgspec.convert({name: value for name, value in raw.items() if name in known}, entity.row)
        return entity.record(row, number, extra, currency), []
    except Invalid as exc:
        return None, [wrong(exc.code, exc.detail, exc.pointer)]


def _reason(exc: msgspec.ValidationError, name: str) -> tuple[str, str, str]:
    """Code, detail and JSON pointer of what msgspec says of one field."""
    text = str(exc)
    inner = ""
    if at := _AT.search(text):
        text = text[: at.start()]
        inner = at.group(1).replace("[", "/").replace("]", "").replace(".", "/")
    if "missing required field" in text:
        return "missing_field", text, f"/{name}{inner}"
    if text.startswith("Expected `") and ", got `" in text:
        return "wrong_type", text, f"/{name}{inner}"
    return "invalid_value", text, f"/{name}{inner}"


def _bad_text(value: Any, pointer: str = "") -> Iterator[tuple[str, str, str]]:
    """What PostgreSQL's text and jsonb cannot hold: NUL, and halves of surrogate pairs."""
    if isinstance(value, str):
        if "\x00" in value:
            yield pointer, "nul_character", "text may not contain NUL (U+0000)"
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            yield pointer, "lone_surrogate", "text may not contain half of a surrogate pair"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _bad_text(name, f"{pointer}/{_escape(name)}")
            yield from _bad_text(item, f"{pointer}/{_escape(name)}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _bad_text(item, f"{pointer}/{i}")


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1").replace("\x00", "\\u0000")


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
