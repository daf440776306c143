"""A snapshot is restored: into its instance and back, into another one, by hand, in rehearsal."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.machines import Admin, Machine, answer, files, trace
from tests.e2e.test_daily import wait_for_answers
from tests.e2e.test_jobs import LIMIT, Jobs, lasting
from tests.e2e.test_quickstart import NAME
from tests.e2e.test_side_by_side import undisturbed
from tests.e2e.test_snapshots import Snapshots
from tests.hosts.manifest import difference
from tests.hosts.waiting import until
from tests.unit import test_recipe as recipe

pytestmark = pytest.mark.e2e
OTHER, BOARD, SMOKE_DEVICE = "other", "board-1", "lava-deploy-qemu"
# A directory that came from elsewhere, as on a stick.
CARRIED = "/tmp/carried"
TOKEN = "restored0token"
SECONDS_OF_JOB = 30
SINCE = "since the snapshot"
REASON = "it ran when the snapshot was taken"
# Healths of devices are numbers: lava_scheduler_app/models.py.
GOOD, UNKNOWN, MAINTENANCE = "0", "1", "4"
JOBS = "SELECT id, state, health, description, md5(definition) FROM lava_scheduler_app_testjob"
CASES = "SELECT id, name, result, md5(metadata) FROM lava_results_app_testcase"
DEVICES = "SELECT hostname, health FROM lava_scheduler_app_device"
TOKENS = "SELECT user_id, description, secret FROM linaro_django_xmlrpc_authtoken"
FILES = "find . -printf '%p %y %m %u\\n' | sort; find . -type f -exec sha256sum {} + | sort"


# Takes what the tests add to the instance that lives on.
FORGET = f"""
from lava_scheduler_app.models import Device
from linaro_django_xmlrpc.models import AuthToken
Device.objects.filter(hostname={BOARD!r}).delete()
AuthToken.objects.filter(secret={TOKEN!r}).delete()
"""


@dataclass(frozen=True)
class Instance:
    """One on a machine, as its database, its files and its pages have it."""

    admin: Admin
    name: str

    @property
    def place(self) -> str:
        return f"/srv/lava/instances/{self.name}"

    @property
    def media(self) -> str:
        return f"{self.place}/var/lib/lava-server/media"

    @property
    def jobs(self) -> Jobs:
        return Jobs(self.admin, self.name)

    def rows(self, query: str) -> list[list[str]]:
        ask = ["runuser", "-u", "postgres", "--", "psql", "-XAtc", query, f"lava-{self.name}"]
        return [line.split("|") for line in self.admin.machine.run(ask).stdout.splitlines()]

    def media_files(self) -> list[str]:
        return self.admin.machine.run(f"cd {self.media} && {FILES}").stdout.splitlines()

    def content(self) -> dict[str, list]:
        """All that a restore exchanges and that nothing but jobs and admins change."""
        etc = f"cd {self.place}/etc && {FILES}; sha256sum {self.place}/instance.yaml"
        queries = (JOBS, CASES, DEVICES, TOKENS)
        return {
            **{query: sorted(self.rows(query)) for query in queries},
            "media": self.media_files(),
            "etc": self.admin.machine.run(etc).stdout.splitlines(),
        }

    def changes(self, before: dict[str, list]) -> list:
        """What of that content is another by now, or is only now."""
        after = self.content()
        return [line for kind in before for line in after[kind] if line not in before[kind]]

    def rest(self, path: str, token: str = "") -> tuple[int, bytes]:
        """The status and content of a page of LAVA's API."""
        token = token or self.admin.machine.run(["cat", f"{self.place}/etc/client-token"]).stdout
        headers = {"Authorization": f"Token {token.strip()}"}
        found = answer(self.admin.machine, f"/api/v0.2/{path}", f"{self.name}.localhost", **headers)
        return found.status, found.read()

    def job(self, number: str) -> dict:
        status, content = self.rest(f"jobs/{number}/")
        assert status == 200
        return json.loads(content)

    def lost_files(self) -> list[str]:
        """Paths of files that rows of test cases name, and that are not where this one's are."""
        found = self.rows("SELECT metadata FROM lava_results_app_testcase")
        lines = [line for [line, *_] in found if line.startswith("extra: ")]
        paths = [line.removeprefix("extra: ") for line in lines]
        assert paths
        there = self.admin.machine.run(["find", self.media, "-type", "f"]).stdout.splitlines()
        return [path for path in paths if path not in there]

    def admits(self, secret: str) -> bool:
        """Whether the password in the file of the instance whose snapshot it is opens the door."""
        check = (
            "from django.contrib.auth import authenticate; "
            f"print('known:', authenticate(username='admin', password={secret!r}) is not None)"
        )
        return "known: True" in self.admin("manage", self.name, "shell", input=check).stdout


@dataclass(frozen=True)
class Past:
    """What was at the time of the snapshot: its id, jobs that had ended and that ran, a log."""

    id: str
    ended: str
    ran: str
    log: bytes
    password: str
    files: frozenset[str]


@pytest.fixture(scope="module")
def demo(machine: Machine) -> Instance:
    return Instance(Admin(machine), NAME)


@pytest.fixture(scope="module")
def snapshots(machine: Machine) -> Snapshots:
    return Snapshots(Admin(machine))


@pytest.fixture(scope="module")
def past(demo: Instance, snapshots: Snapshots) -> Iterator[Past]:
    """A snapshot while a job runs, and two jobs since then."""
    admin, machine, jobs = demo.admin, demo.admin.machine, demo.jobs
    snapshots.clear()
    worker = machine.run(["uname", "-n"]).stdout.strip()
    kind = ("--device-type", "qemu", "--worker", worker)
    devices = f"{demo.place}/etc/devices"
    machine.run(f"cp -a {devices}/{SMOKE_DEVICE}.jinja2 {devices}/{BOARD}.jinja2")
    admin("manage", NAME, "devices", "add", *kind, BOARD)
    admin("manage", NAME, "devices", "update", "--health", "GOOD", BOARD)
    admin("manage", NAME, "tokens", "add", "--user", "admin", "--secret", TOKEN)
    running = jobs.submit(lasting(jobs.smoke_definition(), SECONDS_OF_JOB))
    until(
        lambda: jobs.guest_lines(running),
        LIMIT,
        lambda: TimeoutError(f"the guest of job {running} says nothing"),
    )
    log = demo.rest("jobs/1/logs/")[1]
    files_of_it = frozenset(line for line in demo.media_files() if "/1/" in line)
    id = snapshots.back_up()
    jobs.cancel(running)
    jobs.wait(running, "Finished")
    password = machine.run(["cat", f"{demo.place}/etc/admin-password"]).stdout.strip()
    later = jobs.smoke_definition() | {"job_name": SINCE}
    jobs.wait(jobs.submit(later), "Finished")
    later["actions"][0]["deploy"]["images"]["kernel"]["url"] = "file:///no/such/kernel"
    jobs.wait(jobs.submit(later), "Finished")
    yield Past(id, "1", running, log, password, files_of_it)
    admin("manage", NAME, "shell", input=FORGET)
    machine.run(["rm", "-f", f"{devices}/{BOARD}.jinja2"])
    snapshots.clear()


@pytest.fixture(scope="module")
def before(demo: Instance, past: Past) -> dict[str, list]:
    """All of the instance as it is when the restore begins."""
    return demo.content()


def has_the_past(instance: Instance, past: Past) -> None:
    """The jobs, the log and the files of the snapshot, who was known then, and nothing since."""
    later = [job for job in instance.rows(JOBS) if int(job[0]) > int(past.ran)]
    assert SINCE not in str(later)
    assert instance.rest(f"jobs/{past.ended}/logs/")[1] == past.log
    owned = {line.replace(f"lava-{NAME}", f"lava-{instance.name}") for line in past.files}
    assert owned - {*instance.media_files()} == set()
    assert instance.lost_files() == []
    ran = instance.job(past.ran)
    assert (ran["state"], ran["health"]) == ("Finished", "Incomplete")
    assert REASON in ran["failure_comment"]
    assert instance.rest(f"jobs/{past.ran}/logs/")[0] == 200
    assert instance.rest("jobs/", TOKEN)[0] == 200
    assert instance.admits(past.password)
    healths = dict(instance.rows(DEVICES))
    assert healths == {SMOKE_DEVICE: UNKNOWN, BOARD: MAINTENANCE}
    log = "SELECT device_id, change_message FROM lava_scheduler_app_lavalogentrydevice"
    assert f"['{BOARD}', 'Good → Maintenance (lava-deploy: a snapshot" in str(instance.rows(log))


def test_a_running_instance_is_not_restored_unless_that_is_meant(
    demo: Instance, past: Past, before: dict[str, list]
) -> None:
    with undisturbed(demo.admin.machine, NAME):
        for words in ((past.id,), (f"{NAME}/latest",)):
            assert "--stop stops it" in demo.admin("restore", NAME, *words, status=4).stderr
        wrong = demo.admin("restore", NAME, "2011-11-11T11-11-11Z", "--stop", status=2).stderr
        assert past.id in wrong
        planned = demo.admin("restore", NAME, past.id, "--stop", "--dry-run").stdout
        assert "exchange the database" in planned
        undone = demo.admin("restore", NAME, "--undo", "--stop", status=2).stderr
        assert f"nothing is kept of {NAME}" in undone
    assert demo.changes(before) == []


def test_a_restore_brings_back_what_was_and_nothing_since(
    demo: Instance, past: Past, before: dict[str, list]
) -> None:
    demo.admin("restore", NAME, past.id, "--stop")
    has_the_past(demo, past)
    # it got the number of one that is gone: nothing of that may be left
    smoke = str(int(past.ran) + 1)
    assert demo.job(smoke)["health"] == "Complete"
    assert demo.rest(f"jobs/{int(smoke) + 1}/")[0] == 404
    directories = f"find {demo.media}/job-output -mindepth 4 -maxdepth 4 -printf '%f\\n'"
    numbers = {int(name) for name in demo.admin.machine.run(directories).stdout.split()}
    assert max(numbers) == int(smoke)
    assert (
        SINCE
        not in demo.admin.machine.run(f"cat {demo.media}/job-output/*/*/*/{smoke}/job.yaml").stdout
    )
    kept = demo.admin("status", NAME).stdout
    assert "before" in kept and "restored" in kept


def test_an_undone_restore_leaves_nothing_and_all_is_as_before(
    demo: Instance, past: Past, before: dict[str, list]
) -> None:
    assert "--stop" in demo.admin("restore", NAME, "--undo", status=4).stderr
    demo.admin("restore", NAME, "--undo", "--stop")
    assert demo.changes(before) == []
    wait_for_answers(demo.admin)
    assert demo.admin.machine.run(f"ls {demo.place}").stdout.split() == [
        "code",
        "etc",
        "instance.yaml",
        "run",
        "var",
    ]
    assert databases(demo) == [f"lava-{NAME}"]


def databases(instance: Instance) -> list[str]:
    """Those of an instance, whatever for."""
    found = instance.rows("SELECT datname FROM pg_database ORDER BY datname")
    return [name for [name] in found if name.startswith(f"lava-{instance.name}")]


def test_the_database_alone_is_exchanged_and_the_files_stay(
    demo: Instance, past: Past, before: dict[str, list]
) -> None:
    demo.admin("restore-db", NAME, "latest", "--stop", "--no-smoke")
    assert REASON in demo.job(past.ran)["failure_comment"]
    assert demo.rest(f"jobs/{int(past.ran) + 1}/")[0] == 404
    assert demo.media_files() == before["media"]
    demo.admin("restore", NAME, "--undo", "--stop")
    assert demo.changes(before) == []


# Elsewhere


@pytest.fixture(scope="module")
def other(demo: Instance, past: Past) -> Iterator[Instance]:
    """Another instance, of the same release."""
    admin = demo.admin
    version = admin.json("show", NAME)["instance"]["version"]
    admin("install", "-n", "--yes", OTHER, version, timeout=1200)
    yield Instance(admin, OTHER)
    admin("remove", OTHER, "--yes")


def own(instance: Instance) -> list[str]:
    """What makes an instance itself, in its files, without comments and the key of its secrets.

    What an admin set of LAVA, its mail and its web server is content, and comes along.
    """
    paths = "etc/*-token etc/settings.d/10-routing.yaml etc/secrets.yaml etc/services"
    route = "sed -n '/^route:/,/^mail:/p' instance.yaml"
    lines = f"cd {instance.place} && (grep -r '' {paths}; {route}) | grep -vi secret_key | sort"
    return instance.admin.machine.run(lines).stdout.splitlines()


def test_another_instance_gets_the_content_and_stays_itself(
    demo: Instance, other: Instance, past: Past, before: dict[str, list]
) -> None:
    itself = own(other)
    with undisturbed(demo.admin.machine, NAME):
        other.admin("restore", OTHER, f"{NAME}/latest", "--stop")
    has_the_past(other, past)
    assert other.job(str(int(past.ran) + 1))["health"] == "Complete"
    assert own(other) == itself
    sites = other.rows("SELECT domain, name FROM django_site")
    assert sites == [[f"{OTHER}.localhost", OTHER]]
    assert demo.changes(before) == []


def test_a_directory_from_elsewhere_is_restored(
    demo: Instance, other: Instance, past: Past, snapshots: Snapshots
) -> None:
    machine = demo.admin.machine
    machine.run(["rm", "-rf", CARRIED])
    machine.run(["cp", "-a", f"{snapshots.place}/{past.id}", CARRIED])
    other.admin("restore", OTHER, CARRIED, "--stop", "--no-smoke")
    has_the_past(other, past)
    machine.run(["rm", "-r", CARRIED])


def test_the_recipe_restores_a_snapshot_by_hand(
    demo: Instance, other: Instance, past: Past, snapshots: Snapshots
) -> None:
    """Its commands, to the letter; the instance is stopped before and started after them."""
    admin, machine = other.admin, other.admin.machine
    admin("restore", OTHER, "--undo", "--stop")
    admin("stop", OTHER)
    commands = recipe.script(f"{snapshots.place}/{past.id}", OTHER)
    assert "lava-deploy" not in commands
    machine.run(["sh", "-eu"], input=commands)
    admin("start", OTHER)
    wait_for_answers(admin, OTHER)
    admin("smoke", OTHER)
    assert other.lost_files() == []
    assert other.rest(f"jobs/{past.ended}/logs/")[1] == past.log
    assert other.job(past.ran)["health"] == "Incomplete"
    assert REASON[:20] in other.job(past.ran)["failure_comment"]
    assert other.rest("jobs/", TOKEN)[0] == 200
    assert other.admits(past.password)


def test_a_rehearsal_leaves_no_trace(demo: Instance, past: Past, snapshots: Snapshots) -> None:
    admin, machine = demo.admin, demo.admin.machine
    there, things = files(machine), trace(machine)
    with undisturbed(machine, NAME):
        admin("snapshots", "verify", NAME, "latest", "--rehearse", timeout=1200)
    assert snapshots.listed()[past.id]["level"] == "rehearsed"
    changed = {Path(path).name for path in difference(there, files(machine))}
    assert changed == {"records.json"}
    assert {kind: len(found) for kind, found in trace(machine).items()} == {
        kind: len(found) for kind, found in things.items()
    }
