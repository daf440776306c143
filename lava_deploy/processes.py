"""What running a command takes besides starting it: the user, the lines of a pipe, Ctrl-C."""

import os
import select
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from lava_deploy.errors import CommandFailed

PIPE_SIZE = 65536


def as_user(command: list[str], user: str) -> list[str]:
    """The command line that runs a command as a user, with their groups and nothing of root's."""
    if not user:
        return command
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command]


@contextmanager
def meanwhile(words: Sequence[str], stdin: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a command while the block runs, and wait for its end; a block that fails ends it.

    Raises CommandFailed for a status other than 0.
    """
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+", errors="replace") as said,
    ):
        given.write(stdin)
        given.seek(0)
        with subprocess.Popen(
            words, stdin=given, stdout=said, stderr=said, env=environment, cwd="/"
        ) as running:
            try:
                yield
            except BaseException:
                running.terminate()
                raise
        if running.returncode:
            said.seek(0)
            raise CommandFailed(words, running.returncode, said.read())


def lines(pipe: int, patience: float | None) -> Iterator[str | None]:
    """The lines that come out of a pipe, and None for each time of waiting in vain."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], patience)[0]:
            yield None
            continue
        read = os.read(pipe, PIPE_SIZE)
        *whole, rest = (rest + read).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
        if not read:
            break
    if rest:
        yield rest.decode(errors="replace")


def leave_to_command(_signal: int, _frame: FrameType | None) -> None:
    """Do nothing: whoever is attached to the terminal deals with it."""
