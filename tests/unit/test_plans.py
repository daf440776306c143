"""Every plan on a machine in memory: each call failing in turn, each interrupted, each killed."""

import itertools
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml

from lava_deploy import steps
from lava_deploy.errors import Busy, DeployError, PartlyUndone, RolledBack, Stopped
from lava_deploy.operations import backup, history
from lava_deploy.steps import Plan
from tests.fakes import Killed, Trouble, World, keeping
from tests.fakes.stage import PLANS, Stage, of_apply, with_new_limits
from tests.fakes.world import DRAWN

EVERY = {**PLANS, **keeping.PLANS}
# The calls that change files.
FILES = {
    *("write", "make_directory", "link", "rename", "copy_linked", "remove", "remove_tree"),
    *("share", "pack", "bundle", "write_index", "unpack", "extract"),
}
# What a restore makes beside is of no account until names are exchanged: of that, some is enough.
BESIDE = re.compile(r"(write|make_directory|unpack) \S+/(restoring|\.lava-deploy/media)/")
SOME = 10


@dataclass
class Case:
    """A plan for a machine; `before` and `after` are the states around an undisturbed run."""

    root: Path
    world: World
    plan: Callable[[Stage], Plan]

    def __post_init__(self) -> None:
        stage = self.stage()
        self.subject = self.plan(stage).subject
        self.before = stage.state()
        self.run(stage)
        self.after, self.calls = stage.state(), stage.world.trouble.calls

    def stage(self, at: int = 0, error: BaseException | None = None, before: bool = True) -> Stage:
        """The machine anew, with a fault at a call."""
        shutil.rmtree(self.root / "state/journals", ignore_errors=True)
        world = self.world.copy()
        world.trouble = Trouble(frozenset([at]), before, error)
        return Stage(self.root, world)

    @property
    def journal(self) -> Path:
        return self.root / f"state/journals/{self.subject}.jsonl"

    def run(self, stage: Stage) -> None:
        stage.carry_out(self.plan(stage))

    def faults(
        self, error: BaseException | None = None, *, files: bool = True
    ) -> Iterator[tuple[str, Stage]]:
        """A machine for each call that goes wrong before it took effect, or after.

        Files change at once: after one has changed is before the next call. Without `files`, only
        the other calls go wrong: commands, servers, services.
        """
        for number, call in enumerate(self.calls, start=1):
            if BESIDE.match(call) and number % SOME:
                continue
            changes_file = call.split()[0] in FILES
            if files or not changes_file:
                yield f"before {number}. {call}", self.stage(number, error)
            if not changes_file:
                yield f"after {number}. {call}", self.stage(number, error, before=False)


@pytest.fixture(scope="module", autouse=True)
def quick_and_countable() -> Iterator[None]:
    """Secrets that can be found, no time, and no waiting for a disk that nobody switches off."""
    number = itertools.count(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("token_hex", "token_urlsafe"):
            patch.setattr(secrets, name, lambda _: f"drawn{next(number)}secret")
        patch.setattr(backup, "datetime", keeping.Standing)
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(yaml, "compose", partial(yaml.compose, Loader=yaml.CSafeLoader))
        patch.setattr(yaml, "safe_load", lambda text: yaml.load(text, yaml.CSafeLoader))
        patch.setattr(yaml, "safe_dump", partial(yaml.dump, Dumper=yaml.CSafeDumper))
        yield


@pytest.fixture(scope="module", params=EVERY)
def case(request, quick_and_countable) -> Iterator[Case]:
    keeper, prepare, plan = EVERY[request.param]
    # in memory, where there is such a place: journals and locks come and go thousands of times
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        yield Case(Path(root), prepare(Path(root), keeper), plan)


def told(stage: Stage, subject: str, error: BaseException) -> str:
    """Everything that an admin, a process listing or a file for later tells of a failed plan."""
    entries = history.read(stage.context.doors.system, stage.context.host, subject)
    assert entries
    words = [stage.said.getvalue(), str(error), repr(error), str(error.__cause__)]
    return "\n".join([*words, *stage.world.trouble.calls, *map(str, entries)])


def outcome(act: Callable[..., None], *words: object) -> BaseException | None:
    try:
        act(*words)
    except (DeployError, Killed) as error:
        return error
    return None


def test_an_undisturbed_plan_leaves_no_journal(case):
    stage = case.stage()
    case.run(stage)
    assert stage.journal(case.subject) is None
    assert stage.state() != case.before


def test_a_failure_leaves_all_as_before_or_stopped_where_it_can_be_resumed(case):
    check_failures(case, case.faults())


def test_an_interruption_leaves_all_as_before_or_stopped_where_it_can_be_resumed(case):
    check_failures(case, case.faults(KeyboardInterrupt(), files=False))


def check_failures(case: Case, faults: Iterator[tuple[str, Stage]]) -> None:
    for place, stage in faults:
        failed = outcome(case.run, stage)
        assert isinstance(failed, RolledBack | Stopped), place
        if isinstance(failed, RolledBack):
            assert stage.state() == case.before, place
        else:
            stage.finish(steps.resume, case.subject)
            assert stage.state() == case.after, place
        assert stage.journal(case.subject) is None, place
        assert not DRAWN.search(told(stage, case.subject, failed)), place
        assert [one for one in stage.world.touched if "other" in one] == [], place


def test_a_killed_plan_is_completed_by_resume_or_undone_by_abandon(case):
    for place, stage in case.faults(Killed()):
        assert isinstance(outcome(case.run, stage), Killed), place
        journal = case.journal.read_text()
        assert not DRAWN.search(journal)
        twin = Stage(case.root, stage.world.copy())
        refused = outcome(twin.finish, steps.abandon, case.subject)
        if refused is None:
            assert twin.state() == case.before, place
        else:
            assert isinstance(refused, Busy) and twin.journal(case.subject).committed, place
        case.journal.write_text(journal)
        stage.world.trouble = Trouble()
        stage.finish(steps.resume, case.subject)
        assert stage.state() == case.after, place


def last_to_be_undone(case: Case) -> int:
    """The number of the last call after which a killed plan can still be undone."""
    for number in range(len(case.calls), 0, -1):
        stage = case.stage(number, Killed(), before=False)
        outcome(case.run, stage)
        if not stage.journal(case.subject).committed:
            return number
    raise AssertionError("nothing can be undone")


@pytest.mark.parametrize("way", [steps.resume, steps.abandon], ids=["resume", "abandon"])
def test_what_is_killed_once_more_is_completed_the_next_time(case, way):
    late = last_to_be_undone(case)
    for number in itertools.count(1):
        stage = case.stage(late, Killed(), before=False)
        outcome(case.run, stage)
        stage.world.trouble = Trouble(frozenset([number]), before=False, error=Killed())
        if not isinstance(outcome(stage.finish, way, case.subject), Killed):
            break
        stage.world.trouble = Trouble()
        stage.finish(way, case.subject)
        assert stage.state() == (case.after if way is steps.resume else case.before), number


def test_what_could_not_be_undone_is_undone_by_abandon(case):
    for number in range(1, len(case.calls)):
        if case.calls[number - 1].split()[0] in FILES:
            continue
        stage = case.stage(number, before=False)
        stage.world.trouble.at = frozenset([number, number + 1])
        if isinstance(outcome(case.run, stage), PartlyUndone):
            stage.finish(steps.abandon, case.subject)
            assert stage.state() == case.before, number


@pytest.mark.parametrize("case", keeping.PLANS, indirect=True)
def test_an_undo_that_failed_anywhere_is_completed_by_abandon(case):
    late = last_to_be_undone(case)
    for number in itertools.count(late + 1):
        stage = case.stage(late)
        stage.world.trouble.at = frozenset([late, number])
        failed = outcome(case.run, stage)
        if number > len(stage.world.trouble.calls):
            break
        if isinstance(failed, PartlyUndone):
            stage.finish(steps.abandon, case.subject)
        assert stage.state() == case.before, number


def test_all_done_twice_is_done_once(case):
    stage = case.stage()
    plan = case.plan(stage)
    for step in (*plan.steps, *plan.afterwards):
        step.do()
        step.do()
    assert stage.state() == case.after


def test_all_undone_twice_is_undone_once(case):
    stage = case.stage()
    plan = case.plan(stage)
    for step in plan.steps:
        step.do()
    for step in reversed(plan.steps):
        step.undo()
        step.undo()
    assert stage.state() == case.before
    for step in reversed(plan.steps):
        step.undo()
    assert stage.state() == case.before


def test_new_limits_are_in_force_without_a_restart(quick_and_countable, tmp_path):
    stage = Stage(tmp_path, with_new_limits(tmp_path, "systemd").copy())
    stage.carry_out(of_apply(stage))
    assert "\nMemoryMax=1G\n" in stage.world.units[r"lava\x2ddeploy-demo.slice"]
    assert stage.world.touched == []


def test_undo_without_do_changes_nothing(case):
    stage = case.stage()
    for step in reversed(case.plan(stage).steps):
        step.undo()
    assert stage.state() == case.before
