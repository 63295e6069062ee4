"""Where the files of exports lie: a folder that sinks and gateways share, or a bucket that speaks S3.

A file is there whole or not at all.
"""

import os
import stat
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import anyio

from schemas.errors import Misconfigured

_PART_BYTES: Final = 8 * 1024 * 1024
"""Of an upload to a bucket, which may have 10,000 parts: 80 GB."""
_PARTS_AT_ONCE: Final = 2
_READ_BYTES: Final = 1024 * 1024


class Opened(Protocol):
    """A file that is read."""

    async def read(self, size: int, /) -> bytes:
        """The next bytes, so many unless the file ends."""

    async def seek(self, to: int, /) -> Any:
        """Go on there, counted from the file's begin."""


class Files(Protocol):
    """A store of files, by names such as `tenant/export.1.csv`. All raise OSError, for a full disk among others."""

    def put(self, name: str, chunks: Iterable[bytes]) -> None:
        """The chunks become the file of this name once they have ended well; else nothing remains."""

    def remove(self, beginning: str) -> None:
        """Remove the files whose names begin so, `tenant/export.`, unfinished ones too; none is no error."""

    async def stat(self, name: str) -> os.stat_result:
        """Size and time of a file. Raises FileNotFoundError where the store is there and lacks it."""

    def open(self, name: str) -> AbstractAsyncContextManager[Opened]:
        """A file, to be read. Whoever reads one that is removed reads it to its end, or is told."""


class Folder:
    """Files of a local folder, or of one that is mounted everywhere."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def put(self, name: str, chunks: Iterable[bytes]) -> None:
        """See Files; the bytes are on disk before the name is."""
        path = self._path / name
        unfinished = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            _sync(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)

    def remove(self, beginning: str) -> None:
        """See Files."""
        path = self._path / beginning
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink(missing_ok=True)

    async def stat(self, name: str) -> os.stat_result:
        """See Files."""
        if not self._path.is_dir():
            raise NotADirectoryError(f"there is no folder {self._path}")
        return (self._path / name).stat()

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Opened]:
        """See Files."""
        async with await anyio.open_file(self._path / name, "rb") as file:
            yield file


class Bucket:
    """Files of a bucket. Who may, and where it is, say the variables of every S3 client: AWS_ACCESS_KEY_ID, …_REGION,
    AWS_ENDPOINT_URL, and AWS_ALLOW_HTTP=true for one without TLS.
    """

    def __init__(self, url: str) -> None:
        """Raises Misconfigured where the library is missing, or the variables make no sense."""
        try:
            import obstore
            from obstore.exceptions import BaseError, NotFoundError
            from obstore.store import from_url
        except ImportError as exc:
            raise Misconfigured(f"for exports in {url}: pip install 'tillstream[s3]'") from exc
        try:
            self._library, self._store = obstore, from_url(url)
        except BaseError as exc:
            raise Misconfigured(f"TILLSTREAM_EXPORTS_URL={url}: {_first_line(exc)}") from exc
        self._error, self._not_found = BaseError, NotFoundError

    def put(self, name: str, chunks: Iterable[bytes]) -> None:
        """See Files. What a killed process has sent is no file; the bucket's own rule for such parts removes them."""
        try:
            self._library.put(self._store, name, iter(chunks), chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
        except self._error as exc:
            raise OSError(_first_line(exc)) from exc

    def remove(self, beginning: str) -> None:
        """See Files."""
        folder, _, _ = beginning.rpartition("/")
        try:
            for found in self._library.list(self._store, prefix=folder):
                for file in found:
                    if file["path"].startswith(beginning):
                        self._library.delete(self._store, file["path"])
        except self._error as exc:
            raise OSError(_first_line(exc)) from exc

    async def stat(self, name: str) -> os.stat_result:
        """See Files."""
        try:
            found = await self._library.head_async(self._store, name)
        except self._not_found as exc:
            raise FileNotFoundError(_first_line(exc)) from exc
        except self._error as exc:
            raise OSError(_first_line(exc)) from exc
        time = found["last_modified"].timestamp()
        return os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, found["size"], time, time, time))

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Opened]:
        """See Files."""
        yield _Reader(await self._library.open_reader_async(self._store, name, buffer_size=_READ_BYTES))


class _Reader:
    """What the library reads, as bytes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    async def read(self, size: int, /) -> bytes:
        return bytes(await self._file.read(size))

    async def seek(self, to: int, /) -> None:
        await self._file.seek(to)


def files_at(url: str) -> Files:
    """The store that TILLSTREAM_EXPORTS_URL names. Raises Misconfigured."""
    scheme = urlsplit(url).scheme
    if scheme not in ("", "s3"):
        raise Misconfigured(f"TILLSTREAM_EXPORTS_URL takes a folder or s3://bucket/folder, not {url!r}")
    return Bucket(url) if scheme else Folder(url)


def _sync(folder: Path) -> None:
    """Have a rename survive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _first_line(exc: Exception) -> str:
    """What the library says, without what only its authors can use."""
    return str(exc).strip().partition("\n")[0]
