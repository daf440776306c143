"""Several plans that meet at a step: each is undone alone, an interruption undoes all."""

import pytest

from lava_deploy import steps
from lava_deploy.errors import DeployError, RolledBack
from lava_deploy.journal import unfinished
from lava_deploy.steps import Plan, Step
from tests.unit.test_steps import Watcher

SUBJECTS = ("one", "two", "three")
WRITE, LOAD, PROBE, FORGET = "write", "load", "probe", "forget"


class Fleet:
    """What was done and not undone, in order; with a fault at one step of one subject."""

    def __init__(self, subject: str = "", name: str = "", fault: BaseException | None = None):
        self.done: list[str] = []
        self.fault = (f"{subject} {name}", fault)

    def step(self, subject: str, name: str) -> Step:
        what = f"{subject} {name}"

        def do() -> None:
            self.done.append(what)
            if self.fault[1] and self.fault[0] == what:
                raise self.fault[1]

        return Step(name, do, lambda: (what in self.done and self.done.remove(what)) or None)

    def plan(self, subject: str) -> Plan:
        write, load, probe, forget = (
            self.step(subject, name) for name in (WRITE, LOAD, PROBE, FORGET)
        )
        return Plan("toggle", subject, (write, load, probe), (forget,))

    def carry_out(self, journals) -> dict[str, DeployError]:
        plans = [self.plan(subject) for subject in SUBJECTS]
        return steps.carry_out_together(plans, LOAD, journals, lambda _: Watcher())

    def left(self, subject: str) -> list[str]:
        return [what.split()[1] for what in self.done if what.split()[0] == subject]


def test_all_come_to_the_meeting_before_one_goes_on(tmp_path):
    fleet = Fleet()
    assert fleet.carry_out(tmp_path) == {}
    assert fleet.done[:4] == [f"{subject} {WRITE}" for subject in SUBJECTS] + [f"one {LOAD}"]
    assert all(fleet.left(subject) == [WRITE, LOAD, PROBE, FORGET] for subject in SUBJECTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [WRITE, LOAD, PROBE])
def test_one_that_fails_is_undone_alone(tmp_path, name):
    fleet = Fleet("two", name, DeployError("no luck", hint="Try again."))
    failures = fleet.carry_out(tmp_path)
    assert [*failures] == ["two"] and isinstance(failures["two"], RolledBack)
    assert failures["two"].hint == "Try again."
    assert fleet.left("two") == []
    assert fleet.left("one") == fleet.left("three") == [WRITE, LOAD, PROBE, FORGET]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [WRITE, LOAD, PROBE])
def test_an_interruption_undoes_all_that_are_not_done(tmp_path, name):
    fleet = Fleet("two", name, KeyboardInterrupt())
    failures = fleet.carry_out(tmp_path)
    undone = SUBJECTS if name == WRITE else SUBJECTS[1:]
    assert [*failures] == sorted(undone, key=[*failures].index)
    assert all("interrupted" in str(failures[subject]) for subject in undone)
    assert all(fleet.left(subject) == [] for subject in undone)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_one_is_finished_by_itself(tmp_path):
    fleet = Fleet("two", PROBE, SystemExit())

    class Dead(Watcher):
        def failed(self, step: str, error: BaseException) -> None:
            raise error

    plans = [fleet.plan(subject) for subject in SUBJECTS]
    with pytest.raises(SystemExit):
        steps.carry_out_together(plans, LOAD, tmp_path, lambda _: Dead())
    assert unfinished(tmp_path, "one") is None
    fleet.fault = ("", None)
    steps.resume(fleet.plan("two"), tmp_path, Watcher())
    steps.abandon(fleet.plan("three"), tmp_path, Watcher())
    assert set(fleet.left("two")) == {WRITE, LOAD, PROBE, FORGET}
    assert fleet.left("three") == []
