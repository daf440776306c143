"""How people and workers reach an instance through the host's Apache.

Debian's conventions: sites-available with a2ensite, conf-available with a2enconf. A change is
written, tested by Apache itself, then loaded without ending a connection; or put back.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy import templates
from lava_deploy.configuration import LOCATION, ROUTES, VHOST
from lava_deploy.errors import CommandFailed, Unreachable
from lava_deploy.model import SYSTEMD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lava_deploy.configuration import Route
    from lava_deploy.model import Instance
    from lava_deploy.system import System
    from lava_deploy.web import Web

# Port, name, and whether who comes by it is sent on.
VirtualHost = tuple[int, str, bool]

APACHE = Path("/etc/apache2")
TLS = "SSLEngine on"
# Directives that give a path to something, and the path in them, if need be in an expression.
PLACES = (
    *("alias", "aliasmatch", "proxypass", "proxypassmatch", "redirect", "redirectmatch"),
    *("scriptalias", "scriptaliasmatch", "<location", "<locationmatch"),
)
PLACE = re.compile(r"""["^]*(/[\w./-]*)""")


def texts(instance: Instance, route: Route, former: Route | None = None) -> dict[Path, str | None]:
    """The files of a route, as they should be; None for those that it does not have.

    With a `former` route of the other kind, as while they are toggled, its address sends people on.
    """
    site, conf = (_of_kind(instance, kind) for kind in ROUTES)
    sent_on = former or (route if route.redirect else None)
    at_location = route.kind == LOCATION
    hosts = _hosts(route, sent_on)
    templates_of = {
        site: ("apache-other-vhost" if hosts else "") if at_location else "apache-vhost",
        conf: "apache-location" if at_location else "apache-other-location" if sent_on else "",
        _workers(instance): "apache-workers",
    }
    return {
        path: templates.render(
            f"{name}.conf.j2",
            instance=instance,
            route=route,
            hosts=hosts,
            sent_on=sent_on or route,
            local=path.with_suffix(".local.conf"),
        )
        if name
        else None
        for path, name in templates_of.items()
    }


def _hosts(route: Route, sent_on: Route | None) -> list[VirtualHost]:
    """The virtual hosts that a location needs."""
    ports = (80, 443) if route.secure else (80,)
    hosts = [(port, sent_on.hostname, True) for port in ports] if sent_on else []
    if route.secure and (443, route.hostname, True) not in hosts:
        hosts.append((443, route.hostname, False))
    return hosts


def faults(
    system: System,
    instance: Instance,
    route: Route,
    planned: Mapping[Path, str | None] | None = None,
) -> list[str]:
    """What stands in the way of a new route: a name or path that another file already serves.

    `planned` are files that other instances are about to get; those with None will be gone.
    """
    own = _all(instance)
    there = _enabled_texts(system) | dict(planned or {})
    return _usurped(instance, route, there) + [
        fault
        for path, text in there.items()
        if path not in own and text is not None
        for fault in _clashes(path, text, route)
    ]


def exists(system: System, instance: Instance) -> bool:
    return any(system.exists(path) for path in _all(instance))


def are_enabled(system: System, paths: Iterable[Path]) -> bool:
    """Whether Apache reads all of these files."""
    return all(system.exists(_enabled(path)) for path in paths)


def any_secure(system: System) -> bool:
    """Whether Apache serves any instance by HTTPS."""
    return any(
        path.name.startswith("lava-") and text and TLS in text
        for path, text in _enabled_texts(system).items()
    )


def make(system: System, instance: Instance, route: Route) -> None:
    """Serve the instance; on a fault that Apache finds, everything is as before.

    Raises CommandFailed with what `apache2ctl configtest` said.
    """
    write(system, texts(instance, route))
    reload(system)


def write(system: System, wanted: Mapping[Path, str | None]) -> None:
    """Write files of Apache's and enable them, remove those with None; or put all of it back.

    They are in force at the next `reload`. Raises CommandFailed as `make` does.
    """
    before = system.texts(wanted)
    for path, text in wanted.items():
        _give(system, path, text)
    try:
        system.run(["apache2ctl", "configtest"])
    except CommandFailed:
        for path, former in before.items():
            _give(system, path, former)
        raise


def remove(system: System, instance: Instance) -> None:
    """Serve the instance no longer. Files that an admin added beside ours stay."""
    found = [path for path in _all(instance) if _is_there(system, path)]
    for path in found:
        system.run(_switch("dis", path, "--purge"))
    if found:
        reload(system)
    # The files go last: a run that is killed before the reload is repeated by what they tell.
    for path in _all(instance):
        system.remove(path)


def status(web: Web, route: Route) -> int:
    """The HTTP status of the instance's health page, 0 without any answer.

    Asked of this machine by the route's name, whether that name resolves here or not.
    """
    try:
        return web.status(_health(route), route.hostname)
    except Unreachable:
        return 0


def wait(web: Web, route: Route, seconds: float) -> None:
    """Wait until the instance's health page is well. Raises Unreachable after that time."""
    web.wait(_health(route), seconds, route.hostname)


def reload(system: System) -> None:
    """Make Apache read its files again; connections stay.

    An Apache that has ended itself, as it does of a port or a key that it cannot use, is started.
    """
    if system.exists(SYSTEMD):
        system.run(["systemctl", "reload-or-restart", "apache2"])
    else:
        system.run(["apache2ctl", "graceful"])


def _health(route: Route) -> str:
    scheme = "https" if route.secure else "http"
    return f"{scheme}://127.0.0.1{route.mount}/v1/healthz/"


def _give(system: System, path: Path, text: str | None) -> None:
    """Give a file its text and enable it, or disable and remove it."""
    if text is not None:
        system.write(path, text)
        if not system.exists(_enabled(path)):
            system.run(_switch("en", path))
    elif _is_there(system, path):
        system.run(_switch("dis", path, "--purge"))
        system.remove(path)


def _is_there(system: System, path: Path) -> bool:
    """Whether there is a file, or a link that enables it."""
    return system.exists(path) or system.exists(_enabled(path))


def _enabled(path: Path) -> Path:
    """The link that enables a file."""
    return path.parent.with_name(path.parent.name.replace("available", "enabled")) / path.name


def _switch(verb: str, path: Path, *options: str) -> list[str]:
    """The command of Debian's that enables (`en`) or disables (`dis`) a file."""
    kind = "site" if path.parent.name == "sites-available" else "conf"
    return [f"a2{verb}{kind}", "--quiet", *options, path.stem]


def _enabled_texts(system: System) -> dict[Path, str | None]:
    """What Apache reads, by the files that were enabled."""
    found: dict[Path, str | None] = {}
    for kind in ("sites", "conf"):
        for name in system.names(APACHE / f"{kind}-enabled"):
            with suppress(FileNotFoundError):  # a link to what is gone
                text = system.read(APACHE / f"{kind}-enabled" / name)
                found[APACHE / f"{kind}-available" / name] = text
    return found


def _clashes(path: Path, text: str, route: Route) -> list[str]:
    """What a file of Apache's serves of a route."""
    lines = [line.split() for line in text.splitlines()]
    found = []
    # locations share a host name, as they share all others, but not with a site that is not ours
    foreign = route.secure and ":443>" in text and not path.name.startswith("lava-")
    named = route.kind == VHOST or route.redirect or foreign
    if named and route.hostname in _said(lines, "servername", "serveralias"):
        found.append(f"Apache already serves the host name {route.hostname}, by {path}")
    if route.kind == LOCATION or route.redirect:
        places = filter(None, map(PLACE.match, _said(lines, *PLACES)))
        served = {place[1].rstrip("/") + "/" for place in places} - {"/"}
        own = f"{route.prefix}/"
        taken = [place for place in served if place.startswith(own) or own.startswith(place)]
        if taken:
            place = min(taken, key=len)
            found.append(f"Apache already serves {place}, by {path}: {own} would clash with it")
    return found


def _usurped(instance: Instance, route: Route, there: Mapping[Path, str | None]) -> list[str]:
    """The site that Apache would no longer show under all other names, as ours is read before it.

    The first virtual host of a port is its default, and sites are read in the order of their names.
    """
    site = _of_kind(instance, VHOST)
    wanted = texts(instance, route)[site] or ""
    found: list[str] = []
    if site in there:  # it is read already
        return found
    for port in (80, 443):
        host = re.compile(rf"(?im)^\s*<VirtualHost\s[^>]*:{port}\b")
        sites = sorted(
            path.name
            for path, text in there.items()
            if path.parent == site.parent and text and host.search(text)
        )
        others = [name for name in sites if not name.startswith("lava-")]
        if host.search(wanted) and others and others[0] > site.name:
            found.append(
                f"{site.name} would be read before {others[0]}, and take its place as the site of "
                f"all other names on port {port}: rename that, to 000-{others[0]} for instance"
            )
    return found


def _said(lines: Sequence[Sequence[str]], *directives: str) -> set[str]:
    """The words after directives."""
    said = [line[1:] for line in lines if line and line[0].lower() in directives]
    return {word.lower() for words in said for word in words}


def _name(instance: Instance) -> str:
    return f"lava-{instance.name}"


def _of_kind(instance: Instance, kind: str) -> Path:
    """The file of a route, where Debian has those of its kind."""
    directory = {VHOST: "sites-available", LOCATION: "conf-available"}[kind]
    return APACHE / directory / f"{_name(instance)}.conf"


def _all(instance: Instance) -> list[Path]:
    """Every file that a route may have."""
    return [*(_of_kind(instance, kind) for kind in ROUTES), _workers(instance)]


def _workers(instance: Instance) -> Path:
    return APACHE / f"conf-available/{_name(instance)}-workers.conf"
