"""Which representation a client wants: the Accept header (RFC 9110, section 12.5.1)."""

import re
from typing import Final

from gateway.problems import Problem

_RANGE: Final = re.compile(r"\s*([\w.+*-]+)/([\w.+*-]+)\s*(;.*)?")
_QUALITY: Final = re.compile(r";\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.IGNORECASE)


def best(header: str, offered: tuple[str, ...]) -> str:
    """The offered media type with the highest quality; among equals the first. Raises Problem 406 when none is wanted.

    The most specific range that covers a type rules it. A header that says nothing wants the first.
    """
    if not header.strip():
        return offered[0]
    ranges = [_parse(text) for text in header.split(",")]
    quality = {media_type: _quality(media_type, ranges) for media_type in offered}
    chosen = max(offered, key=lambda media_type: quality[media_type])
    if not quality[chosen]:
        raise Problem(406, "not_acceptable", f"Accept leaves none of what there is: {', '.join(offered)}")
    return chosen


def _parse(text: str) -> tuple[str, str, float]:
    """Type, subtype and quality of a range; what cannot be read covers nothing."""
    found = _RANGE.fullmatch(text)
    if found is None:
        return "", "", 0.0
    quality = _QUALITY.search(found[3] or "")
    return found[1].lower(), found[2].lower(), float(quality[1]) if quality else 1.0


def _quality(media_type: str, ranges: list[tuple[str, str, float]]) -> float:
    kind, subtype = media_type.split("/")
    for covering in ((kind, subtype), (kind, "*"), ("*", "*")):
        if said := [quality for *named, quality in ranges if tuple(named) == covering]:
            return max(said)
    return 0.0
