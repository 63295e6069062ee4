"""The process that writes one export: a line of JSON on stdin says which, lines on stdout say how far it is.

It says so even where nothing comes: who hears it can end it. It ends when its stdin does: a worker that was killed
leaves none behind.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import psycopg
from msgspec import Struct

from producers.export_files import files_at
from schemas import logs
from schemas.errors import Rejected
from schemas.settings import Settings
from sinks import faults
from sinks.exports.copying import Export, Written, write

_NICENESS: Final = 10
_TOLD_S: Final = 0.5


class Said(Struct, omit_defaults=True):
    """A line on stdout: progress, or the last word, which is `written`, `failed` (why) or `away` (what is).

    `total` is 0 until the rows are counted.
    """

    rows: int = 0
    total: int = 0
    written: Written | None = None
    failed: str = ""
    away: str = ""

    @property
    def is_last(self) -> bool:
        return self.written is not None or bool(self.failed or self.away)


def main() -> None:
    """Write the export and say how it ended."""
    os.nice(_NICENESS)
    settings = Settings.from_env()
    logs.setup(settings)
    export = msgspec.json.decode(sys.stdin.buffer.readline(), type=Export)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with _telling() as tell:
            written = write(settings.database_url, files_at(settings.exports_url), export, tell)
        _say(Said(written=written))
    except psycopg.errors.QueryCanceled:
        _say(Said(failed="it took longer than an hour; narrow it with filters"))
    except psycopg.Error as exc:
        why = f"PostgreSQL: {str(exc).strip() or type(exc).__name__}"
        _say(Said(away=why) if faults.is_environment(exc) else Said(failed=why))
    except OSError as exc:
        _say(Said(failed=f"the file store: {exc.strerror or exc}"))
    except Rejected as exc:
        _say(Said(failed=exc.detail))


@contextmanager
def _telling() -> Iterator[Callable[[int, int], None]]:
    """Says twice a second what the block told it last."""
    said, over = Said(), threading.Event()

    def told(rows: int, total: int) -> None:
        said.rows, said.total = rows, total

    def say() -> None:
        while not over.wait(_TOLD_S):
            _say(said)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()


def _say(said: Said) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1_024):  # without the buffer, whose lock an interpreter that ends wants
        continue
    os._exit(75)  # at once, whatever the main thread waits for


if __name__ == "__main__":
    main()
