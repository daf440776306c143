#!/usr/bin/env python3
"""How long the commands that are typed all the time take, against Python that imports click.

    python3 benchmarks/commands.py [SUITE] [INIT]     (as root; bookworm and plain by default)

`lava-deploy` is the program in the virtualenv, `./lava-deploy` the script in the clone, which sees
first whether the virtualenv is as new as the clone.
"""

import json
import sys

import measuring
from measuring import CLONE, Admin

ROUNDS = 20
NAMES = ("demo", "two", "three")
REGISTERED = 50
REFERENCE = f"{CLONE}/.venv/bin/python -c 'import click'"
PROGRAMS = {
    "lava-deploy": f"{CLONE}/.venv/bin/lava-deploy",
    "./lava-deploy": f"{CLONE}/lava-deploy",
}
COMPLETE = "_LAVA_DEPLOY_COMPLETE=bash_complete COMP_WORDS='lava-deploy show d' COMP_CWORD=2"
# What is read of an instance, without what would run: of its code only what it says of itself.
REGISTER = """
set -eu
cd /srv/lava/instances
for number in $(seq "$1"); do
    mkdir -p more-$number/code
    cp -a two/instance.yaml two/etc more-$number
    cp -a two/code/current more-$number/code
    mkdir more-$number/code/$(readlink two/code/current)
    cp two/code/current/release.json more-$number/code/current
done
"""


def main(suite: str = "bookworm", init: str = "plain") -> None:
    """Measure on a new host."""
    with measuring.bare_host(suite, init) as admin:
        admin("quickstart", NAMES[0])
        for name in NAMES[1:]:
            admin("install", "-n", "--yes", name)
        measure(admin)


def measure(admin: Admin) -> None:
    """Measure on a host with these instances, then with more that only are registered."""
    few: dict[str, tuple[str, str]] = {}
    for title, program in PROGRAMS.items():
        few[f"{title} --help"] = (f"{program} --help", "at most 3")
        few[f"{title} list, {len(NAMES)} instances"] = (f"{program} list", "at most 3")
    few["completion of a name"] = (f"{COMPLETE} {PROGRAMS['lava-deploy']}", "none")
    _compare(admin, few)
    admin.machine.run(["sh", "-c", REGISTER, "sh", str(REGISTERED - len(NAMES))])
    assert len(admin.json("list")["instances"]) == REGISTERED
    program = PROGRAMS["lava-deploy"]
    many = {
        f"lava-deploy list, {REGISTERED} instances": (f"{program} list", "none"),
        f"completion of a name, {REGISTERED} instances": (f"{COMPLETE} {program}", "none"),
    }
    _compare(admin, many)


def _compare(admin: Admin, commands: dict[str, tuple[str, str]]) -> None:
    """Run the reference and the commands in turns."""
    lines = [REFERENCE, *(line for line, _ in commands.values())]
    reference, *ours = measuring.inside(admin, "times", str(ROUNDS), input=json.dumps(lines))
    bare = measuring.shown("python -c 'import click'", reference)
    for (title, (_, wanted)), runs in zip(commands.items(), ours, strict=True):
        measuring.ratio("  against it", measuring.shown(title, runs), bare, wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
