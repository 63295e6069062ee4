"""Chunks are whole rows, cover the file, and are cut the same way from any of their ends."""

import csv
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.chunks import LONGEST_LINE, Limits, Ndjson, Place
from producers.csv_rows import Csv
from schemas.errors import Rejected
from schemas.rows import ENTITIES

LINES = st.lists(st.sampled_from([b'{"a":1}\n', b"\n", b"  \r\n", b'{"long":"' + b"x" * 60 + b'"}\r\n']), max_size=40)


@settings(max_examples=200, deadline=None)
@given(lines=LINES, ends=st.booleans(), most=st.integers(1, 7), size=st.integers(1, 150))
def test_any_file_is_cut_into_whole_rows(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ends: bool, most: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.ndjson"
    text = b"".join(lines) if ends else b"".join(lines).rstrip(b"\n")
    path.write_bytes(text)
    source, limits = Ndjson(path), Limits(most, size)
    chunks = list(source.chunks(limits, source.start))
    assert [chunk.number for chunk in chunks] == list(range(1, len(chunks) + 1))
    rows = [line for chunk in chunks for line in source.body(chunk).split(b"\n") if line.strip()]
    assert rows == [line for line in text.split(b"\n") if line.strip()]
    for chunk in chunks:
        assert 1 <= chunk.rows <= chunk.lines <= most or chunk.rows == chunk.lines == 1
        assert chunk.size <= size or chunk.rows == 1
        body, whole = source.body(chunk).split(b"\n"), text.split(b"\n")
        for nth in range(1, chunk.lines + 1):
            assert whole[source.line_of(chunk, nth) - 1] == body[nth - 1]
        assert list(source.chunks(limits, chunk.end)) == chunks[chunk.number :]


def test_a_file_without_line_ends_says_what_ndjson_is(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(b"[" + b"x" * LONGEST_LINE)
    with pytest.raises(Rejected, match="one object a line"):
        list(Ndjson(path).chunks(Limits(), Place()))


@pytest.mark.parametrize("name", ["orders.ndjson", "orders.csv"])
def test_a_large_file_is_never_held(tmp_path: Path, name: str) -> None:
    path, line = tmp_path / name, b"A-1,1.00,EUR,paid,2026-01-01T00:00:00Z," + b"x" * 200 + b"\n"
    head = b"external_order_id,total_amount,currency,order_status,order_date,note\n"
    with path.open("wb") as file:
        file.write(head)
        file.writelines(line * 1_000 for _ in range(150))
    source = Csv(path, ENTITIES["orders"]) if name.endswith("csv") else Ndjson(path)
    tracemalloc.start()
    rows = sum(source.body(chunk).count(b"\n") for chunk in source.chunks(Limits(), source.start))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 150_000 + name.endswith("ndjson")
    assert peak < 5_000_000 < path.stat().st_size / 7


CELLS = st.lists(
    st.tuples(st.text(alphabet='ab,;"\n\r \té', min_size=1, max_size=8), st.text(alphabet="xyz\n", max_size=5)),
    min_size=1, max_size=25,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(rows=CELLS, most=st.integers(1, 6))
def test_csv_with_any_cells_is_cut_between_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], most: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("customer_id", "name"), *rows])
    source = Csv(path, ENTITIES["customers"])
    limits = Limits(most, 10_000)
    chunks = list(source.chunks(limits, source.start))
    read = [json.loads(line) for chunk in chunks for line in source.body(chunk).splitlines()]
    pairs = [("customer_id", "name", row) for row in rows]
    assert read == [
        {name: cell for name, cell in ((first, row[0]), (second, row[1])) if cell.strip()}
        for first, second, row in pairs
    ]
    assert sum(chunk.rows for chunk in chunks) == len(read)
    for chunk in chunks:
        assert list(source.chunks(limits, chunk.end)) == chunks[chunk.number :]
