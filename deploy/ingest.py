"""`tillstream ingest`: files of rows to a gateway, as resumable uploads."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from deploy import ingest_keys
from deploy.ingest_files import Job, alone, gone, of_folder, progress_of, resume_path
from deploy.ingest_keys import Keys
from deploy.ingest_view import View, as_document, closing
from deploy.operate import console, errors, say, show
from deploy.stack import running
from producers.calls import Patience
from producers.csv_rows import Csv
from producers.gateway import Gateway, together
from producers.resume import ResumeFile
from producers.uploads import Upload
from schemas.errors import Misconfigured, TillstreamError, Unavailable
from schemas.rows import ENTITIES

_TENANTS_AT_A_TIME: Final = 64
_SAVE_S: Final = 1.0


def ingest(
    file: Annotated[Path | None, typer.Argument(help="One file; or a folder with --data-dir.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="A folder as 'tillstream generate' makes it.")] = None,
    tenant_id: Annotated[str | None, typer.Option(help="One tenant only; needed for one file.")] = None,
    entity: Annotated[str | None, typer.Option(help="customers, products or orders; needed for one file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Have every row checked, and publish none.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until every row is in the database.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show every row error, not only ten.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, whatever was sent before.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=32, help="Chunks in flight, together.")] = 4,
    patience: Annotated[float, typer.Option(min=1, help="Seconds without progress after which it gives up.")] = 600,
    keys: Annotated[Path | None, typer.Option(help="CSV with tenant_id,api_key.", exists=True, dir_okay=False)] = None,
    api_key: Annotated[str, typer.Option(envvar="TILLSTREAM_API_KEY", help="With --tenant-id.")] = "",
    gateway_url: Annotated[str, typer.Option(envvar="TILLSTREAM_GATEWAY_URL", help="By default the stack's.")] = "",
    stack_dir: Annotated[
        Path, typer.Option(envvar="TILLSTREAM_DATA_DIR", help="Where 'tillstream up' keeps its data.")
    ] = Path(".tillstream"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Send files of rows, NDJSON or CSV, in chunks that a repeat cannot double.

    However it ends, the same command goes on where it was. Exit codes: 0 all rows were accepted, 1 some were refused,
    2 put it right first, 75 try again later.

    [dim]tillstream ingest --data-dir ./data --wait[/dim]

    [dim]tillstream ingest orders.csv --entity orders --tenant-id acme --api-key ts_...[/dim]
    """
    jobs = _jobs(file, data_dir, tenant_id, entity)
    settings, stack_url = running(stack_dir, needed=not gateway_url)
    given = ingest_keys.given(tenant_id, api_key, keys, data_dir)
    with alone(data_dir or jobs[0].path):
        resume = ResumeFile(resume_path(data_dir, file), restart=restart and not dry_run)
        if data_dir is not None:
            for note in gone(jobs, resume.contents.uploads, tenant_id, entity):
                say(note, errors)
        view = View(sum(job.path.stat().st_size for job in jobs), verbose=verbose, errors_to_stderr=as_json)
        gateway = Gateway(gateway_url or stack_url, concurrency=concurrency, patience=Patience(patience, view.pausing))
        kept = None if dry_run else resume
        uploads = {job: _upload(job, gateway, kept, view, restart=restart) for job in jobs}
        run = _Run(uploads, gateway, Keys(given, resume.contents.keys, settings.admin_token), view, resume, concurrency)
        with view:
            stopped = asyncio.run(run.until_stopped(dry=dry_run, wait=wait, patience=patience))
    raise typer.Exit(_report(list(uploads.values()), view, stopped, waited=wait and not dry_run, as_json=as_json))


def _jobs(file: Path | None, data_dir: Path | None, tenant_id: str | None, entity: str | None) -> list[Job]:
    if entity is not None and entity not in ENTITIES:
        raise Misconfigured(f"--entity takes {', '.join(ENTITIES)}, not {entity!r}")
    if (file is None) == (data_dir is None):
        raise Misconfigured("give one FILE, or a folder of files with --data-dir (the stack's folder is --stack-dir)")
    if data_dir is not None:
        return of_folder(data_dir, tenant_id, entity)
    assert file is not None
    if tenant_id is None or entity is None:
        raise Misconfigured("one FILE needs --tenant-id and --entity")
    if file.is_dir():
        raise Misconfigured(f"{file} is a folder: give it with --data-dir, or name one file in it")
    if str(file) == "-" or (file.exists() and not file.is_file()):
        raise Misconfigured(f"{file} is no file that can be read twice, as going on needs: write it to one first")
    if not file.is_file():
        raise Misconfigured(f"there is no file {file}")
    return [Job(tenant_id, entity, file, tenant_id, "EUR")]


def _upload(job: Job, gateway: Gateway, resume: ResumeFile | None, view: View, *, restart: bool) -> Upload:
    source = job.source()
    progress = progress_of(job, source, resume, restart=restart)
    upload = Upload(gateway, job.tenant_id, job.entity, source, progress, view)
    if isinstance(source, Csv) and source.encoding != "utf-8":
        view.note(upload, f"is not UTF-8: read as {source.encoding}")
    return upload


class _Run:
    """All uploads of a command. Tenants go side by side, and a tenant's files one after another."""

    def __init__(
        self, uploads: dict[Job, Upload], gateway: Gateway, keys: Keys, view: View, resume: ResumeFile, concurrency: int
    ) -> None:
        self._uploads, self._gateway, self._keys = uploads, gateway, keys
        self._view, self._resume, self._concurrency = view, resume, concurrency

    async def until_stopped(self, *, dry: bool, wait: bool, patience: float) -> int:
        """Send everything; what fails is noted in its upload. The signal that ended it early, or 0."""
        self._resume.save()  # a folder that cannot keep it shows now, not when it is needed
        saving = asyncio.create_task(self._save_regularly())
        try:
            with _stopping() as stopped, suppress(asyncio.CancelledError):
                async with self._gateway:
                    await self._send_all(dry=dry)
                    if wait and not dry:
                        await self._wait_all(Patience(patience))
        finally:
            saving.cancel()
            self._resume.save()
        return stopped[0] if stopped else 0

    async def _send_all(self, *, dry: bool) -> None:
        tenants_at_a_time = asyncio.Semaphore(_TENANTS_AT_A_TIME)

        async def send_tenant(jobs: list[Job]) -> None:
            async with tenants_at_a_time:
                for job in jobs:
                    await self._send(job, dry=dry)

        await together(send_tenant(list(jobs)) for _, jobs in groupby(self._uploads, key=lambda job: job.tenant_id))

    async def _send(self, job: Job, *, dry: bool) -> None:
        upload = self._uploads[job]
        try:
            upload.api_key = await self._keys.of(job, self._gateway)
            await upload.run(self._concurrency, dry=dry)
        except (TillstreamError, OSError) as exc:
            upload.failure = exc
        self._view.ended(upload)

    async def _wait_all(self, patience: Patience) -> None:
        async def wait(upload: Upload) -> None:
            try:
                await upload.wait(patience)
                await self._show_late(upload)
            except TillstreamError as exc:
                upload.failure = exc

        sent = [upload for upload in self._uploads.values() if upload.progress.completed and not upload.failure]
        await together(wait(upload) for upload in sent)

    async def _show_late(self, upload: Upload) -> None:
        if upload.refused_later:
            async with aclosing(upload.late_errors()) as late:
                async for chunk, answer in late:
                    if not self._view.refused(upload, chunk, answer):
                        break

    async def _save_regularly(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            self._resume.save()


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """SIGINT and SIGTERM cancel the task; the list has the signal then."""
    loop, task, stopped = asyncio.get_running_loop(), asyncio.current_task(), list[int]()
    assert task is not None

    def stop(number: int) -> None:
        stopped.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopped
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _report(uploads: list[Upload], view: View, stopped: int, *, waited: bool, as_json: bool) -> int:
    """Print what became of everything; the exit code."""
    accepted = sum(upload.progress.accepted for upload in uploads)
    rejected = sum(upload.progress.rejected for upload in uploads)
    if as_json:
        print(json.dumps([as_document(upload) for upload in uploads]))  # noqa: T201
    elif not stopped:
        if waited or len(uploads) > 1:
            show(closing(uploads, view.seconds, waited=waited))
        console.print(f"accepted {accepted:,}, rejected {rejected:,}", highlight=False)
    view.hint(uploads)
    failures = [upload.failure for upload in uploads if upload.failure is not None]
    for failure in dict.fromkeys(map(str, failures)):
        errors.print(f"[red]tillstream:[/red] {escape(failure)}", highlight=False, soft_wrap=True)
    gave_up = any(isinstance(failure, Unavailable) for failure in failures)
    if stopped or gave_up:
        errors.print("Run the same command again: it goes on where it was.")
    if stopped:
        return 128 + stopped
    if gave_up:
        return 75
    later = any(upload.state is not None and upload.state.state == "partially_completed" for upload in uploads)
    return 2 if failures else int(bool(rejected or later))
