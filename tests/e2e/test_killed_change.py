"""kill -9 at each step of a change of instance.yaml, then resume or abandon."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.machines import Admin, Machine, answer, files_at_rest
from tests.e2e.test_daily import process, wait_for_answers
from tests.e2e.test_killed import durations_of_steps, kill, kind, middle
from tests.hosts.manifest import difference

pytestmark = pytest.mark.e2e
NAME = "changed"
PLACE = f"/srv/lava/instances/{NAME}"
STEPS = range(1, 10)
# Steps that leave nothing on the disk: Apache's reload, and the look at a page.
FLEETING = (4, 6)


@dataclass(frozen=True)
class Change:
    """Something of the settings, something of the route; each number makes another one."""

    number: int

    @property
    def hostname(self) -> str:
        return f"{NAME}-{self.number}.localhost"

    @property
    def processes(self) -> int:
        return 1 + self.number % 3

    def write(self, machine: Machine) -> None:
        lines = {"workers": self.processes, "hostname": self.hostname}
        edits = ";".join(f"s/^  {key}: .*/  {key}: {value}/" for key, value in lines.items())
        machine.run(["sed", "-i", edits, f"{PLACE}/instance.yaml"])

    def serves(self, machine: Machine) -> bool:
        """Whether the instance answers by this name, and has as many processes for it."""
        children = machine.run(["pgrep", "-P", process(machine, NAME, "web")]).stdout.split()
        return shows_lava(machine, self.hostname) and len(children) == self.processes


@dataclass
class Changing:
    """An instance, the change that is in force, and what an undisturbed one changes."""

    admin: Admin
    durations: list[float]
    paths: set[str]
    last: Change


def shows_lava(machine: Machine, hostname: str) -> bool:
    """Whether a host name leads to a page of LAVA's, seen from another machine."""
    return b"LAVA" in answer(machine, "/", hostname).read()


@pytest.fixture(scope="module")
def changing(machine: Machine) -> Iterator[Changing]:
    admin, first = Admin(machine), Change(len(STEPS) + 3)
    admin("install", NAME, "-n", "--yes")
    try:
        before = files_at_rest(machine, NAME)
        first.write(machine)
        told = admin("apply", NAME).stderr
        changed = set(difference(before, files_at_rest(machine, NAME)))
        yield Changing(admin, durations_of_steps(told), changed, first)
    finally:
        machine.run(admin.line("remove", NAME, "--yes"), check=False)


@pytest.fixture(autouse=True)
def no_wreck(admin: Admin) -> Iterator[None]:
    """A failing test leaves nothing to the next."""
    yield
    admin.machine.run(admin.line("resume", NAME), check=False)


@pytest.mark.parametrize(
    ("number", "step"),
    list(enumerate((step for step in STEPS if step not in FLEETING), start=1)),
)
def test_a_killed_change_is_resumed_or_abandoned(
    changing: Changing, number: int, step: int
) -> None:
    """On one kind of machine the even ones are abandoned, on the next the odd ones."""
    admin, former, change = changing.admin, changing.last, Change(number)
    machine = admin.machine
    before = files_at_rest(machine, NAME)
    change.write(machine)
    kill(admin, step, middle(changing.durations[step - 1]), "apply", NAME)
    # the last two steps write a file each: all may be over before they are killed
    if NAME in admin.json("list")["unfinished"] or step < len(STEPS) - 1:
        stays = resumed_or_abandoned(admin, change)
    else:
        stays = True
    changing.last = change if stays else former
    changed = changing.paths if stays else {f"{PLACE}/instance.yaml"}
    assert set(difference(before, files_at_rest(machine, NAME))) == changed
    wait_for_answers(admin, NAME)
    assert changing.last.serves(machine)
    other = former if stays else change
    assert not shows_lava(machine, other.hostname)


def resumed_or_abandoned(admin: Admin, change: Change) -> bool:
    """Whether a change that was killed was completed, else it was undone."""
    journal = admin.machine.run(["cat", f"/var/lib/lava-deploy/journals/{NAME}.jsonl"]).stdout
    reversible = "committed" not in journal  # a quick step may be over before it is killed
    busy = admin("apply", NAME, status=5).stderr
    assert f"lava-deploy resume {NAME}" in busy
    assert ("abandon" in busy) == reversible
    if not reversible:
        admin("abandon", NAME, status=5)
    if not reversible or (change.number + kind(admin.machine)) % 2:
        admin("resume", NAME)
        assert "already is" in admin("apply", NAME).stderr
        return True
    admin("abandon", NAME)
    assert change.hostname in admin("apply", NAME, "--dry-run").stdout
    return False
