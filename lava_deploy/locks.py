"""The locks that keep two runs from changing one thing: an instance, or what instances share."""

import fcntl
import getpass
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lava_deploy.errors import Busy

SECONDS_BETWEEN_TRIES = 0.1


@contextmanager
def locked(locks: Path, subject: str, purpose: str, *, patience: float = 0) -> Iterator[None]:
    """Hold the lock of a subject; its file says who has it, for what and since when.

    `patience` is how many seconds to wait for another holder. Raises Busy.
    """
    locks.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = locks / f"{subject}.lock"
    handle = _lock(path, subject, time.monotonic() + patience)
    try:
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        holder = {"user": getpass.getuser(), "pid": os.getpid(), "purpose": purpose, "since": since}
        os.truncate(handle, 0)
        os.write(handle, json.dumps(holder).encode())
        yield
    finally:
        # Removed while it is held: who has opened it meanwhile sees that, and makes a new one.
        path.unlink(missing_ok=True)
        os.close(handle)


def is_held(locks: Path, subject: str) -> bool:
    """Whether a run is at work on a subject just now."""
    try:
        handle = os.open(locks / f"{subject}.lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _lock(path: Path, subject: str, deadline: float) -> int:
    """An open handle of the lock file, locked, while the file still stands at its path."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands_at(path, handle):
                return handle
            os.close(handle)
        except BlockingIOError:
            text = os.read(handle, 4096)
            os.close(handle)
            if time.monotonic() >= deadline:
                raise _held(text, subject) from None
            time.sleep(SECONDS_BETWEEN_TRIES)


def _stands_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _held(text: bytes, subject: str) -> Busy:
    """The refusal that names the holder, who may just be writing down who they are."""
    try:
        who = "{user} (process {pid}) has run `{purpose}` since {since}".format(**json.loads(text))
    except (ValueError, KeyError):
        who = "somebody else is at work"
    return Busy(f"{subject} is locked: {who}", hint="Try again when that is over.")
