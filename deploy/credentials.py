"""What a stack on one machine keeps secret: made at its first start, kept in its data directory."""

import secrets
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
import psycopg
from msgspec import Struct
from psycopg import sql

from schemas.errors import Misconfigured

READER_LOGIN = "tillstream_gateway"


class Credentials(Struct, frozen=True):
    """The gateways' signing secret, the token of the admin API, and the password of the gateways' database login."""

    secret: str
    admin_token: str
    reader_password: str


def load(path: Path) -> Credentials:
    """Read the credentials, or make them at the first start. The file is its owner's alone (mode 0600)."""
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Credentials)
    made = Credentials(*(secrets.token_urlsafe(32) for _ in range(3)))
    unfinished = path.with_name(f".{path.name}")
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(msgspec.json.encode(made))
    unfinished.replace(path)
    return made


def reader_login(owner_url: str, password: str) -> str:
    """Make, or give a new password to, the login that may only read, tenant by tenant; return its URL."""
    make_reader(owner_url, READER_LOGIN, password)
    return reader_url(owner_url, password)


def make_reader(owner_url: str, login: str, password: str) -> None:
    """Make the login, or give it this password; its only role is tillstream_reader.

    Raises Misconfigured where the owner may not, with what a superuser can do instead.
    """
    with psycopg.connect(owner_url, autocommit=True) as db:
        name = sql.Identifier(login)
        steps = [
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(password)),
            sql.SQL("GRANT tillstream_reader TO {}").format(name),
        ]
        if db.execute("SELECT FROM pg_roles WHERE rolname = %s", [login]).fetchone() is None:
            steps.insert(0, sql.SQL("CREATE ROLE {}").format(name))
        try:
            with db.transaction():
                for step in steps:
                    db.execute(step)
        except psycopg.errors.InsufficientPrivilege as exc:
            raise Misconfigured(
                f"{db.info.user} may not make the login {login}: {exc.diag.message_primary}. A superuser can:"
                f" CREATE ROLE {login} LOGIN PASSWORD '...' IN ROLE tillstream_reader. Then run this without"
                " TILLSTREAM_READER_DATABASE_URL"
            ) from exc


def reader_url(owner_url: str, password: str) -> str:
    """The same server and database as `owner_url`, as the login that may only read."""
    url = urlsplit(owner_url)
    at = url.netloc.rpartition("@")[2]
    return urlunsplit(url._replace(netloc=f"{READER_LOGIN}:{quote(password, safe='')}@{at}"))
