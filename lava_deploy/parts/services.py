"""The processes of an instance: which there are, how each is started, and their common verbs.

What looks after processes is handed in as `keeper`. Every process is started by a launcher, a
script that names the release's real path: to change the release is to rewrite launchers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lava_deploy import templates
from lava_deploy.errors import Unreachable
from lava_deploy.model import (
    COMPONENTS,
    DISPATCHER,
    HOLDER,
    PUBLISHER,
    PYTHON,
    SCHEDULER,
    SLOTS,
    WEB,
    Service,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lava_deploy.configuration import Configuration, Limits
    from lava_deploy.model import Instance, Log, Release, ServiceState
    from lava_deploy.system import System

PROCESSES = Path("/proc")
# Where lava-run keeps a job's files, under the job prefix: lava_common.constants
JOB_FILES = Path("/var/lib/lava/dispatcher/tmp")
SECONDS_TO_CANCEL = 20
SECONDS_TO_LOAD = 60


class Keeper(Protocol):
    """What keeps the services of a host's instances running: Systemd or Supervisord."""

    def faults(self, limits: Limits) -> list[str]: ...
    def install(self, instance: Instance, services: Sequence[Service], limits: Limits) -> None: ...
    def remove(self, instance: Instance) -> None: ...
    def start_all(self, instance: Instance) -> None: ...
    def stop_all(self, instance: Instance) -> None: ...
    def start(self, instance: Instance, services: Sequence[Service]) -> None: ...
    def stop(self, instance: Instance, services: Sequence[Service]) -> None: ...
    def restart(self, instance: Instance, services: Sequence[Service]) -> None: ...
    def reload(self, instance: Instance, services: Sequence[Service]) -> None: ...
    def states(
        self, wanted: Mapping[Instance, Sequence[Service]]
    ) -> dict[Instance, dict[str, ServiceState]]: ...
    def logs(
        self,
        instance: Instance,
        services: Sequence[Service],
        *,
        since: datetime | None = None,
        lines: int | None = None,
        follow: bool = False,
    ) -> list[Log]: ...


def of(
    system: System, instance: Instance, configuration: Configuration, component: str = ""
) -> tuple[Service, ...]:
    """The services of an instance, or of one component: those that should be running."""
    chosen = configuration.components
    on = {
        WEB: True,
        PUBLISHER: chosen.publisher,
        SCHEDULER: chosen.scheduler,
        DISPATCHER: chosen.dispatcher,
    }
    wanted = [component] if component else COMPONENTS
    return tuple(_service(instance, slot(system, instance), one) for one in wanted if on[one])


def all_of(instance: Instance, component: str = "") -> tuple[Service, ...]:
    """Every service there can ever have been of an instance, or of one component."""
    return tuple(
        _service(instance, slot, one)
        for one in ([component] if component else COMPONENTS)
        for slot in (SLOTS if one == WEB else SLOTS[:1])
    )


def named(instance: Instance, names: Sequence[str]) -> tuple[Service, ...]:
    """Services by their names."""
    parted = [name.partition("-") for name in names]
    return tuple(_service(instance, suffix, component) for component, _, suffix in parted)


def slot(system: System, instance: Instance) -> str:
    """Which of the two web servers serves, `a` or `b`: a link beside the launchers says it."""
    name = system.target(instance.launchers / WEB)
    return name.removeprefix(f"{WEB}-") if name else SLOTS[0]


def texts(
    instance: Instance, release: Release, configuration: Configuration, worker: str
) -> dict[Path, str]:
    """The launchers, of both web servers and of components that are off as well.

    `worker` is the name under which the dispatcher of this host is registered.
    """
    launchers = [
        _launcher(instance, release, _service(instance, one, WEB), _web(release, instance))
        for one in SLOTS
    ]
    commands = {
        PUBLISHER: _module(release, "lava_site.publisher", *_daemon(instance, "INFO")),
        SCHEDULER: _module(
            release,
            # at INFO it does not name the jobs that it starts and cancels
            *("django", "lava-scheduler", *_daemon(instance, "DEBUG")),
            *("--event-url", f"ipc://{instance.events}"),
        ),
        DISPATCHER: _worker(release, instance, worker),
    }
    for component, command in commands.items():
        service = _service(instance, SLOTS[0], component)
        launchers.append(_launcher(instance, release, service, command))
    return dict([*launchers, _holder(instance)])


def exists(system: System, instance: Instance) -> bool:
    return bool(system.names(instance.launchers))


def make(
    system: System,
    keeper: Keeper,
    instance: Instance,
    release: Release,
    configuration: Configuration,
    worker: str,
) -> None:
    """Write the launchers and have the services started at every boot; start nothing yet."""
    change(system, instance, texts(instance, release, configuration, worker))
    if not system.target(instance.launchers / WEB):
        system.link(instance.launchers / WEB, f"{WEB}-{SLOTS[0]}")
    keeper.install(instance, of(system, instance, configuration), configuration.limits)


def change(system: System, instance: Instance, wanted: Mapping[Path, str | None]) -> None:
    """Give launchers these texts; those with None are removed."""
    for path, text in wanted.items():
        if text is None:
            system.remove(path)
        else:
            system.write(path, text, mode=0o750, group=instance.user)


def remove(system: System, keeper: Keeper, instance: Instance) -> None:
    """Stop all services, end the jobs that are running, and forget the services."""
    keeper.remove(instance)
    end_jobs(system, instance)
    for name in system.names(instance.launchers):
        system.remove(instance.launchers / name)


def start(
    system: System,
    keeper: Keeper,
    instance: Instance,
    configuration: Configuration,
    component: str = "",
) -> None:
    """Start the instance, or one component of it."""
    if component:
        keeper.start(instance, of(system, instance, configuration, component))
    else:
        keeper.start_all(instance)


def stop(
    system: System,
    keeper: Keeper,
    instance: Instance,
    configuration: Configuration,
    component: str = "",
) -> None:
    """Stop the instance, or one component of it. Jobs that are running go on, as upstream's do."""
    if component:
        keeper.stop(instance, of(system, instance, configuration, component))
    else:
        keeper.stop_all(instance)


def restart(
    system: System,
    keeper: Keeper,
    instance: Instance,
    configuration: Configuration,
    component: str = "",
) -> None:
    """Restart the services; the listening sockets stay, so that requests wait."""
    keeper.restart(instance, of(system, instance, configuration, component))


def reload(system: System, keeper: Keeper, instance: Instance) -> None:
    """Have the web server's processes replaced by such that read the settings anew.

    Requests wait meanwhile. Raises Unreachable when the new ones do not serve after a minute.
    """
    server = _service(instance, slot(system, instance), WEB)
    before = _serving(system, instance, server)
    wanted = max(1, len(before))
    keeper.reload(instance, [server])
    if not system.wait_until(
        lambda: len(_serving(system, instance, server) - before) >= wanted, SECONDS_TO_LOAD
    ):
        raise Unreachable(f"no new processes of the web server in {SECONDS_TO_LOAD} seconds")


def states(
    system: System, keeper: Keeper, configurations: Mapping[Instance, Configuration]
) -> dict[Instance, dict[str, ServiceState]]:
    """How each component of instances fares that should be running; asked once for all."""
    wanted = {one: of(system, one, configuration) for one, configuration in configurations.items()}
    found = keeper.states(wanted)
    return {
        instance: {each.component: found[instance][each.name] for each in services}
        for instance, services in wanted.items()
    }


def end_jobs(system: System, instance: Instance) -> None:
    """End the jobs of this instance's worker, as LAVA cancels one, and remove their files."""
    for process in system.names(PROCESSES):
        if process.isdigit() and _is_job(system, instance, process):
            system.run(["kill", process], check=False)
            if not system.has_ended(int(process), SECONDS_TO_CANCEL):
                system.run(["kill", "-KILL", "--", f"-{process}"], check=False)
    for name in system.names(JOB_FILES):
        if name.removeprefix(instance.job_prefix).isdigit():
            system.remove_tree(JOB_FILES / name)


def _serving(system: System, instance: Instance, server: Service) -> set[str]:
    """The marks of a web server's processes that have loaded LAVA: lava_site/gunicorn.conf.py."""
    names = system.names(instance.runs)
    return {name for name in names if re.fullmatch(rf"{server.name}\..+\.ready", name)}


def _is_job(system: System, instance: Instance, process: str) -> bool:
    """Whether a process, once all services are stopped, is a lava-run of this instance.

    Its arguments do not tell, as it renames itself; it has loaded the instance's code, and leads a
    process group of its own: lava_dispatcher/worker.py, start_job.
    """
    try:
        group = system.read(PROCESSES / process / "stat").rpartition(")")[2].split()[2]
        loaded = system.read(PROCESSES / process / "maps") if group == process else ""
    except (OSError, UnicodeError):  # it has ended meanwhile, or has a name that LAVA gives nothing
        return False
    return f" {instance.releases}/" in loaded


def _service(instance: Instance, slot: str, component: str) -> Service:
    name = f"{WEB}-{slot}" if component == WEB else component
    user = "root" if component == DISPATCHER else instance.user
    socket = component if component in (WEB, PUBLISHER) else ""
    return Service(component, name, user, socket)


def _web(release: Release, instance: Instance) -> list[str]:
    gunicorn = ["--config", str(instance.site / "lava_site/gunicorn.conf.py"), "lava_site.wsgi"]
    return _module(release, "gunicorn", *gunicorn)


def _daemon(instance: Instance, level: str) -> list[str]:
    """Options of LAVA's daemons: log to standard error, stay the user they are."""
    return ["--level", level, "--log-file", "-", "--user", instance.user, "--group", instance.user]


def _module(release: Release, module: str, *options: str) -> list[str]:
    # -P: the current directory is no place to import from
    return [str(release.python), "-P", "-m", module, *options]


def _worker(release: Release, instance: Instance, name: str) -> list[str]:
    return [
        *(str(release.python), str(release.programs / "lava-worker")),
        *("--name", name, "--url", f"http://127.0.0.1{instance.worker_location}"),
        *("--worker-dir", str(instance.worker_directory)),
        *("--token-file", str(instance.worker_token)),
        *("--log-file", "-", "--level", "INFO"),
    ]


def _launcher(
    instance: Instance, release: Release, service: Service, command: Sequence[str]
) -> tuple[Path, str]:
    if service.component == DISPATCHER:
        environment = _workers_environment(instance, release)
    else:
        environment = {**instance.environment(release), "LAVA_SITE_SERVICE": service.name}
    text = templates.render(
        "launcher.sh.j2",
        instance=instance,
        name=service.name,
        # what the dispatcher writes is served to boards by TFTP, NFS and Apache
        umask="0022" if service.component == DISPATCHER else "0027",
        environment=environment,
        command=command,
        take=[*_sockets(instance, "take"), service.socket] if service.socket else [],
    )
    return instance.launchers / service.name, text


def _workers_environment(instance: Instance, release: Release) -> dict[str, str]:
    """The worker finds lava-run, and lava-run the host's tools, through PATH."""
    search = f"{release.programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": search, "HOME": str(instance.worker_directory), "LANG": "C.UTF-8"}


def _holder(instance: Instance) -> tuple[Path, str]:
    """The launcher of what holds the listening sockets on hosts without systemd."""
    text = templates.render(
        "launcher.sh.j2",
        instance=instance,
        name="the holder of the listening sockets",
        umask="0027",
        environment={},
        command=[*_sockets(instance, "hold"), WEB, PUBLISHER],
        take=[],
    )
    return instance.launchers / HOLDER, text


def _sockets(instance: Instance, verb: str) -> list[str]:
    script = instance.site / "lava_site/sockets.py"
    # Debian's Python outlives every release, as the sockets do.
    return [str(PYTHON), "-I", str(script), verb, str(instance.runs)]
