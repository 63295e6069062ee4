"""Changes of prices to a gateway, and the verdicts on them: one, or a file of them in its order."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from deploy.as_tenant import Caller
from deploy.price_view import COUNTS
from producers.chunks import Chunk, Limits, Ndjson, Source
from producers.csv_rows import Csv
from producers.http import Answer, chunk_answer
from schemas.price_events import PRICE

_LIMITS: Final = Limits()
_line: Final = msgspec.json.Decoder(dict[str, Any])

Lines = tuple[Answer, list[dict[str, Any]], dict[str, Any]]
"""What the gateway took, the verdicts, and their summary."""


def source_of(file: Path) -> Source:
    """NDJSON, or CSV by its name. Raises Rejected for a CSV file that has no prices."""
    return Csv(file, PRICE) if file.suffix.lower() == ".csv" else Ndjson(file)


async def sent(caller: Caller, source: Source, name: str) -> AsyncIterator[tuple[Chunk, Lines]]:
    """Each chunk of a file with its answer; under the same name it counts once. Raises Refused, Unavailable."""
    headers = caller.auth | {"Accept": "application/x-ndjson"}
    for chunk in source.chunks(_LIMITS, source.start):
        named = headers | {"Idempotency-Key": f"{name}-{chunk.number}"}
        said = await caller.gateway.send("POST", caller.url("price-events"), named, partial(source.body, chunk))
        yield chunk, read(said)


def read(said: httpx.Response) -> Lines:
    """The parts of an answer. Raises Refused."""
    if not said.headers.get("content-type", "").startswith("application/x-ndjson"):
        return chunk_answer(said), [], dict.fromkeys(COUNTS, 0)
    first, *verdicts, summary = map(_line.decode, said.content.splitlines())
    return msgspec.convert(first, Answer), verdicts, summary
