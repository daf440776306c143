"""What developers do, by `invoke TASK`; `invoke --list` tells all."""

import sys

from invoke import Context, Exit, task

PYTEST = "pytest --durations=10"
# Which lives are lived side by side: the long ones, then the short ones.
LIVES = (("bookworm-systemd", "trixie-plain"), ("trixie-systemd", "bookworm-plain"))
BENCHMARKS = (
    "quickstart",
    "second_instance",
    "footprint",
    "commands",
    "toggles",
    "build",
    "snapshots",
)


def run(context: Context, module: str) -> None:
    """Run a Python module of this virtualenv; the first failure ends the task."""
    context.run(f"{sys.executable} -m {module}", in_stream=False)


def run_all_at_once(context: Context, modules: list[str]) -> None:
    """Run modules side by side, as each waits much; show the output of each when it has ended."""
    commands = [f"{sys.executable} -m {module}" for module in modules]
    quiet = {"asynchronous": True, "hide": True, "warn": True, "in_stream": False}
    ended = [one.join() for one in [context.run(command, **quiet) for command in commands]]
    print(*(one.stdout + one.stderr for one in ended), sep="\n")
    if not all(ended):
        raise Exit(code=1)


@task
def lint(context):
    """Check the form: formatter, linter, types, playbooks."""
    run(context, "ruff format --check --quiet")
    run(context, "ruff check --quiet")
    run(context, "mypy")
    run(context, "ansiblelint --offline -q playbooks")


@task
def unit(context):
    """Run the tests that touch nothing, on all cores."""
    run(context, f"{PYTEST} --numprocesses=auto tests/unit tests/golden")


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
    if here:
        run(context, f"{PYTEST} --here tests/e2e")
    else:
        for kinds in LIVES:
            run_all_at_once(context, [f"{PYTEST} --machine={kind} tests/e2e" for kind in kinds])


@task
def test(context, here=False):
    """Run every layer, the quick ones first."""
    lint(context)
    unit(context)
    if not here:
        hosts(context)
    e2e(context, here=here)


@task
def bench(context, only=""):
    """Measure in throw-away hosts, one after the other; --only NAME for one of benchmarks/."""
    for name in [only] if only else BENCHMARKS:
        context.run(f"{sys.executable} benchmarks/{name}.py", in_stream=False)
