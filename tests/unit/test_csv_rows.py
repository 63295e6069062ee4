"""CSV as people export it, into the rows of the contract."""

import json
from pathlib import Path
from typing import Any

import pytest

from producers.chunks import Limits
from producers.csv_rows import Csv
from schemas.errors import Rejected
from schemas.rows import ENTITIES


def source(tmp_path: Path, text: bytes, entity: str = "products") -> Csv:
    path = tmp_path / f"{entity}.csv"
    path.write_bytes(text)
    return Csv(path, ENTITIES[entity])


def rows(csv: Csv) -> list[Any]:
    return [json.loads(line) for c in csv.chunks(Limits(), csv.start) for line in csv.body(c).splitlines()]


def test_german_excel(tmp_path: Path) -> None:
    text = (
        'product_id;name;price;active;Lager;sku\r\nP-1;"Tee; grün";12,50;WAHR;Köln;\r\n'
        ';;;;;\r\nP-2;"2"" Rohr";3;FALSCH;;x'
    )
    expected = [
        {"product_id": "P-1", "name": "Tee; grün", "price": "12.50", "active": True, "Lager": "Köln"},
        {"product_id": "P-2", "name": '2" Rohr', "price": "3", "active": False, "sku": "x"},
    ]
    for encoded in (text.encode("utf-8-sig"), text.encode(), text.encode("cp1252")):
        csv = source(tmp_path, encoded)
        assert rows(csv) == expected
        assert csv.encoding == ("cp1252" if encoded == text.encode("cp1252") else "utf-8")


def test_tabs_and_commas(tmp_path: Path) -> None:
    for delimiter in (b"\t", b","):
        text = b"product_id|name|price|active\nP-1|Tea|12.50|perhaps\n".replace(b"|", delimiter)
        assert rows(source(tmp_path, text)) == [
            {"product_id": "P-1", "name": "Tea", "price": "12.50", "active": "perhaps"}
        ]


def test_excels_own_first_line_and_headers_for_people(tmp_path: Path) -> None:
    csv = source(tmp_path, b"\xef\xbb\xbfsep=;\r\nProduct ID;NAME;Price;Lager, Ort\r\nP-1;Tea;12,50;x\r\nP-2;y\r\n")
    assert rows(csv) == [
        {"product_id": "P-1", "name": "Tea", "price": "12.50", "Lager, Ort": "x"},
        {"product_id": "P-2", "name": "y"},
    ]
    [chunk] = csv.chunks(Limits(), csv.start)
    assert [csv.line_of(chunk, nth) for nth in (1, 2)] == [3, 4]


def test_line_numbers_are_the_files_even_after_cells_with_line_ends(tmp_path: Path) -> None:
    csv = source(tmp_path, b'product_id,name,price\n"P\n1",x,1\n\nP2,y,2\nP3,z,3\n')
    [chunk] = csv.chunks(Limits(), csv.start)
    assert (chunk.line, chunk.rows, chunk.lines) == (2, 3, 5)
    assert [csv.line_of(chunk, nth) for nth in (1, 2, 3)] == [2, 5, 6]


def test_a_row_with_more_cells_than_the_header_is_left_to_be_refused(tmp_path: Path) -> None:
    first, second = rows(source(tmp_path, b"product_id,name,price\nP1,Tea, green,3\nP2,y,2,,\n"))
    assert first == "4 cells where the header has 3: ['P1', 'Tea', ' green', '3']"
    assert second == {"product_id": "P2", "name": "y", "price": "2"}


def test_items_of_orders_may_be_json(tmp_path: Path) -> None:
    head = b"external_order_id;total_amount;currency;order_status;order_date;items\n"
    line = b'A;1,5;EUR;paid;2026-01-01T00:00:00Z;"[{""product_id"":""P"",""quantity"":1,""unit_price"":""1.50""}]"\n'
    [row] = rows(source(tmp_path, head + line, "orders"))
    assert row["items"] == [{"product_id": "P", "quantity": 1, "unit_price": "1.50"}]
    assert row["total_amount"] == "1.5"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "no column product_id, name, price"),
        (b"id;name;price\n", "no column product_id; products need it. It has: id, name, price"),
        (b"product_id,name,price,name\n", "the column name twice"),
        ("product_id,name,price\n".encode("utf-16"), "UTF-16"),
        ("product_id,name,price\n".encode("utf-16-le"), "UTF-16"),
        ("product_id,name,price\n".encode("utf-16-be"), "UTF-16"),
        (b"product_id,name,price\rP1,Tea,3\r", "ends its lines with CR alone; save it as 'CSV UTF-8'"),
        (b"product_id,name,price\nP1,Tea,3\rP2,Tea,3\r", "a line ends with CR alone"),
        (b"product_id,name,price\n" + b"P" * 8_000_001 + b",Tea,3\n", "field larger than field limit"),
        (b'product_id,name,price\nP1,"' + b"x" * 200_000, "is a quote missing"),
        (
            b"product_id,name,price\nP1,\x81,3\n",
            "line 2 has 0x81 at byte 4, which is not UTF-8, but line 2 has b'\\x81'",
        ),
    ],
)
def test_what_cannot_be_read_gets_a_sentence(tmp_path: Path, text: bytes, says: str) -> None:
    with pytest.raises(Rejected) as told:
        rows(source(tmp_path, text))
    assert says in str(told.value)


def test_a_quote_that_is_never_closed_is_an_error_and_takes_no_rows_with_it(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="is a quote missing there"):
        rows(source(tmp_path, b'customer_id,name\r\n1,"abc\r\n2,b\r\n3,c\r\n', "customers"))
    inch = b'customer_id,name\n1,5" pipe\n2,"b"\n'
    assert [row["name"] for row in rows(source(tmp_path, inch, "customers"))] == ['5" pipe', "b"]


HEADER = "product_id,name,price\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"\ufeff{HEADER}P1,Käse,3\n".encode() + b"P2,Br\xf6t,3\n", "line 3 has 0xF6 at byte 6, which is not UTF-8"),
        (b"\xef\xbb\xbf" + f"{HEADER}P1,x,3\nP2,Bröt,3\n".encode("cp1252"), "its byte order mark says UTF-8"),
        (f"{HEADER}P1,Käse,3\n".encode() + b"P2,Br\xf6t,3\n", "but line 2 has 'ä' in UTF-8"),
        (HEADER.encode() + b"P2,Br\xf6t,3\n" + "P1,žluťoučký,3\n".encode(), "but line 3 has 'ž' in UTF-8"),
        (HEADER.encode() + b"x" * ((1 << 20) - 3) + "Käse,".encode() * 9 + b"\xf6", f"0xF6 at byte {(1 << 20) + 52}"),
    ],
)
def test_a_file_of_two_encodings_is_refused_and_says_where(tmp_path: Path, text: bytes, says: str) -> None:
    with pytest.raises(Rejected, match="save it as 'CSV UTF-8'") as told:
        source(tmp_path, text)
    assert says in str(told.value)


@pytest.mark.parametrize("name", ["Käse", "CAFÉ”", "CAFÉ\u00a0»", "ÉTÉ – ÜBERMAß", "smörgåsbord “à la” façon"])
def test_text_of_cp1252_stays_so_where_two_letters_could_be_one_of_utf8(tmp_path: Path, name: str) -> None:
    for text in (f"{HEADER}P1,{name},1\nP2,äöü,1\n", f"{HEADER}P2,äöü,1\nP1,{name},1\n"):
        csv = source(tmp_path, text.encode("cp1252"))
        assert csv.encoding == "cp1252"
        assert name in {row["name"] for row in rows(csv)}


def test_a_long_cell_is_left_to_be_refused(tmp_path: Path) -> None:
    text = f"{HEADER}P1,{'x' * 1_000_000},1\nP2,y,2\n".encode()
    assert [len(row["name"]) for row in rows(source(tmp_path, text))] == [1_000_000, 1]
