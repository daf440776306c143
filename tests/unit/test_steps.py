"""The engine: what is on disk when, and what a failure, an interruption or a kill leaves."""

import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from lava_deploy import steps
from lava_deploy.errors import Busy, DeployError, PartlyUndone, RolledBack, Stopped
from lava_deploy.steps import Plan, Step


class Watcher:
    """Remembers what the engine tells."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def began(self, step: str, number: int, total: int) -> None:
        self.told.append((f"began {number}/{total}", step))

    def ended(self, step: str) -> None:
        self.told.append(("ended", step))

    def failed(self, step: str, error: BaseException) -> None:
        self.told.append(("failed", step))

    def undoing(self, step: str) -> None:
        self.told.append(("undoing", step))

    def undone(self, step: str) -> None:
        self.told.append(("undone", step))


class Machine:
    """Things that steps make and unmake, with faults where a test wants them."""

    def __init__(self) -> None:
        self.things: list[str] = []
        self.faults: dict[str, BaseException] = {}

    def step(self, name: str) -> Step:
        def do() -> None:
            if name not in self.things:
                self.things.append(name)
            if name in self.faults:
                raise self.faults[name]

        def undo() -> None:
            if f"undo {name}" in self.faults:
                raise self.faults[f"undo {name}"]
            if name in self.things:
                self.things.remove(name)

        return Step(name, do, undo)

    def plan(self, *names: str, afterwards: tuple[str, ...] = ()) -> Plan:
        return Plan(
            "install",
            "demo",
            tuple(map(self.step, names)),
            tuple(map(self.step, afterwards)),
            {"hostname": "demo.localhost"},
        )


@pytest.fixture
def machine() -> Machine:
    return Machine()


def events(journals: Path) -> list[dict]:
    return [json.loads(line) for line in (journals / "demo.jsonl").read_text().splitlines()]


def test_all_steps_are_done_in_order_and_no_journal_stays(machine, tmp_path):
    watcher = Watcher()
    steps.carry_out(machine.plan("a", "b", afterwards=("c",)), tmp_path, watcher)
    assert machine.things == ["a", "b", "c"]
    assert watcher.told[:2] == [("began 1/3", "a"), ("ended", "a")]
    assert list(tmp_path.iterdir()) == []


def test_a_step_is_begun_on_disk_before_it_is_done(tmp_path):
    seen = []
    plan = Plan("install", "demo", (Step("a", lambda: seen.append(events(tmp_path))),))
    steps.carry_out(plan, tmp_path, Watcher())
    header, *rest = seen[0]
    assert (header["operation"], header["subject"]) == ("install", "demo")
    assert rest == [{"begun": "a"}]


def test_the_journal_is_for_root_alone(tmp_path):
    modes = []
    look = Step("a", lambda: modes.append((tmp_path / "demo.jsonl").stat().st_mode & 0o777))
    steps.carry_out(Plan("install", "demo", (look,)), tmp_path, Watcher())
    assert modes == [0o600]


@pytest.mark.parametrize("failing", ["a", "b", "c"])
def test_a_failing_step_is_undone_with_all_before_it(machine, tmp_path, failing):
    machine.faults[failing] = DeployError("no luck", hint="Try again.")
    with pytest.raises(RolledBack, match=f"step `{failing}`: no luck") as raised:
        steps.carry_out(machine.plan("a", "b", "c"), tmp_path, Watcher())
    assert raised.value.hint == "Try again."
    assert machine.things == []
    assert steps.unfinished(tmp_path, "demo") is None


def test_an_interruption_undoes_as_well(machine, tmp_path):
    machine.faults["b"] = KeyboardInterrupt()
    with pytest.raises(RolledBack, match="it was interrupted"):
        steps.carry_out(machine.plan("a", "b"), tmp_path, Watcher())
    assert machine.things == []


def test_a_second_interruption_does_not_break_off_the_undo(tmp_path):
    undone = []

    def undo() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        undone.append("a")

    def fail() -> None:
        raise DeployError("no luck")

    with pytest.raises(RolledBack):
        steps.carry_out(
            Plan("install", "demo", (Step("a", steps.nothing, undo), Step("b", fail))),
            tmp_path,
            Watcher(),
        )
    assert undone == ["a"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_plan_may_be_undone_in_another_thread(machine, tmp_path):
    machine.faults["a"] = DeployError("no luck")
    raised = []

    def run() -> None:
        try:
            steps.carry_out(machine.plan("a"), tmp_path, Watcher())
        except RolledBack as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert raised and machine.things == []


def test_a_failing_undo_is_named_and_the_others_go_on(machine, tmp_path):
    machine.faults.update(c=DeployError("no luck"), **{"undo b": DeployError("stuck")})
    with pytest.raises(PartlyUndone, match="b: stuck"):
        steps.carry_out(machine.plan("a", "b", "c"), tmp_path, Watcher())
    assert machine.things == ["b"]
    del machine.faults["undo b"]
    steps.abandon(machine.plan("a", "b", "c"), tmp_path, Watcher())
    assert machine.things == []
    assert steps.unfinished(tmp_path, "demo") is None


def test_what_was_being_undone_cannot_be_resumed(machine, tmp_path):
    machine.faults.update(b=DeployError("no luck"), **{"undo a": DeployError("stuck")})
    with pytest.raises(PartlyUndone):
        steps.carry_out(machine.plan("a", "b"), tmp_path, Watcher())
    with pytest.raises(Busy, match="already being undone"):
        steps.resume(machine.plan("a", "b"), tmp_path, Watcher())


def killed_process(journals: Path, name: str) -> None:
    """What a child does that is killed in the middle of a step."""
    machine = Machine()
    plan = machine.plan("a", "b", "c", afterwards=("d",))
    sudden = tuple(
        Step(step.name, lambda: os.kill(os.getpid(), signal.SIGKILL)) if step.name == name else step
        for step in (*plan.steps, *plan.afterwards)
    )
    steps.carry_out(
        Plan("install", "demo", sudden[:3], sudden[3:], plan.decisions), journals, Watcher()
    )


def kill(journals: Path, name: str) -> None:
    child = multiprocessing.get_context("fork").Process(
        target=killed_process, args=(journals, name)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_a_killed_plan_is_resumed_from_the_step_it_was_in(machine, tmp_path, name):
    kill(tmp_path, name)
    journal = steps.unfinished(tmp_path, "demo")
    assert journal is not None and journal.begun[-1] == name
    assert journal.decisions == {"hostname": "demo.localhost"}
    machine.things = list(journal.done)
    steps.resume(machine.plan("a", "b", "c", afterwards=("d",)), tmp_path, Watcher())
    assert machine.things == ["a", "b", "c", "d"]
    assert steps.unfinished(tmp_path, "demo") is None


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_killed_plan_is_abandoned(machine, tmp_path, name):
    kill(tmp_path, name)
    journal = steps.unfinished(tmp_path, "demo")
    assert journal is not None
    machine.things = list(journal.begun)
    steps.abandon(machine.plan("a", "b", "c", afterwards=("d",)), tmp_path, Watcher())
    assert machine.things == []
    assert steps.unfinished(tmp_path, "demo") is None


def test_past_the_last_step_that_can_be_undone_there_is_only_forward(machine, tmp_path):
    kill(tmp_path, "d")
    with pytest.raises(Busy, match="too far"):
        steps.abandon(machine.plan("a", "b", "c", afterwards=("d",)), tmp_path, Watcher())


def test_a_failure_afterwards_stops_and_is_completed_later(machine, tmp_path):
    plan = machine.plan("a", afterwards=("b", "c"))
    machine.faults["b"] = DeployError("no luck")
    with pytest.raises(Stopped, match="step `b`"):
        steps.carry_out(plan, tmp_path, Watcher())
    assert "a" in machine.things
    del machine.faults["b"]
    steps.resume(plan, tmp_path, Watcher())
    assert machine.things == ["a", "b", "c"]


def test_a_resumed_plan_that_fails_stops_and_can_still_go_both_ways(machine, tmp_path):
    kill(tmp_path, "b")
    plan = machine.plan("a", "b", "c", afterwards=("d",))
    machine.faults["c"] = DeployError("no luck")
    with pytest.raises(Stopped) as raised:
        steps.resume(plan, tmp_path, Watcher())
    assert "lava-deploy resume demo" in raised.value.hint
    machine.things = ["a", "b", "c"]
    steps.abandon(plan, tmp_path, Watcher())
    assert machine.things == []


@pytest.mark.parametrize("finish", [steps.resume, steps.abandon])
def test_a_plan_of_other_steps_is_refused(machine, tmp_path, finish):
    kill(tmp_path, "b")
    with pytest.raises(Busy, match="had other steps"):
        finish(machine.plan("a", "x"), tmp_path, Watcher())
    with pytest.raises(Busy, match="nothing of other is unfinished"):
        finish(Plan("install", "other", ()), tmp_path, Watcher())


def test_a_torn_last_line_is_no_event(machine, tmp_path):
    kill(tmp_path, "b")
    with open(tmp_path / "demo.jsonl", "a") as journal:
        journal.write('{"don')
    assert steps.unfinished(tmp_path, "demo").begun == ("a", "b")
    machine.things = ["a", "b"]
    steps.resume(machine.plan("a", "b", "c", afterwards=("d",)), tmp_path, Watcher())
    assert machine.things == ["a", "b", "c", "d"]


def test_a_journal_without_a_whole_header_is_no_run(machine, tmp_path):
    (tmp_path / "demo.jsonl").write_text('{"operation": "inst')
    assert steps.unfinished(tmp_path, "demo") is None
    steps.carry_out(machine.plan("a"), tmp_path, Watcher())
    assert machine.things == ["a"]


def test_an_unfinished_journal_is_never_overwritten(machine, tmp_path):
    kill(tmp_path, "b")
    with pytest.raises(FileExistsError):
        steps.carry_out(machine.plan("a"), tmp_path, Watcher())
    assert machine.things == []


def test_a_lock_names_its_holder(tmp_path):
    with (
        steps.locked(tmp_path, "demo", "lava-deploy install demo"),
        pytest.raises(Busy, match=r"demo is locked: .*`lava-deploy install demo` since 2"),
        steps.locked(tmp_path, "demo", "another"),
    ):
        pass
    with steps.locked(tmp_path, "demo", "another"), steps.locked(tmp_path, "other", "besides"):
        pass


def test_a_lock_without_a_readable_holder_is_held_all_the_same(tmp_path):
    with steps.locked(tmp_path, "demo", "first"):
        (tmp_path / "demo.lock").write_text("")
        with (
            pytest.raises(Busy, match="somebody else"),
            steps.locked(tmp_path, "demo", "second", patience=0.15),
        ):
            pass


def test_pieces_run_together_and_the_first_failure_is_raised_with_the_others():
    meeting = threading.Barrier(2, timeout=10)
    steps.together(meeting.wait, meeting.wait)()

    def fail(text: str) -> None:
        raise DeployError(text)

    with pytest.raises(DeployError, match="one") as raised:
        steps.together(lambda: fail("one"), lambda: fail("two"))()
    assert raised.value.__notes__ == ["also: two"]
