"""The engine: what is on disk when, and what a failure, an interruption or a kill leaves."""

import json
import multiprocessing
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from lava_deploy import steps
from lava_deploy.errors import Busy, DeployError, PartlyUndone, RolledBack, Stopped
from lava_deploy.journal import Writer, unfinished
from lava_deploy.model import Secret
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
    assert unfinished(tmp_path, "demo") is None


def test_an_interruption_undoes_as_well(machine, tmp_path):
    machine.faults["b"] = KeyboardInterrupt()
    with pytest.raises(RolledBack, match="it was interrupted"):
        steps.carry_out(machine.plan("a", "b"), tmp_path, Watcher())
    assert machine.things == []


def test_a_second_interruption_does_not_break_off_the_undo(tmp_path):
    undone, before = [], signal.getsignal(signal.SIGINT)

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
    assert signal.getsignal(signal.SIGINT) is before


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
    assert unfinished(tmp_path, "demo") is None


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
    journal = unfinished(tmp_path, "demo")
    assert journal is not None and journal.begun[-1] == name
    assert journal.decisions == {"hostname": "demo.localhost"}
    machine.things = list(journal.done)
    steps.resume(machine.plan("a", "b", "c", afterwards=("d",)), tmp_path, Watcher())
    assert machine.things == ["a", "b", "c", "d"]
    assert unfinished(tmp_path, "demo") is None


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_killed_plan_is_abandoned(machine, tmp_path, name):
    kill(tmp_path, name)
    journal = unfinished(tmp_path, "demo")
    assert journal is not None
    machine.things = list(journal.begun)
    steps.abandon(machine.plan("a", "b", "c", afterwards=("d",)), tmp_path, Watcher())
    assert machine.things == []
    assert unfinished(tmp_path, "demo") is None


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
    assert unfinished(tmp_path, "demo").begun == ("a", "b")
    machine.things = ["a", "b"]
    steps.resume(machine.plan("a", "b", "c", afterwards=("d",)), tmp_path, Watcher())
    assert machine.things == ["a", "b", "c", "d"]


def test_a_journal_without_a_whole_header_is_no_run(machine, tmp_path):
    (tmp_path / "demo.jsonl").write_text('{"operation": "inst')
    assert unfinished(tmp_path, "demo") is None
    steps.carry_out(machine.plan("a"), tmp_path, Watcher())
    assert machine.things == ["a"]


def test_an_unfinished_journal_is_never_overwritten(machine, tmp_path):
    kill(tmp_path, "b")
    with pytest.raises(FileExistsError):
        steps.carry_out(machine.plan("a"), tmp_path, Watcher())
    assert machine.things == []


def test_an_interruption_between_two_steps_undoes_as_well(machine, tmp_path):
    class Impatient(Watcher):
        def ended(self, step: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(RolledBack):
        steps.carry_out(machine.plan("a", "b"), tmp_path, Impatient())
    assert machine.things == []


def test_that_nobody_can_be_told_changes_nothing(machine, tmp_path):
    class Gone(Watcher):
        def began(self, *_: object) -> None:
            raise BrokenPipeError

        failed = undoing = began

    machine.faults["b"] = DeployError("no luck")
    with pytest.raises(RolledBack):
        steps.carry_out(machine.plan("a", "b"), tmp_path, Gone())
    assert machine.things == []


def test_a_full_disk_under_the_journal_undoes_what_was_done(machine, tmp_path, monkeypatch):
    write = Writer.write

    def full(self: Writer, **event: object) -> None:
        if event in ({"begun": "b"}, {"undoing": True}, {"undone": "a"}):
            raise OSError(28, "No space left on device")
        write(self, **event)

    monkeypatch.setattr(Writer, "write", full)
    with pytest.raises(RolledBack, match="No space left"):
        steps.carry_out(machine.plan("a", "b"), tmp_path, Watcher())
    assert machine.things == []


def test_a_line_that_a_full_disk_tears_is_taken_back(tmp_path, monkeypatch):
    writer = Writer.start(Plan("install", "demo", ()), tmp_path)
    whole = (tmp_path / "demo.jsonl").read_bytes()

    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        writer.write(begun="a")
    assert (tmp_path / "demo.jsonl").read_bytes() == whole


def test_commands_of_an_undo_can_be_ended(tmp_path):
    statuses = []

    def undo() -> None:
        sleeper = subprocess.Popen(["sleep", "60"])
        sleeper.terminate()
        statuses.append(sleeper.wait(timeout=10))

    def fail() -> None:
        raise DeployError("no luck")

    plan = Plan("install", "demo", (Step("a", fail, undo),))
    with pytest.raises(RolledBack):
        steps.carry_out(plan, tmp_path, Watcher())
    assert statuses == [-signal.SIGTERM]


def test_a_secret_in_the_decisions_is_refused():
    with pytest.raises(ValueError, match="hold a secret"):
        Plan("install", "demo", (), decisions={"values": [{"password": Secret("hush")}]})


def test_a_damaged_header_is_said_to_be_one(tmp_path):
    (tmp_path / "demo.jsonl").write_text('{"operation": "install"}\n')
    with pytest.raises(DeployError, match="is damaged"):
        unfinished(tmp_path, "demo")


def test_an_undo_that_fails_again_when_abandoned_is_named_again(machine, tmp_path):
    kill(tmp_path, "b")
    machine.faults["undo a"] = DeployError("stuck")
    with pytest.raises(PartlyUndone, match="a: stuck"):
        steps.abandon(machine.plan("a", "b", "c", afterwards=("d",)), tmp_path, Watcher())
