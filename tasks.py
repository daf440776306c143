"""What developers do, by `invoke TASK`; `invoke --list` tells all."""

import sys

from invoke import Context, task

PYTEST = "pytest --durations=10"
# A whole life takes many minutes, most of them waiting: two hosts live side by side.
IN_PARALLEL = f"{PYTEST} --numprocesses=2 --dist=loadgroup"


def run(context: Context, module: str) -> None:
    """Run a Python module of this virtualenv; the first failure ends the task."""
    context.run(f"{sys.executable} -m {module}", in_stream=False)


@task
def lint(context):
    """Check the form: formatter, linter, types, playbooks."""
    run(context, "ruff format --check --quiet")
    run(context, "ruff check --quiet")
    run(context, "mypy")
    run(context, "ansiblelint --offline -q playbooks")


@task
def unit(context):
    """Run the tests that touch nothing: a second or two."""
    run(context, f"{PYTEST} tests/unit tests/golden")


@task
def golden(context):
    """Write the golden files anew; the difference shows what changed for admins."""
    run(context, "pytest tests/golden --write-golden")


@task
def hosts(context):
    """Test the throw-away hosts themselves."""
    run(context, f"{PYTEST} tests/hosts")


@task
def contract(context):
    """Run the tests on the real Postgres, Apache and Ansible, in a host that was set up."""
    run(context, f"{PYTEST} tests/e2e/test_contract.py")


@task
def e2e(context, here=False):
    """Live the life of instances in throw-away hosts, or (--here) on this machine."""
    run(context, f"{PYTEST} --here tests/e2e" if here else f"{IN_PARALLEL} tests/e2e")


@task
def test(context, here=False):
    """Run every layer, the quick ones first."""
    lint(context)
    unit(context)
    layers = f"{PYTEST} --here tests/e2e" if here else f"{IN_PARALLEL} tests/e2e tests/hosts"
    run(context, layers)


@task
def bench(context):
    """Print the time line of quickstart on a bare host."""
    run_file = f"{sys.executable} benchmarks/quickstart.py"
    context.run(run_file, in_stream=False)
