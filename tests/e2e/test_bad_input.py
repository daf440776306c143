"""What is wrong is found before anything is changed, and all of it at once."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.machines import Admin, Machine, files, small_disk, trace
from tests.e2e.test_daily import wait_for_answers
from tests.e2e.test_quickstart import NAME
from tests.hosts.bed import Bed
from tests.hosts.manifest import difference

pytestmark = pytest.mark.e2e
INSTALL = ("install", "-n", "--yes")


@contextmanager
def unchanged(admin: Admin) -> Iterator[None]:
    """Files, users, roles, databases, units and processes are afterwards as before."""
    before, things = files(admin.machine), trace(admin.machine, "other")
    yield
    assert difference(before, files(admin.machine)) == {}
    assert trace(admin.machine, "other") == things


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Bad", "should begin with a lower-case letter"),
        ("9lives", "should begin with a lower-case letter"),
        ("a-name-longer-than-20", "at most 20 fit"),
        ("host", "is reserved"),
        ("../other", "should begin with a lower-case letter"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_with_the_reason(
    set_up: Admin, name: str, reason: str
) -> None:
    with unchanged(set_up):
        assert reason in set_up(*INSTALL, name, status=4).stderr


def test_what_is_taken_is_refused(set_up: Admin) -> None:
    set_up.machine.run(["useradd", "--system", "lava-user"])
    with unchanged(set_up):
        assert f"the name {NAME} is taken" in set_up(*INSTALL, NAME, status=4).stderr
        taken_user = set_up(*INSTALL, "user", status=4).stderr
        assert "there is a system user or group lava-user" in taken_user
        hostname = set_up(*INSTALL, "other", "--hostname", f"{NAME}.localhost", status=4).stderr
        assert f"{NAME}.localhost" in hostname
    set_up.machine.run(["userdel", "lava-user"])


def test_an_unknown_revision_is_refused_with_the_nearest(set_up: Admin) -> None:
    known = [one["version"] for one in set_up.json("revisions")["revisions"]]
    with unchanged(set_up):
        refused = set_up(*INSTALL, "other", known[0][:-1], status=4).stderr
    assert known[0] in refused


def test_all_that_is_wrong_is_told_at_once(set_up: Admin) -> None:
    with unchanged(set_up):
        refused = set_up(
            *INSTALL, NAME, "1999.1", "--admin", "not a name", "--hostname", "-no-", status=4
        ).stderr
    for fault in (f"the name {NAME} is taken", "1999.1", "not a name"):
        assert fault in refused


def test_too_little_room_is_told_with_the_figures(set_up: Admin) -> None:
    with small_disk(set_up.machine, "/srv/lava/instances", 100):
        refused = set_up(*INSTALL, "other", status=4).stderr
    assert "an instance needs 3 GB of disk, 0.1 GB are free" in refused


def test_only_root_may(set_up: Admin, machine: Machine) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    machine.run("chmod 711 /root")  # so that anybody reaches the clone
    with unchanged(set_up):
        refused = machine.run([*nobody, *set_up.line(*INSTALL, "other")], check=False)
    machine.run("chmod 700 /root")
    assert refused.status == 4 and "root" in refused.stderr


def test_a_postgres_that_is_down_is_found_beforehand(set_up: Admin, machine: Machine) -> None:
    cluster = machine.run("pg_lsclusters -h").stdout.split()[:2]
    machine.run(["pg_ctlcluster", "--force", *cluster, "stop"])
    before = files(machine)
    refused = set_up(*INSTALL, "other", status=4).stderr
    assert difference(before, files(machine)) == {}
    machine.run(["pg_ctlcluster", *cluster, "start"])
    assert "Postgres" in refused
    wait_for_answers(set_up)


def test_without_a_network_nothing_is_changed(set_up: Admin, bed: Bed | None) -> None:
    if bed is None:  # the network of the machine that runs the tests is not ours to cut
        return
    set_up.machine.run("rm -rf /srv/lava/cache/*")
    bed.cut_network()
    try:
        with unchanged(set_up):
            refused = set_up(*INSTALL, "other", status=4).stderr
    finally:
        bed.restore_network()
    assert "other" not in str(set_up.json("list"))
    assert refused


def test_without_a_terminal_nothing_is_destroyed_unless_that_is_meant(set_up: Admin) -> None:
    with unchanged(set_up):
        assert "--yes" in set_up("remove", NAME, status=2).stderr
        set_up("remove", NAME, "-n", status=2)
        set_up("remove", "no-such-instance", "--yes", status=2)
