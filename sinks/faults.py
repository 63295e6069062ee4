"""Tells the environment's faults from the data's, by SQLSTATE and never by message text.

Classes: PostgreSQL documentation, appendix A.
"""

from typing import Final

import psycopg

_DATA: Final = {
    "22",
    "23",
    "54",
}  # data exception, constraint violation, program limit (a key too long to index)
_ENVIRONMENT: Final = {"08", "25", "28", "3D", "40", "53", "55", "57", "58", "F0", "XX"}


ROW_FAULTS: Final = (psycopg.Error, OverflowError, UnicodeEncodeError)
"""What writing a row can raise; psycopg finds NUL characters and numbers that do not fit before PostgreSQL does."""


def is_data(error: Exception) -> bool:
    """The row is wrong and stays wrong: quarantine it."""
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        return error.sqlstate[:2] in _DATA
    return isinstance(error, psycopg.DataError | OverflowError | UnicodeEncodeError)


def is_environment(error: psycopg.Error) -> bool:
    """Connection, disk, deadlock, shutdown or a missing privilege: wait, try again, lose nothing."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate[:2] in _ENVIRONMENT or error.sqlstate == "42501"
