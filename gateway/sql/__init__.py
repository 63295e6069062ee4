"""SQL statements, one a file. Values enter through `psycopg.sql`, which quotes them."""

from functools import cache
from importlib import resources

from psycopg.sql import SQL


@cache
def statement(name: str) -> SQL:
    """The text of `<name>.sql`, with its `{placeholders}` still to fill."""
    return SQL(resources.files(__name__).joinpath(f"{name}.sql").read_text())
