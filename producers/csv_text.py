"""What text a CSV file is, as spreadsheets write it: its encoding, its delimiter, and where its header begins.

Looked at in blocks, so that a file of any size costs the same memory.
"""

import codecs
import csv
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import Struct

from producers.chunks import BOM, LONGEST_LINE
from schemas.errors import Rejected

csv.field_size_limit(LONGEST_LINE)  # Python's own is 131,072 characters: a longer cell is the gateway's to refuse

_BLOCK: Final = 1 << 20
_SEPARATOR: Final = re.compile(rb'"?sep=([^"\r\n])"?[;,\t]*\r?\n', re.IGNORECASE)
"""A first line that tells Excel the delimiter."""
_RUN: Final = re.compile(rb"[\x80-\xff]+")
_EITHER: Final = re.compile(rb"[\xc8-\xcd\xd2-\xdf][\x82\x84\x85\x91-\x94\x96\x97\xa0\xab\xbb]")
"""A capital with an accent before a quotation mark, dash or hard space in cp1252 (`CAFÉ”`) is also valid UTF-8."""
_NOT_CP1252: Final = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")


class Form(Struct, frozen=True):
    """How to read a CSV file: its header begins at byte `begin`, on line `line` (from 1)."""

    encoding: str
    delimiter: str
    begin: int
    line: int


def form_of(path: Path) -> Form:
    """The form of a file. Raises Rejected for one of two encodings, and for one whose lines end with CR alone."""
    encoding = _encoding(path)
    with path.open("rb") as file:
        begin, line, header = len(BOM) if file.read(len(BOM)) == BOM else 0, 1, b""
        file.seek(begin)
        delimiter = ""
        for header in iter(partial(file.readline, _BLOCK), b""):
            if line == 1 and (said := _SEPARATOR.fullmatch(header)):
                delimiter = said[1].decode("latin-1")
            elif header.strip():
                break
            begin, line = begin + len(header), line + 1
    text = header.decode(encoding, "replace")
    if has_lone_cr(text):
        raise Rejected("bad_line_ends", f"{path} ends its lines with CR alone; save it as 'CSV UTF-8', with CRLF or LF")
    return Form(encoding, delimiter or max(",;\t", key=_outside_quotes(text).count), begin, line)


def has_lone_cr(text: str) -> bool:
    """Whether a line, as told by its LF, holds a CR that ends no line."""
    return "\r" in _outside_quotes(text).removesuffix("\n").removesuffix("\r")


def _outside_quotes(text: str) -> str:
    return re.sub('"[^"]*"', "", text)


def _encoding(path: Path) -> str:
    """UTF-8 where the whole file is, cp1252 where nothing that is not ASCII is UTF-8. Raises Rejected for any other."""
    with path.open("rb") as file:
        head = file.read(4)
        if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in head:
            raise Rejected("bad_encoding", f"{path} is UTF-16; save it as 'CSV UTF-8'")
        file.seek(0)
        if _is_utf8(file):
            return "utf-8"
        file.seek(0)
        _must_be_cp1252(path, file, marked=head.startswith(BOM))
    return "cp1252"


def _is_utf8(file: BinaryIO) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in iter(partial(file.read, _BLOCK), b""):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _must_be_cp1252(path: Path, file: BinaryIO, *, marked: bool) -> None:
    """Raises Rejected where a file that is not UTF-8 has a byte order mark, UTF-8 elsewhere, or what cp1252 has not.

    Read as cp1252, all that is UTF-8 in it would become other letters without a word.
    """
    utf8 = "its byte order mark says UTF-8" if marked else ""
    odd = ""
    for line, column, run in _runs(file):
        try:
            text = run.decode()
            if not utf8 and not _EITHER.fullmatch(run):
                utf8 = f"line {line} has {text[:20]!r} in UTF-8"
        except UnicodeDecodeError as exc:
            odd = odd or f"line {line} has 0x{run[exc.start]:02X} at byte {column + exc.start}, which is not UTF-8"
            if not utf8 and (stray := _NOT_CP1252.search(run)):
                utf8 = f"line {line} has 0x{stray[0][0]:02X}, which is not cp1252 either"
        if odd and utf8:
            raise Rejected("bad_encoding", f"{path}: {odd}, but {utf8}; save it as 'CSV UTF-8'")


def _runs(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Each run of bytes that are not ASCII, with its line and its first byte's place in that, both from 1."""
    line, before = 1, 0
    for piece in iter(partial(file.readline, _BLOCK), b""):
        while piece[-1] > 0x7F and len(piece) < 2 * _BLOCK and (more := file.readline(_BLOCK >> 4)):
            piece += more  # a run is not cut where a long line is
        if not piece.isascii():
            yield from ((line, before + found.start() + 1, found[0]) for found in _RUN.finditer(piece))
        ended = piece.endswith(b"\n")
        line, before = line + ended, 0 if ended else before + len(piece)
