"""The recipe of backups/README.rst, by which an admin restores by hand."""

import subprocess
import textwrap
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "backups/README.rst"
MARK = "\n.. code:: sh\n"


def blocks() -> list[str]:
    """The commands of the recipe, block by block, as an admin copies them."""
    texts = README.read_text().split(MARK)[1:]
    return [textwrap.dedent(indented(text)).strip() for text in texts]


def indented(text: str) -> str:
    lines = text.splitlines()
    end = next((n for n, line in enumerate(lines) if line and line[0] != " "), len(lines))
    return "\n".join(lines[:end])


def script(snapshot: str, name: str) -> str:
    """All commands in one, for another snapshot and instance than the first block names."""
    return "\n".join([f"SNAPSHOT={snapshot}", f"NAME={name}", *blocks()[1:]]) + "\n"


def test_the_first_block_names_what_all_others_work_on():
    assert [line.partition("=")[0] for line in blocks()[0].splitlines()] == ["SNAPSHOT", "NAME"]


def test_the_commands_are_those_of_any_shell():
    checked = subprocess.run(["sh", "-eun"], input=script("/nowhere", "demo"), text=True)
    assert checked.returncode == 0
