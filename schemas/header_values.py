"""Values of headers as a stranger may have sent them: each is read here, or raises Undecodable."""

import hashlib
from datetime import datetime

from schemas.errors import Undecodable
from schemas.origin import YEAR_2200_MS


def text(found: dict[str, bytes], name: str) -> str | None:
    """Printable text; None where the header is missing."""
    raw = found.get(name)
    if raw is None:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise Undecodable("bad_header", f"{name} is not UTF-8") from exc
    if len(text) > 200 or not text.isprintable() or not text:
        raise Undecodable("bad_header", f"{name} must be 1 to 200 printable characters")
    return text


def count(raw: bytes) -> int:
    """A number of up to 6 digits."""
    if not raw.isdigit() or len(raw) > 6:
        raise Undecodable("bad_header", f"ts-rows is not a count: {raw[:20]!r}")
    return int(raw)


def digest(raw: bytes | None, value: bytes | None) -> bytes:
    """32 bytes of SHA-256: those said, or else the value's."""
    if raw is None:
        return hashlib.sha256(value or b"").digest()
    try:
        digest = bytes.fromhex(raw.decode())
    except ValueError as exc:
        raise Undecodable("bad_header", "ts-hash is not hexadecimal") from exc
    if len(digest) != 32:
        raise Undecodable("bad_header", "ts-hash is not 32 bytes of SHA-256")
    return digest


def unix_ms(raw: bytes) -> int:
    """A time of RFC 3339 in Unix milliseconds."""
    try:
        moment = datetime.fromisoformat(raw.decode())
    except ValueError as exc:
        raise Undecodable("bad_header", f"ce_time is not RFC 3339: {raw[:40]!r}") from exc
    if moment.tzinfo is None:
        raise Undecodable("bad_header", "ce_time has no offset")
    unix_ms = round(moment.timestamp() * 1000)
    if not 0 <= unix_ms < YEAR_2200_MS:
        raise Undecodable("bad_header", "ce_time is not between 1970 and 2199")
    return unix_ms
