"""A file cut into chunks of whole rows. The cuts depend on the file alone, so that a later run finds the same ones.

No more of a file than a chunk is held; a chunk is read again from its place for each time that it is sent.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from msgspec import Struct

from schemas.errors import Rejected

LONGEST_LINE: Final = 8_000_000
BOM: Final = b"\xef\xbb\xbf"

Record = tuple[int, int, bool]
"""Bytes, lines, and whether it is a row (a blank line is none)."""


class Limits(Struct, frozen=True):
    """What a chunk may have at most; one record is always allowed."""

    lines: int = 1_000
    bytes: int = 2_000_000


class Place(Struct, frozen=True):
    """Where chunk `number` ends: the next one begins at byte `offset`, which begins line `line` (from 1)."""

    number: int = 0
    offset: int = 0
    line: int = 1


class Chunk(Struct, frozen=True):
    """Whole lines of a file, `rows` of them not blank; `line` is the number of the first, from 1."""

    number: int
    offset: int
    line: int
    size: int
    lines: int
    rows: int

    @property
    def end(self) -> Place:
        """Where the next one begins."""
        return Place(self.number, self.offset + self.size, self.line + self.lines)


class Source(Protocol):
    """A file of rows, as `Ndjson` and `producers.csv_rows.Csv` are."""

    path: Path
    start: Place

    def chunks(self, limits: Limits, after: Place) -> Iterator[Chunk]:
        """Chunks from a place on. Raises Rejected where the file cannot be cut, OSError where it cannot be read."""

    def body(self, chunk: Chunk) -> bytes:
        """The chunk's rows as NDJSON."""

    def line_of(self, chunk: Chunk, nth: int) -> int:
        """The file's line, from 1, that became the n-th line of the body."""


class Ndjson:
    """A file with a JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, Place()

    def chunks(self, limits: Limits, after: Place) -> Iterator[Chunk]:
        """See Source."""
        return cut(self.path, self._records, limits, after)

    def body(self, chunk: Chunk) -> bytes:
        """See Source."""
        return read(self.path, chunk)

    def line_of(self, chunk: Chunk, nth: int) -> int:
        """See Source."""
        return chunk.line + nth - 1

    def _records(self, file: BinaryIO) -> Iterator[Record]:
        while line := file.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                ends = file.tell()
                detail = f"a line of {self.path} up to byte {ends} has more than {LONGEST_LINE} bytes"
                raise Rejected("line_too_long", f"{detail}; NDJSON has one object a line, and no list around them")
            yield len(line), 1, bool(line.removeprefix(BOM).strip())


def cut(path: Path, records: Callable[[BinaryIO], Iterator[Record]], limits: Limits, after: Place) -> Iterator[Chunk]:
    """Gather records into chunks; blank lines never make a chunk of their own."""
    number, offset, line = after.number + 1, after.offset, after.line
    size = lines = rows = 0
    with path.open("rb") as file:
        file.seek(offset)
        for more_bytes, more_lines, is_row in records(file):
            if rows and (lines + more_lines > limits.lines or size + more_bytes > limits.bytes):
                yield Chunk(number, offset, line, size, lines, rows)
                number, offset, line = number + 1, offset + size, line + lines
                size = lines = rows = 0
            if not rows and not is_row:
                offset, line = offset + more_bytes, line + more_lines
            else:
                size, lines, rows = size + more_bytes, lines + more_lines, rows + is_row
    if rows:
        yield Chunk(number, offset, line, size, lines, rows)


def read(path: Path, chunk: Chunk) -> bytes:
    """The chunk's bytes as they stand in the file."""
    with path.open("rb") as file:
        file.seek(chunk.offset)
        return file.read(chunk.size)
