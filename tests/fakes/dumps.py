"""pg_dump and its kin on the machine in memory: the rows of a database as one file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lava_deploy.errors import CommandFailed
from lava_deploy.system import Finished
from tests.fakes.world import DIRECTORY, World

BY = ";     Dumped by pg_dump version: 15.18\n"


def look(world: World, words: Sequence[str]) -> Finished | None:
    """What the commands say that change nothing; None for any other."""
    match [Path(words[0]).name, *words[1:]]:
        case ["pg_dump", "--version"]:
            return Finished(0, "pg_dump (PostgreSQL) 15.18\n", "")
        case ["pg_restore", "--list" | "--file=/dev/null", dump]:
            whole = f"{dump}/toc.dat" in world.nodes
            return Finished(0, BY, "") if whole else Finished(1, "", "could not open toc.dat")
    return None


def run(world: World, words: Sequence[str], rows: dict[str, str]) -> None:
    """Dump or load the rows of a database, as `parts/dump.py` asks for it."""
    program, *options = next(words[at:] for at, one in enumerate(words) if one.startswith("/usr/"))
    match Path(program).name:
        case "pg_dump":
            to = next(one for one in options if one.startswith("--file=")).removeprefix("--file=")
            assert "--format=directory" in options and "--exit-on-error" not in options
            contents = {key: row for key, row in rows.items() if key != "owner"}
            world.put(f"{to}/toc.dat", json.dumps(contents))
        case "pg_restore":
            assert {"--exit-on-error", "--use-list=/dev/stdin"} < {*options}
            if set(rows) != {"owner"}:
                raise CommandFailed(words, 1, "a relation already exists")
            rows.update(json.loads(world.text(f"{options[-1]}/toc.dat")))
        case "vacuumdb":
            assert "--analyze-only" in options
        case name:
            raise AssertionError(f"unknown command: {name}")


def close(world: World, tree: str) -> None:
    """chmod --recursive go="""
    for path in [tree, *world.below(tree)]:
        node = world.nodes[path]
        world.nodes[path] = replace(node, mode=0o700 if node.kind == DIRECTORY else 0o600)
