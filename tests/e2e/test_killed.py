"""kill -9 at each step of an installation and of a removal, then resume or abandon."""

import re
from collections.abc import Iterator

import pytest

from tests.e2e.machines import KINDS, Admin, Machine, files, trace
from tests.hosts.manifest import Entry, difference

pytestmark = pytest.mark.e2e
NAME = "victim"
STEPS = range(1, 12)
REMOVAL_STEPS = range(1, 6)
REVERSIBLE_REMOVAL_STEPS = 2
# Kills a command with all it has started, in the middle of a step: when the journal says that as
# many steps are begun, and then a while later. argv: JOURNAL STEPS SECONDS COMMAND...
KILLER = """
import os, signal, subprocess, sys, time
journal, steps, seconds, *command = sys.argv[1:]
run = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

def begun():
    try:
        return open(journal).read().count('"begun"')
    except FileNotFoundError:
        return 0

while run.poll() is None and begun() < int(steps):
    time.sleep(0.001)
# a step that is quicker this time must not let the whole run end
late = time.monotonic() + float(seconds)
while run.poll() is None and begun() == int(steps) and time.monotonic() < late:
    time.sleep(0.001)
if run.poll() is None:
    os.killpg(run.pid, signal.SIGKILL)
run.wait()
print("status", run.returncode)
"""


def kill(admin: Admin, step: int, seconds: float, verb: str, name: str, *options: str) -> bool:
    """Kill a command some seconds into one of its steps; whether it did not end before."""
    journal = f"/var/lib/lava-deploy/journals/{name}.jsonl"
    line = admin.line(verb, name, *options)
    command = ["python3", "-c", KILLER, journal, str(step), str(seconds), *line]
    return "status -9" in admin.machine.run(command).stdout


def durations_of_steps(told: str) -> list[float]:
    """How long each step of a plan took, in seconds, as the command told."""
    lines = re.findall(r"^\[\d+/\d+\] .* done \(([\d.]+) s\)$", told, re.MULTILINE)
    return [float(seconds) for seconds in lines]


def middle(duration: float) -> float:
    """When to kill a step; one that took seconds on a busy machine may take one on an idle one."""
    return min(duration / 2, 0.3) if duration > 0.5 else 0


@pytest.fixture(scope="module")
def durations(machine: Machine) -> list[float]:
    """How long each step of an installation takes, in seconds."""
    admin = Admin(machine)
    told = admin("install", "-n", "--yes", NAME).stderr
    admin("remove", NAME, "--yes")
    return durations_of_steps(told)


@pytest.fixture(autouse=True)
def no_wreck(admin: Admin) -> Iterator[None]:
    """A failing test leaves nothing to the next."""
    yield
    for words in (["abandon", NAME], ["resume", NAME], ["remove", NAME, "--yes"]):
        admin.machine.run(admin.line(*words), check=False)


@pytest.fixture(scope="module")
def clean(machine: Machine, durations: list[float]) -> dict[str, Entry]:
    """The files without that instance."""
    return files(machine)


def gone(admin: Admin, clean: dict[str, Entry]) -> None:
    """Nothing of the instance is left."""
    assert difference(clean, files(admin.machine)) == {}
    assert trace(admin.machine, NAME) == {"postgres": [], "processes": [], "units": [], "users": []}


def test_every_step_is_killed_once(admin: Admin) -> None:
    assert len(admin("install", "-n", NAME, "--dry-run").stdout.splitlines()) == len(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_installation_is_resumed_or_abandoned(
    admin: Admin, clean: dict[str, Entry], durations: list[float], step: int
) -> None:
    """On one kind of machine the even steps are resumed, on the next the odd ones.

    The last step writes one file, by which `list` knows an instance: it may be over.
    """
    killed = kill(admin, step, middle(durations[step - 1]), "install", NAME, "-n", "--yes")
    last = step == len(STEPS)
    assert killed or last
    if not killed:
        remove_killed(admin, step)
        gone(admin, clean)
        return
    busy = admin("install", "-n", "--yes", NAME, status=5)
    assert f"lava-deploy resume {NAME}" in busy.stderr and "abandon" in busy.stderr
    listed = admin.json("list")
    assert last or NAME not in [one["name"] for one in listed["instances"]]
    assert listed["unfinished"] == [NAME]
    if (step + kind(admin.machine)) % 2:
        admin("abandon", NAME)
    else:
        admin("resume", NAME)
        admin("status", NAME)
        remove_killed(admin, step)
    gone(admin, clean)


def remove_killed(admin: Admin, number: int) -> None:
    """Remove the instance, with a kill at one of the steps; a first half of them is abandoned."""
    step = REMOVAL_STEPS[number % len(REMOVAL_STEPS)]
    if kill(admin, step, 0, "remove", NAME, "--yes"):
        if step <= REVERSIBLE_REMOVAL_STEPS:
            admin("abandon", NAME)
            admin("status", NAME)
            admin("remove", NAME, "--yes")
        else:
            admin("abandon", NAME, status=5)
            admin("resume", NAME)


def kind(machine: Machine) -> int:
    return list(KINDS).index(machine.name) if machine.name in KINDS else 0


def test_ctrl_c_undoes_at_once(admin: Admin, clean: dict[str, Entry]) -> None:
    command = admin.line("install", "-n", "--yes", NAME)
    with admin.machine.popen(["setsid", "--wait", *command]) as running:
        for line in running.stdout:
            if line.startswith("[3/"):
                admin.machine.run(f"kill -INT $(pgrep -f '[p]ython.*lava-deploy install.* {NAME}')")
                break
        rest = running.stdout.read()
    assert "undo" in rest
    gone(admin, clean)
