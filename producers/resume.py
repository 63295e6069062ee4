"""The resume file: how far each upload of a run got, so that the same command goes on there, whatever ended it.

It holds upload tokens and API keys, hence mode 0600. It is replaced as a whole: a kill at any moment leaves the old one
or the new one, and what was acknowledged since is sent again, which the gateway recognises. It is believed only under
its own checksum: a chunk that it took for acknowledged would never be sent.
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
    """Uploads by `<tenant_id>/<entity>`, and the keys that were made for this folder by tenant id.

    `sha256` is that of all the rest: what a file with another says was never acknowledged, perhaps.
    """

    uploads: dict[str, Progress] = {}
    keys: dict[str, str] = {}
    version: int = 1
    sha256: str = ""

    def encode(self) -> bytes:
        """As JSON, under its checksum."""
        self.sha256 = self.digest()
        return msgspec.json.encode(self)

    def digest(self) -> str:
        """What `sha256` must be."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, sha256=""))).hexdigest()


class _Keys(Struct):
    """All that is taken of a file that is not believed: a wrong key shows when it is used."""

    keys: dict[str, str] = {}


class ResumeFile:
    """Read once; written by `save` when something has changed."""

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        """Raises Misconfigured when it cannot be believed, OSError when it cannot be read.

        To `restart`, the keys of such a file are enough; one that cannot be read at all is set aside, for it may hold
        some.
        """
        self.path = path
        self.contents = Contents()
        self._saved = self.contents.encode()
        if path.exists():
            self._saved = path.read_bytes()
            try:
                self.contents = _believed(path, self._saved)
            except Misconfigured:
                if not restart:
                    raise
                self.contents = self._salvaged()

    def _salvaged(self) -> Contents:
        try:
            return Contents(keys=msgspec.json.decode(self._saved, type=_Keys).keys)
        except msgspec.DecodeError:
            self.path.replace(_aside(self.path))
            return Contents()

    def save(self) -> None:
        """Write what changed, if anything did. Raises OSError."""
        encoded = self.contents.encode()
        if encoded == self._saved:
            return
        unfinished = self.path.with_name(f"{self.path.name}.part")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(encoded)
        unfinished.replace(self.path)
        self._saved = encoded


def _believed(path: Path, raw: bytes) -> Contents:
    try:
        contents = msgspec.json.decode(raw, type=Contents)
    except msgspec.DecodeError as exc:
        after = f"--restart sends everything anew; API keys that stand in it remain in {_aside(path).name}"
        raise Misconfigured(f"{path} is damaged, or no resume file of this version: {exc}. {after}") from exc
    if contents.sha256 != contents.digest():
        after = "--restart sends everything anew, and keeps the API keys in it"
        raise Misconfigured(f"{path} is damaged, or was changed by hand: it is not believed. {after}")
    return contents


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")
