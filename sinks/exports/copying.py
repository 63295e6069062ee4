"""One export: a COPY under the tenant's own row-level security into a file, its size and its hash."""

import hashlib
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, Final

import psycopg
from msgspec import Struct
from psycopg.sql import SQL, Composable, Composed, Literal

from producers import stored
from producers.export_files import Files
from schemas.exports import file_name, of_export

_GZIP: Final = 31
"""zlib's window bits for a gzip stream (RFC 1952)."""
_LEVEL: Final = 1  # half the time of the default, a tenth more bytes
_CHUNK_BYTES: Final = 262_144
_LONGEST: Final = "1h"
"""A transaction that stays open keeps PostgreSQL from cleaning up."""
CONNECT: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    # A host that vanished says nothing: the kernel asks it after 5 s, and gives up 4 s later.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}


class Export(Struct, frozen=True):
    """An attempt at an export; `filters` are pairs of a name and a value as text."""

    tenant_id: str
    export_id: str
    entity: str
    format: str
    gzip: bool
    filters: list[tuple[str, str]]
    attempt: int

    @property
    def key(self) -> list[Any]:
        """What the statements about this attempt take."""
        return [self.tenant_id, self.export_id, self.attempt]

    @property
    def file(self) -> str:
        """The file's name in its store."""
        return file_name(self.tenant_id, self.export_id, self.attempt, self.format, gzip=self.gzip)


class Written(Struct):
    """A file that is whole: its rows, its bytes as they are stored, their SHA-256 in hexadecimal."""

    rows: int
    size: int
    sha256: str


Tell = Callable[[int, int], None]
"""Hears how many rows are done, and how many there are."""


def write(database_url: str, files: Files, export: Export, tell: Tell) -> Written:
    """Write the file of an export. Raises psycopg.Error, OSError, and Rejected for filters that are none."""
    rows, counting = queries(export)
    files.remove(of_export(export.tenant_id, export.export_id))  # what an attempt left that was killed
    with psycopg.connect(database_url, application_name="tillstream-export", client_encoding="utf8", **CONNECT) as db:
        db.read_only, db.isolation_level = True, psycopg.IsolationLevel.REPEATABLE_READ
        db.execute("SET LOCAL ROLE tillstream_reader")
        for name, value in {
            **stored.READING, "statement_timeout": _LONGEST, "app.tenant_id": export.tenant_id
        }.items():  # fmt: skip
            db.execute("SELECT set_config(%s, %s, true)", [name, value])
        out = _Counted(gzip=export.gzip)
        # Where the store takes no more the COPY has to end before the connection can: it holds its lock.
        with closing(_chunks(db, export, rows, counting, out, tell)) as chunks:
            files.put(export.file, out.stored(chunks))
        return out.written


def queries(export: Export) -> tuple[Composed, Composed]:
    """The rows of an export, as the gateway lists them, and how many they are. Raises Rejected."""
    values = stored.values(export.entity, export.filters)
    source, where = stored.conditions(export.entity, stored.RECORDS[export.entity], export.tenant_id, values)
    rows = stored.select(stored.statement(export.entity), export.entity, export.tenant_id, where, source=source)
    holds: list[Composable] = [SQL("true"), *where]
    counting = SQL("SELECT count(*) FROM {} o WHERE tenant_id = {} AND {}").format(
        source, Literal(export.tenant_id), SQL(" AND ").join(holds)
    )
    return rows, counting


class _Counted:
    """Rows on their way into a file: counted, compressed where that is wanted, and hashed as they are stored."""

    def __init__(self, *, gzip: bool) -> None:
        self._zip = zlib.compressobj(_LEVEL, wbits=_GZIP) if gzip else None
        self._hash = hashlib.sha256()
        self.rows, self._size = 0, 0

    @property
    def written(self) -> Written:
        return Written(self.rows, self._size, self._hash.hexdigest())

    def stored(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if data := chunk if self._zip is None else self._zip.compress(chunk):
                yield self._counted(data)
        if self._zip is not None:
            yield self._counted(self._zip.flush())

    def _counted(self, data: bytes) -> bytes:
        self._hash.update(data)
        self._size += len(data)
        return data


def _chunks(
    db: psycopg.Connection[Any], export: Export, rows: Composed, counting: Composed, out: _Counted, tell: Tell
) -> Generator[bytes, None, None]:
    copy = (stored.COPY_CSV if export.format == "csv" else stored.COPY_NDJSON).format(rows)
    header, end = (1, b"\r\n") if export.format == "csv" else (0, b"\n")
    found = db.execute(counting).fetchone()
    assert found is not None
    total, size = found[0], 0
    out.rows = -header
    tell(0, total)
    lines: list[Any] = []
    with db.cursor().copy(copy) as copied:
        for line in copied:
            lines.append(line)
            size += len(line)
            if size >= _CHUNK_BYTES:
                yield stored.joined(lines, end)
                out.rows, size = out.rows + len(lines), 0
                lines.clear()
                tell(out.rows, total)
    if lines:
        yield stored.joined(lines, end)
        out.rows += len(lines)
