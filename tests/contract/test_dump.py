"""Dumps of a database that is in use, and databases loaded from them, on Debian's Postgres."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lava_deploy.configuration import Database
from lava_deploy.errors import MAKE_ROOM, CommandFailed, Unreachable
from lava_deploy.model import Secret
from lava_deploy.parts import dump
from tests.contract.trial import CONTENTS, wait_for
from tests.e2e.machines import DISK

pytestmark = pytest.mark.contract
# Forty jobs or so a second, each with what was tried in it, as one transaction.
WRITING = """
WITH made AS (INSERT INTO job (name) VALUES ('later') RETURNING id)
INSERT INTO tried (job) SELECT id FROM made \\watch 0.02
"""
# What takes seconds to load: an index that is slow to build.
SLOW = """
CREATE FUNCTION slow(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql
AS $$ BEGIN PERFORM pg_catalog.pg_sleep(0.01); RETURN $1; END $$;
CREATE INDEX ON job (slow(id));
"""


@pytest.fixture
def dumped(trial, tmp_path) -> Path:
    trial.dump(tmp_path / "db")
    return tmp_path / "db"


def test_a_dump_has_the_frozen_state_while_others_write(trial, tmp_path):
    with trial.session(WRITING), trial.postgres.frozen(trial.instance.database) as frozen:
        [(jobs, tried, count)] = frozen.rows(CONTENTS)
        wait_for(lambda: trial.psql("SELECT count(*) FROM tried") != str(count))
        trial.dump_of(frozen.id, tmp_path / "db")
        assert frozen.rows(CONTENTS) == [(jobs, tried, count)]
    trial.load(tmp_path / "db")
    assert trial.contents(trial.beside) == f"{jobs}|{tried}|{count}"
    assert int(trial.psql("SELECT count(*) FROM tried")) > count


@pytest.mark.parametrize("gently", [False, True])
def test_what_is_loaded_is_what_was_dumped(trial, tmp_path, gently):
    version = trial.dump(tmp_path / "db", gently=gently)
    trial.load(tmp_path / "db")
    assert version.startswith(f"pg_dump (PostgreSQL) {trial.major}.")
    assert trial.contents(trial.beside) == trial.contents()
    following = "SELECT nextval('numbers'), nextval('job_id_seq')"
    assert trial.psql(following, trial.beside) == "43|2001"
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert trial.psql(owners, trial.beside) == trial.instance.user
    analyzed = "SELECT reltuples FROM pg_class WHERE relname = 'job'"
    assert trial.psql(analyzed, trial.beside) == "2000"


def test_nobody_but_root_can_read_a_dump(dumped):
    assert dumped.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in dumped.iterdir()} == {0o600}
    assert {path.stat().st_uid for path in [dumped, *dumped.iterdir()]} == {0}


def test_a_dump_replaces_what_a_killed_one_left(trial, tmp_path):
    (tmp_path / "db").mkdir()
    (tmp_path / "db/toc.dat").write_text("half")
    trial.dump(tmp_path / "db")
    assert dump.check(trial.system, tmp_path / "db", trial.major) == ""


def test_a_state_that_is_not_kept_any_more_cannot_be_dumped(trial, tmp_path):
    with trial.postgres.frozen(trial.instance.database) as frozen:
        pass
    with pytest.raises(CommandFailed, match="snapshot"):
        trial.dump_of(frozen.id, tmp_path / "db")


def test_a_dump_by_tcp_needs_the_password_and_does_not_tell_it(trial, tmp_path):
    far = Database(host="127.0.0.1", port=trial.server.port)
    trial.dump(tmp_path / "db", server=far)
    trial.load(tmp_path / "db", far)
    assert trial.contents(trial.beside) == trial.contents()
    with pytest.raises(CommandFailed, match="password authentication failed") as failed:
        trial.dump(tmp_path / "other", server=far, password=Secret("not-the-password"))
    assert "not-the-password" not in f"{failed.value} {failed.value.hint}"


def test_a_full_disk_is_told_as_such(trial, tmp_path):
    trial.psql("INSERT INTO job (name) SELECT md5(random()::text) FROM generate_series(1, 90000)")
    subprocess.run([sys.executable, "-c", DISK, "mount", tmp_path, "1"], check=True)
    try:
        with pytest.raises(CommandFailed) as failed:
            trial.dump(tmp_path / "db")
    finally:
        subprocess.run([sys.executable, "-c", DISK, "unmount", tmp_path], check=True)
    assert failed.value.hint == MAKE_ROOM


def test_postgres_restarted_in_the_middle_of_a_dump_is_told(trial, tmp_path):
    waiting = "application_name = 'pg_dump' AND wait_event_type = 'Lock'"
    with trial.session("BEGIN; LOCK TABLE tried;\n"), trial.restarted_when(waiting):
        trial.wait_for_session("state = 'idle in transaction'")
        with pytest.raises(CommandFailed) as failed:
            trial.dump(tmp_path / "db")
    assert "restarted" in failed.value.hint
    trial.dump(tmp_path / "db")


def test_postgres_restarted_in_the_middle_of_a_load_is_told(trial, tmp_path):
    trial.psql("DELETE FROM tried; DELETE FROM job WHERE id > 100;" + SLOW)
    trial.dump(tmp_path / "db")
    building = "application_name = 'pg_restore' AND query LIKE 'CREATE INDEX%slow%'"
    with trial.restarted_when(building), pytest.raises(CommandFailed) as failed:
        trial.load(tmp_path / "db")
    assert "restarted" in failed.value.hint
    trial.load(tmp_path / "db")
    assert trial.contents(trial.beside) == trial.contents()


def test_a_state_is_lost_with_the_server(trial):
    with (
        pytest.raises(Unreachable, match="ended the session"),
        trial.postgres.frozen(trial.instance.database) as frozen,
    ):
        trial.restart()
        frozen.rows(CONTENTS)


def test_a_dump_ends_with_who_wanted_it(trial, tmp_path):
    with trial.session("BEGIN; LOCK TABLE tried;\n"):
        trial.wait_for_session("state = 'idle in transaction'")
        process = os.fork()
        if not process:
            try:
                trial.dump(tmp_path / "db")
            finally:
                os._exit(0)
        trial.wait_for_session("application_name = 'pg_dump'")
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        wait_for(lambda: trial.sessions("application_name = 'pg_dump'") == 0)


def test_what_an_old_pg_dump_or_a_superuser_wrote_can_be_loaded(trial, tmp_path):
    makes_of_a_superuser = """
    DROP EXTENSION plpgsql; CREATE EXTENSION plpgsql;
    COMMENT ON EXTENSION plpgsql IS 'procedural language'; CREATE EXTENSION pg_trgm;
    ALTER SCHEMA public OWNER TO postgres; COMMENT ON SCHEMA public IS 'as in 2012';
    """
    trial.psql(makes_of_a_superuser, admin=True)
    path = tmp_path / "database.dump"
    whole = ["pg_dump", "--format=custom", f"--port={trial.server.port}", trial.instance.database]
    path.write_bytes(
        subprocess.run(
            ["setpriv", "--reuid=postgres", "--clear-groups", *whole],
            check=True,
            cwd="/",
            stdout=subprocess.PIPE,
        ).stdout
    )
    assert dump.readable_faults(trial.system, path, trial.major) == []
    assert dump.check(trial.system, path, trial.major) == ""
    trial.load(path)
    assert trial.contents(trial.beside) == trial.contents()


def test_damage_to_a_dump_is_found(trial, dumped):
    sound = {path: path.read_bytes() for path in dumped.iterdir()}
    contents = dumped / "toc.dat"
    biggest = max(set(sound) - {contents}, key=lambda path: len(sound[path]))
    table, toc = sound[biggest], sound[contents]
    middle = len(table) // 2
    damages = [(biggest, table[:-20]), (biggest, b""), (contents, toc[: len(toc) // 2])]
    if biggest.suffix == ".gz":  # zstd has no checksums here
        flipped = bytes([table[middle] ^ 1])
        damages.append((biggest, table[:middle] + flipped + table[middle + 1 :]))
    assert dump.check(trial.system, dumped, trial.major) == ""
    for path, damaged in damages:
        path.write_bytes(damaged)
        assert dump.check(trial.system, dumped, trial.major), f"{path.name} is damaged"
        path.write_bytes(sound[path])
    biggest.unlink()
    assert biggest.name.split(".")[0] in dump.check(trial.system, dumped, trial.major)


def test_the_dump_of_a_newer_postgres_is_refused_beforehand(trial, dumped):
    contents = dumped / "toc.dat"
    sound = contents.read_bytes()
    newer = sound.replace(f"{trial.major}.".encode(), b"99.")
    assert dump.readable_faults(trial.system, dumped, trial.major) == []
    contents.write_bytes(newer)
    [fault] = dump.readable_faults(trial.system, dumped, trial.major)
    assert f"pg_dump 99, and the server is Postgres {trial.major}" in fault
    contents.write_bytes(sound[:6] + bytes([99]) + sound[7:])  # the format: PGDMP, major, minor
    [fault] = dump.readable_faults(trial.system, dumped, trial.major)
    assert "cannot read" in fault and "99" in fault


def test_programs_that_are_missing_are_told_with_their_package(trial):
    assert dump.faults(trial.system, trial.major) == []
    [fault] = dump.faults(trial.system, 99)
    assert "apt-get install postgresql-client-99" in fault
