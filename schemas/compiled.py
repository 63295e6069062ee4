"""Avro writers and readers compiled to straight Python for one schema each: faster than fastavro (README, "Decisions").

fastavro looks up the schema at every field. For the few record shapes of ours the code is made once, field by field,
from the schema; fastavro remains the judge in tests and reads what was written with another version.
Encoding: Avro 1.12 specification, "Binary encoding".
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Writer = Callable[[dict[str, Any]], bytes]
Reader = Callable[[bytes, int], tuple[dict[str, Any], int]]

_LONG: Final = 1 << 64
RAW: Final = "raw"

_BITS14: Final = (1 << 14) - 1
_INNER: Final = [bytes((n & 127 | 128, n >> 7 | 128)) for n in range(1 << 14)]
_LAST: Final = [bytes((n & 127 | 128, n >> 7)) for n in range(1 << 14)]
"""Two coded bytes of a long, in its middle and at its end."""


def zigzag(n: int) -> bytes:
    """A long in Avro's variable-length zig-zag coding."""
    n = (n << 1) ^ (n >> 63)
    if 1 << 49 <= n < 1 << 56:  # microseconds from 1979 to 3111: 8 bytes
        return _INNER[n & _BITS14] + _INNER[n >> 14 & _BITS14] + _INNER[n >> 28 & _BITS14] + _LAST[n >> 42]
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


class _Zigzags(dict[int, bytes]):
    """Coded longs, the small ones made beforehand."""

    def __missing__(self, n: int) -> bytes:
        return zigzag(n)


ZIGZAGS: Final = _Zigzags({n: zigzag(n) for n in range(4_096)})


def text(value: str) -> bytes:
    """A string of an array, with its length before it."""
    raw = value.encode()
    return ZIGZAGS[len(raw)] + raw


def _more(data: bytes, first: int, at: int) -> tuple[int, int]:
    """The rest of a coded long of several bytes, still zig-zag."""
    n, shift = first & 127, 7
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a long of more than 10 bytes")
    if n >= _LONG:
        raise ValueError("a long has more than 64 bits")
    return n, at


def _length(data: bytes, first: int, at: int) -> tuple[int, int]:
    """As _more, for what may not be negative."""
    n, at = _more(data, first, at) if first > 127 else (first, at)
    if n & 1:
        raise ValueError("negative length")
    return n, at


def writer(schema: dict[str, Any]) -> Writer:
    """Compile a writer of a record schema without logical types."""

    def source(field: dict[str, Any]) -> str:
        name = repr(field["name"])
        return f"r.get({name}, {field['default']!r})" if "default" in field else f"r[{name}]"

    compiled: Writer = _compiled_writer(schema, source, "r", {}, writer)
    return compiled


def struct_writer(schema: dict[str, Any], arguments: str, values: Mapping[str, str], names: Mapping[str, Any]) -> Any:
    """Compile a writer of a record schema whose fields are attributes of a struct `r`, or `values`.

    `arguments` are the writer's, the struct first; `values` are expressions over them and `names`, a field each.
    """

    def source(field: dict[str, Any]) -> str:
        return f"({values[field['name']]})" if field["name"] in values else f"r.{field['name']}"

    def nested(schema: dict[str, Any]) -> Any:
        return struct_writer(schema, "r", values, names)

    return _compiled_writer(schema, source, arguments, names, nested)


def _compiled_writer(
    schema: dict[str, Any],
    source: Callable[[dict[str, Any]], str],
    arguments: str,
    names: Mapping[str, Any],
    nested: Callable[[Any], Any],
) -> Any:
    lines: list[str] = []
    pieces: list[str] = []
    for i, field in enumerate(schema["fields"]):
        _write(lines, pieces, field["type"], source(field), f"v{i}")
    body = [f"    {line}" for line in lines] + [f"    return b''.join(({', '.join(pieces)},))"]
    return _compiled(schema, [f"def write({arguments}):", *body], "write", nested, names)


def _write(lines: list[str], pieces: list[str], kind: Any, value: str, name: str) -> None:
    match kind:
        case "string":
            lines.append(f"{name} = {value}.encode()")
            pieces += [f"z[len({name})]", name]
        case "bytes":
            lines.append(f"{name} = {value}")
            pieces += [f"z[len({name})]", name]
        case "int" | "long":
            pieces.append(f"z[{value}]")
        case "boolean":
            pieces.append(f"b'\\1' if {value} else b'\\0'")
        case ["null", inner]:
            inner_pieces: list[str] = []
            inner_lines: list[str] = []
            _write(inner_lines, inner_pieces, inner, name, name)
            lines += [f"{name} = {value}", f"if {name} is None: {name} = b'\\0'", "else:"]
            lines += [f"    {line}" for line in inner_lines if line != f"{name} = {name}"]
            lines.append(f"    {name} = b'\\2' + {' + '.join(inner_pieces)}")
            pieces.append(name)
        case {"type": "record", "name": record}:
            pieces.append(f"sub_{record}({value})")
        case {"type": "array", "items": items}:
            each = "text" if items == "string" else f"sub_{items['name']}"
            lines += [f"{name} = {value}"]
            pieces.append(f"z[len({name})] + b''.join(map({each}, {name})) + b'\\0' if {name} else b'\\0'")
        case {"type": "enum", "symbols": list(symbols)}:
            pieces.append(f"z[{tuple(symbols)!r}.index({value})]")
        case _:
            raise NotImplementedError(f"no writer for {kind!r}")


def reader(schema: dict[str, Any], raw: str | None = None) -> Reader:
    """Compile a reader of a record schema without logical types; each record named `raw` has its own bytes as `RAW`.

    It raises IndexError, ValueError or KeyError on bytes that are no such record; the caller checks that the
    position it returns is the end.
    """
    lines = ["s = p"] if schema["name"] == raw else []
    for i, field in enumerate(schema["fields"]):
        _read(lines, field["type"], f"v{i}")
    record = [f"{field['name']!r}: v{i}" for i, field in enumerate(schema["fields"])]
    record += [f"{RAW!r}: b[s:p]"] if schema["name"] == raw else []
    source = ["def read(b, p):", *(f"    {line}" for line in lines), f"    return {{{', '.join(record)}}}, p"]
    compiled: Reader = _compiled(schema, source, "read", lambda nested: reader(nested, raw))
    return compiled


_LENGTH: Final = ["n = b[p]; p += 1", "if n > 127: n, p = more(b, n, p)"]


def _read(lines: list[str], kind: Any, name: str) -> None:
    match kind:
        case "string" | "bytes":
            # One test covers both rare cases, a length of several bytes and a negative one.
            lines += ["n = b[p]; p += 1", "if n & 129: n, p = length(b, n, p)", "q = p + (n >> 1)"]
            lines += [f"{name} = b[p:q].decode()" if kind == "string" else f"{name} = b[p:q]", "p = q"]
        case "int":
            lines += [*_LENGTH, f"{name} = (n >> 1) ^ -(n & 1)"]
            lines += [f"if not -2147483648 <= {name} <= 2147483647: raise ValueError('not an int')"]
        case "long":
            lines += [*_LENGTH, f"{name} = (n >> 1) ^ -(n & 1)"]
        case "boolean":
            lines += [f"{name} = b[p] == 1; p += 1"]
        case ["null", inner]:
            inner_lines: list[str] = []
            _read(inner_lines, inner, name)
            lines += ["n = b[p]; p += 1", f"if n == 0: {name} = None", "elif n == 2:"]
            lines += [f"    {line}" for line in inner_lines]
            lines += ["else: raise ValueError('no such branch of a union')"]
        case {"type": "record", "name": record}:
            lines += [f"{name}, p = sub_{record}(b, p)"]
        case {"type": "array", "items": items}:
            item_lines: list[str] = []
            _read(item_lines, items, "item")
            lines += [f"{name} = []", "while True:", *(f"    {line}" for line in _LENGTH), "    if n == 0: break"]
            lines += ["    if n & 1:", "        n = (n + 1) & ~1", "        m = b[p]; p += 1"]
            lines += ["        if m > 127: m, p = more(b, m, p)", "    for _ in range(n >> 1):"]
            lines += [*(f"        {line}" for line in item_lines), f"        {name}.append(item)"]
        case {"type": "enum", "symbols": list(symbols)}:
            lines += [*_LENGTH, "if n & 1: raise ValueError('no such symbol of an enum')"]
            lines += [f"{name} = {tuple(symbols)!r}[n >> 1]"]
        case _:
            raise NotImplementedError(f"no reader for {kind!r}")


def _compiled(
    schema: dict[str, Any],
    source: list[str],
    name: str,
    compile_: Callable[[Any], Any],
    names: Mapping[str, Any] = {},
) -> Any:
    """Run the source, with what it refers to: the coded longs, the functions of nested records, and `names`."""
    scope: dict[str, Any] = {"z": ZIGZAGS, "text": text, "more": _more, "length": _length, **names}
    for field in schema["fields"]:
        match field["type"]:
            case {"type": "record"} as nested:
                scope[f"sub_{nested['name']}"] = compile_(nested)
            case {"type": "array", "items": {"type": "record"} as nested}:
                scope[f"sub_{nested['name']}"] = compile_(nested)
    exec("\n".join(source), scope)  # made from schemas and expressions that this package ships, from nothing else
    return scope[name]
