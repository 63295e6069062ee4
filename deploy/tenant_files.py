"""Files of tenants: what people have in a spreadsheet, checked whole before anything is published."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from producers.csv_text import form_of
from producers.tenant import Tenant, checked, merged
from schemas.errors import Rejected

_LIMITS: Final = ("requests_per_minute", "product_events_per_minute")
COLUMNS: Final = ("tenant_id", "name", "currency", *_LIMITS, "currencies", "order_totals", "oversell")
_SHOWN: Final = 10
"""Faults named in one error."""


class Row(Struct, frozen=True):
    """A line: the tenant it names, and what it says of it, for `producers.tenant.merged`. Empty cells are left out."""

    line: int
    tenant_id: str
    given: dict[str, Any]


def read(path: Path) -> list[Row]:
    """The rows of a CSV file with COLUMNS, of which only `tenant_id` must be there.

    Read is what spreadsheets write: see `producers.csv_text`; quoted cells, blank lines. Raises Rejected, naming each
    line that is wrong.
    """
    lines = _lines(path)
    line, header = next(lines, (1, []))
    columns = [name.strip().lower() for name in header]
    if unknown := set(columns) - set(COLUMNS):
        names, known = ", ".join(map(repr, sorted(unknown))), ", ".join(COLUMNS)
        raise Rejected("bad_header", f"{path} line {line}: no column is called {names}; known are {known}")
    if "tenant_id" not in columns or len(set(columns)) < len(columns):
        raise Rejected("bad_header", f"{path} line {line}: it must name the columns, each once, tenant_id among them")
    faults: list[str] = []
    rows: dict[str, Row] = {}
    for line, cells in lines:
        try:
            row = _row(line, columns, cells)
            if earlier := rows.get(row.tenant_id):
                raise Rejected("twice", f"{row.tenant_id} was on line {earlier.line} already")
            rows[row.tenant_id] = row
        except Rejected as exc:
            faults.append(f"line {line}: {exc.detail}")
    if faults:
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise Rejected("bad_lines", f"{path}, nothing was published:\n  " + "\n  ".join(faults[:_SHOWN]) + more)
    return list(rows.values())


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Cells of each line that has any, with its number."""
    form = form_of(path)
    text = path.read_bytes()[form.begin :].decode(form.encoding)
    reader, before = csv.reader(io.StringIO(text, newline=""), delimiter=form.delimiter, strict=True), form.line - 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield before + reader.line_num, cells
    except csv.Error as exc:
        raise Rejected("bad_csv", f"{path} line {before + reader.line_num}: {exc}") from exc


def _row(line: int, columns: list[str], cells: list[str]) -> Row:
    if any(cell.strip() for cell in cells[len(columns) :]):
        raise Rejected("too_many_cells", f"{len(cells)} cells, but {len(columns)} columns")
    said = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if cell.strip()}
    tenant_id = said.pop("tenant_id", "")
    given = given_of(said)
    checked(merged(Tenant(tenant_id, tenant_id), given))
    return Row(line, tenant_id, given)


def given_of(said: dict[str, str]) -> dict[str, Any]:
    """Cells, or options, by the names of COLUMNS, as `producers.tenant.merged` takes them. Raises Rejected."""
    limits: dict[str, Any] = {name: _number(name, said[name]) for name in _LIMITS if name in said}
    parse: dict[str, Callable[[str], Any]] = {"currencies": _codes, "order_totals": str, "oversell": _yes_or_no}
    policies = {name: parse[name](said[name]) for name in parse if name in said}
    plain = {name: said[name] for name in ("name", "currency") if name in said}
    return plain | {"limits": limits, "policies": policies}


def _number(name: str, text: str) -> int | None:
    if text.lower() == "default":
        return None
    if not text.isascii() or not text.isdigit():
        raise Rejected("bad_limit", f"{name} takes a whole number, 0 for no limit, or 'default', not {text!r}")
    return int(text[:12])


def _codes(text: str) -> list[str]:
    return [] if text.lower() == "any" else [code.strip() for code in text.replace(",", "|").split("|")]


def _yes_or_no(text: str) -> bool:
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in words:
        raise Rejected("bad_oversell", f"oversell takes yes or no, not {text!r}")
    return words[text.lower()]
