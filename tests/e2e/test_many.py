"""A second and a third instance beside the first, and a database on another machine."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from tests.e2e.machines import Admin, Machine, trace
from tests.e2e.test_jobs import BOARD_FILES, Jobs, lasting
from tests.e2e.test_quickstart import NAME
from tests.hosts.bed import PLAIN, Bed, Finished, Host, HostSpec, Images
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


# What other instances must not see.
PRIVATE = (
    *("instance.yaml", "etc/secrets.yaml", "etc/worker-token", "etc/client-token", "etc/devices"),
    *("etc/admin-password", "var/log", "var/lib/lava-server/media/job-output"),
    *("var/lib/lava-dispatcher", "run/web.sock"),
)
SOCKETS = ("web.sock", "publisher.sock", "events-in.sock", "events-out.sock")
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


@dataclass(frozen=True)
class Spy:
    """The user of one instance, who looks at another."""

    machine: Machine
    home: str = f"/srv/lava/instances/{OTHERS[0]}"
    victim: str = f"/srv/lava/instances/{OTHERS[1]}"

    def run(self, command: list[str], **environment: str) -> Finished:
        user = ["runuser", "-u", f"lava-{OTHERS[0]}", "--"]
        return self.machine.run([*user, *command], check=False, env=environment)

    def query(self, address: str, role: str, database: str) -> Finished:
        """Ask a database something, with the spy's own password."""
        secrets = yaml.safe_load(self.run(["cat", f"{self.home}/etc/secrets.yaml"]).stdout)
        connection = f"host={address} user={role} dbname={database}"
        ask = ["psql", "-w", connection, "-XAtc", "SELECT 1"]
        return self.run(ask, PGPASSWORD=secrets["DATABASE_PASSWORD"])


def listening(machine: Machine) -> list[str]:
    """The addresses and ports on which the machine takes connections."""
    return sorted(line.split()[3] for line in machine.run(["ss", "-Hltn"]).stdout.splitlines())


@pytest.fixture(scope="module")
def ports(machine: Machine) -> list[str]:
    """Where the machine listens with one instance."""
    return listening(machine)


@pytest.fixture(scope="module")
def others(machine: Machine, ports: list[str]) -> Iterator[Admin]:
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


@pytest.fixture(scope="module")
def migrated_and_loaded(others: Admin) -> Iterator[tuple[str, str]]:
    """An instance whose tables migrations made, and one that got the dump of these."""
    machine, names = others.machine, ("migrated", "loaded")
    machine.run("rm -f /srv/lava/cache/schemas/*")
    for name in names:
        others("install", "-n", "--yes", name)
        assert machine.run("ls /srv/lava/cache/schemas").stdout.count(".sql") == 1
    yield names
    for name in names:
        others("remove", name, "--yes")


def test_tables_that_are_loaded_are_those_that_migrations_make(
    migrated_and_loaded: tuple[str, str], machine: Machine
) -> None:
    migrated, loaded = (dumped(machine, name, "--schema-only") for name in migrated_and_loaded)
    assert any("CREATE TABLE" in line for line in migrated)
    assert loaded == migrated


def test_instances_of_one_dump_have_no_random_value_in_common(
    migrated_and_loaded: tuple[str, str], machine: Machine
) -> None:
    """Tokens, keys, hashes: long words of letters and digits, in the data and beside it."""
    found = [random_words(machine, name) for name in migrated_and_loaded]
    assert all(len(words) >= 6 for words in found)
    assert found[0] & found[1] == set()


def random_words(machine: Machine, name: str) -> set[str]:
    secrets = machine.run(
        f"cat /srv/lava/instances/{name}/etc/*-token /srv/lava/instances/{name}/etc/secrets.yaml"
    )
    text = "\n".join([*dumped(machine, name, "--data-only"), secrets.stdout])
    return set(re.findall(r"\b(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20,}", text))


def dumped(machine: Machine, name: str, part: str) -> list[str]:
    """What pg_dump tells of a database; lines with a backslash hold a random word of its own."""
    dump = ["pg_dump", part, "--no-owner", "--no-privileges", f"lava-{name}"]
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


@pytest.fixture
def spy(others: Admin) -> Spy:
    return Spy(others.machine)


def test_an_instance_can_read_none_of_anothers_files_but_its_code(spy: Spy) -> None:
    """Code is LAVA's own, the same for all. The files of running jobs, in the directory that TFTP,
    NFS and HTTP serve to boards, are open to all by design: boards have no password.
    """
    for path in PRIVATE:
        spy.machine.run(["test", "-e", f"{spy.victim}/{path}"])
    code = ["-path", f"{spy.victim}/code", "-prune", "-o"]
    open_to = ["(", "-readable", "-o", "-writable", ")", "-print"]
    assert spy.run(["find", spy.victim, "-mindepth", "1", *code, *open_to]).stdout == ""
    shared = ["/srv/lava/supervisor", "/var/log/lava-deploy", "/var/lib/lava-deploy"]
    writable = spy.run(["find", *shared, "!", "-type", "l", "-writable"])
    assert writable.stdout == ""


def test_an_instance_can_connect_to_no_socket_of_another(spy: Spy) -> None:
    for name in SOCKETS:
        own, others_ = (f"{home}/run/{name}" for home in (spy.home, spy.victim))
        assert spy.run(["python3", "-c", CONNECT, own]).status == 0
        assert "PermissionError" in spy.run(["python3", "-c", CONNECT, others_]).stderr
    supervisor = "/srv/lava/supervisor/supervisor.sock"
    assert spy.run(["python3", "-c", CONNECT, supervisor]).status != 0


def test_an_instance_does_not_see_what_another_writes_to_the_journal(spy: Spy) -> None:
    read = "command -v journalctl >/dev/null || exit 0; journalctl -q --no-pager -o cat -n 5 -u "
    unit = f"lava-deploy-scheduler@{OTHERS[1]}"
    has_systemd = spy.machine.run("test -d /run/systemd/system", check=False).status == 0
    assert bool(spy.machine.run(read + unit).stdout) == has_systemd
    assert spy.run(["sh", "-c", read + unit]).stdout == ""


def test_an_instance_cannot_enter_anothers_database(spy: Spy) -> None:
    """Neither as itself, nor as the other with its own password; by the socket or by TCP."""
    own, other = (f"lava-{name}" for name in OTHERS)
    for address in ("127.0.0.1", "/var/run/postgresql"):
        assert spy.query(address, own, own).status == 0
        assert "permission denied for database" in spy.query(address, own, other).stderr
        assert spy.query(address, other, other).status != 0


def test_instances_listen_on_no_port_of_their_own(others: Admin, ports: list[str]) -> None:
    assert listening(others.machine) == ports


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
