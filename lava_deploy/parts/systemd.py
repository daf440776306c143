"""Services of instances under systemd: template units shared by all, one target per instance.

All processes of an instance are in a slice of its own: counted, and limited, together.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy import templates
from lava_deploy.configuration import Limits
from lava_deploy.errors import PreflightFailed
from lava_deploy.model import DISPATCHER, JOURNAL, PUBLISHER, SCHEDULER, WEB, Log, ServiceState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lava_deploy.model import Host, Instance, Service
    from lava_deploy.system import System

UNITS = Path("/etc/systemd/system")
TARGET_TEMPLATE = "lava-deploy@.target"
# The service that systemd starts when somebody connects while none is running.
SOCKETS = {WEB: "web-a", PUBLISHER: PUBLISHER}
# gunicorn's graceful_timeout is 30; LAVA's publisher waits 5 for its last events.
SECONDS_TO_STOP = {"web-a": 40, "web-b": 40, PUBLISHER: 10, SCHEDULER: 20}
# Above the slices of instances; a hyphen would put it below a `lava.slice` that others may have.
SLICE = r"lava\x2ddeploy.slice"
HOMES = ("home", "root")
NOT_RUNNING = ServiceState(False, "not running")
PROPERTIES = ("Id", "ActiveState", "SubState", "StateChangeTimestamp", "NRestarts", "Result")


def texts(host: Host) -> dict[Path, str]:
    """The unit files, the same for all instances of a host."""
    instances = host.instances
    units = {
        TARGET_TEMPLATE: templates.render("systemd/target.j2"),
        f"lava-deploy-{DISPATCHER}@.service": templates.render(
            "systemd/dispatcher.service.j2", instances=instances
        ),
    }
    for socket, service in SOCKETS.items():
        units[f"lava-deploy-{socket}@.socket"] = templates.render(
            "systemd/socket.j2", instances=instances, socket=socket, service=service, slice=SLICE
        )
    for name, seconds in SECONDS_TO_STOP.items():
        component = name.split("-")[0]
        units[f"lava-deploy-{name}@.service"] = templates.render(
            "systemd/server.service.j2",
            instances=instances,
            name=name,
            socket=component if component in SOCKETS else "",
            seconds_to_stop=seconds,
            protect_home="read-only" if instances.parts[1] in HOMES else "yes",
        )
    return {UNITS / name: text for name, text in units.items()}


def slice_texts(instance: Instance, limits: Limits) -> dict[Path, str]:
    """The instance's slice, with its limits, and what puts each service into it."""
    inside = templates.render("systemd/in-slice.conf.j2", slice=_slice(instance))
    services = (*SECONDS_TO_STOP, DISPATCHER)
    return {
        UNITS / _slice(instance): templates.render(
            "systemd/slice.j2", name=instance.name, limits=limits
        ),
        **{UNITS / f"{_service(instance, name)}.d/slice.conf": inside for name in services},
    }


class Systemd:
    """Keeps services running by template units, grouped under one target per instance."""

    def __init__(self, system: System, host: Host) -> None:
        self._system, self._host = system, host

    def faults(self, limits: Limits) -> list[str]:
        """What stands in the way of instances of this host: units that serve another directory."""
        return _elsewhere(self._system, self._host)

    def prepare(self) -> None:
        """Write the unit files. Raises PreflightFailed when they serve another directory."""
        found = _elsewhere(self._system, self._host)
        if found:
            raise PreflightFailed(found, hint="One machine has one directory of instances.")
        if _write(self._system, texts(self._host)):
            self._system.run(["systemctl", "daemon-reload"])

    def unprepare(self) -> None:
        """Remove the unit files, if no instance needs them any more."""
        if not _instances(self._system):
            for path in texts(self._host):
                self._system.remove(path)
            self._system.run(["systemctl", "stop", SLICE])
            self._system.run(["systemctl", "daemon-reload"])

    def install(self, instance: Instance, services: Sequence[Service], limits: Limits) -> None:
        """Have these services started at every boot, and no others; start nothing yet.

        The limits are in force at once, for what already runs, too.
        """
        self.prepare()
        _write(self._system, slice_texts(instance, limits))
        wanted = [_target(instance), *_units(instance, services)]
        others = [unit for unit in _all(self._system, instance) if unit not in wanted]
        self._system.run(["systemctl", "disable", "--quiet", "--now", *others])
        # this has systemd read all its files anew
        self._system.run(["systemctl", "enable", "--quiet", *wanted])

    def remove(self, instance: Instance) -> None:
        """Stop the instance and forget its services; the last one takes the unit files along."""
        units = _all(self._system, instance)
        if units:
            self._system.run(["systemctl", "disable", "--quiet", "--now", *units])
            self._system.run(["systemctl", "reset-failed", *units], check=False)
        self._system.run(["systemctl", "stop", _slice(instance)])
        for path in slice_texts(instance, Limits()):
            self._system.remove(path)
            if path.parent != UNITS:
                self._system.remove_directory(path.parent)
        self.unprepare()

    def start_all(self, instance: Instance) -> None:
        self._system.run(["systemctl", "start", _target(instance)])

    def stop_all(self, instance: Instance) -> None:
        # Stopping the target alone would not wait for the end of its services.
        self._system.run(["systemctl", "stop", *_all(self._system, instance)])

    def start(self, instance: Instance, services: Sequence[Service]) -> None:
        self._system.run(["systemctl", "start", *_units(instance, services)])

    def stop(self, instance: Instance, services: Sequence[Service]) -> None:
        """Stop services and their sockets, so that nobody waits for an answer."""
        self._system.run(["systemctl", "stop", *_units(instance, services)])

    def restart(self, instance: Instance, services: Sequence[Service]) -> None:
        """Restart services while their sockets stay; what was stopped is started."""
        self._system.run(
            ["systemctl", "restart", *(_service(instance, each.name) for each in services)]
        )

    def reload(self, instance: Instance, services: Sequence[Service]) -> None:
        """Have services read their settings anew while they serve; what was stopped is started."""
        self._system.run(
            [
                *("systemctl", "reload-or-restart"),
                *(_service(instance, each.name) for each in services),
            ]
        )

    def states(
        self, wanted: Mapping[Instance, Sequence[Service]]
    ) -> dict[Instance, dict[str, ServiceState]]:
        """How services of instances fare, by their names.

        Units are asked for by patterns, which match those in systemd's memory: the others do not
        run, and reading them takes longer than all else.
        """
        patterns = [_service(instance, "*") for instance in wanted]
        if not patterns:  # systemctl would show its own properties
            return {}
        shown = self._system.run(
            ["systemctl", "show", "--property", ",".join(PROPERTIES), *patterns]
        ).stdout
        found = [dict(_pair(line) for line in block.splitlines()) for block in shown.split("\n\n")]
        known = {each["Id"]: _state(each) for each in found if "Id" in each}
        return {
            instance: {
                each.name: known.get(_service(instance, each.name), NOT_RUNNING)
                for each in services
            }
            for instance, services in wanted.items()
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
        """Where to read what services said: since then, or the last lines, or all; and go on."""
        command = [
            *("journalctl", "--quiet", "--no-pager", "--all", "--output=json"),
            "--output-fields=MESSAGE,SYSLOG_IDENTIFIER",
            f"--lines={'all' if lines is None else lines}",
            *([f"--since=@{since.timestamp():.6f}"] if since else []),
            *(["--follow"] if follow else []),
        ]
        return [
            Log(each.component, JOURNAL, ((*command, f"--unit={_service(instance, each.name)}"),))
            for each in services
        ]


def _elsewhere(system: System, host: Host) -> list[str]:
    path = UNITS / f"lava-deploy-{DISPATCHER}@.service"
    if not _instances(system) or f"ExecStart={host.instances}/%i/" in system.read(path):
        return []
    return [f"the units of this host's instances are for another directory than {host.instances}"]


def _write(system: System, files: Mapping[Path, str]) -> bool:
    """Write those files that do not say so yet; whether there were any."""
    changed = {
        path: text
        for path, text in files.items()
        if not system.exists(path) or system.read(path) != text
    }
    for path, text in changed.items():
        if not system.exists(path.parent):
            system.make_directory(path.parent)
        system.write(path, text)
    return bool(changed)


def _state(shown: dict[str, str]) -> ServiceState:
    words = [shown["SubState"]]
    if shown["StateChangeTimestamp"]:
        words.append(f"since {shown['StateChangeTimestamp']}")
    if shown["Result"] != "success":
        words.append(f"after {shown['Result']}")
    if shown["NRestarts"] not in ("", "0"):
        words.append(f"restarted {shown['NRestarts']} times")
    return ServiceState(shown["ActiveState"] == "active", ", ".join(words))


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition("=")
    return key, value


def _instances(system: System) -> list[str]:
    """The names of the targets that are enabled: one for each instance."""
    wanted = system.names(UNITS / "multi-user.target.wants")
    prefix, suffix = TARGET_TEMPLATE.split("@")
    return [name for name in wanted if name.startswith(f"{prefix}@") and name.endswith(suffix)]


def _target(instance: Instance) -> str:
    return f"lava-deploy@{instance.name}.target"


def _service(instance: Instance, name: str) -> str:
    return f"lava-deploy-{name}@{instance.name}.service"


def _slice(instance: Instance) -> str:
    """A hyphen parts a slice from those above it; that of a name is escaped: systemd.slice(5)."""
    escaped = instance.name.replace("-", r"\x2d")
    return f"{SLICE.removesuffix('.slice')}-{escaped}.slice"


def _units(instance: Instance, services: Sequence[Service]) -> list[str]:
    """The units of services, their sockets first."""
    sockets = [
        f"lava-deploy-{each.socket}@{instance.name}.socket" for each in services if each.socket
    ]
    return sockets + [_service(instance, service.name) for service in services]


def _all(system: System, instance: Instance) -> list[str]:
    """Every unit that an instance may have, as far as its file is there."""
    names = [path.name for path in texts(instance.host) if system.exists(path)]
    return [name.replace("@.", f"@{instance.name}.") for name in names]
