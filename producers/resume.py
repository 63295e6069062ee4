"""The resume file: how far each upload of a run got, so that the same command goes on there, whatever ended it.

It holds upload tokens and API keys, hence mode 0600. It is replaced as a whole: a kill at any moment leaves the old one
or the new one, and what was acknowledged since is sent again, which the gateway recognises.
"""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from producers.chunks import Chunk, Limits, Place
from producers.http import Answer
from schemas.errors import Misconfigured

_HEAD_BYTES: Final = 65_536


class Fingerprint(Struct, frozen=True):
    """What a file is known by: name, size, time of change and the SHA-256 of its first 64 KiB."""

    name: str
    size: int
    mtime_ns: int
    head: str

    @classmethod
    def of(cls, path: Path) -> "Fingerprint":
        """Raises OSError."""
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            return cls(path.name, stat.st_size, stat.st_mtime_ns, hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest())


class Progress(Struct):
    """How far one upload is: every chunk up to `place` is acknowledged, and those numbered in `beyond`."""

    file: Fingerprint
    place: Place
    key: str
    """Idempotency-Key of its opening. It is kept before that, so that a kill in between opens no second upload."""
    limits: Limits = Limits()
    token: str = ""
    upload_id: str = ""
    beyond: list[int] = []
    accepted: int = 0
    rejected: int = 0
    chunks: int = 0
    """How many there are, once all are acknowledged."""
    completed: bool = False


def begun(file: Fingerprint, place: Place) -> Progress:
    """The progress of a file of which nothing was sent."""
    return Progress(file, place, secrets.token_urlsafe(18))


class Acknowledged:
    """Moves a Progress on, in whatever order chunks are acknowledged."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._known = set(progress.beyond)
        self._ends: dict[int, Place] = {}

    def add(self, chunk: Chunk, answer: Answer) -> None:
        """A chunk that was answered just now."""
        self._progress.accepted += answer.accepted
        self._progress.rejected += answer.rejected
        self.pass_by(chunk)

    def pass_by(self, chunk: Chunk) -> None:
        """A chunk that is acknowledged and counted."""
        self._known.add(chunk.number)
        self._ends[chunk.number] = chunk.end
        while (next_ := self._progress.place.number + 1) in self._ends:
            self._progress.place = self._ends.pop(next_)
            self._known.discard(next_)
        self._progress.beyond = sorted(self._known)

    def __contains__(self, number: int) -> bool:
        return number in self._known


class Contents(Struct):
    """Uploads by `<tenant_id>/<entity>`, and the keys that were made for this folder by tenant id."""

    uploads: dict[str, Progress] = {}
    keys: dict[str, str] = {}
    version: int = 1


class ResumeFile:
    """Read once; written by `save` when something has changed."""

    def __init__(self, path: Path) -> None:
        """Raises Misconfigured when it cannot be understood, OSError when it cannot be read."""
        self.path = path
        self.contents = Contents()
        self._saved = msgspec.json.encode(self.contents)
        if path.exists():
            self._saved = path.read_bytes()
            try:
                self.contents = msgspec.json.decode(self._saved, type=Contents)
            except msgspec.DecodeError as exc:
                why = f"{path} is not a resume file of this version: {exc}. Delete it to send everything anew"
                raise Misconfigured(why) from exc

    def save(self) -> None:
        """Write what changed, if anything did. Raises OSError."""
        encoded = msgspec.json.encode(self.contents)
        if encoded == self._saved:
            return
        unfinished = self.path.with_name(f"{self.path.name}.part")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(encoded)
        unfinished.replace(self.path)
        self._saved = encoded
