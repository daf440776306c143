"""The file in which a plan writes down how far it came, for whoever finds it unfinished.

A JSON object a line: what is planned first, then each thing that was begun, done and undone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lava_deploy import __version__
from lava_deploy.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lava_deploy.steps import Plan

SUFFIX = ".jsonl"
BEGUN, DONE, UNDOING, UNDONE, COMMITTED = "begun", "done", "undoing", "undone", "committed"
# The fields of a journal's first line.
HEADER = {"operation", "subject", "decisions", "started", "tool"}


@dataclass(frozen=True)
class Journal:
    """What a run that did not end left on disk: how far it came."""

    operation: str
    subject: str
    decisions: Mapping[str, Any]
    started: str
    tool: str
    begun: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    undoing: bool = False
    committed: bool = False


def unfinished(journals: Path, subject: str) -> Journal | None:
    """What a killed run left of a subject, or None. A journal without a whole first line is no run:
    it had begun nothing."""
    try:
        lines = _path(journals, subject).read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return None
    # the kill may have torn the last line
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    if not events:
        return None
    header, *rest = events
    if set(header) != HEADER:
        raise DeployError(
            f"the journal {_path(journals, subject)} is damaged, or of another lava-deploy",
            hint="Its lines say which steps were begun; remove it when they are undone by hand.",
        )
    return Journal(
        **header,
        begun=_names(rest, BEGUN),
        done=_names(rest, DONE),
        undone=_names(rest, UNDONE),
        undoing=any(UNDOING in event for event in rest),
        committed=any(COMMITTED in event for event in rest),
    )


class Writer:
    """The journal's file while a plan is carried out; each line is on disk when `write` returns."""

    def __init__(self, journals: Path, subject: str) -> None:
        self._path = _path(journals, subject)
        _heal(self._path)

    @classmethod
    def start(cls, plan: Plan, journals: Path) -> Writer:
        """Begin a journal with its header. Raises FileExistsError for one that is unfinished."""
        journals.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = _path(journals, plan.subject)
        if unfinished(journals, plan.subject) is None:
            path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        writer = cls(journals, plan.subject)
        writer.write(
            operation=plan.operation,
            subject=plan.subject,
            decisions=dict(plan.decisions),
            started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            tool=__version__,
        )
        directory = os.open(journals, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        return writer

    def write(self, **event: Any) -> None:
        """Add a line; one that a full disk tears is taken back. Raises OSError."""
        size = self._path.stat().st_size
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(self._path, size)
            raise

    def remove(self) -> None:
        self._path.unlink()


def _heal(path: Path) -> None:
    """Cut off a line that a kill tore, so that the next one does not become part of it."""
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        os.truncate(path, len(whole))


def _names(events: Sequence[Mapping[str, Any]], kind: str) -> tuple[str, ...]:
    return tuple(event[kind] for event in events if kind in event)


def _path(journals: Path, subject: str) -> Path:
    return journals / f"{subject}{SUFFIX}"
