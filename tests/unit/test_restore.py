"""Backups, restores and their undoing on a machine in memory: what is there afterwards."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from lava_deploy import steps
from lava_deploy.cli.instances import read_configuration
from lava_deploy.errors import Busy, JobFailed, RolledBack, UsageError
from lava_deploy.operations import backup, restorable, restore, undo
from lava_deploy.parts import before, facts, release, snapshots
from lava_deploy.snapshot import LATEST
from lava_deploy.steps import Plan
from tests.fakes import Killed, Trouble, keeping
from tests.fakes.keeping import GONE, JOB, NEW, NOW, SAME, TOUCHED, of_backup, of_restore, of_undo
from tests.fakes.lava import RUNNING
from tests.fakes.stage import Stage, of_remove, of_toggle


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def prepared(root):
    return keeping.with_snapshot(root, "systemd")


@pytest.fixture
def stage(prepared, root) -> Stage:
    """A machine with a snapshot of an instance that went on since."""
    (root / "state/journals/demo.jsonl").unlink(missing_ok=True)
    return Stage(root, prepared.copy())


def again(stage: Stage) -> Stage:
    """The machine once more, for the next command."""
    return Stage(Path(stage.context.root), stage.world.copy())


def killed(stage: Stage, plan: Callable[[Stage], Plan], call: str) -> None:
    """Carry a plan out and kill it before the first call that begins so."""
    trial = again(stage)
    trial.carry_out(plan(trial))
    calls = trial.world.trouble.calls
    number = next(at for at, one in enumerate(calls, 1) if one.startswith(call))
    stage.world.trouble = Trouble(frozenset([number]), error=Killed())
    with pytest.raises(Killed):
        stage.carry_out(plan(stage))
    stage.world.trouble = Trouble()


def media(stage: Stage) -> dict[str, str]:
    """What is in the files of the media."""
    return texts(stage, stage.demo.media)


def texts(stage: Stage, tree: Path) -> dict[str, str]:
    nodes = stage.world.nodes
    found = {path: nodes[path] for path in stage.world.below(tree)}
    return {path[len(f"{tree}/") :]: one.text for path, one in found.items() if one.kind == "file"}


def rows(stage: Stage) -> dict[str, str]:
    return stage.world.databases[stage.demo.database]


def test_a_restored_instance_is_as_the_snapshot_found_it(stage):
    used = Stage(Path(stage.context.root), keeping.with_use(Path(stage.context.root), "systemd"))
    stage.carry_out(of_restore(stage))
    # LAVA makes the index of a log that was being written once more
    expected = media(used)
    del expected[f"{TOUCHED}/{JOB}/output.idx"]
    assert media(stage) == expected
    assert {"job 5", "migrate"} < {*rows(stage)} and f"job {JOB}" not in rows(stage)
    devices = stage.world.names(stage.demo.etc / "devices")
    assert devices == ["board.jinja2", "lava-deploy-qemu.jinja2"]
    assert stage.world.names(stage.demo.worker_directory) == []
    assert not stage.world.below(stage.demo.root / "restoring")


def test_jobs_that_ran_are_ended_and_devices_looked_at_unless_all_is_to_be_as_it_was(stage):
    left = again(stage)
    stage.carry_out(of_restore(stage))
    assert not [one for one in rows(stage) if one.startswith(RUNNING)]
    assert "devices_to_maintenance" in rows(stage)
    left.carry_out(of_restore(left, as_it_was=True))
    assert f"{RUNNING}{JOB}" in rows(left)
    assert "devices_to_maintenance" not in rows(left)


def test_what_a_restore_replaced_comes_back_with_its_undo(stage):
    there = again(stage)
    stage.carry_out(of_restore(stage))
    stage.carry_out(of_undo(stage))
    assert media(stage) == media(there) and rows(stage) == rows(there)
    assert texts(stage, stage.demo.etc) == texts(there, there.demo.etc)
    assert texts(stage, stage.demo.worker_directory) == texts(there, there.demo.worker_directory)
    assert [*stage.world.databases] == [*there.world.databases]
    assert {*stage.world.names(stage.demo.root)} == {*there.world.names(there.demo.root)}
    with pytest.raises(UsageError):
        undo.faults(stage.context.doors, stage.demo, stop=True)


def test_jobs_that_came_after_a_restore_go_with_its_undo(stage):
    there = media(stage)
    stage.carry_out(of_restore(stage))
    keeping.put(stage, f"{SAME}/9/output.yaml", "- in a day that had stayed\n")
    keeping.put(stage, "job-output/2026/12/01/10/output.yaml", "- in a day that is new\n")
    stage.carry_out(of_undo(stage))
    assert media(stage) == there


def test_of_two_restores_the_last_is_undone_even_if_the_clock_went_backwards(stage):
    stage.carry_out(of_restore(stage))
    keeping.put(stage, f"{NEW}/11/output.yaml", "- after the first\n")
    there = media(stage)
    stage.carry_out(of_restore(stage, hour=-24))
    kept = before.all_of(stage.context.doors.system, stage.demo)
    assert [one.stamp for one in kept] == ["2026-11-25T12-00-00Z"]
    assert [one for one in stage.world.databases if "_before_" in one] == [kept[0].database]
    stage.carry_out(of_undo(stage))
    assert media(stage) == there


def test_only_the_database_is_exchanged_by_restore_db_and_back(stage):
    there = again(stage)
    stage.carry_out(of_restore(stage, database_only=True))
    assert media(stage) == media(there) and rows(stage) != rows(there)
    stage.carry_out(of_undo(stage))
    assert media(stage) == media(there) and rows(stage) == rows(there)


def test_a_smoke_job_that_fails_brings_everything_back(stage):
    there = stage.state()
    plan = of_restore(stage, smoke=True)
    assert plan.steps[-1].name == "prove it by a smoke job"

    def fail() -> None:
        raise JobFailed("the smoke job ended as Incomplete")

    failing = (*plan.steps[:-1], replace(plan.steps[-1], do=fail))
    with pytest.raises(RolledBack, match="ended as Incomplete"):
        stage.carry_out(replace(plan, steps=failing))
    assert stage.state() == there


def test_a_killed_restore_is_undone_though_its_snapshot_is_gone(stage):
    killed(stage, of_restore, f"rename {stage.demo.root / 'restoring/etc'}")
    assert str(stage.demo.etc) not in stage.world.nodes
    stage.context.doors.system.remove_tree(stage.context.host.backups / "demo")
    stage.finish(steps.abandon, "demo")
    assert f"job {JOB}" in rows(stage) and f"{NEW}/8/output.yaml" in media(stage)
    assert stage.world.text(stage.demo.etc / "devices/another.jinja2") == "another board"


def test_a_restore_that_was_killed_while_it_cleared_up_is_completed_without_its_snapshot(stage):
    killed(stage, of_restore, f"remove {stage.demo.root / 'restoring/left-out.json'}")
    assert stage.journal("demo").committed
    stage.context.doors.system.remove_tree(stage.context.host.backups / "demo")
    stage.finish(steps.resume, "demo")
    assert f"job {JOB}" not in rows(stage)
    assert not stage.world.below(stage.demo.root / "restoring")


def test_a_day_that_is_touched_while_all_is_made_beside_is_unpacked_whole_after_a_kill(stage):
    """It is unpacked once nothing writes any more; half of it is not taken for all of it."""
    plan, log = of_restore(stage), f"{SAME}/5/output.yaml"
    stop = next(at for at, one in enumerate(plan.steps) if one.name == "stop the services")
    keep = plan.steps[stop].do

    def touch() -> None:
        keeping.put(stage, f"{SAME}/5/output.idx", "made by who looked at the page\n")
        keep()

    touched = replace(plan.steps[stop], do=touch)
    stage.world.trouble = Killing(f"unpack {stage.demo.root}/restoring/media/{log}")
    with pytest.raises(Killed):
        stage.carry_out(replace(plan, steps=(*plan.steps[:stop], touched, *plan.steps[stop + 1 :])))
    assert f"{stage.demo.root}/restoring/media/{Path(log).parents[1]}" in stage.world.nodes
    stage.world.trouble = Trouble()
    stage.finish(steps.resume, "demo")
    assert media(stage)[f"{SAME}/5/output.idx"] == "0\n"
    assert media(stage)[log] == "- job 5\n"


def test_what_a_killed_backup_left_is_cleared_away_by_the_next_command(stage):
    there = stage.state()
    killed(stage, partial(of_backup, hour=1), f"write_index {stage.context.host.backups}")
    assert [one for one in names(stage) if one.endswith(".partial")]
    with stage.context.holding("demo"):
        assert stage.state() == there
    assert stage.journal("demo") is None
    assert "a backup of demo was killed" in stage.said.getvalue()


def test_a_backup_that_was_killed_after_its_snapshot_was_whole_is_completed(stage):
    killed(stage, partial(of_backup, hour=1), f"remove {stage.context.host.backups}/demo/2026")
    with stage.context.holding("demo"):
        assert names(stage) == ["2026-11-26T12-00-00Z", "2026-11-26T13-00-00Z", LATEST]
    assert stage.journal("demo") is None


def test_a_service_that_a_killed_backup_had_stopped_runs_again(stage):
    running = [*stage.world.running]
    killed(stage, partial(of_backup, hour=1, stop=True), "setpriv")
    assert len(stage.world.running) < len(running)
    with stage.context.holding("demo"):
        assert sorted(stage.world.running) == sorted(running)


@pytest.mark.parametrize("plan", [of_restore, of_toggle, of_remove], ids=lambda one: one.__name__)
def test_what_somebody_has_to_decide_about_is_not_cleared_away(stage, plan):
    killed(stage, plan, "systemctl")
    journal = stage.journal("demo")
    with pytest.raises(Busy, match="was stopped half-way"), stage.context.holding("demo"):
        pass
    assert stage.journal("demo") == journal


def test_snapshots_keep_their_order_when_the_clock_goes_backwards(stage):
    doors, demo = stage.context.doors, stage.demo
    decisions = backup.decide(doors, demo, backup.Request(), NOW - timedelta(days=1))
    assert "one of the two is wrong" in decisions["clock_fault"]
    stage.carry_out(of_backup(stage, hour=-24))
    ordered = snapshots.names(doors.system, doors.host, "demo")
    assert ordered == ["2026-11-26T12-00-00Z", "2026-11-25T12-00-00Z"]
    latest = doors.host.backups / "demo" / LATEST
    assert doors.system.target(latest) == "2026-11-25T12-00-00Z"


def test_two_backups_of_one_second_have_ids_of_their_own(stage):
    stage.carry_out(of_backup(stage))
    assert names(stage) == ["2026-11-26T12-00-00Z", "2026-11-26T12-00-01Z", LATEST]


def test_a_backup_clears_away_what_killed_ones_left(stage):
    directory = stage.context.host.backups / "demo"
    for name in ("2026-11-20T00-00-00Z.partial", "2026-11-21T00-00-00Z.removing"):
        stage.world.put(directory / name / "db/toc.dat", "")
    stage.world.put(directory / "2026-11-20T00-00-00Z.found.partial", "{}")
    stage.carry_out(of_backup(stage, hour=1))
    assert names(stage) == ["2026-11-26T12-00-00Z", "2026-11-26T13-00-00Z", LATEST]


def test_an_instance_that_runs_is_restored_only_if_it_may_be_stopped(stage):
    doors, system = stage.context.doors, stage.context.doors.system
    found = snapshots.find(system, doors.host, "demo", LATEST)
    described = restorable.described(snapshots.read(system, found))
    faults = restorable.faults(doors, stage.demo, found.path, described, restore.Request())
    assert faults == ["demo is running: --stop stops it, and starts it afterwards"]
    newer = replace(described, version="2027.01")
    [fault] = restorable.faults(doors, stage.demo, found.path, newer, restore.Request(stop=True))
    assert "--with-release" in fault


def test_an_undo_is_refused_where_the_route_was_changed_since(stage):
    doors, demo = stage.context.doors, stage.demo
    stage.carry_out(of_restore(stage))
    route = facts.read(doors.system, demo)["route"]
    facts.remember(doors.system, demo, route={**route, "hostname": "other.localhost"})
    [fault] = undo.faults(doors, demo, stop=True)
    assert "toggle it back to http://demo.localhost/ first" in fault


def test_another_instances_snapshot_brings_its_content_and_its_release_but_not_its_names(tmp_path):
    stage = Stage(tmp_path, keeping.with_snapshot_of_another(tmp_path, "systemd"))
    other = texts(stage, stage.context.host.instance("other").media)
    password = stage.world.roles["lava-demo"]
    stage.carry_out(of_restore(stage, "other/latest", with_release=True))
    del other[f"{TOUCHED}/{JOB}/output.idx"]
    found = {path: text for path, text in media(stage).items() if ".lava-deploy/" not in path}
    assert found == other and GONE in {str(Path(path).parents[1]) for path in found}
    assert release.in_use(stage.context.doors.system, stage.demo).version == "2026.06"
    said = stage.world.text(stage.demo.configuration)
    assert "The LAVA instance demo:" in said and "instance other" not in said
    configuration = read_configuration(stage.context, stage.demo)
    assert configuration.route.hostname == "demo.localhost"
    assert stage.world.roles["lava-demo"] == password
    moved = [one for one in rows(stage) if one.startswith("move_media")]
    assert moved and str(stage.demo.media) in rows(stage)[moved[0]]
    assert {
        node.owner
        for path, node in stage.world.nodes.items()
        if path.startswith(f"{stage.demo.media}/job-output/")
    } == {"lava-demo"}


def names(stage: Stage) -> list[str]:
    """What is beside the snapshots."""
    return stage.world.names(stage.context.host.backups / "demo")


class Killing(Trouble):
    """Kills the process at its first call of these words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def change(self, what: object, fault: BaseException):
        if str(what) == self.words:
            self.at, self.error = frozenset([len(self.calls) + 1]), Killed()
        return super().change(what, fault)
