"""Carries out what an admin changed in instance.yaml: settings, route, services, limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lava_deploy.configuration import LOCATION, Route
from lava_deploy.model import SCHEDULER
from lava_deploy.operations import (
    SECONDS_TO_ANSWER,
    alone,
    end_tls,
    issues_certificate,
    runs,
    texts_of,
    wait_for_pages,
)
from lava_deploy.parts import configuration as configuration_file
from lava_deploy.parts import (
    console,
    database,
    facts,
    former,
    release,
    route,
    services,
    settings,
    tls,
)
from lava_deploy.steps import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from lava_deploy.certificates import Pair
    from lava_deploy.configuration import Configuration
    from lava_deploy.model import Instance, Service
    from lava_deploy.operations import Doors
    from lava_deploy.system import System

OPERATION, TOGGLE, TLS = "apply", "toggle", "tls"
# The step at which Apache reads the routes that were written, once for all instances of a command.
LOADING = "load the route"
# Whom a change concerns: all processes; the web server's and the scheduler, as the settings of
# others do not depend on the route; none. Or none runs, and none is to be started.
ALL, ROUTED, NOBODY, STOPPED = "all", "routed", "nobody", "stopped"


@dataclass(frozen=True)
class Request:
    """What is to be carried out: what instance.yaml says, or is to say.

    `changes` are those that a command makes in it, as `config.rewrite` takes them; `text` has them,
    and `operation` is the command's name in the journal.
    `certificate` and `key` are the paths of files to be taken; `renew` asks for a new certificate
    of the host's own authority.
    """

    configuration: Configuration
    changes: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    operation: str = OPERATION
    certificate: str = ""
    key: str = ""
    renew: bool = False


class Together:
    """What changes of several instances by one command have in common.

    `routes` are the files that were planned so far. Apache reads all of them at once.
    """

    def __init__(self, doors: Doors) -> None:
        self.routes: dict[Path, str | None] = {}
        self._doors, self._loaded = doors, False

    def load(self) -> None:
        if not self._loaded:
            with alone(self._doors, TOGGLE):
                route.reload(self._doors.system)
            self._loaded = True


def plan(
    doors: Doors,
    instance: Instance,
    request: Request,
    decisions: Mapping[str, Any],
    together: Together | None = None,
) -> Plan:
    """Write, reload and restart; undone by the former texts."""
    if together:
        together.routes.update(route.texts(instance, request.configuration.route))
    change = _Change(doors, instance, request, decisions, together)
    return Plan(request.operation, instance.name, change.steps(), change.afterwards(), decisions)


def decide(
    doors: Doors,
    instance: Instance,
    request: Request,
    now: datetime,
    together: Together | None = None,
) -> dict[str, Any]:
    """What a plan is rebuilt from: changes of instance.yaml, order of steps, whom it concerns.

    The route of a location shows what the code behind it was told to be; that of a host name shows
    the former code's pages as well. So a location is opened after the code, and closed before it.
    The former address sends people on until all is done, then it is closed, which takes Apache a
    second reload: several instances together have but one.
    """
    configuration = request.configuration
    wanted = texts_of(
        instance, configuration, database.located(doors.system, configuration.database)
    )
    changed = _changed(wanted, doors.system.texts(wanted))
    known = facts.read(doors.system, instance)
    former_route = Route(**known["route"])
    leaves = former_route.kind != configuration.route.kind and not configuration.route.redirect
    same = known["services"] == _names(doors.system, instance, configuration)
    concerned = _concerned(instance, configuration, changed) if same else ALL
    return {
        "changes": dict(request.changes),
        "route_last": configuration.route.kind == LOCATION,
        "concerns": concerned if runs(doors, instance) else STOPPED,
        "closes": known["route"] if leaves and not together else None,
        "was_secure": former_route.secure,
        "secure": configuration.route.secure,
        "certificate": request.certificate,
        "key": request.key,
        "issue": issues_certificate(doors, instance, request, now),
        "at": now.isoformat(),
    }


class _Change:
    """The pieces of a change, as callables without arguments for its steps."""

    def __init__(
        self,
        doors: Doors,
        instance: Instance,
        request: Request,
        decisions: Mapping[str, Any],
        together: Together | None,
    ) -> None:
        self.doors, self.system = doors, doors.system
        self.instance, self.request = instance, request
        self.configuration = configuration = request.configuration
        self.decisions, self.concerned = decisions, decisions["concerns"]
        self.load_routes = together.load if together else self.load_route
        self.server = database.located(self.system, configuration.database)
        self.before = facts.read(self.system, instance)["services"]
        self.after = _names(self.system, instance, configuration)
        self.routes = route.texts(instance, configuration.route)
        self.wanted = texts_of(instance, configuration, self.server)

    def steps(self) -> tuple[Step, ...]:
        own = (Step("change instance.yaml", self.rewrite, self.put_back_file),)
        secured = (
            Step("have Apache speak HTTPS", self.begin_tls, self.end_tls),
            Step("write the certificate", self.write_certificate, self.put_back_certificate),
        )
        routed = (
            Step("write the route", self.write_route, self.put_back_route),
            Step(LOADING, self.load_routes),
        )
        served = (Step("bring the services up to date", self.run),)
        return (
            Step("keep the former files", self.keep, self.serve_as_before),
            *(own if self.request.changes else ()),
            Step("write the settings", self.write_settings, self.put_back_settings),
            *(secured if self.decisions["secure"] else ()),
            *(served + routed if self.decisions["route_last"] else routed + served),
            Step("see that the pages answer", self.wait),
        )

    def afterwards(self) -> tuple[Step, ...]:
        unsecured = Step("forget the certificate", self.forget_certificate)
        return (
            *((unsecured,) if self.decisions["was_secure"] > self.decisions["secure"] else ()),
            Step("name the host in the links of mails", self.name_host),
            Step("remember what runs", self.remember),
            *((Step("close the former address", self.close),) if self.decisions["closes"] else ()),
            Step("forget the former files", lambda: former.remove(self.system, self.instance)),
        )

    def keep(self) -> None:
        own = [self.instance.configuration] if self.request.changes else []
        pair = tls.absent(self.instance) if self.decisions["secure"] else {}
        former.make(self.system, self.instance, [*own, *self.wanted, *pair])

    def rewrite(self) -> None:
        configuration_file.change(self.system, self.instance, self.request.text)

    def put_back_file(self) -> None:
        path = self.instance.configuration
        if (text := self.former([path]).get(path)) is not None:
            configuration_file.change(self.system, self.instance, text)

    def write_settings(self) -> None:
        settings.make(self.system, self.instance, self.configuration, self.server)

    def put_back_settings(self) -> None:
        ours = self.former(path for path in self.wanted if path not in self.routes)
        settings.change(self.system, self.instance, ours)

    def begin_tls(self) -> None:
        with alone(self.doors, OPERATION):
            tls.module_on(self.system, self.doors.host)

    def end_tls(self) -> None:
        with alone(self.doors, OPERATION):
            end_tls(self.doors)

    def write_certificate(self) -> None:
        if pair := self.new_pair():
            tls.change(self.system, self.instance, tls.texts(self.instance, pair))

    def new_pair(self) -> Pair | None:
        """The certificate that is to be shown from now on, None if it is that which there is."""
        if self.decisions["certificate"]:
            return tls.taken(self.system, self.decisions["certificate"], self.decisions["key"])
        if not self.decisions["issue"]:
            return None
        now = datetime.fromisoformat(self.decisions["at"])
        with alone(self.doors, OPERATION):
            host, hostname = self.doors.host, self.configuration.route.hostname
            return tls.issue(self.system, host, hostname, now)

    def put_back_certificate(self) -> None:
        tls.change(self.system, self.instance, self.former(tls.absent(self.instance)))
        if self.shows_new_certificate():
            with alone(self.doors, OPERATION):
                route.reload(self.system)

    def forget_certificate(self) -> None:
        tls.change(self.system, self.instance, tls.absent(self.instance))
        self.end_tls()

    def write_route(self) -> None:
        closes = self.decisions["closes"]
        former_route = Route(**closes) if closes else None
        texts = route.texts(self.instance, self.configuration.route, former_route)
        if self.changed() & {*self.routes}:
            with alone(self.doors, OPERATION):
                route.write(self.system, texts)
        facts.remember_texts(self.system, self.instance, texts)

    def load_route(self) -> None:
        if self.changed() & {*self.routes} or self.shows_new_certificate():
            with alone(self.doors, OPERATION):
                route.reload(self.system)

    def close(self) -> None:
        with alone(self.doors, OPERATION):
            route.write(self.system, self.routes)
            route.reload(self.system)
        facts.remember_texts(self.system, self.instance, self.routes)

    def put_back_route(self) -> None:
        # without texts, an earlier undo has put them back, and only Apache may not know it yet
        texts = self.former(self.routes)
        with alone(self.doors, OPERATION):
            route.write(self.system, texts)
            route.reload(self.system)
        facts.remember_texts(self.system, self.instance, self.system.texts(self.routes))

    def run(self) -> None:
        wanted = services.of(self.system, self.instance, self.configuration)
        self.doors.keeper.install(self.instance, wanted, self.configuration.limits)
        concerned = self.concerns()
        if concerned == ALL:
            # what LAVA does not take shows here, with its reason, while the former processes serve
            current = release.in_use(self.system, self.instance)
            console.ask(self.system, self.instance, current, [{"action": "load_pages"}])
        self.renew(wanted, concerned)

    def renew(self, running: Sequence[Service], concerned: str) -> None:
        """Have those processes of them read what was changed that it concerns."""
        keeper = self.doors.keeper
        if concerned == ROUTED:
            keeper.restart(self.instance, [one for one in running if one.component == SCHEDULER])
            services.reload(self.system, keeper, self.instance)
        elif concerned == ALL:
            keeper.restart(self.instance, running)

    def wait(self) -> None:
        concerned = self.concerns()
        if concerned == ALL:
            wait_for_pages(self.doors, self.instance, self.configuration)
        elif concerned == ROUTED or (concerned == NOBODY and self.shows_new_certificate()):
            # LAVA is loaded
            wait_for_pages(self.doors, self.instance, self.configuration, SECONDS_TO_ANSWER)

    def serve_as_before(self) -> None:
        """Last of the undo; what another undo failed to put back is kept for the next try."""
        running = services.named(self.instance, self.before)
        limits = facts.limits(self.system, self.instance)
        self.doors.keeper.install(self.instance, running, limits)
        self.renew(running, self.concerned)
        enabled = [path for path, text in self.former(self.routes).items() if text is not None]
        if former.are_back(self.system, self.instance) and route.are_enabled(self.system, enabled):
            former.remove(self.system, self.instance)

    def name_host(self) -> None:
        """Afterwards, as the former name is known to nobody but the database."""
        known, hostname = facts.read(self.system, self.instance), self.configuration.route.hostname
        if known["route"]["hostname"] != hostname:
            domain = {"action": "site", "domain": hostname, "name": self.instance.name}
            current = release.in_use(self.system, self.instance)
            console.ask(self.system, self.instance, current, [domain])

    def remember(self) -> None:
        facts.remember(
            self.system,
            self.instance,
            services=self.after,
            route=asdict(self.configuration.route),
            limits=asdict(self.configuration.limits),
        )

    def former(self, paths: Iterable[Path]) -> dict[Path, str | None]:
        """The former texts of those of these files that were kept."""
        kept = former.read(self.system, self.instance)
        return {path: kept[path] for path in paths if path in kept}

    def changed(self) -> set[Path]:
        """The files that this change gives another text."""
        return _changed(self.wanted, self.former(self.wanted))

    def concerns(self) -> str:
        """Whom the change concerns by what instance.yaml says now, which may be edited since."""
        if self.concerned == STOPPED:
            return STOPPED
        changed = self.changed()
        same = self.before == self.after
        return _concerned(self.instance, self.configuration, changed) if same else ALL

    def shows_new_certificate(self) -> bool:
        return bool(self.decisions["certificate"] or self.decisions["issue"])


def _concerned(instance: Instance, configuration: Configuration, changed: set[Path]) -> str:
    """Which processes have to read changed files: new limits alone are in force without it."""
    routing = {settings.routing(instance), *route.texts(instance, configuration.route)}
    if changed - routing:
        return ALL
    return ROUTED if changed else NOBODY


def _changed(wanted: Mapping[Path, str | None], there: Mapping[Path, str | None]) -> set[Path]:
    """The files that get another text than they have."""
    return {path for path, text in wanted.items() if there.get(path) != text}


def _names(system: System, instance: Instance, configuration: Configuration) -> list[str]:
    """The services that should run."""
    return [each.name for each in services.of(system, instance, configuration)]
