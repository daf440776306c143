"""Everything that can go wrong, each class with the exit status an admin's script sees."""

import errno
from collections.abc import Sequence

# sh(1): the status of a command that there is not.
NO_SUCH_COMMAND = 127

# Commands tell nothing but words: strerror(3)'s, and Postgres's of a write that was cut short.
DISK_FULL = ("No space left on device", "Check free disk space")
MAKE_ROOM = "A disk is full: `df -h` shows which. Make room on it."


class DeployError(Exception):
    """A failure that is not a bug: the message says what failed, `hint` what to do about it."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def remedy(error: BaseException) -> str:
    """What to do about an error, '' where that is not known."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return MAKE_ROOM
    return getattr(error, "hint", "")


class UsageError(DeployError):
    """The command line asks for something that does not exist or makes no sense."""

    exit_status = 2


class ConfigurationError(DeployError):
    """A configuration file or environment variable has faults; the message lists all of them."""

    exit_status = 3


class PreflightFailed(DeployError):
    """Something was found wrong before any change; the message lists all that was found."""

    exit_status = 4

    def __init__(self, faults: Sequence[str], *, hint: str = "") -> None:
        self.faults = tuple(faults)
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        super().__init__(f"nothing was changed, because:{lines}", hint=hint)


class Busy(DeployError):
    """Another run holds the lock, or one was killed and waits for `resume` or `abandon`."""

    exit_status = 5


class CommandFailed(DeployError):
    """A command of the system ended with another status than 0."""

    exit_status = 6

    def __init__(self, command: Sequence[str], status: int, output: str, *, hint: str = "") -> None:
        self.command, self.status, self.output = tuple(command), status, output
        said = "".join(f"\n  {line}" for line in output.strip().splitlines()[-12:])
        super().__init__(
            f"`{' '.join(command)}` ended with status {status}{said}",
            hint=hint or (MAKE_ROOM if any(words in output for words in DISK_FULL) else ""),
        )


class Unreachable(DeployError):
    """A server did not answer: the network, a mirror, a database, a web server."""

    exit_status = 6


class UnknownRevision(DeployError):
    """No source has the revision; the hint names the nearest."""

    exit_status = 4


class BadCertificate(DeployError):
    """A certificate or its key cannot be read or used."""

    exit_status = 4


class BrokenSnapshot(DeployError):
    """A snapshot cannot be read or is not what it was; the message lists all that was found."""

    exit_status = 4

    def __init__(self, what: str, faults: Sequence[str], *, hint: str = "") -> None:
        self.faults = tuple(faults)
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        super().__init__(f"{what} cannot be trusted:{lines}", hint=hint)


class JobFailed(DeployError):
    """A LAVA job did not end as it should; the message has LAVA's own error type."""

    exit_status = 6


class RolledBack(DeployError):
    """A plan failed and everything it had done was undone."""

    exit_status = 10


class PartlyUndone(DeployError):
    """A plan failed and some of its steps could not be undone; the message names them."""

    exit_status = 11


class Stopped(DeployError):
    """A plan stopped half-way and can be resumed once the cause is mended."""

    exit_status = 12


class PartlyDone(DeployError):
    """Some of several instances or hosts were dealt with, others not; the message names them."""

    exit_status = 13
