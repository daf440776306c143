"""Every plan on a machine in memory: each call failing in turn, each interrupted, each killed."""

import io
import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml

from lava_deploy import config, steps
from lava_deploy.cli import installing, instances
from lava_deploy.cli.context import Context
from lava_deploy.errors import Busy, DeployError, PartlyUndone, RolledBack, Stopped
from lava_deploy.model import PYTHON, Revision
from lava_deploy.operations import SYSTEMD, Doors, apply, history, install, remove
from lava_deploy.parts import guest, release, supervisor
from lava_deploy.report import Report
from lava_deploy.steps import Plan
from tests.fakes import (
    FakePlaybook,
    FakePostgres,
    FakeSystem,
    FakeWeb,
    Killed,
    Trouble,
    World,
)
from tests.fakes.world import DRAWN

REVISION = Revision("2026.07", "debian", "Debian sid", "2026.07-1")
# What an admin writes into instance.yaml, to be found again.
PASSWORD, BIND_PASSWORD = "drawn0secret", "drawn00secret"
CHANGED = f"""\
route:
  hostname: lab.example.com
mail: {{server: mail.example.com, user: lab, password: {PASSWORD}}}
components: {{publisher: false, dispatcher: false}}
settings:
  AUTH_LDAP_BIND_PASSWORD: {BIND_PASSWORD}
  REQUIRE_LOGIN: true
"""


# The calls that change files.
FILES = {"write", "make_directory", "link", "rename", "copy_linked", "remove", "remove_tree"}


class Deaf(Report):
    """Tells nothing more once its process is killed; the engine then undoes nothing either."""

    def failed(self, step: str, error: BaseException) -> None:
        if isinstance(error, Killed):
            raise error
        super().failed(step, error)


class Stage:
    """A machine in memory, with the doors to it and a journal on the real disk."""

    def __init__(self, root: Path, world: World) -> None:
        self.world = world
        self.said = io.StringIO()
        self.context = Context(root=str(root))
        self.context.report = Deaf(verbose=True, stdout=self.said, stderr=self.said)
        self.context.doors = Doors(
            host=self.context.host,
            system=FakeSystem(world),
            postgres=lambda _: FakePostgres(world),
            playbook=FakePlaybook(world),
            web=FakeWeb(world),
            report=self.context.report,
        )

    @property
    def demo(self):
        return self.context.host.instance("demo")

    def state(self) -> list[str]:
        """All there is, but for the cache and the history."""
        return self.world.state(self.context.host.cache, self.context.host.log)

    def journal(self, subject: str) -> steps.Journal | None:
        return steps.unfinished(self.context.host.journals, subject)

    def carry_out(self, plan: Plan) -> None:
        with self.context.recorded(plan.subject):
            steps.carry_out(plan, self.context.host.journals, self.context.report)

    def finish(self, way: Callable[..., None], subject: str) -> None:
        """Resume or abandon, by a plan built anew out of the journal, as the next command does."""
        journal = self.journal(subject)
        assert journal
        with self.context.recorded(subject):
            undoing = way is steps.abandon
            read = instances.in_force if undoing else instances.read_configuration
            plan = instances._rebuild(self.context, journal, read)
            way(plan, self.context.host.journals, self.context.report)


def of_install(stage: Stage, name: str = "demo") -> Plan:
    values = {"route": {"hostname": f"{name}.localhost"}}
    request = install.Request(
        name, asdict(REVISION), "2026-11-25T00-00-00Z", "worker", values=values
    )
    return installing.plan(stage.context, request, config.build(values, "the order"))


def of_apply(stage: Stage) -> Plan:
    configuration = instances.read_configuration(stage.context, stage.demo)
    return apply.plan(stage.context.doors, stage.demo, configuration)


def of_remove(stage: Stage) -> Plan:
    decisions = remove.decide(stage.context.doors, stage.demo)
    configuration = instances.in_force(stage.context, stage.demo)
    return remove.plan(stage.context.doors, stage.demo, decisions, configuration)


def bare(root: Path, keeper: str) -> World:
    """A host as setup leaves it, with a release and a guest in the cache."""
    world = World()
    stage = Stage(root, world)
    host, system = stage.context.host, stage.context.doors.system
    for path in (host.instances, host.state, host.log, "/var/lib/lava/dispatcher/tmp", "/proc"):
        world.directory(path)
    for kind, state in itertools.product(("sites", "conf"), ("available", "enabled")):
        world.directory(f"/etc/apache2/{kind}-{state}")
    world.put("/etc/systemd/system/multi-user.target.wants/cron.service", "")
    world.put(PYTHON, "")
    folder = release._folder(system, host.cache, REVISION)
    world.put(folder / "release.yaml", "version: 2026.07\nsource: debian\nlocator: 2026.07-1\n")
    world.put(folder / "venv/bin/python", "")
    image = f"6.1.0-cloud-amd64-{guest._recipe()}"
    world.put(host.cache / "guest" / image / guest.KERNEL, "")
    if keeper == "systemd":
        world.directory(SYSTEMD)
        system.run(["systemctl", "daemon-reload"])
    else:
        supervisor.prepare(system, host)
    return world


def with_other(root: Path, keeper: str) -> World:
    world = bare(root, keeper)
    stage = Stage(root, world)
    stage.carry_out(of_install(stage, "other"))
    return world


def with_demo(root: Path, keeper: str) -> World:
    world = with_other(root, keeper)
    stage = Stage(root, world)
    stage.carry_out(of_install(stage))
    return world


def with_demo_alone(root: Path, keeper: str) -> World:
    world = bare(root, keeper)
    stage = Stage(root, world)
    stage.carry_out(of_install(stage))
    return world


def with_changes(root: Path, keeper: str) -> World:
    world = with_demo(root, keeper)
    stage = Stage(root, world)
    stage.context.doors.system.write(stage.demo.configuration, CHANGED, group=stage.demo.user)
    return world


# What looks after services, the machine before, and what is done to it.
PLANS = {
    "install the first, systemd": ("systemd", bare, of_install),
    "install another, supervisor": ("supervisor", with_other, of_install),
    "apply, systemd": ("systemd", with_changes, of_apply),
    "apply, supervisor": ("supervisor", with_changes, of_apply),
    "remove, systemd": ("systemd", with_demo, of_remove),
    "remove the last, supervisor": ("supervisor", with_demo_alone, of_remove),
}


@dataclass
class Case:
    """A plan for a machine; `before` and `after` are the states around an undisturbed run."""

    root: Path
    world: World
    plan: Callable[[Stage], Plan]

    def __post_init__(self) -> None:
        stage = self.stage()
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
        return self.root / "state/journals/demo.jsonl"

    def run(self, stage: Stage) -> None:
        stage.carry_out(self.plan(stage))

    def faults(self, error: BaseException | None = None) -> Iterator[tuple[str, Stage]]:
        """A machine for each call that goes wrong before it took effect, or after.

        Files change at once: after one has changed is before the next call.
        """
        for number, call in enumerate(self.calls, start=1):
            yield f"before {number}. {call}", self.stage(number, error)
            if call.split()[0] not in FILES:
                yield f"after {number}. {call}", self.stage(number, error, before=False)


@pytest.fixture(scope="module", autouse=True)
def quick_and_countable() -> Iterator[None]:
    """Secrets that can be found, and no waiting for a disk that nobody switches off."""
    number = itertools.count(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("token_hex", "token_urlsafe"):
            patch.setattr(secrets, name, lambda _: f"drawn{next(number)}secret")
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(yaml, "safe_load", lambda text: yaml.load(text, yaml.CSafeLoader))
        patch.setattr(yaml, "safe_dump", partial(yaml.dump, Dumper=yaml.CSafeDumper))
        yield


@pytest.fixture(scope="module", params=PLANS)
def case(request, quick_and_countable) -> Iterator[Case]:
    keeper, prepare, plan = PLANS[request.param]
    # in memory, where there is such a place: journals and locks come and go thousands of times
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        yield Case(Path(root), prepare(Path(root), keeper), plan)


def outcome(act: Callable[..., None], *words: object) -> BaseException | None:
    try:
        act(*words)
    except (DeployError, Killed) as error:
        return error
    return None


def test_an_undisturbed_plan_leaves_no_journal(case):
    stage = case.stage()
    case.run(stage)
    assert stage.journal("demo") is None
    assert stage.state() != case.before


def test_a_failure_leaves_all_as_before_or_stopped_where_it_can_be_resumed(case):
    check_failures(case, None)


def test_an_interruption_leaves_all_as_before_or_stopped_where_it_can_be_resumed(case):
    check_failures(case, KeyboardInterrupt())


def check_failures(case: Case, error: BaseException | None) -> None:
    for place, stage in case.faults(error):
        failed = outcome(case.run, stage)
        assert isinstance(failed, RolledBack | Stopped), place
        if isinstance(failed, RolledBack):
            assert stage.state() == case.before, place
        else:
            stage.finish(steps.resume, "demo")
            assert stage.state() == case.after, place
        assert stage.journal("demo") is None, place
        assert [one for one in stage.world.touched if "other" in one] == [], place


def test_a_killed_plan_is_completed_by_resume_or_undone_by_abandon(case):
    for place, stage in case.faults(Killed()):
        assert isinstance(outcome(case.run, stage), Killed), place
        journal = case.journal.read_text()
        twin = Stage(case.root, stage.world.copy())
        refused = outcome(twin.finish, steps.abandon, "demo")
        if refused is None:
            assert twin.state() == case.before, place
        else:
            assert isinstance(refused, Busy) and twin.journal("demo").committed, place
        case.journal.write_text(journal)
        stage.world.trouble = Trouble()
        stage.finish(steps.resume, "demo")
        assert stage.state() == case.after, place


def killed_late(case: Case) -> Stage:
    """A machine whose plan was killed at the last call that can be undone."""
    for number in range(len(case.calls), 0, -1):
        stage = case.stage(number, Killed(), before=False)
        outcome(case.run, stage)
        if not stage.journal("demo").committed:
            return stage
    raise AssertionError("nothing can be undone")


@pytest.mark.parametrize("way", [steps.resume, steps.abandon], ids=["resume", "abandon"])
def test_what_is_killed_once_more_is_completed_the_next_time(case, way):
    for number in itertools.count(1):
        stage = killed_late(case)
        stage.world.trouble = Trouble(frozenset([number]), before=False, error=Killed())
        if not isinstance(outcome(stage.finish, way, "demo"), Killed):
            break
        stage.world.trouble = Trouble()
        stage.finish(way, "demo")
        assert stage.state() == (case.after if way is steps.resume else case.before), number


def test_what_could_not_be_undone_is_undone_by_abandon(case):
    for number in range(1, len(case.calls)):
        stage = case.stage(number, before=False)
        stage.world.trouble.at = frozenset([number, number + 1])
        if isinstance(outcome(case.run, stage), PartlyUndone):
            stage.finish(steps.abandon, "demo")
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


def test_undo_without_do_changes_nothing(case):
    stage = case.stage()
    for step in reversed(case.plan(stage).steps):
        step.undo()
    assert stage.state() == case.before


def test_no_secret_is_told(case):
    told = []
    for _, stage in case.faults():
        stage.context.report.log_to(case.root / "log.txt")
        error = outcome(case.run, stage)
        told += [*stage.world.trouble.calls, f"{error} {error!r}", stage.said.getvalue()]
        entries = history.read(stage.context.doors.system, stage.context.host, "demo")
        told += [f"{entry}" for entry in entries]
    told.append((case.root / "log.txt").read_text())
    assert len(told) > len(case.calls)
    assert [text for text in told if DRAWN.search(text)] == []


def test_no_secret_is_in_a_journal(case):
    for _, stage in case.faults(Killed()):
        outcome(case.run, stage)
        assert not DRAWN.search(case.journal.read_text())
