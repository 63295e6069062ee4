"""What the values of a row must be, beyond their JSON types: money to the cent, ids, times, currency codes.

Money is JSON as it came, and becomes Avro's decimal bytes: cents as two's complement, the highest byte first.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final

import msgspec

from schemas.errors import Rejected

MAX_CENTS: Final = 10**12 - 1
IDENTIFIERS: Final = ("customer_id", "event_id", "external_order_id", "product_id", "sku")
_AMOUNT: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_CONTROL: Final = re.compile(r"[\x01-\x1f\x7f]")  # of NUL another check says more
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = 0
_MICROSECOND: Final = timedelta(microseconds=1)
_LAST_DAY: Final = (datetime(2200, 1, 1, tzinfo=UTC) - EPOCH) // _MICROSECOND


class Invalid(Rejected):
    """A field of a row is wrong; `pointer` is its JSON pointer (RFC 6901)."""

    def __init__(self, code: str, pointer: str, detail: str) -> None:
        super().__init__(code, detail)
        self.pointer = pointer


@lru_cache(maxsize=65_536)  # the same prices come again and again
def amount(raw: bytes) -> bytes:
    """`money` of JSON. Raises Invalid, or msgspec.DecodeError for what is no number."""
    quoted = raw[:1] == b'"'
    whole, _, decimals = (raw[1:-1] if quoted else raw).partition(b".")
    plain = len(decimals) == 2 and whole.isdigit() and decimals.isdigit() and len(whole) <= 10
    if plain and (whole[0] != 48 or len(whole) == 1):
        cents = int(whole + decimals)  # as nearly all amounts are
        return cents.to_bytes((cents.bit_length() + 8) >> 3, "big")
    given = msgspec.json.decode(raw, type=str) if quoted else msgspec.json.decode(raw, type=Decimal)
    return money(amount_of(given), "")


def amount_of(given: str | Decimal, pointer: str = "") -> Decimal:
    """An amount as JSON gave it. As text it is written as JSON writes a number, which is less than Python reads.

    Raises Invalid for other text: exponents are left to numbers, where nobody has typed them.
    """
    if isinstance(given, str) and not _AMOUNT.fullmatch(given):
        shown = repr(given if len(given) <= 40 else f"{given[:40]}…")
        detail = f"expected an amount such as 12.50, with a point and nothing between the thousands, got {shown}"
        raise Invalid("invalid_value", pointer, detail)
    return Decimal(given)


def identifier(text: str, pointer: str = "") -> str:
    """The id. Raises Invalid for what nobody sees and another export has not.

    That is whitespace or a byte order mark at its ends, and control characters, with which no path could name it.
    """
    if text.isprintable() and text == text.strip():  # as nearly all are
        return text
    if text != text.strip("\ufeff").strip():
        raise Invalid("invalid_value", pointer, f"expected an id without whitespace at its ends, got {text!r}")
    if _CONTROL.search(text):
        raise Invalid("invalid_value", pointer, f"expected an id without control characters, got {text!r}")
    return text


def currency_code(text: str) -> str:
    """The code. Raises Invalid when it is not three capitals."""
    if not (len(text) == 3 and text.isascii() and text.isalpha() and text.isupper()):
        raise Invalid("invalid_value", "/currency", f"expected three capital letters such as EUR, got {text!r}")
    return text


def money(value: Decimal, pointer: str) -> bytes:
    """Cents as Avro's decimal bytes. Raises Invalid when negative, not finite, too large or finer than cents."""
    cents = _cents(value, pointer)
    if cents < 0:
        raise Invalid("negative_amount", pointer, f"expected 0 or more, got {value}")
    if cents > MAX_CENTS:
        raise Invalid("out_of_range", pointer, "expected at most 9999999999.99")
    return cents.to_bytes((cents.bit_length() + 8) >> 3, "big")


def _cents(value: Decimal, pointer: str) -> int:
    if not value.is_finite() or value.adjusted() > 12:  # before 1e999999 becomes an integer of a million digits
        raise Invalid("out_of_range", pointer, "expected at most 9999999999.99")
    cents = int(value.scaleb(2))
    if Decimal(cents).scaleb(-2) != value:  # scaleb rounds to 28 digits, a comparison does not
        raise Invalid("too_many_decimals", pointer, f"expected at most 2 decimals, got {value}")
    return cents


def micros(value: datetime, pointer: str) -> int:
    """Microseconds since 1970. Raises Invalid for a moment outside 1970 to 2199."""
    us = (value - EPOCH) // _MICROSECOND
    if not _FIRST_DAY <= us < _LAST_DAY:
        raise Invalid("out_of_range", pointer, "expected a time from 1970 to 2199")
    return us
