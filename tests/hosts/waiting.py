"""Waiting for a condition, with a limit."""

import time
from collections.abc import Callable


def until(reached: Callable[[], object], seconds: float, failure: Callable[[], Exception]) -> None:
    """Return as soon as a condition holds; raise the failure when it does not in time."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise failure()
        time.sleep(0.02)
