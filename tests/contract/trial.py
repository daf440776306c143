"""A cluster of Debian's Postgres to be restarted at will, and the database of an instance on it."""

import multiprocessing
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lava_deploy.configuration import Database
from lava_deploy.model import Instance, Secret
from lava_deploy.parts import dump
from lava_deploy.postgres import Postgres
from lava_deploy.system import System

CLUSTER = "trial"
PASSWORD = Secret("a password")
TABLES = """
CREATE TABLE job (id serial PRIMARY KEY, name text NOT NULL, at timestamptz DEFAULT now());
CREATE TABLE tried (id bigserial PRIMARY KEY, job integer NOT NULL REFERENCES job);
CREATE TABLE empty (id integer);
CREATE SEQUENCE numbers START 42;
CREATE INDEX ON job (name);
INSERT INTO job (name) SELECT md5(one::text) || ' ü' FROM generate_series(1, 2000) AS one;
INSERT INTO tried (job) SELECT id FROM job;
SELECT nextval('numbers');
"""
CONTENTS = """
SELECT (SELECT md5(string_agg(job::text, '|' ORDER BY id)) FROM job),
       (SELECT md5(string_agg(tried::text, '|' ORDER BY id)) FROM tried),
       (SELECT count(*) FROM tried)
"""


class Rig:
    """A cluster of its own, as Debian makes them, and the database of an instance on it."""

    def __init__(self, major: int, server: Database, instance: Instance) -> None:
        self.major, self.server, self.instance = major, server, instance
        self.postgres = Postgres(port=server.port)
        self.system = System()

    @property
    def beside(self) -> str:
        return f"{self.instance.database}_restoring"

    def psql(self, statements: str, name: str = "", admin: bool = False) -> str:
        command = ["psql", "-XqAt", "--set=ON_ERROR_STOP=1", f"--port={self.server.port}"]
        command.append(f"--dbname={name or self.instance.database}")
        as_user = "postgres" if admin else self.instance.user
        return self.system.run(command, stdin=statements, user=as_user).stdout.strip()

    @contextmanager
    def session(self, statements: str) -> Iterator[subprocess.Popen]:
        """A session of somebody else, which lasts until the block ends."""
        command = ["setpriv", f"--reuid={self.instance.user}", "--clear-groups", "psql", "-Xq"]
        command += [f"--port={self.server.port}", f"--dbname={self.instance.database}"]
        quiet = subprocess.DEVNULL
        session = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, text=True, cwd="/"
        )
        try:
            session.stdin.write(statements)
            session.stdin.flush()
            yield session
        finally:
            session.kill()
            session.wait()

    def dump(self, to: Path, **changes) -> str:
        with self.postgres.frozen(self.instance.database) as frozen:
            return self.dump_of(frozen.id, to, **changes)

    def dump_of(self, frozen: str, to: Path, server=None, password=PASSWORD, **changes) -> str:
        server = server or self.server
        return dump.make(
            self.system, self.instance, server, password, to, self.major, frozen, **changes
        )

    def load(self, path: Path, server: Database | None = None) -> None:
        """Into a new database beside."""
        self.postgres.remove_database(self.beside)
        self.postgres.make_database(self.beside, self.instance.user)
        server = server or self.server
        to = self.system, self.instance, server, PASSWORD
        with dump.loading(*to, path, self.beside, self.major):
            pass
        with dump.analyzing(*to, self.beside, self.major):
            pass

    def contents(self, name: str = "") -> str:
        return self.psql(CONTENTS, name)

    def sessions(self, query: str) -> int:
        counted = f"SELECT count(*) FROM pg_stat_activity WHERE {query}"
        return self.postgres.rows("postgres", counted)[0][0]

    def wait_for_session(self, query: str) -> None:
        wait_for(lambda: self.sessions(query) > 0)

    def restart(self) -> None:
        control(self.major, "restart", "--mode", "fast")

    @contextmanager
    def restarted_when(self, query: str) -> Iterator[None]:
        """Restart Postgres once there is such a session."""

        def restart() -> None:
            self.wait_for_session(query)
            self.restart()

        # not a thread: the door changes the user of the whole process for a moment
        process = multiprocessing.get_context("fork").Process(target=restart)
        process.start()
        try:
            yield
        finally:
            process.join()


def control(major: int, *words: str) -> None:
    command = ["pg_ctlcluster", "--skip-systemctl-redirect", str(major), CLUSTER, *words]
    subprocess.run(command, check=True, capture_output=True)


def wait_for(what: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not what():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)
