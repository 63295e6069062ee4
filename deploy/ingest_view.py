"""What `tillstream ingest` shows: bars or plain lines while it runs, row errors, and a table at the end."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.operate import table_of
from producers.chunks import Chunk
from producers.http import Answer
from producers.uploads import Upload

_SHOWN: Final = 10
"""Row errors shown without --verbose."""
_LINE_S: Final = 10.0
_BARS_KEPT: Final = 20
_NAME_CELLS: Final = 24
_RARE: Final = ("rejected", "superseded", "duplicate", "refused later")
"""Columns of the table at the end where there is something to say."""


class View:
    """Told by uploads how they go. Where stderr is no terminal, a line at most every 10 s stands for the bars."""

    def __init__(self, uploads_bytes: int, *, verbose: bool, errors_to_stderr: bool) -> None:
        self._err = Console(stderr=True)
        self._out = self._err if errors_to_stderr else Console()
        self._verbose, self._total = verbose, uploads_bytes
        self._shown = self._hidden = self._accepted = self._rejected = self._done = 0
        self._started = self._line_at = time.monotonic()
        self._pause_at = 0.0
        self._bars: dict[str, tuple[TaskID, float]] = {}
        rows = TextColumn("{task.fields[rows]}")
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), rows, TimeRemainingColumn())
        # What goes to a file must not be caught for the terminal.
        both = sys.stdout.isatty()
        self._progress = Progress(
            *columns, console=self._err, disable=not self._err.is_terminal, redirect_stdout=both, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def began(self, upload: Upload) -> None:
        """A bar from where the upload goes on."""
        done = upload.progress.place.offset
        self._done += done
        total, rows = upload.progress.file.size, _rows(upload, 0)
        bar = self._progress.add_task(short(upload.name), total=total, completed=done, rows=rows)
        self._bars[upload.name] = bar, time.monotonic()

    def answered(self, upload: Upload, chunk: Chunk, answer: Answer) -> None:
        """Move the bar on; show the rows that were refused."""
        self._done += chunk.size
        self._accepted += answer.accepted
        self._rejected += answer.rejected
        bar, since = self._bars[upload.name]
        rows = _rows(upload, upload.sent_rows / max(1e-3, time.monotonic() - since))
        self._progress.update(bar, advance=chunk.size, rows=rows)
        self._show(upload, chunk, answer)
        if not self._err.is_terminal and time.monotonic() - self._line_at > _LINE_S:
            self._line_at = time.monotonic()
            self._say(self._summary())

    def note(self, upload: Upload, text: str) -> None:
        """A line of its own."""
        self._say(f"{upload.source.path} {text}")

    def ended(self, upload: Upload) -> None:
        """Make room where there are many bars."""
        if len(self._bars) > _BARS_KEPT and upload.name in self._bars:
            self._progress.update(self._bars[upload.name][0], visible=False)

    def pausing(self, why: str) -> None:
        """The gateway cannot take more for now."""
        if time.monotonic() - self._pause_at > _LINE_S:
            self._pause_at = time.monotonic()
            self._say(f"waiting: {why}")

    def refused(self, upload: Upload, chunk: Chunk, answer: Answer) -> bool:
        """Show a row that was refused after all; whether there is room for more."""
        self._show(upload, chunk, answer)
        return self._verbose or self._shown < _SHOWN

    def hint(self, uploads: Sequence[Upload]) -> None:
        """Where the errors are that were not shown."""
        if self._hidden:
            self._say(f"and {self._hidden:,} more errors; --verbose shows them all")
        refused = [u for u in uploads if u.progress.token and (u.progress.rejected or u.refused_later)]
        for upload in refused[:3]:
            command = f"tillstream uploads errors {upload.progress.token} --tenant-id {upload.tenant_id}"
            self._say(f"refused rows of {upload.source.path}: {command}; put right, 'uploads correct' takes them back")

    def _show(self, upload: Upload, chunk: Chunk, answer: Answer) -> None:
        room = len(answer.errors) if self._verbose else max(0, _SHOWN - self._shown)
        for error in answer.errors[:room]:
            line = upload.source.line_of(chunk, error["line"])
            where = f"{upload.source.path}:{line}: {error['pointer'] or '/'}"
            self._out.print(
                f"{where}: {error['code']}, {error['detail']}", markup=False, highlight=False, soft_wrap=True
            )
        self._shown += len(answer.errors[:room])
        self._hidden += len(answer.errors[room:]) + answer.errors_omitted

    def _summary(self) -> str:
        percent = 100 * self._done / max(1, self._total)
        rate = (self._accepted + self._rejected) / self.seconds
        return f"{percent:.0f} %: {self._accepted:,} rows accepted, {self._rejected:,} rejected, {rate:,.0f} rows/s"

    def _say(self, text: str) -> None:
        self._err.print(text, markup=False, highlight=False, soft_wrap=True)


def _rows(upload: Upload, rate: float) -> str:
    rejected = f", {upload.progress.rejected:,} rejected" if upload.progress.rejected else ""
    return f"{upload.progress.accepted:,} rows{rejected}, {rate:,.0f}/s"


def short(name: str) -> str:
    """A name that leaves a bar's numbers their room on 80 columns: its beginning and its end."""
    kept = _NAME_CELLS // 2
    return name if len(name) <= _NAME_CELLS else f"{name[: kept - 1]}…{name[-kept:]}"


def closing(uploads: Sequence[Upload], seconds: float, *, waited: bool) -> Table:
    """A line an upload, and their sum: rows of all runs, time and speed of this one."""
    rare = [name for name in _RARE if any(_numbers(upload).get(name) for upload in uploads)]
    names = ["tenant", "entity", "rows", *(["applied"] if waited else []), *rare]
    table = table_of(*names, "time", "rows/s", "")
    for column in table.columns[2:-1]:
        column.justify = "right"
        column.no_wrap = True
    for upload in uploads:
        numbers = _numbers(upload)
        cells = [f"{numbers[name]:,}" if name in numbers else "" for name in names[2:]]
        rate = f"{upload.sent_rows / upload.seconds:,.0f}" if upload.sent_rows else ""
        table.add_row(
            upload.tenant_id, upload.entity, *cells, f"{upload.seconds:.1f} s", rate, outcome(upload).replace("_", " ")
        )
    if len(uploads) > 1:
        table.add_section()
        sums = Counter[str]()
        for upload in uploads:
            sums.update(_numbers(upload))
        rate = f"{sum(upload.sent_rows for upload in uploads) / seconds:,.0f}"
        table.add_row("all", "", *(f"{sums[name]:,}" for name in names[2:]), f"{seconds:.1f} s", rate, "")
    return table


def outcome(upload: Upload) -> str:
    """In a word: the upload's state where it is known."""
    if upload.failure is not None:
        return "failed"
    if upload.state is not None:
        return upload.state.state
    return "sent" if upload.progress.completed else "not sent"


def as_document(upload: Upload) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "tenant_id": upload.tenant_id,
        "entity": upload.entity,
        "file": str(upload.source.path),
        "upload_id": upload.progress.upload_id or None,
        "state": outcome(upload),
        **{name.replace(" ", "_"): number for name, number in _numbers(upload).items()},
        "seconds": round(upload.seconds, 3),
        "error": None if upload.failure is None else str(upload.failure),
    }


def _numbers(upload: Upload) -> dict[str, int]:
    progress = upload.progress
    numbers = {
        "rows": progress.accepted + progress.rejected,
        "accepted": progress.accepted,
        "rejected": progress.rejected,
    }
    if upload.state is None:
        return numbers
    rows = upload.state.rows
    return numbers | {
        "applied": rows.applied,
        "superseded": rows.superseded,
        "duplicate": rows.duplicate,
        "refused later": upload.refused_later,
    }
