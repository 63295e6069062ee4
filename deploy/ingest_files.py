"""Which files `tillstream ingest` sends, for whom, and where it keeps how far it is."""

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producers.chunks import Ndjson, Source
from producers.csv_rows import Csv
from producers.csv_text import form_of
from producers.resume import Fingerprint, Progress, ResumeFile, begun
from schemas.errors import Misconfigured
from schemas.rows import ENTITIES

RESUME: Final = ".tillstream-ingest.json"


@dataclass(frozen=True)
class Job:
    """One file of one tenant. `name` and `currency` are for a tenant that must be made first."""

    tenant_id: str
    entity: str
    path: Path
    name: str
    currency: str

    def source(self) -> Source:
        """The file as rows. Raises Rejected for a CSV file that cannot be one of this entity."""
        return Csv(self.path, ENTITIES[self.entity]) if self.path.suffix.lower() == ".csv" else Ndjson(self.path)


def of_folder(folder: Path, tenant_id: str | None, entity: str | None) -> list[Job]:
    """Files of a folder as `tillstream generate` makes it: a tenant after the other, customers before orders.

    With a tenant's id, the folder may also be that tenant's own. Raises Misconfigured when there is nothing to send.
    """
    known = _tenants(folder / "tenants.csv")
    if tenant_id is None and not known:
        raise Misconfigured(
            f"{folder} has no tenants.csv (tenant_id,name,currency); or name the tenant with --tenant-id"
        )
    wanted = [tenant_id] if tenant_id is not None else list(known)
    entities = [entity] if entity is not None else list(ENTITIES)
    jobs = []
    for each in wanted:
        home = folder if tenant_id is not None and not (folder / each).is_dir() else folder / each
        name, currency = known.get(each, (each, "EUR"))
        found = [Job(each, kind, path, name, currency) for kind in entities if (path := _file(home, kind))]
        if not found:
            files = ", ".join(f"{kind}.ndjson" for kind in entities)
            raise Misconfigured(f"{home} has none of {files} (or .csv), which {each} should have there")
        jobs += found
    return jobs


def gone(jobs: Iterable[Job], sent: Mapping[str, Progress], tenant_id: str | None, entity: str | None) -> Iterator[str]:
    """What to say of files that were sent, by the folder's resume file, and are not in the folder any more."""
    there = {(job.tenant_id, job.entity) for job in jobs}
    for name, progress in sent.items():
        whose, _, kind = name.rpartition("/")
        meant = tenant_id in (None, whose) and entity in (None, kind)
        if meant and progress.token and (whose, kind) not in there:
            far = "was sent" if progress.completed else "was sent in part"
            yield f"{name}: {progress.file.name} {far} before and is not there any more; what was sent of it stays"


def _file(home: Path, entity: str) -> Path | None:
    found = [path for suffix in ("ndjson", "csv") if (path := home / f"{entity}.{suffix}").is_file()]
    if len(found) > 1:
        raise Misconfigured(f"{home} has {found[0].name} and {found[1].name}: move the one away that is not to be sent")
    return found[0] if found else None


def _tenants(path: Path) -> dict[str, tuple[str, str]]:
    """Names and currencies by tenant id; nothing where there is no such file."""
    if not path.is_file():
        return {}
    rows = read_csv(path, "tenant_id")
    return {row["tenant_id"]: (row.get("name") or row["tenant_id"], row.get("currency") or "EUR") for row in rows}


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a small file with a header. Raises Misconfigured when a column is missing or a cell is empty.

    Raises Rejected for a file that is no CSV text.
    """
    form = form_of(path)
    with io.StringIO(path.read_bytes()[form.begin :].decode(form.encoding), newline="") as file:
        try:
            rows = list(csv.DictReader(file, delimiter=form.delimiter))
        except csv.Error as exc:
            raise Misconfigured(f"{path}: {exc}") from exc
    for number, row in enumerate(rows, 1):
        if missing := [column for column in columns if not row.get(column)]:
            raise Misconfigured(
                f"{path}, row {number}: no {', '.join(missing)}; its columns are {', '.join(columns)}, ..."
            )
    return rows


def resume_path(folder: Path | None, file: Path | None) -> Path:
    """In the folder, or beside the file."""
    return folder / RESUME if folder is not None else Path(file or "").with_name(f".{Path(file or '').name}{RESUME}")


def progress_of(job: Job, source: Source, resume: ResumeFile | None, *, restart: bool) -> Progress:
    """How far the upload is by the resume file, if one is kept. Raises Misconfigured when the file has changed."""
    key, file = f"{job.tenant_id}/{job.entity}", Fingerprint.of(job.path)
    if resume is None:
        return begun(file, source.start)
    known = resume.contents.uploads.get(key)
    if known is not None and known.file != file and not restart:
        since = "it was sent" if known.completed else "a part of it was sent"
        raise Misconfigured(
            f"{job.path} has changed since {since}. --restart sends it as it is now (it alone with --tenant-id"
            " and --entity too); rows that are there already are recognised, not doubled"
        )
    if known is None or restart:
        known = resume.contents.uploads[key] = begun(file, source.start)
    return known


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other runs away from a folder or file meanwhile. Raises Misconfigured when one is at it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Misconfigured(f"another tillstream ingest is sending {path}") from exc
        yield
    finally:
        os.close(handle)
