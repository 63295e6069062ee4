"""What msgspec says of a value, in JSON's words: whoever sends JSON need not know Python's types."""

import re
from collections.abc import Iterator
from typing import Any, Final, get_args, get_type_hints

import msgspec

_AT: Final = re.compile(r" - at `\$(.*)`$")
_TYPES: Final = re.compile("`([^`]*)`")
_JSON_TYPES: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "decimal": "a number",
    "bool": "a boolean",
    "object": "an object",
    "array": "an array",
}


def explained(exc: msgspec.ValidationError, type_: Any = None) -> tuple[str, str]:
    """What is wrong, and the JSON pointer to it; `type_` is the field's where that is an enumeration."""
    text, pointer = str(exc), ""
    if at := _AT.search(text):
        text = text[: at.start()]
        known = at.group(1).partition("[...]")[0]  # a key of an object: which one is not said
        pointer = known.replace("[", "/").replace("]", "").replace(".", "/")
    if text.startswith("Invalid enum value") and (choices := ", ".join(_choices(type_))):
        return f"expected one of {choices}, got {text.removeprefix('Invalid enum value ')}", pointer
    return text[0].lower() + _TYPES.sub(_in_json, text)[1:], pointer


def sentence(exc: msgspec.DecodeError | UnicodeDecodeError | RecursionError, kind: type[Any] | None = None) -> str:
    """The same as one text, for a document of several fields, a struct `kind`; what is no JSON at all as it is said."""
    if not isinstance(exc, msgspec.ValidationError):
        return str(exc)
    at = _AT.search(str(exc))
    field = get_type_hints(kind, include_extras=True).get(at[1][1:]) if kind is not None and at else None
    text, pointer = explained(exc, field)
    return f"{text}, at {pointer}" if pointer else text


def _in_json(types: re.Match[str]) -> str:
    return " or ".join(_JSON_TYPES.get(name, name) for name in types[1].split(" | "))


def _choices(type_: Any) -> Iterator[str]:
    """The words of a Literal, wherever it stands in an annotation."""
    for part in get_args(type_):
        yield from [part] if isinstance(part, str) else _choices(part)
