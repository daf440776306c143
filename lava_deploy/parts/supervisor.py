"""Services of instances on hosts without systemd: programs of one supervisor daemon.

It lies in a virtualenv of its own, so that no change of lava-deploy or of a release touches it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lava_deploy import templates
from lava_deploy.configuration import Limits
from lava_deploy.errors import Unreachable
from lava_deploy.model import DISPATCHER, HOLDER, PYTHON, SAID, Log, Service, ServiceState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lava_deploy.model import Host, Instance
    from lava_deploy.system import System
    from lava_deploy.web import Supervisor, Web

REQUIREMENT = "supervisor==4.3.0"
# The holder of the listening sockets comes first and goes last.
FIRST, LATER = 1, 10
SECONDS_TO_STOP = 60
# supervisor.xmlrpc.Faults
BAD_NAME, ALREADY_STARTED, NOT_RUNNING, ALREADY_ADDED = 10, 60, 70, 90
DO_NOT_WAIT = False
# Lines to read beyond those asked for, so that the first has the time it belongs to.
LONGEST_TRACEBACK = 300


@dataclass(frozen=True)
class _Program:
    """A service as the supervisor knows it; the names of programs are the whole host's."""

    program: str
    service: Service
    priority: int


def text(instance: Instance, services: Sequence[Service]) -> str:
    """The supervisor's file of an instance."""
    held = [Service(HOLDER, HOLDER, instance.user)] if any(s.socket for s in services) else []
    programs = [
        _Program(_program(instance, service.name), service, priority)
        for priority, some in ((FIRST, held), (LATER, services))
        for service in some
    ]
    return templates.render(
        "supervisor/programs.conf.j2", instance=instance, programs=programs, dispatcher=DISPATCHER
    )


class Supervisord:
    """Keeps services running by a supervisor daemon of our own."""

    def __init__(self, system: System, web: Web, host: Host) -> None:
        self._system, self._web, self._host = system, web, host

    def faults(self, limits: Limits) -> list[str]:
        """What stands in the way of instances of this host: limits, which only systemd can keep."""
        if limits == Limits():
            return []
        return [
            "limits: only systemd can keep them, and it is not process 1 here; leave limits out"
        ]

    def prepare(self) -> None:
        """Install the supervisor, from the package index; start nothing yet."""
        for directory in (self._host.supervisor, self._host.supervisor / "programs"):
            self._system.make_directory(directory)
        if not self._system.exists(_programs_of(self._host) / "supervisord"):
            environment = self._host.supervisor / "venv"
            # Debian's Python; pip, because it knows this host's index from its configuration
            self._system.run([PYTHON, "-m", "venv", "--clear", environment])
            self._system.run([environment / "bin/pip", "install", "--quiet", REQUIREMENT])
        content = templates.render(
            "supervisor/supervisord.conf.j2", directory=self._host.supervisor
        )
        self._system.write(_configuration(self._host), content)

    def unprepare(self) -> None:
        """Remove the supervisor, if no instance needs it any more."""
        if not self._system.names(self._host.supervisor / "programs"):
            self._end()
            self._system.remove_tree(self._host.supervisor)

    def install(self, instance: Instance, services: Sequence[Service], limits: Limits) -> None:
        """Have these services started whenever the supervisor starts, and no others.

        Nothing is started yet; what runs and is still wanted goes on. There are no limits: see
        `faults`.
        """
        self.prepare()
        self._system.write(_file(instance), text(instance, services))
        if self._is_running():
            # Asked of the daemon: a run that was killed here has left the file as it should be.
            gone = self._loaded(instance) - set(_programs(self._system, instance))
            self._forget(sorted(gone))

    def remove(self, instance: Instance) -> None:
        """Stop the instance and forget its services; without any instance the daemon ends."""
        if self._is_running():
            self._forget(sorted(self._loaded(instance)))
        self._system.remove(_file(instance))
        if not self._system.names(self._host.supervisor / "programs"):
            self._end()

    def start_all(self, instance: Instance) -> None:
        _start(self._daemon(), _programs(self._system, instance))

    def stop_all(self, instance: Instance) -> None:
        if self._is_running():
            _stop(self._control(), _programs(self._system, instance))

    def start(self, instance: Instance, services: Sequence[Service]) -> None:
        holder = [HOLDER] if any(each.socket for each in services) else []
        names = [*holder, *(each.name for each in services)]
        programs = [_program(instance, name) for name in names]
        _start(self._daemon(), programs)

    def stop(self, instance: Instance, services: Sequence[Service]) -> None:
        if self._is_running():
            programs = [_program(instance, each.name) for each in services]
            _stop(self._control(), programs)

    def restart(self, instance: Instance, services: Sequence[Service]) -> None:
        """Restart services while their sockets are held; what was stopped is started."""
        self.stop(instance, services)
        self.start(instance, services)

    def reload(self, instance: Instance, services: Sequence[Service]) -> None:
        """Have services read their settings anew while they serve; what was stopped is started."""
        states = self.states({instance: services})[instance]
        for each in services:
            if states[each.name].running:
                self._control().ask("signalProcess", _program(instance, each.name), "HUP")
            else:
                self.start(instance, [each])

    def states(
        self, wanted: Mapping[Instance, Sequence[Service]]
    ) -> dict[Instance, dict[str, ServiceState]]:
        """How services of instances fare, by their names."""
        try:
            shown = {each["group"]: each for each in self._all_programs()}
        except Unreachable:
            down = ServiceState(False, "the supervisor is not running")
            return {one: {each.name: down for each in some} for one, some in wanted.items()}
        return {
            one: {each.name: _state(shown.get(_program(one, each.name))) for each in some}
            for one, some in wanted.items()
        }

    def logs(
        self,
        instance: Instance,
        services: Sequence[Service],
        *,
        since: datetime | None = None,
        lines: int | None = None,
        follow: bool = False,
    ) -> list[Log]:
        """Where to read what services said: since then, or the last lines, or all; from now on too.

        Lines since a time are in the files that were written to since; older lines are among them.
        """
        later: list[str] = ["-newermt", f"@{since.timestamp():.6f}"] if since else []
        words = ["find", str(instance.log), "-name", "*.log*", *later, "-printf", "%f\\n"]
        names = self._system.run(words, check=False).stdout.split()
        count = "+1" if lines is None else str(lines + LONGEST_TRACEBACK)
        found = []
        for each in services:
            *rotated, current = _files(instance, each, names)
            show = ("tail", "--quiet", f"--lines={count}")
            commands: list[tuple[str, ...]] = [(*show, path) for path in rotated]
            if follow:
                commands.append((*show, "--follow=name", "--retry", current))
            elif Path(current).name in names:
                commands.append((*show, current))
            found.append(Log(each.component, SAID, tuple(commands)))
        return found

    def _daemon(self) -> Supervisor:
        """The running daemon, started if it was not; it starts what is installed."""
        if not self._is_running():
            # It returns when its socket listens.
            self._system.run(
                [_programs_of(self._host) / "supervisord", "-c", _configuration(self._host)]
            )
        return self._control()

    def _is_running(self) -> bool:
        try:
            self._control().ask("getState")
        except Unreachable:
            return False
        return True

    def _control(self) -> Supervisor:
        return self._web.supervisor(self._host.supervisor / "supervisor.sock")

    def _loaded(self, instance: Instance) -> set[str]:
        """The programs of an instance that the daemon knows."""
        known = {each["group"] for each in self._all_programs()}
        return {program for program in known if program.startswith(_program(instance, ""))}

    def _all_programs(self) -> list[dict[str, Any]]:
        """What the daemon knows of its programs, those of all instances."""
        return self._control().ask("getAllProcessInfo")

    def _forget(self, programs: Sequence[str]) -> None:
        """Stop programs and have the daemon know them no longer."""
        daemon = self._control()
        _stop(daemon, programs)
        for program in programs:
            daemon.ask("removeProcessGroup", program, harmless=(BAD_NAME,))

    def _end(self) -> None:
        """End the daemon, if it runs."""
        daemon = self._process()
        if daemon:
            self._system.run(["kill", str(daemon)], check=False)
            self._system.has_ended(daemon, SECONDS_TO_STOP)

    def _process(self) -> int:
        """The number of the daemon's process, 0 when it does not run."""
        mark = self._host.supervisor / "supervisord.pid"
        number = self._system.read(mark).strip() if self._system.exists(mark) else ""
        command_line = Path("/proc") / number / "cmdline"
        if not number.isdigit() or not self._system.exists(command_line):
            return 0
        return int(number) if str(self._host.supervisor) in self._system.read(command_line) else 0


def _files(instance: Instance, service: Service, names: Sequence[str]) -> list[str]:
    """The log of a service, the oldest part first; the last is the one that is written to."""
    current = f"{service.name}.log"
    numbers = [name.removeprefix(f"{current}.") for name in names if name.startswith(f"{current}.")]
    rotated = sorted((int(number) for number in numbers if number.isdigit()), reverse=True)
    return [str(instance.log / name) for name in (*(f"{current}.{n}" for n in rotated), current)]


def _state(shown: dict[str, Any] | None) -> ServiceState:
    if shown is None:
        return ServiceState(False, "not known to the supervisor")
    words = f"{shown['statename'].lower()}, {shown['description']}".rstrip(", ")
    return ServiceState(shown["statename"] in ("RUNNING", "STARTING"), words)


def _start(daemon: Supervisor, programs: Sequence[str]) -> None:
    """Start programs that do not run; the daemon loads those that are new to it."""
    known = {each["group"] for each in daemon.ask("getAllProcessInfo")}
    if not known.issuperset(programs):
        daemon.ask("reloadConfig")
    for program in programs:
        if program not in known:
            daemon.ask("addProcessGroup", program, harmless=(ALREADY_ADDED,))
        # a run that was killed may have told it to stop: while it ends, a start is not heard
        daemon.wait_stopped(program, SECONDS_TO_STOP)
        daemon.ask("startProcess", program, DO_NOT_WAIT, harmless=(ALREADY_STARTED,))


def _stop(daemon: Supervisor, programs: Sequence[str]) -> None:
    """Stop programs, all at once, and wait until they have ended; the daemon sees to that."""
    for program in programs:
        daemon.ask("stopProcess", program, DO_NOT_WAIT, harmless=(NOT_RUNNING, BAD_NAME))
    for program in programs:
        daemon.wait_stopped(program, SECONDS_TO_STOP)


def _programs_of(host: Host) -> Path:
    return host.supervisor / "venv/bin"


def _configuration(host: Host) -> Path:
    return host.supervisor / "supervisord.conf"


def _file(instance: Instance) -> Path:
    return instance.host.supervisor / "programs" / f"{instance.name}.conf"


def _programs(system: System, instance: Instance) -> list[str]:
    """The programs of an instance, as its file has them."""
    if not system.exists(_file(instance)):
        return []
    return re.findall(r"(?m)^\[program:(.*)\]$", system.read(_file(instance)))


def _program(instance: Instance, service: str) -> str:
    """The supervisor's name of a service; a dot stands in no instance's name."""
    return f"{instance.name}.{service}"
