"""A backup in the form of 2012, of a LAVA 2023.01, becomes the state of today's, and is undone."""

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.machines import Admin, Machine, answer, files_at_rest
from tests.e2e.test_restored import Instance as Restorable
from tests.e2e.test_side_by_side import INSTALL
from tests.hosts.manifest import difference

pytestmark = pytest.mark.e2e
VERSION = "2023.01"
DIRECTORY, DAMAGED = "/tmp/2012", "/tmp/2012-damaged"
BOARD, WORKER = "board-7", "the-host-of-2012"
KEY = "a key of 2012"
# LAVA's own, which hides every program that is not Debian's.
ENVIRONMENT = """\
purge: true
overrides:
  LC_ALL: C.UTF-8
  PATH: /usr/local/bin:/usr/local/sbin:/bin:/usr/bin:/usr/sbin:/sbin
"""
# argv: INSTANCE. What the tool did, on a host of another name; a place of media as Debian has it.
BACK_UP = f"""
set -eu
instance=/srv/lava/instances/$1 scratch=lava-2012 work={DIRECTORY}-work
rm -rf {DIRECTORY} $work; mkdir -p {DIRECTORY} $work/default $work/lava-server/dispatcher-config
cd /
as_postgres() {{ runuser -u postgres -- "$@"; }}
as_postgres createdb $scratch
as_postgres pg_dump --no-owner "lava-$1" | as_postgres psql --quiet --output=/dev/null $scratch
as_postgres psql --quiet --single-transaction $scratch --command="
    UPDATE lava_scheduler_app_device SET worker_host_id = '{WORKER}';
    UPDATE lava_scheduler_app_worker SET hostname = '{WORKER}' WHERE hostname <> 'example.com'"
as_postgres pg_dump --format=custom $scratch >{DIRECTORY}/database.dump
as_postgres dropdb $scratch
cp -a $instance/var/lib/lava-server/media $work/default/
mkdir $work/default/media/reports $work/default/home
echo 1,2 >$work/default/media/reports/a.csv
tar czf {DIRECTORY}/files.tar.gz -C $work default
for each in devices device-types health-checks; do
    cp -a $instance/etc/$each $work/lava-server/dispatcher-config/
done
cp -a $instance/etc/dispatcher.d $work/lava-server/
cat >$work/lava-server/env.yaml
echo "{{% extends 'qemu.jinja2' %}}" >$work/lava-server/dispatcher-config/devices/{BOARD}.jinja2
echo 'SECRET_KEY="{KEY}"' >$work/lava-server/secret_key.conf
echo '{{"ADMINS": []}}' >$work/lava-server/settings.conf
tar czf {DIRECTORY}/etc.tar.gz -C $work lava-server
rm -rf $work
"""


@dataclass(frozen=True)
class Instance(Restorable):
    """One on a machine, as its database, its files and its pages have it."""

    def read(self, path: str) -> str:
        return self.admin.machine.run(f"cat {self.place}/{path}").stdout

    def page(self, path: str, token: str = "") -> tuple[int, str]:
        headers = {"Authorization": f"Token {token}"} if token else {}
        found = answer(self.admin.machine, path, f"{self.name}.localhost", **headers)
        return found.status, found.read().decode()

    def api(self, path: str) -> str:
        """What LAVA's API answers to who submits smoke jobs."""
        status, text = self.page(f"/api/v0.2/{path}", self.read("etc/client-token").strip())
        assert status == 200, text
        return text

    def job_rows(self) -> list[list[str]]:
        return sorted(
            self.rows("SELECT id, state, health, md5(definition) FROM lava_scheduler_app_testjob")
        )


@pytest.fixture(scope="module")
def names(admin: Admin) -> dict[str, str]:
    """The instances of the machine by their versions; one of the old LAVA is among them."""
    found = {one["version"]: one["name"] for one in admin.json("list")["instances"]}
    if VERSION not in found:
        found[VERSION] = "old"
        order = [*INSTALL, found[VERSION], VERSION, "--source", "debian", "--smoke"]
        admin(*order, timeout=1200)
    return found


@pytest.fixture(scope="module")
def old(admin: Admin, names: dict[str, str]) -> Instance:
    """That of which there is a backup."""
    old = Instance(admin, names[VERSION])
    [[worker]] = old.rows("SELECT worker_host_id FROM lava_scheduler_app_device")
    add = ["devices", "add", BOARD, "--device-type", "qemu", "--worker", worker]
    admin("manage", old.name, *add)
    admin.machine.run(["sh", "-c", BACK_UP, "sh", old.name], input=ENVIRONMENT)
    return old


@pytest.fixture(scope="module")
def target(admin: Admin, names: dict[str, str], old: Instance) -> Instance:
    return Instance(admin, names[max(names)])


DAMAGES = {
    "no media": ("rm files.tar.gz", "files.tar.gz: is missing"),
    "a dump that was cut": ("truncate -s -1000 database.dump", "database.dump: pg_restore: error"),
    "media that were cut": ("truncate -s -9 files.tar.gz", "files.tar.gz: .* is damaged"),
    "paths of the host": (
        "tar czPf etc.tar.gz /etc/hostname",
        "etc.tar.gz: '/etc/hostname' in it would land elsewhere",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_backup_that_is_not_whole_is_refused_before_anything_is_touched(
    target: Instance, machine: Machine, damage: str
) -> None:
    command, fault = DAMAGES[damage]
    machine.run(f"rm -rf {DAMAGED}; cp -a {DIRECTORY} {DAMAGED}; cd {DAMAGED}; {command}")
    before = files_at_rest(machine, target.name)
    refused = target.admin("restore", target.name, DAMAGED, "--stop", status=4)
    assert re.search(fault, refused.stderr)
    assert difference(before, files_at_rest(machine, target.name)) == {}
    machine.run(["rm", "-r", DAMAGED])


@pytest.fixture(scope="module")
def before(target: Instance) -> dict[str, Any]:
    """What the instance was before."""
    return {
        "jobs": target.job_rows(),
        "etc": target.admin.machine.run(f"cd {target.place}; find etc | sort").stdout,
        "secrets": target.read("etc/secrets.yaml"),
        "address": target.rows("SELECT domain, name FROM django_site"),
    }


@pytest.fixture(scope="module")
def restored(target: Instance, before: dict[str, Any]) -> Instance:
    """With the stock environment in force, its smoke job is Complete."""
    said = target.admin("restore", target.name, DIRECTORY, "--stop", timeout=1200).stderr
    assert "left out: default/home" in said
    return target


def test_the_jobs_of_the_old_lava_are_there_with_their_logs(
    restored: Instance, old: Instance
) -> None:
    there, had = restored.job_rows(), old.job_rows()
    assert [job for job in there if job in had] == had
    [number, *_] = had[0]
    assert restored.page(f"/scheduler/job/{number}")[0] == 200
    [log] = old.admin.machine.run(
        f"find {old.media}/job-output -path '*/{number}/output.yaml'"
    ).stdout.split()
    assert restored.api(f"jobs/{number}/logs/") == old.admin.machine.run(["cat", log]).stdout
    lines = restored.page(f"/scheduler/job/{number}/log_pipeline_incremental?line=0")
    assert "Linux version" in lines[1]


def test_what_rows_name_is_where_the_instance_has_it(restored: Instance, machine: Machine) -> None:
    assert restored.lost_files() == []
    machine.run(["ls", f"{restored.media}/reports/a.csv"])


def test_boards_wait_for_an_admin_at_the_worker_of_the_instance(restored: Instance) -> None:
    found = json.loads(restored.api(f"devices/{BOARD}/"))
    [[worker]] = restored.rows(
        "SELECT hostname FROM lava_scheduler_app_worker WHERE hostname <> 'example.com'"
    )
    assert worker != WORKER
    assert (found["worker_host"], found["health"]) == (worker, "Maintenance")
    assert "qemu.jinja2" in restored.api(f"devices/{BOARD}/dictionary/")


def test_name_address_and_accesses_are_those_of_the_instance(
    restored: Instance, before: dict[str, Any]
) -> None:
    assert restored.rows("SELECT domain, name FROM django_site") == before["address"]
    secrets = restored.read("etc/secrets.yaml")
    assert KEY in secrets
    assert secrets != before["secrets"]
    password = [line for line in secrets.splitlines() if "DATABASE_PASSWORD" in line]
    assert password and password[0] in before["secrets"]
    assert KEY in restored.read("etc/former/lava-server-secret_key.conf")


def test_all_of_it_is_undone(restored: Instance, before: dict[str, Any]) -> None:
    restored.admin("restore", restored.name, "--undo", "--stop")
    etc = restored.admin.machine.run(f"cd {restored.place}; find etc | sort").stdout
    assert (restored.job_rows(), etc) == (before["jobs"], before["etc"])
    assert restored.read("etc/secrets.yaml") == before["secrets"]
    restored.admin.machine.run(["rm", "-r", DIRECTORY])
