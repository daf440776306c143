"""A second and a third instance beside the first, and a database on another machine."""

from collections.abc import Iterator

import pytest

from tests.e2e.machines import Admin, Machine, trace
from tests.e2e.test_jobs import BOARD_FILES, Jobs, lasting
from tests.e2e.test_quickstart import NAME
from tests.hosts.bed import PLAIN, Bed, Host, HostSpec, Images
from tests.hosts.waiting import until

pytestmark = pytest.mark.e2e
OTHERS = ("one", "two")
LIMIT = 120
DATABASE_PASSWORD = "the password of this test"
PREPARE_DATABASE_SERVER = """
set -e
cluster=$(pg_lsclusters -h | cut -d' ' -f1,2)
configuration=/etc/postgresql/$(echo $cluster | tr ' ' /)
echo "listen_addresses = '*'" >>$configuration/postgresql.conf
echo "host all all samenet scram-sha-256" >>$configuration/pg_hba.conf
pg_ctlcluster $cluster start
runuser -u postgres -- psql -qc "ALTER ROLE postgres PASSWORD '$1'"
"""


@pytest.fixture(scope="module")
def others(machine: Machine) -> Iterator[Admin]:
    """Two more instances, installed at once."""
    admin = Admin(machine)
    running = [
        machine.popen(admin.line("install", "-n", "--yes", "--smoke", name)) for name in OTHERS
    ]
    outputs = [each.communicate(timeout=600)[0] for each in running]
    try:
        assert [each.returncode for each in running] == [0, 0], outputs
        yield admin
    finally:
        for name in OTHERS:
            machine.run(admin.line("remove", name, "--yes"), check=False)


def test_two_installs_at_once_both_end_with_a_passed_job(others: Admin) -> None:
    found = {one["name"]: one for one in others.json("list")["instances"]}
    assert sorted(found) == sorted((NAME, *OTHERS))
    assert all(found[name]["smoke"]["health"] == "Complete" for name in OTHERS)


def test_tables_that_are_loaded_are_those_that_migrations_make(others: Admin) -> None:
    """The first instance of a release is migrated, and its tables are dumped for the next ones."""
    others("install", "-n", "--yes", "loaded")
    migrated, loaded = tables(others.machine, OTHERS[0]), tables(others.machine, "loaded")
    others("remove", "loaded", "--yes")
    assert any("CREATE TABLE" in line for line in migrated)
    assert loaded == migrated


def tables(machine: Machine, name: str) -> list[str]:
    """The definition of all tables; lines with a backslash hold a random word of pg_dump's."""
    dump = ["pg_dump", "--schema-only", "--no-owner", "--no-privileges", f"lava-{name}"]
    text = machine.run(["runuser", "-u", "postgres", "--", *dump]).stdout
    return [line for line in text.splitlines() if not line.startswith("\\")]


def test_jobs_of_equal_number_run_at_once_and_keep_their_files_apart(others: Admin) -> None:
    jobs = {name: Jobs(others, name) for name in OTHERS}
    numbers = {
        name: each.submit(lasting(each.smoke_definition(), 30)) for name, each in jobs.items()
    }
    assert len(set(numbers.values())) == 1
    directories = " ".join(f"{BOARD_FILES}/{name}-{number}" for name, number in numbers.items())
    until(
        lambda: others.machine.run(f"ls -d {directories}", check=False).status == 0,
        LIMIT,
        lambda: TimeoutError("the jobs do not run at once"),
    )
    ended = [each.wait(numbers[name], "Finished")["health"] for name, each in jobs.items()]
    assert ended == ["Complete", "Complete"]


def test_an_instance_cannot_read_anothers_files_sockets_or_database(others: Admin) -> None:
    machine = others.machine
    spy = ["runuser", "-u", f"lava-{OTHERS[0]}", "--"]
    home = f"/srv/lava/instances/{OTHERS[1]}"
    for path in (
        "instance.yaml",
        "etc/secrets.yaml",
        "var/log",
        "run/web.sock",
        "etc/worker-token",
    ):
        machine.run(["test", "-e", f"{home}/{path}"])
        assert machine.run([*spy, "test", "-r", f"{home}/{path}"], check=False).status != 0
    query = [*spy, "psql", "-d", f"lava-{OTHERS[1]}", "-c", "SELECT 1"]
    assert machine.run(query, check=False).status != 0


def test_no_secret_is_in_an_argument_or_a_log(others: Admin) -> None:
    machine = others.machine
    secret_files = "secrets.yaml admin-password client-token worker-token"
    words = machine.run(
        f"cd /srv/lava/instances/{OTHERS[0]}/etc && cat {secret_files} | tr -s \"\\\"' :\" '\\n'"
    ).stdout.split()
    secrets = [word for word in words if len(word) >= 20]
    assert len(secrets) >= 4
    places = machine.run(
        "ps -eo args=; grep -rh . /var/log/lava-deploy /var/lib/lava-deploy /etc/systemd/system "
        f"/srv/lava/instances/{OTHERS[0]}/var/log /srv/lava/supervisor 2>/dev/null; "
        "journalctl --no-pager -q 2>/dev/null || true",
        check=False,
    ).stdout
    assert [secret[:4] for secret in secrets if secret in places] == []


@pytest.fixture(scope="module")
def database_server(machine: Machine, bed: Bed | None) -> Host | None:
    """A second real Postgres, on a machine of its own."""
    if bed is None:
        return None
    name = f"db-{machine.name}"
    if name not in bed.hosts:
        image = Images().layer("bookworm", PLAIN, "postgres", ["postgresql"])
        bed.up([HostSpec(name, "bookworm", PLAIN, layer=image)])
    server = bed.hosts[name]
    server.run(["sh", "-c", PREPARE_DATABASE_SERVER, "sh", DATABASE_PASSWORD])
    return server


def test_an_instance_can_have_its_database_on_another_machine(
    others: Admin, database_server: Host | None
) -> None:
    if database_server is None:  # on the machine itself there is no second one
        return
    others.machine.run("umask 077; cat >/tmp/database-password", input=DATABASE_PASSWORD)
    others(
        *("install", "far", "-n", "--yes", "--smoke"),
        *("--database", database_server.name, "--database-admin", "postgres"),
        *("--database-password-file", "/tmp/database-password"),
    )
    there = trace(database_server)["postgres"]
    assert there == ["lava-far"]
    assert "lava-far" not in trace(others.machine)["postgres"]
    others("remove", "far", "--yes")
    assert trace(database_server)["postgres"] == []
