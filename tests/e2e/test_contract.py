"""The contract tests, in a machine that was set up: they need its servers, and change it."""

import pytest

from tests.e2e.machines import CLONE, Admin

pytestmark = pytest.mark.e2e
VIRTUALENV = "/tmp/contract"
INSTALL = f"""
apt-get install -qy --no-install-recommends gnupg
{CLONE}/.venv/bin/uv venv --clear {VIRTUALENV}
{CLONE}/.venv/bin/uv pip install --python {VIRTUALENV}/bin/python -e {CLONE} pytest pytest-cov
"""


def test_every_contract_holds_on_a_machine_that_was_set_up(set_up: Admin) -> None:
    machine = set_up.machine
    machine.run(["sh", "-euc", INSTALL])
    pytest_there = f"{VIRTUALENV}/bin/python -m pytest -q -p no:cacheprovider --durations=5"
    ended = machine.run(f"cd {CLONE} && {pytest_there} tests/contract", check=False, timeout=900)
    assert ended.status == 0, ended.stdout
