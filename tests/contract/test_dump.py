"""Dumps of a database that is in use, and databases loaded from them, on Debian's Postgres."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lava_deploy.configuration import Database
from lava_deploy.errors import MAKE_ROOM, CommandFailed, Unreachable
from lava_deploy.model import Host, Instance, Secret
from lava_deploy.parts import database, dump, user
from lava_deploy.postgres import Postgres
from lava_deploy.system import System
from tests.e2e.machines import DISK

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(os.geteuid() != 0, reason="the real machine lets only root do this"),
    pytest.mark.skipif(not Path("/usr/bin/pg_createcluster").exists(), reason="no Postgres"),
]
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
# Forty jobs or so a second, each with what was tried in it, as one transaction.
WRITING = """
WITH made AS (INSERT INTO job (name) VALUES ('later') RETURNING id)
INSERT INTO tried (job) SELECT id FROM made \\watch 0.02
"""
CONTENTS = """
SELECT (SELECT md5(string_agg(job::text, '|' ORDER BY id)) FROM job),
       (SELECT md5(string_agg(tried::text, '|' ORDER BY id)) FROM tried),
       (SELECT count(*) FROM tried)
"""
# What takes seconds to load: an index that is slow to build.
SLOW = """
CREATE FUNCTION slow(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql
AS $$ BEGIN PERFORM pg_catalog.pg_sleep(0.01); RETURN $1; END $$;
CREATE INDEX ON job (slow(id));
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
        dump.load(self.system, self.instance, server, PASSWORD, path, self.beside, self.major)

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


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[int, int]]:
    """The major version and the port of a new cluster."""
    major = max(int(path.name) for path in Path("/usr/lib/postgresql").iterdir())
    drop = ["pg_dropcluster", "--stop", str(major), CLUSTER]
    subprocess.run(drop, capture_output=True)
    create = ["pg_createcluster", "--locale=C.UTF-8", str(major), CLUSTER]
    subprocess.run(create, check=True, capture_output=True)
    control(major, "start")
    lines = subprocess.run(["pg_lsclusters", "--no-header"], capture_output=True, text=True).stdout
    fields = [line.split() for line in lines.splitlines()]
    [port] = [int(one[2]) for one in fields if one[:2] == [str(major), CLUSTER]]
    try:
        yield major, port
    finally:
        control(major, "stop", "--mode", "immediate")
        subprocess.run(drop, check=True, capture_output=True)


@pytest.fixture
def rig(cluster, tmp_path) -> Iterator[Rig]:
    major, port = cluster
    instance = Host.below(tmp_path / "root").instance("dump-test")
    rig = Rig(major, Database(port=port), instance)
    user.make(rig.system, instance)
    try:
        database.make(rig.postgres, instance, PASSWORD)
        rig.psql(TABLES)
        yield rig
    finally:
        for name in rig.postgres.databases(instance.database):
            rig.postgres.remove_database(name)
        rig.postgres.remove_role(instance.user)
        user.remove(rig.system, instance)


@pytest.fixture
def dumped(rig, tmp_path) -> Path:
    rig.dump(tmp_path / "db")
    return tmp_path / "db"


def test_a_dump_has_the_frozen_state_while_others_write(rig, tmp_path):
    with rig.session(WRITING), rig.postgres.frozen(rig.instance.database) as frozen:
        [(jobs, tried, count)] = frozen.rows(CONTENTS)
        wait_for(lambda: rig.psql("SELECT count(*) FROM tried") != str(count))
        rig.dump_of(frozen.id, tmp_path / "db")
        assert frozen.rows(CONTENTS) == [(jobs, tried, count)]
    rig.load(tmp_path / "db")
    assert rig.contents(rig.beside) == f"{jobs}|{tried}|{count}"
    assert int(rig.psql("SELECT count(*) FROM tried")) > count


@pytest.mark.parametrize("gently", [False, True])
def test_what_is_loaded_is_what_was_dumped(rig, tmp_path, gently):
    version = rig.dump(tmp_path / "db", gently=gently)
    rig.load(tmp_path / "db")
    assert version.startswith(f"pg_dump (PostgreSQL) {rig.major}.")
    assert rig.contents(rig.beside) == rig.contents()
    following = "SELECT nextval('numbers'), nextval('job_id_seq')"
    assert rig.psql(following, rig.beside) == "43|2001"
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert rig.psql(owners, rig.beside) == rig.instance.user
    analyzed = "SELECT reltuples FROM pg_class WHERE relname = 'job'"
    assert rig.psql(analyzed, rig.beside) == "2000"


def test_nobody_but_root_can_read_a_dump(dumped):
    assert dumped.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in dumped.iterdir()} == {0o600}
    assert {path.stat().st_uid for path in [dumped, *dumped.iterdir()]} == {0}


def test_a_dump_replaces_what_a_killed_one_left(rig, tmp_path):
    (tmp_path / "db").mkdir()
    (tmp_path / "db/toc.dat").write_text("half")
    rig.dump(tmp_path / "db")
    assert dump.check(rig.system, tmp_path / "db", rig.major) == ""


def test_a_state_that_is_not_kept_any_more_cannot_be_dumped(rig, tmp_path):
    with rig.postgres.frozen(rig.instance.database) as frozen:
        pass
    with pytest.raises(CommandFailed, match="snapshot"):
        rig.dump_of(frozen.id, tmp_path / "db")


def test_a_dump_by_tcp_needs_the_password_and_does_not_tell_it(rig, tmp_path):
    far = Database(host="127.0.0.1", port=rig.server.port)
    rig.dump(tmp_path / "db", server=far)
    rig.load(tmp_path / "db", far)
    assert rig.contents(rig.beside) == rig.contents()
    with pytest.raises(CommandFailed, match="password authentication failed") as failed:
        rig.dump(tmp_path / "other", server=far, password=Secret("not-the-password"))
    assert "not-the-password" not in f"{failed.value} {failed.value.hint}"


def test_a_full_disk_is_told_as_such(rig, tmp_path):
    rig.psql("INSERT INTO job (name) SELECT md5(random()::text) FROM generate_series(1, 90000)")
    subprocess.run([sys.executable, "-c", DISK, "mount", tmp_path, "1"], check=True)
    try:
        with pytest.raises(CommandFailed) as failed:
            rig.dump(tmp_path / "db")
    finally:
        subprocess.run([sys.executable, "-c", DISK, "unmount", tmp_path], check=True)
    assert failed.value.hint == MAKE_ROOM


def test_postgres_restarted_in_the_middle_of_a_dump_is_told(rig, tmp_path):
    waiting = "application_name = 'pg_dump' AND wait_event_type = 'Lock'"
    with rig.session("BEGIN; LOCK TABLE tried;\n"), rig.restarted_when(waiting):
        rig.wait_for_session("state = 'idle in transaction'")
        with pytest.raises(CommandFailed) as failed:
            rig.dump(tmp_path / "db")
    assert "restarted" in failed.value.hint
    rig.dump(tmp_path / "db")


def test_postgres_restarted_in_the_middle_of_a_load_is_told(rig, tmp_path):
    rig.psql("DELETE FROM tried; DELETE FROM job WHERE id > 100;" + SLOW)
    rig.dump(tmp_path / "db")
    building = "application_name = 'pg_restore' AND query LIKE 'CREATE INDEX%slow%'"
    with rig.restarted_when(building), pytest.raises(CommandFailed) as failed:
        rig.load(tmp_path / "db")
    assert "restarted" in failed.value.hint
    rig.load(tmp_path / "db")
    assert rig.contents(rig.beside) == rig.contents()


def test_a_state_is_lost_with_the_server(rig):
    with (
        pytest.raises(Unreachable, match="ended the session"),
        rig.postgres.frozen(rig.instance.database) as frozen,
    ):
        rig.restart()
        frozen.rows(CONTENTS)


def test_a_dump_ends_with_who_wanted_it(rig, tmp_path):
    with rig.session("BEGIN; LOCK TABLE tried;\n"):
        rig.wait_for_session("state = 'idle in transaction'")
        process = os.fork()
        if not process:
            try:
                rig.dump(tmp_path / "db")
            finally:
                os._exit(0)
        rig.wait_for_session("application_name = 'pg_dump'")
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        wait_for(lambda: rig.sessions("application_name = 'pg_dump'") == 0)


def test_what_an_old_pg_dump_or_a_superuser_wrote_can_be_loaded(rig, tmp_path):
    makes_of_a_superuser = """
    DROP EXTENSION plpgsql; CREATE EXTENSION plpgsql;
    COMMENT ON EXTENSION plpgsql IS 'procedural language'; CREATE EXTENSION pg_trgm;
    ALTER SCHEMA public OWNER TO postgres; COMMENT ON SCHEMA public IS 'as in 2012';
    """
    rig.psql(makes_of_a_superuser, admin=True)
    path = tmp_path / "database.dump"
    whole = ["pg_dump", "--format=custom", f"--port={rig.server.port}", rig.instance.database]
    path.write_bytes(
        subprocess.run(
            ["setpriv", "--reuid=postgres", "--clear-groups", *whole],
            check=True,
            cwd="/",
            stdout=subprocess.PIPE,
        ).stdout
    )
    assert dump.readable_faults(rig.system, path, rig.major) == []
    assert dump.check(rig.system, path, rig.major) == ""
    rig.load(path)
    assert rig.contents(rig.beside) == rig.contents()


def test_damage_to_a_dump_is_found(rig, dumped):
    sound = {path: path.read_bytes() for path in dumped.iterdir()}
    contents = dumped / "toc.dat"
    biggest = max(set(sound) - {contents}, key=lambda path: len(sound[path]))
    table, toc = sound[biggest], sound[contents]
    middle = len(table) // 2
    damages = [(biggest, table[:-20]), (biggest, b""), (contents, toc[: len(toc) // 2])]
    if biggest.suffix == ".gz":  # zstd has no checksums here
        flipped = bytes([table[middle] ^ 1])
        damages.append((biggest, table[:middle] + flipped + table[middle + 1 :]))
    assert dump.check(rig.system, dumped, rig.major) == ""
    for path, damaged in damages:
        path.write_bytes(damaged)
        assert dump.check(rig.system, dumped, rig.major), f"{path.name} is damaged"
        path.write_bytes(sound[path])
    biggest.unlink()
    assert biggest.name.split(".")[0] in dump.check(rig.system, dumped, rig.major)


def test_the_dump_of_a_newer_postgres_is_refused_beforehand(rig, dumped):
    contents = dumped / "toc.dat"
    sound = contents.read_bytes()
    newer = sound.replace(f"{rig.major}.".encode(), b"99.")
    assert dump.readable_faults(rig.system, dumped, rig.major) == []
    contents.write_bytes(newer)
    [fault] = dump.readable_faults(rig.system, dumped, rig.major)
    assert f"pg_dump 99, and the server is Postgres {rig.major}" in fault
    contents.write_bytes(sound[:6] + bytes([99]) + sound[7:])  # the format: PGDMP, major, minor
    [fault] = dump.readable_faults(rig.system, dumped, rig.major)
    assert "cannot read" in fault and "99" in fault


def test_programs_that_are_missing_are_told_with_their_package(rig):
    assert dump.faults(rig.system, rig.major) == []
    [fault] = dump.faults(rig.system, 99)
    assert "apt-get install postgresql-client-99" in fault


def test_a_database_is_renamed_with_a_session_in_it(rig):
    name = rig.instance.database
    with rig.session("BEGIN; SELECT 1;\n") as session:
        rig.wait_for_session("state = 'idle in transaction'")
        rig.postgres.rename_database(name, rig.beside)
        session.stdin.close()
        session.wait(timeout=10)
    assert rig.postgres.databases(name) == [rig.beside]
    assert rig.contents(rig.beside)
    rig.postgres.rename_database(rig.beside, name)
    assert rig.contents()


def test_a_renaming_that_was_killed_half_way_is_finished_or_taken_back(rig):
    name = rig.instance.database
    forbid = 'ALTER DATABASE "{}" ALLOW_CONNECTIONS false'
    rig.psql(forbid.format(name), "postgres", admin=True)
    rig.postgres.rename_database(rig.beside, name)
    assert rig.contents()
    rig.postgres.rename_database(name, rig.beside)
    rig.psql(forbid.format(rig.beside), "postgres", admin=True)
    rig.postgres.rename_database(name, rig.beside)
    assert rig.contents(rig.beside)


def test_a_server_tells_where_its_data_are_unless_it_is_elsewhere(rig):
    assert Path(rig.postgres.data_directory(), "PG_VERSION").read_text() == f"{rig.major}\n"
    assert Postgres(host="127.0.0.1", port=rig.server.port).data_directory() == ""
