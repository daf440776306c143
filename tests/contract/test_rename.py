"""Databases that are renamed while somebody uses them, on Debian's Postgres."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lava_deploy.errors import Unreachable
from lava_deploy.postgres import Postgres
from tests.contract.trial import PASSWORD

pytestmark = pytest.mark.contract


def test_a_database_is_renamed_with_a_session_in_it(trial):
    name = trial.instance.database
    with trial.session("BEGIN; SELECT 1;\n") as session:
        trial.wait_for_session("state = 'idle in transaction'")
        trial.postgres.rename_database(name, trial.beside)
        session.stdin.close()
        session.wait(timeout=10)
    assert trial.postgres.databases(name) == [trial.beside]
    assert trial.contents(trial.beside)
    trial.postgres.rename_database(trial.beside, name)
    assert trial.contents()


def test_a_renaming_that_was_killed_half_way_is_finished_or_taken_back(trial):
    name = trial.instance.database
    forbid = 'ALTER DATABASE "{}" ALLOW_CONNECTIONS false'
    trial.psql(forbid.format(name), "postgres", admin=True)
    trial.postgres.rename_database(trial.beside, name)
    assert trial.contents()
    trial.postgres.rename_database(name, trial.beside)
    trial.psql(forbid.format(trial.beside), "postgres", admin=True)
    trial.postgres.rename_database(name, trial.beside)
    assert trial.contents(trial.beside)


def test_a_server_tells_where_its_data_are_unless_it_is_elsewhere(trial):
    assert Path(trial.postgres.data_directory(), "PG_VERSION").read_text() == f"{trial.major}\n"
    assert Postgres(host="127.0.0.1", port=trial.server.port).data_directory() == ""


@pytest.fixture
def hosted(trial, tmp_path) -> Iterator[Postgres]:
    """The server as an administrator knows it who is no superuser and comes by the network."""
    trial.psql("CREATE ROLE hosted LOGIN CREATEDB CREATEROLE PASSWORD 'x'", "postgres", admin=True)
    (tmp_path / "password").write_text("x\n")
    server = Postgres("127.0.0.1", trial.server.port, "hosted", str(tmp_path / "password"))
    server.make_role("lava-hosted", PASSWORD.reveal())
    server.make_database("lava-hosted", "lava-hosted")
    try:
        yield server
    finally:
        for name in server.databases("lava-hosted"):
            server.remove_database(name)
        server.remove_role("lava-hosted")
        trial.psql("DROP ROLE hosted", "postgres", admin=True)


def test_an_administrator_who_is_no_superuser_renames_a_database_in_use(trial, hosted, tmp_path):
    (tmp_path / "owners").write_text(PASSWORD.reveal())
    owner = Postgres("127.0.0.1", trial.server.port, "lava-hosted", str(tmp_path / "owners"))
    with pytest.raises(Unreachable), owner.frozen("lava-hosted") as session:
        hosted.rename_database("lava-hosted", "lava-hosted_former")
        session.rows("SELECT 1")
    with hosted.frozen("lava-hosted_former") as frozen:
        assert frozen.rows("SELECT 1") == [(1,)]
    assert hosted.databases("lava-hosted") == ["lava-hosted_former"]
