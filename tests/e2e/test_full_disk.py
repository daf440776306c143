"""A disk that gets full in the middle: nothing stays behind, and the message tells what to do."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.machines import Admin, Machine, resize_disk, small_disk
from tests.e2e.test_bad_input import INSTALL, unchanged

pytestmark = pytest.mark.e2e
NAME = "other"
RELEASES = "/srv/lava/cache/releases"
REMEDY = "A disk is full: `df -h` shows which."
# Megabytes: a built release takes 160, the tables of a new database 6.
TOO_SMALL_FOR_A_RELEASE, TOO_SMALL_FOR_TABLES, LARGE = 60, 3, 200
CLUSTER, CLUSTER_LOG, CLUSTER_NAME = "/var/tmp/small", "/var/tmp/small-log", "small"


@dataclass(frozen=True)
class Cluster:
    """A Postgres cluster whose data lies on a disk that can be made small."""

    machine: Machine
    port: str

    def make_small(self) -> None:
        """Leave too little for the tables of an instance."""
        used = self.machine.run(["du", "-sm", CLUSTER]).stdout.split()[0]
        resize_disk(self.machine, CLUSTER, int(used) + TOO_SMALL_FOR_TABLES)

    def make_large(self) -> None:
        resize_disk(self.machine, CLUSTER, LARGE)

    def instances(self) -> list[str]:
        """The names of roles and databases of instances."""
        names = "SELECT rolname FROM pg_roles UNION SELECT datname FROM pg_database"
        ask = ["runuser", "-u", "postgres", "--", "psql", "-p", self.port, "-XAtc", names]
        found = self.machine.run(ask).stdout.split()
        return [name for name in found if name.startswith("lava-")]


@pytest.fixture
def cluster(machine: Machine) -> Iterator[Cluster]:
    """Its write-ahead log is elsewhere: without room for that, all of Postgres stops."""
    version = machine.run("pg_lsclusters -h").stdout.split()[0]
    machine.run(["mkdir", "-p", CLUSTER])
    with small_disk(machine, CLUSTER, LARGE):
        make = ["pg_createcluster", version, CLUSTER_NAME, "-d", f"{CLUSTER}/data", "--start"]
        try:
            machine.run([*make, "--", f"--waldir={CLUSTER_LOG}"])
            port = machine.run(f"pg_lsclusters -h {version} {CLUSTER_NAME}").stdout.split()[2]
            yield Cluster(machine, port)
        finally:
            machine.run(["pg_dropcluster", "--stop", version, CLUSTER_NAME], check=False)
    machine.run(["rm", "-rf", CLUSTER, CLUSTER_LOG])


def test_a_release_that_does_not_fit_is_told_and_built_when_there_is_room(set_up: Admin) -> None:
    machine = set_up.machine
    machine.run(f"mkdir -p {RELEASES} && rm -rf {RELEASES}/*")
    with small_disk(machine, RELEASES, TOO_SMALL_FOR_A_RELEASE), unchanged(set_up):
        failed = set_up(*INSTALL, NAME, status=4).stderr
        assert "No space left on device" in failed and REMEDY in failed, failed
        assert machine.run(["ls", RELEASES]).stdout == ""
    set_up(*INSTALL, NAME)
    set_up("remove", NAME, "--yes")


def test_a_database_that_does_not_fit_is_undone_and_made_when_there_is_room(
    set_up: Admin, cluster: Cluster
) -> None:
    install = (*INSTALL, NAME, "--database-port", cluster.port)
    cluster.make_small()
    with unchanged(set_up):
        failed = set_up(*install, status=10).stderr
        assert "could not extend file" in failed and REMEDY in failed
    assert cluster.instances() == []
    cluster.make_large()
    set_up(*install)
    set_up("remove", NAME, "--yes")
