"""The only module that prints: steps as they go, data, errors; and the log that keeps all of it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lava_deploy.model import Secret

if TYPE_CHECKING:
    from rich.status import Status

    from lava_deploy.steps import Plan

JSON_FORMAT = 1
# How often a long step tells how far it is, on a terminal and in a log.
SECONDS_SHOWN, SECONDS_PRINTED = 0.2, 10


class Named:
    """Tells how the plan of one of several subjects goes, with its name in front."""

    def __init__(self, report: Report, subject: str) -> None:
        self._report, self._subject = report, subject

    def began(self, step: str, number: int, total: int) -> None:
        self._report.began(f"{self._subject}: {step}", number, total)

    def ended(self, step: str) -> None:
        self._report.ended(step)

    def failed(self, step: str, error: BaseException) -> None:
        self._report.failed(step, error)

    def undoing(self, step: str) -> None:
        self._report.undoing(f"{self._subject}: {step}")

    def undone(self, step: str) -> None:
        self._report.undone(step)


class Report:
    """Tells an admin what happens: data on standard output, everything else on standard error.

    On a terminal a running step shows what it is doing in its last line; elsewhere there is one
    plain line a step. NO_COLOR and TERM=dumb are honoured.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        verbose: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._log: Path | None = None
        self._lock = threading.RLock()
        self._status: Status | None = None
        self._title = ""
        self._begun = 0.0
        self._told = 0.0

    def log_to(self, path: Path) -> None:
        """Keep all lines, and the tracebacks of errors, in a file (0640) as well."""
        self._log = path

    # How a plan goes

    def began(self, step: str, number: int, total: int) -> None:
        self._open(f"[{number}/{total}] {step}")

    @contextmanager
    def working(self, title: str) -> Iterator[None]:
        """Show a long piece of work that is no step of a plan as if it were one."""
        self._open(title)
        try:
            yield
        except BaseException as error:
            self.failed(title, error)
            raise
        self.ended(title)

    def _open(self, title: str) -> None:
        self._title, self._begun = title, time.monotonic()
        self._keep(f"{self._title} …")
        if self._live:
            from rich.console import Console
            from rich.status import Status

            self._status = Status(self._title, console=Console(file=self._stderr))
            self._status.start()
        elif self._verbose:
            self.note(f"{self._title} …")

    def ended(self, step: str) -> None:
        self._close(f"{self._title} … done ({time.monotonic() - self._begun:.1f} s)")

    def failed(self, step: str, error: BaseException) -> None:
        self._close(f"{self._title} … failed")
        self.trace(error)

    def undoing(self, step: str) -> None:
        self._title = f"undo: {step}"

    def undone(self, step: str) -> None:
        self._close(f"{self._title} … done")

    def plan(self, plan: Plan) -> None:
        """What would be done, as data."""
        for number, step in enumerate((*plan.steps, *plan.afterwards), start=1):
            self.line(f"{number:2}. {step.name}")

    def progress(self, text: str) -> None:
        """What a long step is just doing; shown where it can be replaced, or on demand."""
        self._keep(f"    {text}")
        with self._lock:
            if self._status:
                from rich.markup import escape

                self._status.update(f"{self._title}: {escape(text)}")
            elif self._verbose:
                self._print(f"    {text}")

    def amount(self, done: int, total: int, size: int) -> None:
        """How far the running step came: parts of all, bytes so far; tells rate and time left."""
        now = time.monotonic()
        last = done == total
        if not last and now < self._told + (SECONDS_SHOWN if self._live else SECONDS_PRINTED):
            return
        self._told = now
        seconds = max(now - self._begun, 0.001)
        left = seconds * (total - done) / done if done else 0
        rate = f"{size / 1e6:.0f} MB, {size / 1e6 / seconds:.0f} MB/s"
        self.progress(f"{done} of {total}, {rate}" + ("" if last else f", {left:.0f} s left"))

    # Words

    def line(self, text: str) -> None:
        """A line of data."""
        with self._lock:
            if self._status:
                self._status.stop()
            print(text, file=self._stdout, flush=True)
            if self._status:
                self._status.start()

    def note(self, text: str) -> None:
        """A line for people, which `--quiet` leaves out."""
        self._keep(text)
        if not self._quiet:
            with self._lock:
                self._print(text)

    def warn(self, text: str) -> None:
        """Something an admin should know though the command goes on."""
        self._keep(f"warning: {text}")
        with self._lock:
            self._print(f"warning: {text}")

    def error(self, message: str, hint: str = "") -> None:
        """Why a command failed, what state things are in, and what to do."""
        self._stop()
        self._keep(f"error: {message}")
        self._print(f"error: {message}")
        if hint:
            self._print(f"hint: {hint}")
        if self._log and self._log.exists():
            self._print(f"log: {self._log}")

    def trace(self, error: BaseException) -> None:
        """Keep the traceback of an error in the log, if there is one."""
        if self._log:
            self._keep("".join(traceback.format_exception(error)).rstrip())

    # Data

    def json(self, values: Mapping[str, Any]) -> None:
        """A JSON object for programs; `version` tells them its format."""
        shown = _without_secrets({"version": JSON_FORMAT, **values})
        self.line(json.dumps(shown, indent=2, default=str))

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns as wide as their widest text."""
        lines = [headers, *rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
        for line in lines:
            cells = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
            self.line("  ".join(cells).rstrip())

    @property
    def _live(self) -> bool:
        dumb = os.environ.get("TERM", "dumb") == "dumb"
        return self._stderr.isatty() and not dumb and not self._quiet and not self._verbose

    def _close(self, text: str) -> None:
        """Replace the running line of a step by its last word."""
        with self._lock:
            self._stop()
            self.note(text)

    def _stop(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None

    def _print(self, text: str) -> None:
        if self._status:
            self._status.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stderr, flush=True)

    def _keep(self, text: str) -> None:
        """Add to the log; a log that cannot be written must not end what is being done."""
        if self._log is None:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            with self._lock, open(handle, "a", encoding="utf-8") as file:
                file.writelines(f"{now} {line}\n" for line in text.splitlines())
        except OSError:
            self._log = None


def _without_secrets(values: Any) -> Any:
    """The same with *** for secrets, which json would take for the texts they are."""
    if isinstance(values, Mapping):
        return {key: _without_secrets(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_without_secrets(value) for value in values]
    return f"{values}" if isinstance(values, Secret) else values
