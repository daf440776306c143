"""The contract tests, in a machine that was set up: they need its servers, and change it."""

import pytest

from tests.e2e.machines import CLONE, Admin

pytestmark = pytest.mark.e2e
PYTHON = f"{CLONE}/.venv/bin/python"


def test_every_contract_holds_on_a_machine_that_was_set_up(set_up: Admin) -> None:
    machine = set_up.machine
    machine.run([f"{CLONE}/.venv/bin/uv", "pip", "install", "-q", "--python", PYTHON, "pytest"])
    tests = f"cd {CLONE} && {PYTHON} -m pytest -q -p no:cacheprovider --durations=5 tests/contract"
    ended = machine.run(tests, check=False, timeout=900)
    assert ended.status == 0, ended.stdout
