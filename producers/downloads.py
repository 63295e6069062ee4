"""A file from the gateway, which goes on where it was however often the connection breaks, and is proven whole."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from producers.calls import Patience
from producers.gateway import Gateway
from schemas.errors import Rejected, Unavailable

_PAUSE_S: Final = 0.5


async def download(
    gateway: Gateway,
    path: str,
    auth: dict[str, str],
    part: Path,
    size: int,
    sha256: str,
    tell: Callable[[int], None],
    patience: Patience,
) -> None:
    """Load what `part` lacks of a file of `size` bytes; `tell` hears how many are there.

    Raises Unavailable, Refused, and Rejected for a file whose SHA-256 (hexadecimal) is another twice.
    """
    for _ in range(2):
        while (have := part.stat().st_size if part.exists() else 0) < size:
            tell(have)
            try:
                await _append(gateway, path, auth, part, have, sha256, tell, patience)
            except httpx.TransportError as exc:
                if patience.left <= 0:
                    raise Unavailable(f"no progress for {patience.seconds:.0f} s: {exc or type(exc).__name__}") from exc
                patience.on_pause(str(exc))
                await asyncio.sleep(_PAUSE_S)
        tell(have)
        with part.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return
        part.unlink()
    raise Rejected("bad_checksum", f"what came twice is not the file: its SHA-256 is not {sha256}")


async def _append(
    gateway: Gateway,
    path: str,
    auth: dict[str, str],
    part: Path,
    have: int,
    sha256: str,
    tell: Callable[[int], None],
    patience: Patience,
) -> None:
    """Raises httpx.TransportError where the answer breaks off."""
    headers = {**auth, "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'}
    async with gateway.streamed(path, headers) as answer:
        if have and answer.status_code != httpx.codes.PARTIAL_CONTENT:  # all of it comes
            have = 0
        with part.open("ab" if have else "wb") as file:
            async for chunk in answer.aiter_raw():
                file.write(chunk)
                have += len(chunk)
                tell(have)
                patience.progress()
