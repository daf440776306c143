"""Bad luck with snapshots: kills, full disks, a Postgres that restarts, files that move meanwhile.

After each, the instance answers and has all its jobs, or the snapshot's; nothing is left over.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.machines import Admin, Machine, resize_disk, small_disk, trace
from tests.e2e.test_daily import wait_for_answers
from tests.e2e.test_full_disk import REMEDY
from tests.e2e.test_killed import durations_of_steps, kill, middle
from tests.e2e.test_quickstart import NAME
from tests.e2e.test_restored import Instance
from tests.e2e.test_side_by_side import undisturbed
from tests.e2e.test_snapshots import BACKUPS, Snapshots
from tests.hosts.waiting import until

pytestmark = pytest.mark.e2e
JOURNAL = f"/var/lib/lava-deploy/journals/{NAME}.jsonl"
BACKUP = ("dump the database", "pack the media", "keep the configuration")
BACKUP_STEPS, RESTORE_STEPS = range(1, 7), range(1, 10)
RANDOM_KILLS = 2
RESTORE = ("--stop", "--no-smoke")
LOGS = "job-output/job-900002"
# Megabytes of logs that do not compress: a backup and a restore have to take a while.
LOGS_SIZE, TOO_SMALL, LARGE = 60, 20, 300
LIMIT = 60
# What lava-deploy starts, and itself, but for what is there all the time.
PROCESSES = (
    "ps -eo args= | grep -E '^[^ ]*/(pg_dump|pg_restore|lava-deploy/.venv/bin/python)' "
    "| grep -v supervisor"
)
# Rewrites, lengthens and removes files in a directory, over and over. argv: DIRECTORY.
RESTLESS = """
import itertools, os, sys
print("begun", flush=True)
for number in itertools.count():
    path = f"{sys.argv[1]}/{number % 50}.yaml"
    with open(path, "ab") as file: file.write(b"x" * 100_000)
    number % 3 or os.unlink(path)
    if number % 50 == 0 and os.path.exists("/tmp/enough"):
        break
"""


@dataclass(frozen=True)
class Lucky:
    """An instance, a snapshot of it, and how it was at that time and is now."""

    instance: Instance
    snapshots: Snapshots
    id: str
    backup_durations: list[float]
    restore_durations: list[float]
    then: set[str]
    now: set[str]


def job_numbers(instance: Instance) -> set[str]:
    return {number for [number] in instance.rows("SELECT id FROM lava_scheduler_app_testjob")}


@pytest.fixture(scope="module")
def lucky(machine: Machine) -> Iterator[Lucky]:
    """The snapshot has a job less than the instance; logs of old make all of it take a while."""
    admin = Admin(machine)
    instance, snapshots = Instance(admin, NAME), Snapshots(admin)
    snapshots.clear()
    logs = f"{instance.media}/{LOGS}"
    fill = f"for n in $(seq {LOGS_SIZE}); do head -c 1M /dev/urandom >$n.yaml; done"
    machine.run(f"mkdir -p {logs} && cd {logs} && {fill} && chown -R lava-{NAME}: .")
    then = job_numbers(instance)
    told = admin("backup", NAME)
    id = told.stdout.strip()
    admin("smoke", NAME)
    now = job_numbers(instance)
    touch = f"touch {logs}/1.yaml"  # else a restore would leave them as they are
    machine.run(touch)
    restored = admin("restore", NAME, id, *RESTORE)
    admin("restore", NAME, "--undo", "--stop")
    steps = durations_of_steps(told.stderr), durations_of_steps(restored.stderr)
    yield Lucky(instance, snapshots, id, *steps, then, now)
    machine.run(["rm", "-rf", logs])
    snapshots.clear()


@pytest.fixture(autouse=True)
def no_wreck(admin: Admin) -> Iterator[None]:
    """A failing test leaves nothing to the next."""
    yield
    undo = f"test ! -d /srv/lava/instances/{NAME}/before || {' '.join(admin.line('restore'))}"
    for command in (
        f"test ! -e {JOURNAL} || {' '.join(admin.line('abandon', NAME))}",
        f"test ! -e {JOURNAL} || {' '.join(admin.line('resume', NAME))}",
        f"{undo} {NAME} --undo --stop",
    ):
        admin.machine.run(command, check=False)


def nothing_is_over(lucky: Lucky, *kept: str) -> None:
    """No process, database, directory or file of a run that ended; `kept` are states before."""
    machine, instance = lucky.instance.admin.machine, lucky.instance
    until(
        lambda: machine.run(PROCESSES, check=False).stdout == "",
        LIMIT,
        lambda: AssertionError(machine.run(PROCESSES, check=False).stdout),
    )
    # the role has the name of the database
    assert len(trace(machine, NAME)["postgres"]) == 1 + len(kept)
    assert {*machine.run(["ls", "-A", instance.place]).stdout.split()} == {
        *("code", "etc", "instance.yaml", "run", "var"),
        *(["before"] if kept else []),
    }
    assert machine.run(["find", instance.media, "-name", ".lava-deploy"]).stdout == ""
    assert lucky.snapshots.leftovers() == []
    machine.run(f"! test -e {JOURNAL}")


def all_is_as_before(lucky: Lucky) -> None:
    wait_for_answers(lucky.instance.admin)
    assert job_numbers(lucky.instance) == lucky.now
    assert lucky.instance.lost_files() == []
    nothing_is_over(lucky)


# Killed


@pytest.mark.parametrize("step", BACKUP_STEPS)
def test_what_a_killed_backup_left_the_next_clears_away(lucky: Lucky, step: int) -> None:
    admin = lucky.instance.admin
    good = [id for id, one in lucky.snapshots.listed().items() if one["good"]]
    with undisturbed(admin.machine, NAME):
        kill(admin, step, middle(lucky.backup_durations[step - 1]), "backup", NAME)
        there = lucky.snapshots.listed()
        assert all(one["good"] for one in there.values()) and {*good} <= {*there}
        assert lucky.snapshots.latest() in there
        made = lucky.snapshots.back_up()
    all_is_as_before(lucky)
    assert lucky.snapshots.latest() == made
    admin("snapshots", "remove", NAME, made, "--yes")


def test_every_step_is_killed_once(lucky: Lucky) -> None:
    assert len(lucky.backup_durations) == len(BACKUP_STEPS)
    assert len(lucky.restore_durations) == len(RESTORE_STEPS)


def survive(lucky: Lucky, number: int) -> None:
    """What was killed is completed or undone, in turn; it is the state of then, or of now."""
    admin, machine = lucky.instance.admin, lucky.instance.admin.machine
    journal = machine.run(["cat", JOURNAL], check=False).stdout
    if "begun" in journal:
        busy = admin("backup", NAME, status=5).stderr
        assert f"lava-deploy resume {NAME}" in busy
        if number % 2 and "committed" not in journal:
            admin("abandon", NAME)
            all_is_as_before(lucky)
            return
        admin("resume", NAME)
    elif job_numbers(lucky.instance) == lucky.now:  # before its first step
        all_is_as_before(lucky)
        return
    wait_for_answers(admin)
    assert job_numbers(lucky.instance) == lucky.then
    assert lucky.instance.lost_files() == []
    nothing_is_over(lucky, "before")
    admin("restore", NAME, "--undo", "--stop")
    all_is_as_before(lucky)


@pytest.mark.parametrize("step", RESTORE_STEPS)
def test_a_killed_restore_is_resumed_or_abandoned(lucky: Lucky, step: int) -> None:
    """The odd ones are abandoned, where that is possible."""
    duration = middle(lucky.restore_durations[step - 1])
    kill(lucky.instance.admin, step, duration, "restore", NAME, lucky.id, *RESTORE)
    survive(lucky, step)


def test_a_start_is_heard_while_all_still_ends(lucky: Lucky) -> None:
    admin = lucky.instance.admin
    admin.machine.run(["timeout", "--signal=KILL", "1", *admin.line("stop", NAME)], check=False)
    admin("start", NAME)
    all_is_as_before(lucky)


@pytest.mark.parametrize("number", range(RANDOM_KILLS))
def test_a_restore_is_killed_at_any_time(lucky: Lucky, number: int) -> None:
    admin = lucky.instance.admin
    seconds = random.uniform(0.3, sum(lucky.restore_durations))
    command = ["timeout", "-s", "KILL", f"{seconds:.2f}", *admin.line("restore", NAME, lucky.id)]
    admin.machine.run([*command, *RESTORE], check=False)
    survive(lucky, number)


# Full disks


def fill_up(machine: Machine, disk: str, left: int) -> None:
    """Leave so many megabytes of a small disk."""
    used = machine.run(["du", "-sm", disk]).stdout.split()[0]
    resize_disk(machine, disk, int(used) + left)


@pytest.mark.parametrize(("left", "status"), [(5, 4), (70, 10), (90, 10)])
def test_a_backup_that_does_not_fit_is_undone_and_made_when_there_is_room(
    lucky: Lucky, left: int, status: int
) -> None:
    """Found beforehand, or when the media are packed, which no longer share anything."""
    admin, machine = lucky.instance.admin, lucky.instance.admin.machine
    with small_disk(machine, BACKUPS, LARGE):
        made = lucky.snapshots.back_up()
        grow = f"head -c 40M /dev/urandom >>{lucky.instance.media}/{LOGS}/2.yaml"
        machine.run(grow)
        fill_up(machine, BACKUPS, left)
        failed = admin("backup", NAME, status=status).stderr
        assert REMEDY in failed, failed
        assert [*lucky.snapshots.listed()] == [made] == [lucky.snapshots.latest()]
        all_is_as_before(lucky)
        resize_disk(machine, BACKUPS, LARGE)
        lucky.snapshots.back_up()
        all_is_as_before(lucky)
    machine.run(f"truncate -s 1M {lucky.instance.media}/{LOGS}/2.yaml")


@pytest.mark.parametrize("step", BACKUP)
def test_a_disk_that_others_fill_meanwhile_undoes_the_backup(lucky: Lucky, step: str) -> None:
    """It may be over before it is full."""
    admin, machine = lucky.instance.admin, lucky.instance.admin.machine
    with small_disk(machine, BACKUPS, LARGE):
        made = lucky.snapshots.back_up()
        machine.run(f"touch {lucky.instance.media}/{LOGS}/1.yaml")
        fill = f"head -c 1G /dev/zero >{BACKUPS}/full 2>/dev/null; true"
        with machine.popen(["sh", "-c", _when_begun(step, fill)]) as filling:
            ended = machine.run(admin.line("backup", NAME), check=False)
            assert filling.wait() == 0
        assert ended.status in (0, 10), ended
        assert ended.status == 0 or REMEDY in ended.stderr, ended
        assert {*lucky.snapshots.listed()} == {made, ended.stdout.strip() or made}
        machine.run(["rm", f"{BACKUPS}/full"])
        admin("snapshots", "verify", NAME)
        all_is_as_before(lucky)


def test_a_restore_that_does_not_fit_is_undone_and_made_when_there_is_room(lucky: Lucky) -> None:
    """The media are on a disk of their own."""
    admin, machine, instance = lucky.instance.admin, lucky.instance.admin.machine, lucky.instance
    with media_on_own_disk(lucky):
        for left in (1, LOGS_SIZE // 2, LOGS_SIZE - 2):
            fill_up(machine, instance.media, left)
            failed = admin("restore", NAME, lucky.id, *RESTORE, status=10).stderr
            assert "No space left on device" in failed and REMEDY in failed
            all_is_as_before(lucky)
        resize_disk(machine, instance.media, LARGE)
        admin("restore", NAME, lucky.id, *RESTORE)
        assert job_numbers(instance) == lucky.then and instance.lost_files() == []
        admin("restore", NAME, "--undo", "--stop")
        all_is_as_before(lucky)


@contextmanager
def media_on_own_disk(lucky: Lucky) -> Iterator[None]:
    """As a lab has it whose logs are many; all processes see it, those of the instance as well."""
    admin, machine, media = lucky.instance.admin, lucky.instance.admin.machine, lucky.instance.media
    aside = "/var/tmp/media"
    admin("stop", NAME)
    machine.run(f"rm -rf {aside} && cp -a {media} {aside}")
    try:
        with small_disk(machine, media, LARGE):
            machine.run(f"cp -a {aside}/. {media}")
            admin("start", NAME)
            wait_for_answers(admin)
            try:
                yield
            finally:
                admin("stop", NAME)
    finally:
        machine.run(["rm", "-r", aside])
        admin("start", NAME)


# Others at work


def test_a_second_backup_meanwhile_is_refused_and_names_the_first(lucky: Lucky) -> None:
    admin = lucky.instance.admin
    with admin.machine.popen(admin.line("backup", NAME, "--rate", "20M")) as first:
        assert "begin the snapshot" in first.stdout.readline()
        for words in (["backup", NAME], ["apply", NAME], ["restore", NAME, "latest", "--stop"]):
            refused = admin(*words, status=5).stderr
            assert "has run `lava-deploy backup" in refused, refused
        assert first.wait() == 0
    all_is_as_before(lucky)


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_a_postgres_that_restarts_undoes_what_goes_on(lucky: Lucky, verb: str) -> None:
    """What cannot be undone while Postgres is away can be afterwards, and that is told."""
    admin, machine = lucky.instance.admin, lucky.instance.admin.machine
    version, name = machine.run("pg_lsclusters -h").stdout.split()[:2]
    there = lucky.snapshots.listed()
    begun = "dump the database" if verb == "backup" else "load the database and the media beside"
    words = [] if verb == "backup" else [lucky.id, *RESTORE]
    restart = f"pg_ctlcluster --mode immediate --force {version} {name} restart"
    with machine.popen(["sh", "-c", _when_begun(begun, restart)]) as restarting:
        ended = machine.run(admin.line(verb, NAME, *words), check=False)
        assert restarting.wait() == 0
    wait_for_answers(admin)
    assert ended.status in (0, 10, 11), ended
    if ended.status == 11:
        assert f"lava-deploy abandon {NAME}" in ended.stderr
        admin("abandon", NAME)
    if ended.status == 0 and verb == "restore":
        admin("restore", NAME, "--undo", "--stop")
    assert {*there} <= {*lucky.snapshots.listed()}
    all_is_as_before(lucky)


def _when_begun(step: str, command: str) -> str:
    """Wait in a shell until a step is begun, or was missed, then run a command."""
    begun = f"grep -q 'begun.*{step}' {JOURNAL} 2>/dev/null"
    return f"for n in $(seq 500); do {begun} && break; sleep 0.01; done; {command}"


def test_files_that_grow_and_vanish_while_they_are_read_do_no_harm(lucky: Lucky) -> None:
    admin, machine = lucky.instance.admin, lucky.instance.admin.machine
    place = f"{lucky.instance.media}/job-output/job-900003"
    machine.run(f"rm -f /tmp/enough; mkdir {place}")
    with machine.popen(["python3", "-c", RESTLESS, place]) as restless:
        assert restless.stdout.readline() == "begun\n"
        for _ in range(3):
            ended = machine.run(admin.line("backup", NAME), check=False)
            assert ended.status in (0, 13), ended
            for path, why in lucky.snapshots.manifest(lucky.snapshots.latest())["skipped"]:
                assert path.startswith("job-output/job-900003/"), (path, why)
            admin("snapshots", "verify", NAME, "--deep")
        machine.run(["touch", "/tmp/enough"])
        restless.wait()
    machine.run(["rm", "-r", place, "/tmp/enough"])
    all_is_as_before(lucky)


def test_what_cannot_be_kept_is_told_and_all_else_is_kept(lucky: Lucky) -> None:
    admin, machine, media = lucky.instance.admin, lucky.instance.admin.machine, lucky.instance.media
    place = f"{media}/job-output/job-900004"
    deep = "/".join(["d"] * 120)
    machine.run(f"mkdir -p {place}/{deep} && mkfifo {place}/fifo && echo kept >{place}/file")
    machine.run(["python3", "-c", f"import socket; socket.socket(1).bind('{place}/socket')"])
    machine.run(["ln", "-s", "/etc", f"{media}/job-output/2011"])
    told = admin("backup", NAME, status=13)
    skipped = dict(lucky.snapshots.manifest(told.stdout.strip())["skipped"])
    for path in ("job-900004/fifo", "job-900004/socket", "2011"):
        assert f"job-output/{path}" in skipped, skipped
        assert f"job-output/{path}: " in told.stderr
    assert any("too deeply" in why for why in skipped.values())
    machine.run(["rm", "-r", place, f"{media}/job-output/2011"])
    all_is_as_before(lucky)


# The clock, and where snapshots are


def test_a_clock_that_went_backwards_is_told_and_the_order_stays(lucky: Lucky) -> None:
    """As a snapshot would be that was made while the clock was ahead."""
    snapshots, machine = lucky.snapshots, lucky.instance.admin.machine
    future, place = "2199-01-01T00-00-00Z", snapshots.place
    last = snapshots.latest()
    machine.run(f"cp -a {place}/{last} {place}/{future}")
    machine.run(["sed", "-i", f"s/{last}/{future}/", f"{place}/{future}/manifest.json"])
    sums = f"cd {place}/{future} && sed -i 1d MANIFEST.sha256 && sha256sum manifest.json"
    machine.run(f"{sums} | cat - MANIFEST.sha256 >sums && cat sums >MANIFEST.sha256 && rm sums")
    snapshots.admin("snapshots", "verify", NAME, future)
    told = snapshots.admin("backup", NAME)
    assert "the clock says" in told.stderr and future in told.stderr
    made = told.stdout.strip()
    assert snapshots.latest() == made == [*snapshots.listed()][-1]
    pruned = snapshots.admin.json("snapshots", "prune", NAME, "--keep", "1d", "--dry-run")
    assert made not in pruned["removed"]
    snapshots.admin("snapshots", "remove", NAME, future, "--yes")


def test_the_place_of_snapshots_may_be_a_link_to_another_disk(lucky: Lucky) -> None:
    admin, machine, snapshots = lucky.instance.admin, lucky.instance.admin.machine, lucky.snapshots
    disk, aside = "/var/tmp/disk", "/var/tmp/backups"
    machine.run(f"mkdir {disk} && mv {BACKUPS} {aside} && ln -s {disk} {BACKUPS}")
    try:
        with small_disk(machine, disk, LARGE):
            made = snapshots.back_up()
            assert snapshots.back_up() == snapshots.latest() != made
            assert machine.run(["ls", f"{disk}/{NAME}"]).stdout.split()[0] == made
            admin("restore", NAME, f"{NAME}/latest", *RESTORE)
            admin("restore", NAME, "--undo", "--stop")
            all_is_as_before(lucky)
    finally:
        machine.run(f"rm {BACKUPS} && mv {aside} {BACKUPS} && rmdir {disk}")
