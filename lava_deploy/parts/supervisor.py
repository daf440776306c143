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


def prepare(system: System, host: Host) -> None:
    """Install the supervisor, from the package index; start nothing yet."""
    for directory in (host.supervisor, host.supervisor / "programs"):
        system.make_directory(directory)
    if not system.exists(_programs_of(host) / "supervisord"):
        environment = host.supervisor / "venv"
        # Debian's Python, and pip because it knows the index of this host from its configuration.
        system.run([PYTHON, "-m", "venv", "--clear", environment])
        system.run([environment / "bin/pip", "install", "--quiet", REQUIREMENT])
    content = templates.render("supervisor/supervisord.conf.j2", directory=host.supervisor)
    system.write(_configuration(host), content)


def faults(system: System, host: Host, limits: Limits) -> list[str]:
    """What stands in the way of instances of this host: limits, which only systemd can keep."""
    if limits == Limits():
        return []
    return ["limits: only systemd can keep them, and it is not process 1 here; leave limits out"]


def unprepare(system: System, host: Host) -> None:
    """Remove the supervisor, if no instance needs it any more."""
    if not system.names(host.supervisor / "programs"):
        _end(system, host)
        system.remove_tree(host.supervisor)


def install(
    system: System, web: Web, instance: Instance, services: Sequence[Service], limits: Limits
) -> None:
    """Have these services started whenever the supervisor starts, and no others.

    Nothing is started yet; what runs and is still wanted goes on. `limits` are none: see `faults`.
    """
    prepare(system, instance.host)
    system.write(_file(instance), text(instance, services))
    if _is_running(web, instance.host):
        # Asked of the daemon: a run that was killed here has left the file as it should be.
        gone = _loaded(web, instance) - set(_programs(system, instance))
        _forget(web, instance.host, sorted(gone))


def remove(system: System, web: Web, instance: Instance) -> None:
    """Stop the instance and forget its services; without any instance the daemon ends."""
    if _is_running(web, instance.host):
        _forget(web, instance.host, sorted(_loaded(web, instance)))
    system.remove(_file(instance))
    if not system.names(instance.host.supervisor / "programs"):
        _end(system, instance.host)


def start_all(system: System, web: Web, instance: Instance) -> None:
    _start(_daemon(system, web, instance.host), _programs(system, instance))


def stop_all(system: System, web: Web, instance: Instance) -> None:
    if _is_running(web, instance.host):
        _stop(_control(web, instance.host), _programs(system, instance))


def start(system: System, web: Web, instance: Instance, services: Sequence[Service]) -> None:
    holder = [HOLDER] if any(each.socket for each in services) else []
    names = [*holder, *(each.name for each in services)]
    programs = [_program(instance, name) for name in names]
    _start(_daemon(system, web, instance.host), programs)


def stop(system: System, web: Web, instance: Instance, services: Sequence[Service]) -> None:
    if _is_running(web, instance.host):
        programs = [_program(instance, each.name) for each in services]
        _stop(_control(web, instance.host), programs)


def restart(system: System, web: Web, instance: Instance, services: Sequence[Service]) -> None:
    """Restart services while their sockets are held; what was stopped is started."""
    stop(system, web, instance, services)
    start(system, web, instance, services)


def states(
    system: System, web: Web, wanted: Mapping[Instance, Sequence[Service]]
) -> dict[Instance, dict[str, ServiceState]]:
    """How services of instances fare, by their names."""
    hosts = {instance.host for instance in wanted}
    running = {host for host in hosts if _is_running(web, host)}
    shown = {each["group"]: each for host in running for each in _all_programs(web, host)}
    down = ServiceState(False, "the supervisor is not running")
    return {
        instance: {
            name: _state(shown.get(_program(instance, name))) if instance.host in running else down
            for name in (service.name for service in services)
        }
        for instance, services in wanted.items()
    }


def logs(
    system: System,
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
    names = system.run(words, check=False).stdout.split()
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


def _end(system: System, host: Host) -> None:
    """End the daemon, if it runs."""
    daemon = _process(system, host)
    if daemon:
        system.run(["kill", str(daemon)], check=False)
        system.has_ended(daemon, SECONDS_TO_STOP)


def _daemon(system: System, web: Web, host: Host) -> Supervisor:
    """The running daemon, started if it was not; it starts what is installed."""
    if not _is_running(web, host):
        # It returns when its socket listens.
        system.run([_programs_of(host) / "supervisord", "-c", _configuration(host)])
    return _control(web, host)


def _process(system: System, host: Host) -> int:
    """The number of the daemon's process, 0 when it does not run."""
    mark = host.supervisor / "supervisord.pid"
    number = system.read(mark).strip() if system.exists(mark) else ""
    command_line = Path("/proc") / number / "cmdline"
    if not number.isdigit() or not system.exists(command_line):
        return 0
    return int(number) if str(host.supervisor) in system.read(command_line) else 0


def _control(web: Web, host: Host) -> Supervisor:
    return web.supervisor(host.supervisor / "supervisor.sock")


def _is_running(web: Web, host: Host) -> bool:
    try:
        _control(web, host).ask("getState")
    except Unreachable:
        return False
    return True


def _loaded(web: Web, instance: Instance) -> set[str]:
    """The programs of an instance that the daemon knows."""
    known = {each["group"] for each in _all_programs(web, instance.host)}
    return {program for program in known if program.startswith(_program(instance, ""))}


def _all_programs(web: Web, host: Host) -> list[dict[str, Any]]:
    """What the daemon knows of its programs, those of all instances."""
    return _control(web, host).ask("getAllProcessInfo")


def _start(daemon: Supervisor, programs: Sequence[str]) -> None:
    """Start programs that do not run; the daemon loads those that are new to it."""
    known = {each["group"] for each in daemon.ask("getAllProcessInfo")}
    if not known.issuperset(programs):
        daemon.ask("reloadConfig")
    for program in programs:
        if program not in known:
            daemon.ask("addProcessGroup", program, harmless=(ALREADY_ADDED,))
        daemon.ask("startProcess", program, DO_NOT_WAIT, harmless=(ALREADY_STARTED,))


def _stop(daemon: Supervisor, programs: Sequence[str]) -> None:
    """Stop programs, all at once, and wait until they have ended; the daemon sees to that."""
    for program in programs:
        daemon.ask("stopProcess", program, DO_NOT_WAIT, harmless=(NOT_RUNNING, BAD_NAME))
    for program in programs:
        daemon.wait_stopped(program, SECONDS_TO_STOP)


def _forget(web: Web, host: Host, programs: Sequence[str]) -> None:
    """Stop programs and have the daemon know them no longer."""
    daemon = _control(web, host)
    _stop(daemon, programs)
    for program in programs:
        daemon.ask("removeProcessGroup", program, harmless=(BAD_NAME,))


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
