"""How people and workers reach an instance through the host's Apache.

Debian's conventions: sites-available with a2ensite, conf-available with a2enconf. A change is
written, tested by Apache itself, then loaded without ending a connection; or put back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy import templates
from lava_deploy.errors import CommandFailed, Unreachable
from lava_deploy.model import SYSTEMD

if TYPE_CHECKING:
    from lava_deploy.configuration import Route
    from lava_deploy.model import Instance
    from lava_deploy.system import System
    from lava_deploy.web import Web

APACHE = Path("/etc/apache2")
HEALTH = "http://127.0.0.1/v1/healthz/"
SECONDS_TO_ANSWER = 60


def texts(instance: Instance, route: Route) -> dict[Path, str]:
    """The files of a route, as they should be."""
    local = APACHE / f"sites-available/{_name(instance)}.local.conf"
    return {
        _site(instance): templates.render(
            "apache-vhost.conf.j2", instance=instance, route=route, local=local
        ),
        _workers(instance): templates.render("apache-workers.conf.j2", instance=instance),
    }


def faults(system: System, instance: Instance, route: Route) -> list[str]:
    """What stands in the way of a new route: a host name that another file already serves."""
    found = []
    for name in system.names(APACHE / "sites-enabled"):
        path = APACHE / "sites-enabled" / name
        if name == _site(instance).name:
            continue
        try:
            words = [line.split() for line in system.read(path).splitlines()]
        except FileNotFoundError:  # a link to what is gone
            continue
        served = {name.lower() for line in words if _names_hosts(line) for name in line[1:]}
        if route.hostname in served:
            found.append(f"Apache already serves the host name {route.hostname}, by {path}")
    return found


def exists(system: System, instance: Instance) -> bool:
    return any(system.exists(path) for path in (_site(instance), _workers(instance)))


def make(system: System, instance: Instance, route: Route) -> None:
    """Serve the instance; on a fault that Apache finds, everything is as before.

    Raises CommandFailed with what `apache2ctl configtest` said.
    """
    change(system, texts(instance, route))


def change(system: System, wanted: dict[Path, str]) -> None:
    """Write files of Apache's and enable them, or put back what there was."""
    before = {path: system.read(path) if system.exists(path) else None for path in wanted}
    for path, text in wanted.items():
        system.write(path, text)
        system.run(_switch("en", path))
    try:
        system.run(["apache2ctl", "configtest"])
    except CommandFailed:
        for path, former in before.items():
            _put_back(system, path, former)
        raise
    reload(system)


def remove(system: System, instance: Instance) -> None:
    """Serve the instance no longer. Files that an admin added beside ours stay."""
    found = [path for path in (_site(instance), _workers(instance)) if _is_there(system, path)]
    for path in found:
        system.run(_switch("dis", path, "--purge"))
    if found:
        reload(system)
    # The files go last: a run that is killed before the reload is repeated by what they tell.
    for path in found:
        system.remove(path)


def status(web: Web, route: Route) -> int:
    """The HTTP status of the instance's health page, 0 without any answer.

    Asked of this machine by the route's name, whether that name resolves here or not.
    """
    try:
        return web.status(HEALTH, route.hostname)
    except Unreachable:
        return 0


def wait(web: Web, route: Route) -> None:
    """Wait until the instance's health page is well. Raises Unreachable after a minute."""
    web.wait(HEALTH, SECONDS_TO_ANSWER, route.hostname)


def reload(system: System) -> None:
    """Make Apache read its files again; connections stay."""
    if system.exists(SYSTEMD):
        system.run(["systemctl", "reload", "apache2"])
    else:
        system.run(["apache2ctl", "graceful"])


def _put_back(system: System, path: Path, text: str | None) -> None:
    """Give a file its former text, or disable and remove it."""
    if text is not None:
        system.write(path, text)
    elif _is_there(system, path):
        system.run(_switch("dis", path, "--purge"))
        system.remove(path)


def _is_there(system: System, path: Path) -> bool:
    """Whether there is a file, or a link that enables it."""
    enabled = path.parent.with_name(path.parent.name.replace("available", "enabled")) / path.name
    return system.exists(path) or system.exists(enabled)


def _switch(verb: str, path: Path, *options: str) -> list[str]:
    """The command of Debian's that enables (`en`) or disables (`dis`) a file."""
    kind = "site" if path.parent.name == "sites-available" else "conf"
    return [f"a2{verb}{kind}", "--quiet", *options, path.stem]


def _names_hosts(words: list[str]) -> bool:
    return bool(words) and words[0].lower() in ("servername", "serveralias")


def _name(instance: Instance) -> str:
    return f"lava-{instance.name}"


def _site(instance: Instance) -> Path:
    return APACHE / f"sites-available/{_name(instance)}.conf"


def _workers(instance: Instance) -> Path:
    return APACHE / f"conf-available/{_name(instance)}-workers.conf"
