"""Two processes that work for this one, and end with it whatever happens to it."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

from lava_deploy.errors import DeployError

WORKERS = 2
# prctl(2): the signal that a process gets when the one that started it is gone.
SIGNAL_OF_PARENTS_DEATH = 1
# What ends the program is for the process that asked: it ends its workers.
NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Task = TypeVar("Task")
Result = TypeVar("Result")


def each(work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
    """Do all tasks, in this order, two at a time; results come as they are ready.

    `work` is a function of a module. An OSError or DeployError in a worker is raised here as it
    was there. The workers end when the iterator is closed.
    """
    waiting = list(reversed(tasks))
    crew: dict[Connection, SpawnProcess] = {}
    busy: set[Connection] = set()
    try:
        for _ in range(min(WORKERS, len(tasks))):
            connection, process = _start()
            crew[connection] = process
            busy.add(connection)
            _send(connection, work, waiting.pop())
        while busy:
            for connection in busy.intersection(wait(list(busy))):
                result = _receive(connection)
                if waiting:
                    _send(connection, work, waiting.pop())
                else:
                    busy.remove(connection)
                yield result
    finally:
        with _signals_blocked():
            for connection, process in crew.items():
                process.kill()
                connection.close()
            for process in crew.values():
                process.join()


def _send(connection: Connection, work: Callable[[Task], Result], task: Task) -> None:
    with _alive():
        connection.send((work, task))


@contextlib.contextmanager
def _alive() -> Iterator[None]:
    """The worker at the other end of a connection lives, or a DeployError is raised."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise DeployError(
            "a process that reads or writes packs was killed",
            hint="The kernel kills processes when memory is short: `dmesg` tells.",
        ) from error


def _receive(connection: Connection) -> Any:
    """What a worker has done. Raises what it raised."""
    with _alive():
        done, result = connection.recv()
    if not done:
        raise result
    return result


def _start() -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # what multiprocessing keeps for itself; its start would unblock signals
    resource_tracker.ensure_running()
    process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
    with _signals_blocked(), _without_main():
        process.start()
    theirs.close()
    return ours, process


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Signals come after the block; a process that is started in it never sees them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_WORKERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not load the main program again, which they have no use for."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(connection: Connection, parent: int) -> None:
    """Do what comes through a connection until it is closed."""
    ctypes.CDLL(None).prctl(SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL)
    with contextlib.suppress(EOFError, ConnectionError):
        while os.getppid() == parent:
            work, task = connection.recv()
            connection.send(_answer(work, task))


def _answer(work: Callable[[Task], Result], task: Task) -> tuple[bool, object]:
    try:
        return True, work(task)
    except (OSError, DeployError) as error:
        return False, error
    except Exception:
        # others may not come through a pipe; nor would where they were raised
        return False, RuntimeError(traceback.format_exc())
