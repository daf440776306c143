"""The door to Postgres servers, through psycopg2; roles and databases, nothing of LAVA."""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lava_deploy.errors import CommandFailed, Unreachable
from lava_deploy.model import POSTGRES_SOCKETS as SOCKETS

if TYPE_CHECKING:
    from psycopg2.extensions import connection

DEFAULT_PORT = 5432
SECONDS_TO_CONNECT = 10
# What a server says that is ending or beginning; in between nobody answers.
RESTARTING = re.compile(r"the database system is (starting up|shutting down|in recovery mode)")
SECONDS_TO_RESTART = 15


@dataclass(frozen=True)
class Frozen:
    """A state of one database, which `id` names to pg_dump --snapshot while the session lasts."""

    id: str
    _session: connection

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the answer to a query was at that moment."""
        return _fetched(self._session, query, values)


class Postgres:
    """One server, as its administrator.

    Without a host: over the socket of the distribution's cluster, as the system user `admin`, whom
    Postgres recognises by the peer's identity (pg_hba.conf(5) of Debian). With a host: over TCP,
    with the password in a file.
    """

    def __init__(
        self,
        host: str = "",
        port: int = DEFAULT_PORT,
        admin: str = "postgres",
        password_file: str = "",
    ) -> None:
        self.host = host
        self.port = port
        self._admin = admin
        self._password_file = password_file

    @property
    def address(self) -> str:
        """Where clients on this machine connect to: a host name, or the directory of the socket."""
        return self.host or SOCKETS

    def version(self) -> int:
        """The server's major version. Raises Unreachable."""
        return int(self._one("SHOW server_version_num")) // 10000

    def answers(self) -> bool:
        """Whether the server takes our connection."""
        try:
            self.version()
        except Unreachable:
            return False
        return True

    def has_role(self, role: str) -> bool:
        return bool(self._one("SELECT count(*) FROM pg_roles WHERE rolname = %s", role))

    def has_database(self, name: str) -> bool:
        return bool(self._one("SELECT count(*) FROM pg_database WHERE datname = %s", name))

    def databases(self, prefix: str) -> list[str]:
        """The names of all databases that begin so, in order."""
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY datname"
        return [name for (name,) in self.rows("postgres", query, prefix)]

    def data_directory(self) -> str:
        """Where the server keeps its data on this machine.

        '' when the server is on another one, or does not tell it to this administrator.
        """
        query = "SELECT setting FROM pg_settings WHERE name = 'data_directory'"
        told = [] if self.host else self.rows("postgres", query)
        return told[0][0] if told else ""

    def size(self, name: str) -> int:
        """Bytes that a database takes on disk."""
        return int(self._one("SELECT pg_database_size(%s)", name))

    def rows(self, name: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The answer of one database to a query."""
        with self._connected(name) as server:
            return _fetched(server, query, values)

    @contextmanager
    def frozen(self, name: str) -> Iterator[Frozen]:
        """One state of a database, for queries and pg_dump to see until the block ends.

        Whatever others write meanwhile is not in it: "Snapshot Synchronization Functions" of
        Postgres's manual.
        """
        with self._connected(name) as server:
            # a server may end sessions that wait in a transaction, as this one does by intent
            server.cursor().execute("SET idle_in_transaction_session_timeout = 0")
            server.cursor().execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            ((exported,),) = _fetched(server, "SELECT pg_export_snapshot()")
            yield Frozen(exported, server)

    def make_role(self, role: str, password: str) -> None:
        """Make a role that may log in, or set the password of the one there is.

        The password is hashed here (SCRAM-SHA-256), so that not even the server's log can have it.
        """
        from psycopg2 import sql
        from psycopg2.extensions import encrypt_password

        verb = "ALTER" if self.has_role(role) else "CREATE"
        with self._connected() as server:
            hashed = encrypt_password(password, role, scope=server, algorithm="scram-sha-256")
            statement = sql.SQL(f"{verb} ROLE {{}} LOGIN PASSWORD {{}}")
            server.cursor().execute(statement.format(sql.Identifier(role), sql.Literal(hashed)))

    def remove_role(self, role: str) -> None:
        self._execute("DROP ROLE IF EXISTS {}", role)

    def make_database(self, name: str, owner: str) -> None:
        """Make an empty database (UTF-8, locale C.UTF-8) that its owner alone may enter."""
        if not self.has_database(name):
            # The administrator of a server elsewhere need not be a superuser: then membership is
            # what lets them give a database to another role.
            if self.host:
                self._execute("GRANT {} TO CURRENT_USER", owner)
            self._execute(
                "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' "
                "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'",
                name,
                owner,
            )
        self._execute("REVOKE ALL ON DATABASE {} FROM PUBLIC", name)

    def remove_database(self, name: str) -> None:
        """Remove a database, if there is one; sessions in it are ended."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def rename_database(self, name: str, to: str) -> None:
        """Rename a database, unless that was done; sessions in it are ended, new ones kept out.

        Before it returns or fails, sessions are allowed again. If the server was gone then, a
        repetition allows them, as does a renaming back. Raises CommandFailed.
        """
        there, done = self.has_database(name), self.has_database(to)
        rename = ["ALTER", "DATABASE", name, "RENAME", "TO", to]
        if there == done:
            raise CommandFailed(rename, 1, "both are there" if there else "neither is there")
        try:
            if there:
                self._execute("ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
                self.end_sessions(name)
                # waits up to 5 seconds for sessions that are ending
                self._execute("ALTER DATABASE {} RENAME TO {}", name, to)
                done = True
        finally:
            self._execute("ALTER DATABASE {} ALLOW_CONNECTIONS true", to if done else name)

    def end_sessions(self, name: str) -> None:
        """End the sessions in a database that this administrator may end; they go in a moment."""
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s "
            "AND backend_type = 'client backend' AND pg_has_role(usesysid, 'USAGE')"
        )
        self.rows("postgres", query, name)

    def _one(self, query: str, *values: Any) -> Any:
        """The first field of the first row of an answer."""
        return self.rows("postgres", query, *values)[0][0]

    def _execute(self, statement: str, *names: str) -> None:
        """Carry out a statement with quoted names in it, outside any transaction."""
        from psycopg2 import sql

        identifiers: Sequence[sql.Identifier] = [sql.Identifier(name) for name in names]
        with self._connected() as server:
            server.cursor().execute(sql.SQL(statement).format(*identifiers))

    @contextmanager
    def _connected(self, name: str = "postgres") -> Iterator[connection]:
        """A session in autocommit, which CREATE DATABASE needs. Raises Unreachable."""
        import psycopg2

        try:
            server = self._log_in_patiently(name)
        except psycopg2.OperationalError as error:
            raise Unreachable(
                f"Postgres at {self.address}:{self.port} does not answer: {str(error).strip()}",
                hint="`lava-deploy setup` starts the distribution's cluster; "
                "for another server check its address, admin and password file.",
            ) from error
        with closing(server):
            server.autocommit = True
            try:
                yield server
            except psycopg2.Error as error:
                if server.closed:
                    raise Unreachable(
                        f"Postgres at {self.address}:{self.port} ended the session: "
                        f"{str(error).strip()}",
                        hint="It was stopped or restarted: try again when it answers.",
                    ) from error
                raise

    def _log_in_patiently(self, name: str) -> connection:
        """Wait for a server that says itself that it is being restarted."""
        import psycopg2

        limit = None
        while True:
            try:
                return self._log_in(name)
            except psycopg2.OperationalError as error:
                if limit is None and not RESTARTING.search(str(error)):
                    raise
                limit = limit or time.monotonic() + SECONDS_TO_RESTART
                if time.monotonic() > limit:
                    raise
                time.sleep(0.2)

    def _log_in(self, name: str) -> connection:
        import psycopg2

        if self.host:
            password = (
                Path(self._password_file).read_text().strip() if self._password_file else None
            )
            return psycopg2.connect(
                host=self.host,
                port=self.port,
                user=self._admin,
                password=password,
                dbname=name,
                connect_timeout=SECONDS_TO_CONNECT,
            )
        with _effective_user(self._admin):
            return psycopg2.connect(
                host=SOCKETS,
                port=self.port,
                user=self._admin,
                dbname=name,
                connect_timeout=SECONDS_TO_CONNECT,
            )


def _fetched(server: connection, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with server.cursor() as cursor:
        cursor.execute(query, values or None)  # without values, a % in the query is a %
        return cursor.fetchall()


@contextmanager
def _effective_user(name: str) -> Iterator[None]:
    """Be another user for a moment: a socket's peer is who connects, at the time of connecting."""
    before = os.geteuid()
    try:
        os.seteuid(pwd.getpwnam(name).pw_uid)
    except (KeyError, PermissionError) as error:
        raise Unreachable(
            f"cannot become the user {name} to ask Postgres: {error}",
            hint="Run as root; `lava-deploy setup` installs Postgres.",
        ) from error
    try:
        yield
    finally:
        os.seteuid(before)
