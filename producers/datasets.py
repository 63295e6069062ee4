"""Generated data as files: a folder a tenant, whole files only, with constant memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from producers import catalogue_data as data
from producers import generate
from producers.generate import Plan
from schemas.errors import Misconfigured

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Written:
    """A finished file, by its name below the folder."""

    file: str
    rows: int
    bytes: int


def write(plan: Plan, directory: Path, progress: Progress | None = None) -> list[Written]:
    """Write `<tenant_id>/*.ndjson` for each tenant and, last, `tenants.csv`: with it the set is complete.

    `progress(file, rows)` hears of each chunk just written, for example `("acme-001/orders.ndjson", 5_000)`. Raises
    Misconfigured where the folder or the disk does not take the files; no half file bears a final name then.
    """
    try:
        return list(_write(plan, directory, progress))
    except OSError as exc:
        where, why = exc.filename or directory, exc.strerror or exc
        raise Misconfigured(
            f"{where}: {why}. Make room or choose another folder, then run it again; the same seed makes the same files"
        ) from exc


def _write(plan: Plan, directory: Path, progress: Progress | None) -> Iterator[Written]:
    (directory / "tenants.csv").unlink(missing_ok=True)
    for tenant_index in range(plan.tenants):
        for name, make in generate.FILES.items():
            file = f"{generate.tenant_id(tenant_index)}/{name}"
            chunks = _chunks(make(plan, tenant_index), plan.chunk_size)
            yield _write_whole(directory, file, chunks, progress)
    yield replace(_write_whole(directory, "tenants.csv", iter([list(_tenants(plan))]), None), rows=plan.tenants)


def _tenants(plan: Plan) -> Iterator[bytes]:
    yield b"tenant_id,name,currency\n"
    for tenant_index in range(plan.tenants):
        shop = data.merchant(tenant_index)
        yield f"{generate.tenant_id(tenant_index)},{shop.name},{shop.currency}\n".encode()


def _chunks(lines: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    while chunk := list(islice(lines, size)):
        yield chunk


def _write_whole(directory: Path, name: str, chunks: Iterator[list[bytes]], progress: Progress | None) -> Written:
    """Write under a temporary name and rename: what bears the final name is never half a file."""
    path, rows = directory / name, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(b"".join(chunk))
                rows += len(chunk)
                if progress:
                    progress(name, len(chunk))
            size = file.tell()
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Written(name, rows, size)
