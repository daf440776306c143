"""Plans of backups and restores, and the machines in memory to carry them out on."""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path

from lava_deploy.cli import restoring
from lava_deploy.cli.instances import in_force
from lava_deploy.model import Revision
from lava_deploy.operations import backup, halt, restorable, restore, undo
from lava_deploy.parts import dump, snapshots
from lava_deploy.steps import Plan
from tests.fakes import World
from tests.fakes.lava import RUNNING
from tests.fakes.stage import Stage, after, bare, of_install, put_release

OLDER = Revision("2026.06", "debian", "Debian sid", "2026.06-1")
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
# Days that stay as a snapshot has them, change, go, come since.
SAME, TOUCHED, GONE, NEW = (
    f"job-output/2026/{day}" for day in ("11/20", "11/21", "09/30", "11/26")
)
OLD = "job-output/job-12"
JOB = 7


class Standing(datetime):
    """A clock that stands still, for what a snapshot says of its end."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Standing":
        return cls(2026, 11, 26, 20, tzinfo=tz)


def of_backup(stage: Stage, name: str = "demo", hour: int = 0, stop: bool = False) -> Plan:
    doors, instance = stage.context.doors, stage.context.host.instance(name)
    assert backup.faults(doors, instance) == []
    request = backup.Request("a note", stop)
    decisions = backup.decide(doors, instance, request, NOW + timedelta(hours=hour))
    return backup.plan(doors, instance, decisions, in_force(stage.context, instance))


def of_restore(
    stage: Stage, source: str = "demo/latest", hour: int = 10, smoke: bool = False, **request: bool
) -> Plan:
    doors = stage.context.doors
    stage.context.now = NOW + timedelta(hours=hour)
    found = snapshots.find(doors.system, doors.host, "demo", source)
    known = restorable.described(snapshots.read(doors.system, found))
    chosen = restoring.Chosen(found.path, known)
    wanted = restore.Request(stop=True, smoke=smoke, **request)
    return restoring._new_plan(stage.context, stage.demo, chosen, wanted)


def of_undo(stage: Stage) -> Plan:
    doors = stage.context.doors
    assert undo.faults(doors, stage.demo, stop=True) == []
    decisions = undo.decide(doors, stage.demo, {"hostname": "demo.localhost"})
    return restoring._undo_plan(stage.context, stage.demo, decisions)


def put(stage: Stage, path: str, text: str, name: str = "demo") -> None:
    """Something that LAVA writes into an instance's media."""
    instance = stage.context.host.instance(name)
    missing = [one for one in (instance.media / path).parents if str(one) not in stage.world.nodes]
    for one in reversed(missing):
        stage.world.directory(one)
        _own(stage, one, instance.user, 0o750)
    stage.world.put(instance.media / path, text)
    _own(stage, instance.media / path, instance.user, 0o640)


def _own(stage: Stage, path: Path, user: str, mode: int) -> None:
    command = ["chown", "--recursive", "--no-dereference", f"{user}:{user}", str(path)]
    stage.context.doors.system.run(command)
    node = stage.world.nodes[str(path)]
    stage.world.nodes[str(path)] = type(node)(node.kind, node.text, mode, node.owner, node.group)


def use(stage: Stage, name: str = "demo") -> None:
    """What an instance has after a while, among it a job that runs."""
    for day, job in ((SAME, 5), (TOUCHED, JOB), (GONE, 3)):
        put(stage, f"{day}/{job}/output.yaml", f"- job {job}\n", name)
        put(stage, f"{day}/{job}/output.idx", "0\n", name)
    put(stage, f"{OLD}/output.yaml", "- old\n", name)
    put(stage, "export/results.csv", "x\n", name)
    instance = stage.context.host.instance(name)
    stage.world.put(instance.etc / "devices/board.jinja2", f"a board of {name}")
    stage.world.put(instance.worker_directory / "db", f"what the worker of {name} knows")
    stage.world.databases[instance.database] |= {"job 5": "Complete", f"{RUNNING}{JOB}": ""}


def equipped(root: Path, keeper: str) -> World:
    """A host on which snapshots can be taken."""
    world = bare(root, keeper)
    world.directory(Stage(root, world).context.host.backups)
    world.put(dump.programs(15) / "pg_dump", "")
    return world


def with_use(root: Path, keeper: str) -> World:
    stage = Stage(root, after(equipped(root, keeper), root, of_install))
    use(stage)
    return stage.world


def with_snapshot(root: Path, keeper: str) -> World:
    """What changed since it was taken: a job came, another went, the one that ran has ended."""
    stage = Stage(root, after(with_use(root, keeper), root, of_backup))
    put(stage, f"{TOUCHED}/{JOB}/output.yaml", f"- job {JOB}\n- more\n")
    put(stage, f"{NEW}/8/output.yaml", "- job 8\n")
    stage.context.doors.system.remove_tree(stage.demo.media / "job-output/2026/09")
    rows = stage.world.databases[stage.demo.database]
    del rows[f"{RUNNING}{JOB}"]
    rows |= {f"job {JOB}": "Complete", "job 8": "Complete"}
    stage.world.put(stage.demo.etc / "devices/another.jinja2", "another board")
    stage.world.put(stage.demo.worker_directory / "db", "what the worker knows since")
    return stage.world


def with_snapshot_stopped(root: Path, keeper: str) -> World:
    stage = Stage(root, with_snapshot(root, keeper))
    halt(stage.context.doors, stage.demo)
    return stage.world


def with_snapshot_of_another(root: Path, keeper: str) -> World:
    """It is of an older release, and the media are on a disk of their own."""
    world = equipped(root, keeper)
    put_release(Stage(root, world), OLDER)
    stage = Stage(root, after(world, root, partial(of_install, name="other", revision=OLDER)))
    use(stage, "other")
    after(after(world, root, partial(of_backup, name="other")), root, of_install)
    world.disks.add(str(stage.demo.media))
    put(stage, f"{SAME}/1/output.yaml", "- of demo\n")
    return world


def restored(root: Path, keeper: str) -> World:
    """A job came since, in a day that stayed, and in one that is new."""
    stage = Stage(root, after(with_snapshot(root, keeper), root, of_restore))
    put(stage, f"{SAME}/9/output.yaml", "- job 9\n")
    put(stage, f"{NEW}/10/output.yaml", "- job 10\n")
    stage.world.databases[stage.demo.database]["job 9"] = "Complete"
    return stage.world


# As in `stage.PLANS`.
PLANS = {
    "backup, systemd": ("systemd", with_snapshot, partial(of_backup, hour=1)),
    "backup of what is stopped for it, supervisor": (
        "supervisor",
        with_use,
        partial(of_backup, stop=True),
    ),
    "restore, systemd": ("systemd", with_snapshot, of_restore),
    "restore another's with its release, supervisor": (
        "supervisor",
        with_snapshot_of_another,
        partial(of_restore, source="other/latest", with_release=True),
    ),
    "restore the database alone, systemd": (
        "systemd",
        with_snapshot_stopped,
        partial(of_restore, database_only=True),
    ),
    "undo a restore, supervisor": ("supervisor", restored, of_undo),
}
