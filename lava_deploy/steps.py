"""Carries plans out: a journal on disk, undo last-first on failure, resume or abandon after a kill.

The rules are those of a write-ahead log: a step is `begun` on disk before anything of it is done,
and `done` on disk before the next one is begun.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lava_deploy.errors import Busy, DeployError, PartlyUndone, RolledBack, Stopped, remedy
from lava_deploy.journal import Journal, Writer, unfinished
from lava_deploy.model import Secret


def nothing() -> None:
    """What a step without an undo has as its undo."""


@dataclass(frozen=True)
class Step:
    """A named change and its reverse.

    `do` may be repeated; `undo` may follow a half-done `do`, or none at all.
    """

    name: str
    do: Callable[[], None]
    undo: Callable[[], None] = nothing


@dataclass(frozen=True)
class Plan:
    """Steps that are done in order, or undone altogether.

    `afterwards` are the steps that cannot be undone, such as the removal of what was replaced: none
    is begun before all `steps` are done, and from then on the only way is forward. `decisions` is
    what the operation rebuilds the same plan from; it is kept in the journal, so no secrets.
    """

    operation: str
    subject: str
    steps: tuple[Step, ...]
    afterwards: tuple[Step, ...] = ()
    decisions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for secrets in the decisions: they would be written in clear."""
        if _has_secret(self.decisions):
            raise ValueError(f"the decisions of {self.operation} hold a secret")


class Observer(Protocol):
    """Who is told how a plan goes."""

    def began(self, step: str, number: int, total: int) -> None: ...
    def ended(self, step: str) -> None: ...
    def failed(self, step: str, error: BaseException) -> None: ...
    def undoing(self, step: str) -> None: ...
    def undone(self, step: str) -> None: ...


def carry_out(plan: Plan, journals: Path, observer: Observer) -> None:
    """Do all steps of a plan.

    When one fails, or is interrupted, all that were begun are undone, last first. Raises RolledBack
    when that succeeds, PartlyUndone when it does not; Stopped when only `afterwards` failed.
    """
    writer = Writer.start(plan, journals)
    _go_forward(plan, writer, observer, done=(), fail=_undo_and_tell)


def carry_out_together(
    plans: Sequence[Plan], meeting: str, journals: Path, observers: Callable[[str], Observer]
) -> dict[str, DeployError]:
    """Do several plans up to their step `meeting`, then each to its end, one after the other.

    A plan that fails is undone alone, as by `carry_out`; an interruption undoes all that are not
    done yet. What failed, by subject; `observers` has who is told of one.
    """
    failures: dict[str, DeployError] = {}
    writers: dict[str, Writer] = {}
    for until in (meeting, ""):
        for plan in [each for each in plans if each.subject not in failures]:
            observer, known = observers(plan.subject), writers.get(plan.subject)
            try:
                if any(isinstance(one.__cause__, KeyboardInterrupt) for one in failures.values()):
                    raise _given_up(plan, meeting, known, observer)
                writers[plan.subject] = writer = known or Writer.start(plan, journals)
                done = _before(plan, meeting) if known else ()
                _go_forward(plan, writer, observer, done=done, fail=_undo_and_tell, until=until)
            except DeployError as error:
                failures[plan.subject] = error
    return failures


def resume(plan: Plan, journals: Path, observer: Observer) -> None:
    """Complete a plan that was stopped half-way; what was begun and not done is done again.

    Raises Stopped when a step fails: nothing is undone then, and both ways remain open.
    """
    journal = _journal_of(plan, journals)
    if journal.undoing:
        raise Busy(
            f"the {plan.operation} of {plan.subject} was already being undone",
            hint=f"`lava-deploy abandon {plan.subject}` completes that.",
        )
    writer = Writer(journals, plan.subject)
    _go_forward(plan, writer, observer, done=journal.done, fail=_stop_and_tell)


def abandon(plan: Plan, journals: Path, observer: Observer) -> None:
    """Undo a plan that was stopped half-way. Raises PartlyUndone, and Busy past its last step."""
    journal = _journal_of(plan, journals)
    if journal.committed:
        raise Busy(
            f"the {plan.operation} of {plan.subject} has come too far to be undone",
            hint=f"`lava-deploy resume {plan.subject}` completes it.",
        )
    left = [step for step in plan.steps if step.name in journal.begun]
    failures = _undo(left, Writer(journals, plan.subject), observer)
    if failures:
        raise _partly_undone(plan, failures)


def _go_forward(
    plan: Plan,
    writer: Writer,
    observer: Observer,
    *,
    done: Sequence[str],
    fail: Callable[[Plan, str, BaseException, Writer, Observer], DeployError],
    until: str = "",
) -> None:
    """Do what is not done yet, or only what comes before the step `until`.

    `fail` deals with a failure of what can still be undone.
    """
    everything = (*plan.steps, *plan.afterwards)
    step = everything[0]
    final = False
    try:
        for number, step in enumerate(everything, start=1):
            final = number > len(plan.steps)
            if step.name == until:
                return
            if step.name in done:
                continue
            if number == len(plan.steps) + 1:
                writer.write(committed=True)
            writer.write(begun=step.name)
            _tell(observer.began, step.name, number, len(everything))
            step.do()
            writer.write(done=step.name)
            _tell(observer.ended, step.name)
        writer.remove()
    except BaseException as error:
        with _undisturbed():
            _tell(observer.failed, step.name, error)
            failed = _stop_and_tell if final else fail
            raise failed(plan, step.name, error, writer, observer) from error


def _undo_and_tell(
    plan: Plan, name: str, error: BaseException, writer: Writer, observer: Observer
) -> DeployError:
    """Undo all that was begun; the error says what state things are in."""
    position = [step.name for step in plan.steps].index(name)
    failures = _undo(plan.steps[: position + 1], writer, observer)
    if failures:
        partly = _partly_undone(plan, failures)
        return PartlyUndone(f"the step `{name}` failed: {_said(error)}\n{partly}", hint=partly.hint)
    return RolledBack(
        f"the {plan.operation} failed at the step `{name}`: {_said(error)}\n"
        f"All was undone: {plan.subject} is as before",
        hint=remedy(error),
    )


def _given_up(plan: Plan, meeting: str, writer: Writer | None, observer: Observer) -> DeployError:
    """Undo a plan that waits at a step, as another was interrupted."""
    if writer:
        return _undo_and_tell(plan, meeting, KeyboardInterrupt(), writer, observer)
    return RolledBack(f"the {plan.operation} was interrupted before any change of {plan.subject}")


def _before(plan: Plan, name: str) -> tuple[str, ...]:
    """The steps that come before one."""
    names = [step.name for step in plan.steps]
    return tuple(names[: names.index(name)])


def _stop_and_tell(
    plan: Plan, name: str, error: BaseException, _writer: Writer, _observer: Observer
) -> DeployError:
    mend = remedy(error) or "Mend the cause."
    return Stopped(
        f"the {plan.operation} stopped at the step `{name}`: {_said(error)}\n"
        "What came before it is done and stays",
        hint=f"{mend} Then `lava-deploy resume {plan.subject}` completes it.",
    )


def _undo(steps: Sequence[Step], writer: Writer, observer: Observer) -> dict[str, BaseException]:
    """Undo steps, last first, past those that fail; these are returned with their reasons."""
    failures: dict[str, BaseException] = {}
    # On a full disk the undo goes on without its journal: to repeat an undo does no harm.
    with _undisturbed(), contextlib.suppress(OSError):
        writer.write(undoing=True)
    with _undisturbed():
        for step in reversed(steps):
            _tell(observer.undoing, step.name)
            try:
                step.undo()
            except Exception as error:
                _tell(observer.failed, step.name, error)
                failures[step.name] = error
            else:
                with contextlib.suppress(OSError):
                    writer.write(undone=step.name)
                _tell(observer.undone, step.name)
        if not failures:
            writer.remove()
    return failures


def _partly_undone(plan: Plan, failures: Mapping[str, BaseException]) -> PartlyUndone:
    lines = "".join(f"\n  - {name}: {_said(error)}" for name, error in failures.items())
    return PartlyUndone(
        f"the {plan.operation} of {plan.subject} could not be undone wholly; what remains:{lines}",
        hint=f"Mend the cause, then `lava-deploy abandon {plan.subject}`.",
    )


def _said(error: BaseException) -> str:
    """An error's words with its notes; what is no error of ours is named by its class as well."""
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    name = "" if isinstance(error, DeployError) else f"{type(error).__name__}: "
    return "\n".join([f"{name}{error}", *getattr(error, "__notes__", ())])


def _tell(tell: Callable[..., None], *words: Any) -> None:
    """Tell the observer; that nobody can hear it, as on a closed terminal, changes nothing."""
    with contextlib.suppress(OSError):
        tell(*words)


def _has_secret(values: Any) -> bool:
    if isinstance(values, Mapping):
        return any(_has_secret(value) for value in values.values())
    if isinstance(values, (list, tuple)):
        return any(_has_secret(value) for value in values)
    return isinstance(values, Secret)


def _journal_of(plan: Plan, journals: Path) -> Journal:
    """The journal of a plan. Raises DeployError when it is that of another plan."""
    journal = unfinished(journals, plan.subject)
    if journal is None:
        raise Busy(f"nothing of {plan.subject} is unfinished")
    names = tuple(step.name for step in (*plan.steps, *plan.afterwards))
    begun = tuple(dict.fromkeys(journal.begun))  # a step that was resumed was begun twice
    if begun != names[: len(begun)] or journal.operation != plan.operation:
        raise Busy(
            f"the unfinished {journal.operation} of {plan.subject} was begun by lava-deploy "
            f"{journal.tool}, which had other steps",
            hint="Run that version to resume or to abandon it.",
        )
    return journal


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No second Ctrl-C or SIGTERM may break an undo off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Commands of the undo inherit what is ignored, not what is handled: a second Ctrl-C goes to
    # all of the terminal, while who wants to end one of them sends it a SIGTERM.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _keep_on),
        signal.SIGHUP: signal.signal(signal.SIGHUP, _keep_on),
    }
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _keep_on(_signal: int, _frame: Any) -> None:
    """Do not end."""
