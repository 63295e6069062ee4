"""CSV as Excel exports it, as a source of rows: each line becomes a JSON object with the header's names.

Excel writes `;` or `,` or tabs with the user's language, and cp1252 unless it is told otherwise. Cells stay text, which
the gateway reads as numbers and times where those belong. What means something else in a cell is put right: empty cells
are left out, `active` takes words for true and false, money may have a decimal comma, `items` are JSON, quantities of
stock are numbers.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from producers.chunks import BOM, Chunk, Limits, Place, Record, cut, read
from producers.csv_text import form_of, has_lone_cr
from schemas.errors import Rejected
from schemas.rows import Entity

_TRUTH: Final = {
    **dict.fromkeys(("true", "yes", "1", "wahr", "ja", "vrai", "oui", "verdadero", "vero", "waar"), True),
    **dict.fromkeys(("false", "no", "0", "falsch", "nein", "faux", "non", "falso", "onwaar"), False),
}
_MONEY: Final = {"price", "total_amount", "new_price", "old_price"}
_DECIMAL_COMMA: Final = re.compile(r"-?[0-9]+,[0-9]{1,2}")
_NESTED: Final = {"items", "attributes", "metadata", "raw_payload"}
_WHOLE: Final = {"quantity", "expected_quantity"}
_DIGITS: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)


class Csv:
    """A CSV file with a header line. Raises Rejected for a header that cannot be one of this entity."""

    def __init__(self, path: Path, entity: Entity) -> None:
        self.path = path
        form = form_of(path)
        self.encoding, self.delimiter = form.encoding, form.delimiter
        with path.open("rb") as file:
            file.seek(form.begin)
            size, lines, cells = next(self._parsed(file), (0, 1, []))
        self.start = Place(0, form.begin + size, form.line + lines)
        self.columns = _columns(path, cells, entity)

    def chunks(self, limits: Limits, after: Place) -> Iterator[Chunk]:
        """See Source."""
        return cut(self.path, self._records, limits, after)

    def body(self, chunk: Chunk) -> bytes:
        """See Source."""
        rows = (cells for _, cells in self._lines(chunk))
        return b"".join(msgspec.json.encode(self._object(cells)) + b"\n" for cells in rows)

    def line_of(self, chunk: Chunk, nth: int) -> int:
        """See Source; a cell may hold line ends, so that a row may begin some lines further on."""
        return [line for line, _ in self._lines(chunk)][nth - 1]

    def _object(self, cells: list[str]) -> dict[str, Any] | str:
        """A row; where it has more cells than the header, text that says so, which the gateway refuses and shows."""
        if any(cells[len(self.columns) :]):
            return f"{len(cells)} cells where the header has {len(self.columns)}: {cells}"
        named = zip(self.columns, cells, strict=False)  # fewer cells are as many empty ones
        return {name: _value(name, cell) for name, cell in named if name and cell.strip()}

    def _lines(self, chunk: Chunk) -> Iterator[tuple[int, list[str]]]:
        """Each row of a chunk, with the number of its first line in the file."""
        line = chunk.line
        for _, lines, cells in self._parsed(io.BytesIO(read(self.path, chunk))):
            if any(cells):
                yield line, cells
            line += lines

    def _records(self, file: BinaryIO) -> Iterator[Record]:
        return ((size, lines, any(cells)) for size, lines, cells in self._parsed(file))

    def _parsed(self, lines: Iterable[bytes]) -> Iterator[tuple[int, int, list[str]]]:
        """Bytes, lines and cells of each record: the reader takes no more lines than a record has."""
        size = taken = 0
        text = ""

        def counted() -> Iterator[str]:
            nonlocal size, taken, text
            for line in lines:
                size, taken = size + len(line), taken + 1
                text = line.removeprefix(BOM).decode(self.encoding)
                yield text

        try:
            # Strict: a quote that is never closed would take the rows after it into its cell without a word.
            for cells in csv.reader(counted(), delimiter=self.delimiter, strict=True):
                yield size, taken, cells
                size = taken = 0
        except (csv.Error, UnicodeDecodeError) as exc:
            cause = "a line ends with CR alone; save it with CRLF or LF"
            if not has_lone_cr(text):
                cause = f"{exc}; is a quote missing there?"
            why = f"{self.path}, {taken} lines after the last good row: {cause}"
            raise Rejected("broken_csv", why) from exc


def _value(name: str, cell: str) -> Any:
    if name == "active":
        return _TRUTH.get(cell.strip().lower(), cell)
    if name in _MONEY and _DECIMAL_COMMA.fullmatch(cell.strip()):
        return cell.strip().replace(",", ".")
    if name in _WHOLE and _DIGITS.fullmatch(cell.strip()):
        return int(cell)
    if name in _NESTED:
        try:
            return msgspec.json.decode(cell)
        except msgspec.DecodeError:
            return cell  # for the gateway to refuse
    return cell


def _folded(name: str) -> str:
    """A field's name as people write it into a header: `Customer ID`."""
    return re.sub(r"[\s-]+", "_", name.strip()).lower()


def _columns(path: Path, cells: list[str], entity: Entity) -> list[str]:
    fields = {field.name for field in msgspec.structs.fields(entity.row)}
    columns = [folded if (folded := _folded(name)) in fields else name.strip() for name in cells]
    if twice := {name for name in columns if name and columns.count(name) > 1}:
        raise Rejected("bad_header", f"{path} has the column {', '.join(sorted(twice))} twice")
    needed = [field.name for field in msgspec.structs.fields(entity.row) if field.required]
    if missing := [name for name in needed if name not in columns]:
        known = ", ".join(filter(None, columns)) or "none"
        raise Rejected(
            "bad_header", f"{path} has no column {', '.join(missing)}; {entity.name} need it. It has: {known}"
        )
    return columns
