"""The smoke job: submitted and watched with lavacli as an admin would, then read back over REST."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lava_deploy import templates
from lava_deploy.configuration import SELF_SIGNED
from lava_deploy.errors import CommandFailed, JobFailed

if TYPE_CHECKING:
    from lava_deploy.configuration import Route
    from lava_deploy.model import Guest, Secret
    from lava_deploy.system import System
    from lava_deploy.web import Web

# The user of LAVA's who submits; the token is in Instance.client_token.
USER = "lava-deploy"
DESCRIPTION = "smoke jobs of lava-deploy"
# A module of our own virtualenv: the one that this Python is part of.
LAVACLI = (sys.executable, "-m", "lavacli")

# What Debian's programs trust; requests, below lavacli, has a list of its own.
SYSTEM_TRUST = Path("/etc/ssl/certs/ca-certificates.crt")

SECONDS_TO_ANSWER = 60
# What lavacli says, in the words of urllib3, of a name that nobody knows.
UNKNOWN_NAME = "Failed to resolve"
# The scheduler looks every few seconds; another job may be on the device.
SECONDS_TO_START = 180
# Above the job's own limit, so that LAVA has the first word.
SECONDS_TO_END = 700

# LAVA drops the escape character itself and leaves the rest: SeaBIOS's reset ("c") and clearing
# of the screen, busybox's question where the cursor is.
CONTROL = re.compile(r"\x1b?c?\x1b?\[\?7l|\x1b?\[[0-9;?]+[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
# What the guest's console shows of LAVA's typing, and of the test shell's tracing.
ECHO = re.compile(r"lava-guest#|\+ |<LAVA_")
MAIN_ACTION = re.compile(r"start: \d+ (?P<name>\S+)")


@dataclass(frozen=True)
class Outcome:
    """How a job ended, as the server tells over REST.

    `cases` are the results of the guest's test cases, `seconds` the time from submission to end,
    `error_type` LAVA's word for who is to blame: Infrastructure, Job, Test, Bug, Configuration,
    Canceled, LAVATimeout; empty for a job that ended well.
    """

    job: int
    health: str
    cases: Mapping[str, str]
    worker: str
    seconds: float
    ended: str
    error_type: str
    error_message: str
    url: str


@dataclass(frozen=True)
class Session:
    """A server and what lavacli needs to know to speak to it as our user."""

    url: str
    token: Secret
    folder: Path
    environment: Mapping[str, str]


@contextmanager
def session(system: System, route: Route, token: Secret, authority: Path) -> Iterator[Session]:
    """Speak to the server as people reach it; `authority` is the certificate of the host's own.

    The token lies in a 0600 file (lavacli.yaml, where XDG_CONFIG_HOME says) while the block runs.
    """
    url = route.url.rstrip("/")
    account = {"uri": f"{url}/RPC2", "username": USER, "token": token.reveal()}
    with system.temporary_directory() as folder:
        system.write(folder / "lavacli.yaml", templates.dump({"default": account}), mode=0o600)
        # The instance is on this host: the admin's proxy need not know its name.
        direct = {"no_proxy": route.hostname, "NO_PROXY": route.hostname}
        # Without PYTHONUNBUFFERED the log would come in one piece, at the end.
        ours = {"XDG_CONFIG_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
        trusted = authority if route.certificate == SELF_SIGNED else SYSTEM_TRUST
        trust = {"REQUESTS_CA_BUNDLE": str(trusted)} if route.secure else {}
        yield Session(url, token, folder, {**direct, **ours, **trust})


def definition(guest: Guest, device_type: str, tag: str, nonce: str) -> str:
    """A job that boots the guest on a device of that type and tag; `nonce` is of [0-9a-f]."""
    return templates.render(
        "smoke-job.yaml.j2", guest=guest, device_type=device_type, tag=tag, nonce=nonce
    )


def proof(nonce: str) -> str:
    """The name of the test case that only a guest booted with this nonce can report."""
    words = f"lava_deploy_nonce={nonce}\n"
    return "nonce-" + hashlib.sha256(words.encode()).hexdigest()[:16]


def submit(system: System, session: Session, text: str) -> int:
    """Submit a job over XML-RPC. Raises JobFailed, with LAVA's reason, for one that it refuses."""
    system.write(session.folder / "job.yaml", text, mode=0o600)
    try:
        said = _lavacli(system, session, "submit", str(session.folder / "job.yaml"))
    except CommandFailed as refused:
        # requests, below lavacli, puts the whole address into its errors, with the token in it
        reason = refused.output.replace(session.token.reveal(), "***")
        reason = reason.strip().replace(f"{session.folder}/", "")
        hint = f"Does {session.url} lead to this machine, by this machine's own resolver?"
        raise JobFailed(
            f"LAVA did not take the job: {reason}",
            hint=hint if UNKNOWN_NAME in reason else "",
        ) from None
    return int(said)


def follow(system: System, session: Session, job: int, show: Callable[[str], None]) -> None:
    """Show a job's log as it comes, until the job is finished; a job left behind is cancelled.

    Raises JobFailed for one that does not start or end in time.
    """
    try:
        if _logs(system, session, job, SECONDS_TO_START, ["--end", "1"], _nothing):
            raise JobFailed(
                f"job {job} has not started after {SECONDS_TO_START} seconds",
                hint="Is the worker online and the device free? "
                f"{session.url}/scheduler/job/{job} says what it waits for.",
            )
        if _logs(system, session, job, SECONDS_TO_END, [], lambda line: _tell(line, show)):
            raise JobFailed(f"the log of job {job} broke off, or had no end in {SECONDS_TO_END} s")
    except BaseException:
        cancel(system, session, job)
        raise


def cancel(system: System, session: Session, job: int) -> None:
    """Ask the server to end a job; one that has ended already is left as it is."""
    _lavacli(system, session, "cancel", str(job), check=False)


def read_back(web: Web, session: Session, job: int) -> Outcome:
    """What the server has of a finished job, over REST (`/api/v0.2/`)."""
    address = f"{session.url}/api/v0.2"

    def read(path: str) -> Any:
        return web.json(f"{address}/{path}", token=session.token)

    record = read(f"jobs/{job}/")
    suites = {suite["id"]: suite["name"] for suite in read(f"jobs/{job}/suites/")["results"]}
    tests = read(f"jobs/{job}/tests/?limit=1000")["results"]
    ours = {t["name"]: t["result"] for t in tests if suites[t["suite"]] != "lava"}
    verdict = _verdict([t for t in tests if suites[t["suite"]] == "lava"])
    device = record["actual_device"]
    return Outcome(
        job=job,
        health=record["health"],
        cases=ours,
        worker=read(f"devices/{device}/")["worker_host"] if device else "",
        seconds=_seconds(record["submit_time"], record["end_time"]),
        ended=record["end_time"],
        error_type=verdict.get("error_type", ""),
        error_message=_plain(verdict.get("error_msg") or record["failure_comment"] or ""),
        url=f"{session.url}/scheduler/job/{job}",
    )


def log(web: Web, session: Session, job: int) -> str:
    """The guest's part of a job's log, as the server keeps it."""
    text = web.text(f"{session.url}/api/v0.2/jobs/{job}/logs/", token=session.token)
    lines = (event for line in text.splitlines() for event in _events(line))
    return "\n".join(_plain(event["msg"]) for event in lines if event["lvl"] == "target")


def judge(outcome: Outcome) -> None:
    """Take only a complete job whose test cases all passed. Raises JobFailed with the reason."""
    failed = [name for name, result in outcome.cases.items() if result != "pass"]
    if outcome.health != "Complete":
        kind = f"{outcome.error_type} error: " if outcome.error_type else ""
        raise _failed(outcome, f"{outcome.health}: {kind}{outcome.error_message or 'no reason'}")
    if failed:
        raise _failed(outcome, f"Complete, but these did not pass: {', '.join(failed)}")


def judge_proof(outcome: Outcome, log: str, nonce: str) -> None:
    """Take only proof that the guest of this very job ran. Raises JobFailed."""
    wanted = proof(nonce)
    if wanted not in outcome.cases:
        raise _failed(outcome, f"Complete, but without the guest's answer {wanted}")
    if "Linux version" not in log or wanted not in log:
        raise _failed(outcome, "Complete, but its log does not show that a guest ran")


def _failed(outcome: Outcome, how: str) -> JobFailed:
    return JobFailed(f"job {outcome.job} ended {how}", hint=f"Its log is at {outcome.url}")


def _lavacli(system: System, session: Session, *words: str, check: bool = True) -> str:
    return system.run(
        [*LAVACLI, "jobs", *words],
        environment=session.environment,
        check=check,
        timeout=SECONDS_TO_ANSWER,
    ).stdout


def _logs(
    system: System,
    session: Session,
    job: int,
    seconds: int,
    options: Sequence[str],
    line: Callable[[str], None],
) -> int:
    """Follow a job's log for so long at most; the status is 0 if that was enough."""
    limited = ["timeout", "--kill-after=5", str(seconds), *LAVACLI]
    words = ["jobs", "logs", str(job), "--raw", "--polling", "1", *options]
    return system.follow([*limited, *words], line, environment=session.environment)


def _nothing(line: str) -> None:
    """Show nothing."""


def _tell(line: str, show: Callable[[str], None]) -> None:
    """Show what tells a person something: the guest's words, results, errors, the job's phases."""
    for event in _events(line):
        level, message = event["lvl"], event["msg"]
        if level == "results" and message["definition"] != "lava":
            show(f"{message['case']}: {message['result']}")
        elif level in ("error", "exception") and _plain(message):
            # of a Python traceback, what went wrong
            show(f"{level}: {_plain(message).splitlines()[-1]}")
        elif level == "target" and _plain(message) and not ECHO.match(_plain(message)):
            show(f"guest: {_plain(message)}")
        elif phase := MAIN_ACTION.match(str(message)):
            show(phase["name"])


def _events(line: str) -> list[dict[str, Any]]:
    """The events in one line of LAVA's log, a YAML list; what is no event tells nothing."""
    try:
        events = yaml.safe_load(line)
    except yaml.YAMLError:
        return []
    return events if isinstance(events, list) else []


def _plain(message: Any) -> str:
    """A message without what moves a terminal's cursor."""
    return CONTROL.sub("", str(message)).strip()


def _verdict(tests: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The result of the case `job` in LAVA's own suite: it has `error_type` and `error_msg`."""
    found = [test["metadata"] for test in tests if test["name"] == "job" and test["metadata"]]
    return yaml.safe_load(found[0]) if found else {}


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
