"""What text a CSV file is, as spreadsheets write it: its encoding, its delimiter, and where its header begins.

Looked at in blocks, so that a file of any size costs the same memory.
"""

import codecs
import csv
import re
from collections.abc import Callable
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
_ABOVE_ASCII: Final = bytes(range(0x80, 0x100))
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
    """UTF-8 where the whole file is, cp1252 where nothing that is not ASCII is UTF-8. Raises Rejected for any other.

    Read as cp1252, what is UTF-8 in a file would become other letters without a word.
    """
    with path.open("rb") as file:
        head = file.read(4)
        if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in head:
            raise Rejected("bad_encoding", f"{path} is UTF-16; save it as 'CSV UTF-8'")
        file.seek(0)
        if (odd := _not_utf8(file)) is None:
            return "utf-8"
        why = "its byte order mark says UTF-8" if head.startswith(BOM) else ""
        if not why and (found := _first(_is_utf8, file)):
            why = f"line {_place(file, found[0])[0]} has {found[1].decode()[:20]!r} in UTF-8"
        if not why and (found := _first(_NOT_CP1252.search, file)):
            why = f"line {_place(file, found[0])[0]} has {found[1]!r}, which is not cp1252 either"
        if why:
            line, column, byte = _place(file, odd)
            detail = f"line {line} has 0x{byte:02X} at byte {column}, which is not UTF-8, but {why}"
            raise Rejected("bad_encoding", f"{path}: {detail}; save it as 'CSV UTF-8'")
    return "cp1252"


def _not_utf8(file: BinaryIO) -> int | None:
    """The offset of the first byte that is not UTF-8."""
    decoder, end = codecs.getincrementaldecoder("utf-8")(), 0
    try:
        for block in iter(partial(file.read, _BLOCK), b""):
            end += len(block)
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:  # what it speaks of is the block, and what was left of the one before
        return end - len(exc.object) + exc.start
    return None


def _is_utf8(run: bytes) -> bool:
    """Whether a run of bytes above ASCII is UTF-8 as text of cp1252 hardly ever has it."""
    try:
        run.decode()
    except UnicodeDecodeError:
        return False
    return not _EITHER.fullmatch(run)


def _first(wanted: Callable[[bytes], object], file: BinaryIO) -> tuple[int, bytes] | None:
    """The first run of bytes above ASCII that is wanted, and its offset."""
    file.seek(0)
    begin, block, ended = 0, b"", False
    while not ended:
        more = file.read(_BLOCK)
        block, ended = block + more, not more
        kept = len(block) if ended or len(block) >= 2 * _BLOCK else len(block.rstrip(_ABOVE_ASCII))
        # A language has few of them: each is judged once a block.
        if found := set(filter(wanted, set(_RUN.findall(block, 0, kept)))):
            first = next(run for run in _RUN.finditer(block, 0, kept) if run[0] in found)
            return begin + first.start(), first[0]
        begin, block = begin + kept, block[kept:]
    return None


def _place(file: BinaryIO, offset: int) -> tuple[int, int, int]:
    """Line, place in the line (both from 1), and value of the byte at an offset."""
    file.seek(0)
    line, before, left = 1, 0, offset
    while left:
        block = file.read(min(_BLOCK, left))
        left, line, last = left - len(block), line + block.count(b"\n"), block.rfind(b"\n")
        before = before + len(block) if last < 0 else len(block) - last - 1
    return line, before + 1, file.read(1)[0]
