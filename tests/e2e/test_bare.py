"""The script at the repository's root on a machine that has nothing but Debian's base system."""

import subprocess
import time

import pytest

from tests.e2e.machines import CLONE, HERE, Admin, Machine

pytestmark = pytest.mark.e2e
COMPLETE = f"{CLONE}/.venv/complete"
# Ends the first run, and all it started, when it has begun to install into the virtualenv.
KILLED_HALF_WAY = f"""
setsid {CLONE}/lava-deploy --version >/dev/null 2>&1 &
until test -e {CLONE}/.venv/bin/pip; do kill -0 $!; sleep 0.1; done
kill -9 -$!
test ! -e {COMPLETE}
"""
SOMEBODY = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "env",
    "HOME=/tmp/nobody",
]


def test_bare_means_bare(machine: Machine) -> None:
    if machine.name != HERE:
        for absent in ("python3", "git", "pip", "uv"):
            assert machine.run(f"command -v {absent}", check=False).status != 0


def test_who_is_not_root_is_told_what_is_missing(machine: Machine) -> None:
    if machine.name != HERE:
        told = machine.run(
            [*SOMEBODY, "/bin/sh", "-c", "cd /; cat >/tmp/script; sh /tmp/script"],
            input=_script(machine),
            check=False,
        )
        assert told.status == 4
        assert "As root: apt-get install python3 python3-venv" in told.stderr


def test_a_first_run_that_was_killed_harms_neither_of_two_at_once(machine: Machine) -> None:
    machine.run(["sh", "-euc", KILLED_HALF_WAY], timeout=300)
    first, second = (_started(machine) for _ in range(2))
    outputs = [first.communicate(timeout=300)[0], second.communicate(timeout=300)[0]]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert all("lava-deploy, version" in output for output in outputs)


def test_it_runs_from_anywhere_through_a_link_and_says_nothing_of_itself(machine: Machine) -> None:
    machine.run(["ln", "-sfn", f"{CLONE}/lava-deploy", "/tmp/link"])
    ended = machine.run("cd / && /tmp/link --help")
    assert "quickstart" in ended.stdout
    assert ended.stderr == ""


def test_it_costs_next_to_nothing_once_it_is_there(machine: Machine) -> None:
    """Measured 17 ms; other hosts are at work meanwhile."""
    script = min(_seconds(machine, f"{CLONE}/lava-deploy") for _ in range(10))
    command = min(_seconds(machine, f"{CLONE}/.venv/bin/lava-deploy") for _ in range(10))
    assert script - command < 0.1


def test_a_changed_source_is_taken_up(machine: Machine) -> None:
    """Whatever its time says: a copy may bring old times along."""
    template = f"{CLONE}/instance_templates/of-this-test"
    machine.run(["touch", "-d", "2001-01-01", template])
    assert "bringing" in _said(machine)
    machine.run(
        f"ls {CLONE}/.venv/lib/python3*/site-packages/lava_deploy/instance_templates/of-this-test"
    )
    machine.run(["rm", template])
    assert "bringing" in _said(machine)
    assert _said(machine) == ""


def test_who_may_not_write_to_the_clone_gets_a_place_in_the_cache(machine: Machine) -> None:
    machine.run(
        f"mkdir -p /tmp/readonly && cp -R {CLONE}/. /tmp/readonly && rm -rf /tmp/readonly/.venv*"
    )
    machine.run(
        "chmod -R go+rX /tmp/readonly; mkdir -p /tmp/nobody && chown 65534:65534 /tmp/nobody"
    )
    ended = machine.run([*SOMEBODY, "/tmp/readonly/lava-deploy", "--version"], timeout=300)
    assert "lava-deploy, version" in ended.stdout
    assert "in /tmp/nobody/.cache/lava-deploy/" in ended.stderr
    machine.run(["rm", "-rf", "/tmp/readonly", "/tmp/nobody"])


def test_the_command_line_is_refused_with_the_usual_status(admin: Admin) -> None:
    admin("no-such-command", status=2)


def _script(machine: Machine) -> str:
    return machine.run(["cat", f"{CLONE}/lava-deploy"]).stdout


def _started(machine: Machine) -> subprocess.Popen:
    return machine.popen([f"{CLONE}/lava-deploy", "--version"])


def _said(machine: Machine) -> str:
    return machine.run([f"{CLONE}/lava-deploy", "--version"], timeout=300).stderr


def _seconds(machine: Machine, command: str) -> float:
    begun = time.monotonic()
    machine.run([command, "--version"])
    return time.monotonic() - begun
