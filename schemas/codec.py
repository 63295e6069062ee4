"""Avro values in both standard framings.

- single-object encoding (Avro 1.12 specification, "Single-object encoding"): `C3 01`, the writer schema's
  CRC-64-AVRO fingerprint in 8 little-endian bytes, the datum. Ours by default; it needs no registry.
- Confluent wire format: `00`, a 4-byte big-endian schema id, the datum. Read where `read_ids_with` was told how.

Records hold *physical* values: money is the decimal's two's complement bytes, time is microseconds since 1970. The
logical types stay in the schemas for other readers; leaving them out here spares a conversion a field.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property, lru_cache, partial
from importlib import resources
from typing import Any, Final

import fastavro
from fastavro.schema import SchemaParseException, fingerprint, parse_schema, to_parsing_canonical_form

from schemas import compiled
from schemas.errors import Rejected, Undecodable

SINGLE_OBJECT: Final = b"\xc3\x01"
CONFLUENT: Final = b"\x00"

Record = dict[str, Any]
FingerprintById = Callable[[int], bytes | None]
"""Which of our schemas has an id in the registry: its fingerprint, b"" for another's, None for an unknown id."""
_by_id: FingerprintById | None = None


class _Schema:
    """One schema version: its type, its fingerprint and the parsed physical form."""

    def __init__(self, type_: str, version: str, text: str) -> None:
        declared = json.loads(text)
        self.type = type_
        self.declared = declared
        self.version = version
        self.fingerprint = crc64(declared)
        unsimplified = json.dumps(_unsimplified(declared), separators=(",", ":"))
        self.fingerprints = {self.fingerprint, _crc64_of_text(unsimplified)}
        physical = _without_logical_types(declared)
        self.write = compiled.writer(physical)
        self.read = compiled.reader(physical)
        self.physical = parse_schema(physical)
        self._plain = physical

    @cached_property
    def read_rows(self) -> compiled.Reader:
        """As `read`, for batches: each row has its own bytes too."""
        [rows] = [field["type"] for field in self._plain["fields"] if field["name"] == "rows"]
        return compiled.reader(self._plain, raw=rows["items"]["name"])


def crc64(schema: Any) -> bytes:
    """CRC-64-AVRO of a schema's parsing canonical form, as the 8 little-endian bytes of the framing."""
    return _crc64_of_text(to_parsing_canonical_form(schema))


def _crc64_of_text(canonical: str) -> bytes:
    return bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


def _unsimplified(schema: Any) -> Any:
    """The canonical form as Apache's Python package has it: of logical types {"type": "bytes"} stays, not "bytes".

    The specification and Apache's Java have "bytes". Both fingerprints are known, for nobody can tell from outside.
    """
    match schema:
        case list():
            return [_unsimplified(item) for item in schema]
        case {"type": "record", "name": name, "fields": fields}:
            plain = [{"name": field["name"], "type": _unsimplified(field["type"])} for field in fields]
            return {"name": f"tillstream.{name}", "type": "record", "fields": plain}
        case {"type": "enum", "name": name, "symbols": symbols}:
            return {"name": f"tillstream.{name}", "type": "enum", "symbols": symbols}
        case {"type": "array", "items": items}:
            return {"type": "array", "items": _unsimplified(items)}
        case {"type": kind, "logicalType": _}:
            return {"type": kind}
        case {"type": dict() | list() as kind}:
            return _unsimplified(kind)
    return schema


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(item) for item in schema]
    if isinstance(schema, dict):
        drop = {"logicalType", "precision", "scale"}
        kept = {key: _without_logical_types(value) for key, value in schema.items() if key not in drop}
        return kept["type"] if kept.keys() == {"type"} else kept
    return schema


@cache
def _catalogue() -> tuple[dict[str, list[_Schema]], dict[bytes, _Schema]]:
    by_type: dict[str, list[_Schema]] = {}
    for folder in resources.files("schemas").joinpath("avro").iterdir():
        type_ = f"tillstream.{folder.name}"
        versions = sorted(folder.iterdir(), key=lambda file: file.name)
        by_type[type_] = [_Schema(type_, file.name[:-5], file.read_text("utf-8")) for file in versions]
    schemas = [schema for versions in by_type.values() for schema in versions]
    return by_type, {known: schema for schema in schemas for known in schema.fingerprints}


def types() -> list[str]:
    """Every CloudEvents type that has a schema."""
    return sorted(_catalogue()[0])


def newest(type_: str) -> tuple[str, bytes, str]:
    """The newest schema of a type: its record's full name, its fingerprint, its text."""
    schema = _catalogue()[0][type_][-1]
    return f"tillstream.{schema.declared['name']}", schema.fingerprint, json.dumps(schema.declared)


def read_ids_with(by_id: FingerprintById | None) -> None:
    """Have this process read Confluent's wire format by a registry's ids. `by_id` may raise Unavailable."""
    global _by_id
    _by_id = by_id


def schema_id(value: bytes | None) -> int | None:
    """The id in a value in Confluent's wire format."""
    return int.from_bytes(value[1:5], "big") if value and value[:1] == CONFLUENT and len(value) >= 5 else None


def fingerprint_of(text: str) -> bytes:
    """The fingerprint of ours that a schema is, b"" where it is none.

    Logical types are no part of a fingerprint: those that the schema has must be ours, so that no amount is read in
    another scale.
    """
    try:
        declared = json.loads(text)
        ours = _catalogue()[1].get(crc64(declared))
    except (ValueError, LookupError, TypeError, RecursionError, SchemaParseException):
        return b""
    pairs = zip(_logical(declared), _logical(ours.declared), strict=True) if ours else ()
    return ours.fingerprint if ours and all(theirs in (None, mine) for theirs, mine in pairs) else b""


def _logical(schema: Any) -> Iterator[tuple[str, int, int] | None]:
    """The logical type of each primitive, in order."""
    match schema:
        case list():
            for branch in schema:
                yield from _logical(branch)
        case {"fields": fields}:
            for field in fields:
                yield from _logical(field["type"])
        case {"items": inner} | {"type": dict() | list() as inner}:
            yield from _logical(inner)
        case {"logicalType": name}:
            yield name, schema.get("precision", 0), schema.get("scale", 0)
        case _:
            yield None


def encode(type_: str, record: Record) -> bytes:
    """Frame `record` as single-object encoding with the newest schema of `type_`. Raises Rejected for another shape."""
    schema = _catalogue()[0][type_][-1]
    try:
        return SINGLE_OBJECT + schema.fingerprint + schema.write(record)
    except KeyError as exc:
        raise Rejected("missing_field", f"{type_} needs the field {exc}") from exc
    except (AttributeError, TypeError) as exc:
        raise Rejected("wrong_type", f"not a {type_} record: {exc}") from exc


def row_writer(type_: str, values: Mapping[str, str], names: Mapping[str, Any]) -> Callable[..., bytes]:
    """A function (struct, line, extra, currency) -> bytes of one row of a batch, for `frame`.

    A field is the struct's attribute of its name, or what `values` says of it: see `compiled.struct_writer`.
    """
    fields = {field["name"]: field["type"] for field in _catalogue()[0][type_][-1].declared["fields"]}
    writer: Callable[..., bytes] = compiled.struct_writer(
        _without_logical_types(fields["rows"]["items"]), "r, line, extra, currency", {"line": "line", **values}, names
    )
    return writer


def struct_writer(type_: str, arguments: str, values: Mapping[str, str]) -> Callable[..., bytes]:
    """A function of a struct `r`, the first of the `arguments`, that frames it; `values` as in `row_writer`."""
    schema = _catalogue()[0][type_][-1]
    write = compiled.struct_writer(_without_logical_types(schema.declared), arguments, values, {})
    head = SINGLE_OBJECT + schema.fingerprint
    return lambda *given: head + write(*given)


def encode_around(type_: str, record: Record, items: list[bytes]) -> bytes:
    """`encode` of a record whose last field is an array of what is written already."""
    name = _catalogue()[0][type_][-1].declared["fields"][-1]["name"]
    empty = encode(type_, {**record, name: []})
    return b"".join((empty[:-1], compiled.zigzag(len(items)), *items, b"\0")) if items else empty


def frame(type_: str, tenant_id: str, rows: list[bytes]) -> bytes:
    """A batch of rows that `row_writer` wrote, as single-object encoding."""
    block = (compiled.ZIGZAGS[len(rows)], *rows) if rows else ()
    return b"".join((_head(type_, tenant_id), *block, b"\0"))


@lru_cache(1_000)
def _head(type_: str, tenant_id: str) -> bytes:
    tenant = tenant_id.encode()
    return SINGLE_OBJECT + _catalogue()[0][type_][-1].fingerprint + compiled.zigzag(len(tenant)) + tenant


def check_framing(type_: str, value: bytes | None) -> None:
    """Raise Undecodable unless the first bytes of `value` name a schema of `type_`; the datum is not looked at."""
    _frame(type_, value)


def decode(type_: str, value: bytes | None) -> Record:
    """Read a framed value of `type_` as its newest schema; raises Undecodable."""
    writer, start = _frame(type_, value)
    assert value is not None
    newest = _catalogue()[0][type_][-1]
    return _datum(type_, value, start, newest.read if writer is newest else partial(_read_older, writer, newest))


def decode_rows(type_: str, value: bytes | None) -> Record:
    """`decode` of a batch where each row has its own bytes, as the newest schema writes them, as `compiled.RAW`."""
    writer, start = _frame(type_, value)
    assert value is not None
    newest = _catalogue()[0][type_][-1]
    if writer is not newest:
        value = encode(type_, decode(type_, value))
        start = len(SINGLE_OBJECT + newest.fingerprint)
    return _datum(type_, value, start, newest.read_rows)


def _read_older(writer: _Schema, newest: _Schema, value: bytes, start: int) -> tuple[Record, int]:
    datum = io.BytesIO(value)
    datum.seek(start)
    return fastavro.schemaless_reader(datum, writer.physical, newest.physical), datum.tell()


def _datum(type_: str, value: bytes, start: int, read: compiled.Reader) -> Record:
    try:
        record, end = read(value, start)
    # What reading foreign bytes ends with, in our readers and in fastavro's; all of it means the same here.
    except (EOFError, ValueError, LookupError, TypeError, OverflowError, MemoryError, StopIteration) as exc:
        raise Undecodable("truncated", f"not a {type_} datum: {type(exc).__name__}: {exc}") from exc
    if end != len(value):
        code = "truncated" if end > len(value) else "trailing_bytes"
        raise Undecodable(code, f"the datum ends at byte {end}, the value at byte {len(value)}")
    assert isinstance(record, dict)
    return record


def _frame(type_: str, value: bytes | None) -> tuple[_Schema, int]:
    by_type, by_fingerprint = _catalogue()
    if type_ not in by_type:
        raise Undecodable("unknown_type", f"no schema for {type_!r}; known: {', '.join(sorted(by_type))}")
    if not value:
        raise Undecodable("empty_value", "the message has no value")
    if value[:2] == SINGLE_OBJECT and len(value) >= 10:
        schema, start = by_fingerprint.get(value[2:10]), 10
        named = f"fingerprint {value[2:10].hex()}"
    elif value[:1] == CONFLUENT and len(value) >= 5:
        schema_id = int.from_bytes(value[1:5], "big")
        if _by_id is None:
            raise Undecodable("no_registry", f"schema id {schema_id} needs a registry: set SCHEMA_REGISTRY_URL")
        schema, start = by_fingerprint.get(_by_id(schema_id) or b""), 5
        named = f"schema id {schema_id}"
    else:
        raise Undecodable("bad_framing", "neither single-object encoding (C3 01) nor Confluent's wire format (00)")
    if schema is None:
        raise Undecodable("unknown_schema", f"{named} is no schema of ours; see schemas/avro")
    if schema.type != type_:
        raise Undecodable("wrong_schema", f"ce_type says {type_}, {named} is {schema.type}")
    return schema, start


def count_rows(type_: str, value: bytes | None, declared: int) -> int:
    """Rows of a batch: what it holds where it can be read, else what its header declared."""
    try:
        _, start = _frame(type_, value)
        if value is not None and _first_block(value, start) == declared:
            return declared  # a single block, as our own encoder writes it: no need to read the rows
        return len(decode(type_, value).get("rows", ()))
    except (Undecodable, IndexError):
        return declared


def _first_block(value: bytes, at: int) -> int:
    """The count of the first block of the array that follows the tenant id."""
    length, at = _long(value, at)
    return _long(value, at + length)[0]


def _long(value: bytes, at: int) -> tuple[int, int]:
    shift = raw = 0
    while True:
        byte = value[at]
        at += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), at
        shift += 7
        if shift > 63:
            raise Undecodable("truncated", "a long of more than 10 bytes")
