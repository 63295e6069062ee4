"""Where the files of exports lie: a folder that sinks and gateways share. A file is there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol


class Files(Protocol):
    """A store of files, by names such as `tenant/export.1.csv`. All raise OSError, for a full disk among others."""

    @contextmanager
    def new(self, name: str) -> Iterator[BinaryIO]:
        """What is written becomes the file of this name once the block has ended well; else nothing remains."""

    def remove(self, beginning: str) -> None:
        """Remove the files whose names begin so, unfinished ones too; none is no error."""


class Folder:
    """Files of a local folder, or of one that is mounted everywhere."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    @contextmanager
    def new(self, name: str) -> Iterator[BinaryIO]:
        """See Files; the bytes are on disk before the name is."""
        path = self.path / name
        unfinished = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            _sync(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)

    def remove(self, beginning: str) -> None:
        """See Files; who is reading one reads it to its end."""
        path = self.path / beginning
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink(missing_ok=True)


def files_at(url: str) -> Folder:
    """The store that `TILLSTREAM_EXPORTS_URL` names."""
    return Folder(url)


def _sync(folder: Path) -> None:
    """Have a rename survive a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
