"""Content negotiation, as RFC 9110 has it."""

import pytest

from gateway.accept import best
from gateway.problems import Problem

OFFERED = ("application/json", "application/x-ndjson", "text/csv")


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/*", "text/csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("text/csv;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("text/csv; q=0.9, application/x-ndjson ; Q=0.95", "application/x-ndjson"),
        ("application/*;q=0.2, application/x-ndjson;q=0.1, text/csv;q=0.1", "application/json"),
        ("*/*, application/json;q=0", "application/x-ndjson"),
        ("*/*;q=0.1, text/*;q=0.2", "text/csv"),
        ("text/csv;charset=utf-8;q=1.000", "text/csv"),
        ("nonsense, text/csv", "text/csv"),
    ],
)
def test_the_best_of_what_is_wanted_is_chosen(header: str, chosen: str) -> None:
    assert best(header, OFFERED) == chosen


@pytest.mark.parametrize("header", ["image/png", "text/csv;q=0", "*/*;q=0", "application/json;q=0.000", "nonsense"])
def test_what_nobody_offers_is_406(header: str) -> None:
    with pytest.raises(Problem) as refused:
        best(header, OFFERED)
    assert (refused.value.status, refused.value.code) == (406, "not_acceptable")
    assert "text/csv" in refused.value.detail
