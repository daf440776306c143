"""What every command shares: its options, the doors for operations, its lock and history."""

from __future__ import annotations

import getpass
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from lava_deploy import config
from lava_deploy.configuration import name_faults
from lava_deploy.errors import Busy, DeployError, PreflightFailed, UsageError
from lava_deploy.model import STAMP
from lava_deploy.report import Report

if TYPE_CHECKING:
    from lava_deploy.configuration import Database
    from lava_deploy.journal import Journal
    from lava_deploy.model import Host, Instance
    from lava_deploy.operations import Doors
    from lava_deploy.packs import Packs
    from lava_deploy.playbook import Playbook
    from lava_deploy.postgres import Postgres
    from lava_deploy.steps import Plan
    from lava_deploy.web import Web

LOG = "lava-deploy.log"
# The operation that nobody has to decide about when it was killed: operations/backup.py
BACKUP = "backup"


@dataclass
class Context:
    """One run of the command, built up from its options."""

    environment: Mapping[str, str] = field(default_factory=lambda: config.proxies(os.environ))
    root: str = ""
    quiet: bool = False
    verbose: bool = False
    # whether the command has come to where it changes things
    changing: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def host(self) -> Host:
        return config.host(self.root, self.environment)

    @cached_property
    def report(self) -> Report:
        return Report(quiet=self.quiet, verbose=self.verbose)

    @cached_property
    def doors(self) -> Doors:
        from lava_deploy.operations import Doors
        from lava_deploy.system import System

        return Doors(
            host=self.host,
            system=System(self.environment),
            postgres=_postgres,
            open_playbook=self._playbook,
            open_web=self._web,
            open_packs=_packs,
            report=self.report,
        )

    def _playbook(self) -> Playbook:
        from lava_deploy.playbook import Playbook

        return Playbook(self.environment)

    def _web(self) -> Web:
        from lava_deploy.web import Web

        return Web(authority=self.host.authority)

    @property
    def stamp(self) -> str:
        """The time the command began, as it stands in ids: UTC, without colons."""
        return self.now.strftime(STAMP)

    @property
    def seconds(self) -> float:
        """How long the command has run."""
        return (datetime.now(UTC) - self.now).total_seconds()

    @property
    def interactive(self) -> bool:
        """Whether there is somebody to ask."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def instance(self, name: str) -> Instance:
        """The instance of that name. Raises UsageError when there is none.

        Raises Busy for one of which a killed run has left a part only in its place.
        """
        from lava_deploy.operations import inspect

        known = inspect.names(self.doors)
        if name in known:
            return self.host.instance(name)
        for journal in self.unfinished():
            if journal.subject == name:
                message, hint = told(journal)
                raise Busy(message, hint=hint)
        have = f"There are: {', '.join(known)}." if known else "There are none yet."
        raise UsageError(f"there is no instance {name}", hint=have)

    def require_root(self) -> None:
        """Raises PreflightFailed for anybody but root; who is root keeps a log of what is done."""
        if os.geteuid() != 0:
            raise PreflightFailed(["this needs root"], hint="Run it with sudo.")
        if self.host.log.is_dir():
            self.report.log_to(self.host.log / LOG)

    @contextmanager
    def holding(self, subject: str, *, unfinished: bool = False) -> Iterator[None]:
        """Hold the lock of an instance, or of "host".

        Raises Busy when somebody else has it, or when a killed run waits to be dealt with, unless
        that is what the command is for.
        """
        from lava_deploy import journal as journals
        from lava_deploy import locks

        with locks.locked(self.host.locks, subject, command_line()):
            journal = journals.unfinished(self.host.journals, subject)
            if journal and not unfinished and not self._cleared_away(journal):
                message, hint = told(journal)
                raise Busy(message, hint=hint)
            yield

    def _cleared_away(self, journal: Journal) -> bool:
        """Whether it was a backup, which nobody needs to decide about: it left nothing of value."""
        from lava_deploy.cli import restoring  # which imports this module

        return restoring.clear_away(self, journal)

    @contextmanager
    def recorded(self, subject: str) -> Iterator[None]:
        """Write one line to the history of an instance, whatever comes of the command."""
        self.changing = True
        try:
            yield
        except BaseException as error:
            self.record(subject, error)
            raise
        self.record(subject)

    def record(self, subject: str, error: BaseException | None = None) -> None:
        """Write the line of this command to the history of an instance."""
        from lava_deploy.operations import history

        outcome = "done"
        if error:
            outcome = f"failed: {type(error).__name__}"
        if isinstance(error, DeployError):
            outcome = f"failed ({error.exit_status}): {error}"
        ended = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = history.Entry(ended, admin(), command_line(), outcome)
        try:
            history.write(self.doors.system, self.host, subject, entry)
        except OSError as fault:  # a full disk, say: what was done is told all the same
            self.report.warn(f"the history could not be written: {fault}")

    def unfinished(self) -> list[Journal]:
        """The plans that were killed or stopped half-way, but not those under way just now."""
        from lava_deploy import journal as journals
        from lava_deploy import locks

        names = self.doors.system.names(self.host.journals)
        subjects = [name.removesuffix(journals.SUFFIX) for name in names]
        found = [
            journals.unfinished(self.host.journals, subject)
            for subject in subjects
            if not locks.is_held(self.host.locks, subject)
        ]
        return [journal for journal in found if journal]

    def carry_out(self, plan: Plan, *, dry_run: bool = False) -> bool:
        """Carry a plan out, or only show it; tells whether it was carried out."""
        from lava_deploy import steps

        if dry_run:
            self.report.plan(plan)
            return False
        steps.carry_out(plan, self.host.journals, self.report)
        return True

    def confirm(self, question: str, *, yes: bool, default: bool = False) -> None:
        """Go on only if the admin agrees. Raises UsageError when there is nobody to ask."""
        if yes:
            return
        if not self.interactive:
            raise UsageError(
                "this needs an agreement, and there is no terminal to ask on",
                hint="Give --yes if you mean it.",
            )
        if not click.confirm(question, default=default, err=True):
            raise UsageError("not agreed: nothing was changed")


def _packs() -> Packs:
    from lava_deploy.packs import Packs

    return Packs()


def _postgres(server: Database) -> Postgres:
    from lava_deploy.postgres import Postgres

    return Postgres(server.host, server.port, server.admin, server.admin_password_file)


def told(journal: Journal) -> tuple[str, str]:
    """What to say of an unfinished plan, and what to do about it."""
    subject = journal.subject
    if journal.operation == BACKUP:
        return f"a backup of {subject} was killed", "The next command on it clears that away."
    ways = []
    if not journal.undoing:
        ways.append(f"`lava-deploy resume {subject}` completes it")
    if not journal.committed:
        ways.append(f"`lava-deploy abandon {subject}` undoes it")
    return (
        f"the {journal.operation} of {subject}, begun at {journal.started}, was stopped half-way",
        f"{', '.join(ways)}.",
    )


def command_line() -> str:
    """What the admin typed; secrets are never part of a command line."""
    return shlex.join(["lava-deploy", *sys.argv[1:]])


def admin() -> str:
    """Who runs the command, through sudo as well."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.ensure_object(Context), name, value)

    return keep


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command, and the Context as its first argument."""
    for option in (
        click.option(
            "--root",
            expose_value=False,
            callback=_set("root"),
            metavar="DIR",
            help="Work below DIR instead of /srv/lava (also LAVA_ROOT).",
        ),
        click.option(
            "--quiet",
            "-q",
            is_flag=True,
            expose_value=False,
            callback=_set("quiet"),
            help="Say only what went wrong.",
        ),
        click.option(
            "--verbose",
            "-v",
            is_flag=True,
            expose_value=False,
            callback=_set("verbose"),
            help="Say more of what happens.",
        ),
    ):
        function = option(function)
    return click.make_pass_decorator(Context, ensure=True)(function)


def complete_names(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """The instances whose names begin with what was typed, by anybody: before sudo, say."""
    instances = context.ensure_object(Context).host.instances
    return [one.name for one in instances.glob(f"{incomplete}*") if not name_faults(one.name)]


named = click.argument("name", shell_complete=complete_names)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
overwrite = click.option(
    "--overwrite", is_flag=True, help="Also replace files that were edited by hand."
)
dry_run = click.option("--dry-run", is_flag=True, help="Only show the plan.")
yes = click.option("--yes", "-y", is_flag=True, help="Agree beforehand to what would be asked.")
no_questions = click.option(
    "-n", "no_questions", is_flag=True, help="Ask nothing: take the default of each question."
)
