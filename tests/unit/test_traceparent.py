"""Which `traceparent` is taken, by W3C's Trace Context, sections 3.2 and 4.3."""

import pytest

from schemas.tracing import traceparent_of

GOOD = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (GOOD, GOOD),
        (b"01" + GOOD[2:], GOOD),
        (b"cc" + GOOD[2:] + b"-what-will-be", GOOD),
        (b" " + GOOD + b"\t ", GOOD),  # whitespace around a field is no part of it (RFC 9110, section 5.5)
        (GOOD + b"-extra", None),
        (b"ff" + GOOD[2:], None),
        (b"cc" + GOOD[2:] + b".what", None),
        (GOOD.upper(), None),
        (b"00-" + b"0" * 32 + GOOD[35:], None),
        (GOOD[:36] + b"0" * 16 + b"-01", None),
        (GOOD[:-1], None),
        (b"", None),
        (None, None),
    ],
)
def test_what_the_recommendation_says_is_taken(given: bytes | None, taken: bytes | None) -> None:
    assert traceparent_of(given) == taken
