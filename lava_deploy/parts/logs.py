"""Reads what the services of an instance and LAVA's jobs said: one form, in order of time."""

from __future__ import annotations

import heapq
import json
import re
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from lava_deploy.model import JOB, JOURNAL, SAID, Log

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from lava_deploy.model import Instance
    from lava_deploy.postgres import Postgres
    from lava_deploy.system import System

# Seconds without a word after which the others are looked at.
PATIENCE = 0.2
# The time of lines before any that tell theirs.
UNKNOWN = datetime.fromtimestamp(0, UTC)
# As the daemons write it, as gunicorn does in brackets, as Django does after its level; the zone is
# there where lava_site or gunicorn put it.
OWN_TIME = re.compile(
    r"(?P<level>[A-Z]+ )?\[?(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
    r" ?(?P<zone>[+-]\d{4})?(?P<fraction>,\d+)?\]? +"
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
COLUMN = len("dispatcher")


@dataclass(frozen=True)
class Line:
    """A line of a log; one that does not begin an entry belongs to the line before."""

    time: datetime
    component: str
    text: str
    begins: bool = True

    def __str__(self) -> str:
        """The line with its time, of this machine's zone, and component; both before each part."""
        time = "" if self.time == UNKNOWN else f"{self.time.astimezone():%Y-%m-%d %H:%M:%S}"
        start = f"{time:19} {self.component:{COLUMN}} "
        return "\n".join(start + CONTROL.sub("", part) for part in self.text.split("\n"))


@dataclass(frozen=True)
class Selection:
    """Which lines of logs: since a time; of a job, if it is not 0; at most so many, the last."""

    since: datetime | None = None
    job: int = 0
    lines: int | None = None


@dataclass(frozen=True)
class Job:
    """A job of LAVA's: when it was submitted, and the directory of its log."""

    number: int
    submitted: datetime
    directory: Path
    over: bool


def job(postgres: Postgres, instance: Instance, number: int) -> Job | None:
    """The job of that number, None if there is none. Its directory: TestJob.output_dir."""
    query = "SELECT submit_time, end_time FROM lava_scheduler_app_testjob WHERE id = %s"
    for submitted, ended in postgres.rows(instance.database, query, number):
        day = f"{submitted.astimezone(UTC):%Y/%m/%d}"
        directory = instance.media / "job-output" / day / str(number)
        return Job(number, submitted, directory, ended is not None)
    return None


def of_job(system: System, found: Job, *, follow: bool) -> Log:
    """Where to read what a job says; LAVA's `jobs compress` leaves an .xz of it."""
    path = found.directory / "output.yaml"
    compressed = path.with_suffix(".yaml.xz")
    commands: tuple[tuple[str, ...], ...] = ()
    if system.exists(compressed):
        commands = (("xz", "--decompress", "--stdout", str(compressed)),)
    elif follow:
        commands = (("tail", "--lines=+1", "--follow=name", "--retry", str(path)),)
    elif system.exists(path):
        commands = (("cat", str(path)),)
    return Log(JOB, JOB, commands)


def read(system: System, logs: Sequence[Log], wanted: Selection) -> Iterator[Line]:
    """The lines there are, in the order of time."""
    with ExitStack() as stack:
        streams = [_opened(stack, system, log, wanted, None) for log in logs]
        yield from _last(heapq.merge(*map(_at_hand, streams), key=_time), wanted)


def follow(
    system: System, logs: Sequence[Log], wanted: Selection, is_over: Callable[[], bool]
) -> Iterator[Line]:
    """The lines there are, then those that come, until nothing more is to be expected."""
    with ExitStack() as stack:
        streams = [_opened(stack, system, log, wanted, PATIENCE) for log in logs]
        yield from _last(heapq.merge(*map(_said_by_now, streams), key=_time), wanted)
        over = False
        while not over:
            over = is_over()  # what was said by then is shown yet
            yield from sorted(chain.from_iterable(map(_said_by_now, streams)), key=_time)


def _opened(
    stack: ExitStack, system: System, log: Log, wanted: Selection, patience: float | None
) -> Iterator[Line | None]:
    """The wanted lines of one log, whose command ends with the stack."""
    lines = stack.enter_context(closing(_lines(system, log, patience)))
    since = wanted.since or UNKNOWN
    later = (line for line in lines if line is None or line.time >= since)
    return _those_of_job(later, wanted.job) if wanted.job else later


def _those_of_job(lines: Iterable[Line | None], number: int) -> Iterator[Line | None]:
    """Of one log, the lines that name a job and those that belong to them; all of its own."""
    # gunicorn has the number of a process there, before the level
    name = re.compile(rf"\[{number}\](?! \[)|\bjobs?/{number}\b")
    wanted = False
    for line in lines:
        if line and line.begins:
            wanted = line.component == JOB or bool(name.search(line.text))
        if line is None or wanted:
            yield line


def _lines(system: System, log: Log, patience: float | None) -> Generator[Line | None, None, None]:
    """The lines of one log as they come; None whenever none came for a while."""
    before = Line(UNKNOWN, log.component, "")
    for command in log.commands:
        with closing(system.lines(command, patience)) as output:
            for text in output:
                if text is None:
                    yield None
                else:
                    before = FORMS[log.form](text, before)
                    yield before


def _last(lines: Iterable[Line], wanted: Selection) -> Iterable[Line]:
    return lines if wanted.lines is None else deque(lines, maxlen=wanted.lines)


def _at_hand(stream: Iterator[Line | None]) -> Iterator[Line]:
    """The lines of a log until it pauses or ends."""
    for line in stream:
        if line is None:
            break
        yield line


def _said_by_now(stream: Iterator[Line | None]) -> Iterator[Line]:
    """The same, but one that never pauses must not keep back the others."""
    now = datetime.now(UTC)
    for line in _at_hand(stream):
        yield line
        if line.time > now:
            break


def _time(line: Line) -> datetime:
    return line.time


def _of_journal(text: str, before: Line) -> Line:
    """An entry of `journalctl --output=json`; what is not text is a list of bytes there."""
    entry = json.loads(text)
    message = entry.get("MESSAGE") or ""
    if isinstance(message, list):
        message = bytes(message).decode(errors="replace")
    time = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, UTC)
    own, rest = _parted(message)
    begins = own is not None or entry.get("SYSLOG_IDENTIFIER") == "systemd"
    return Line(time, before.component, rest, begins)


def _of_service(text: str, before: Line) -> Line:
    time, rest = _parted(text)
    return Line(time or before.time, before.component, rest, time is not None)


def _of_job(text: str, before: Line) -> Line:
    """An event of a job's log, a list of one mapping; what is none belongs to the one before."""
    import yaml

    try:
        [event] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        time = datetime.fromisoformat(event["dt"])
        said = f"{event['lvl']:<8} {_words(event['msg'])}"
    except (yaml.YAMLError, ValueError, TypeError, KeyError):
        return Line(before.time, before.component, text, begins=False)
    # before 2026 without a zone, but of the same
    return Line(time if time.tzinfo else time.replace(tzinfo=UTC), before.component, said)


def _words(message: Any) -> str:
    if isinstance(message, dict):
        return ", ".join(f"{key}: {value}" for key, value in message.items())
    return str(message)


def _parted(text: str) -> tuple[datetime | None, str]:
    """The time that a line begins with, if it does, and the rest.

    Without a zone it is UTC: lava_dispatcher/worker.py, Formatter.converter.
    """
    found = OWN_TIME.match(text)
    if not found:
        return None, text
    stamp = f"{found['time']}{found['fraction'] or ''}{found['zone'] or 'Z'}"
    try:
        return datetime.fromisoformat(stamp), (found["level"] or "") + text[found.end() :]
    except ValueError:  # it only looks like one
        return None, text


FORMS = {JOURNAL: _of_journal, SAID: _of_service, JOB: _of_job}
