"""Makes a new instance: everything it owns, up to a web page that answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lava_deploy import sources
from lava_deploy.configuration import OWN, SELF_SIGNED, name_faults
from lava_deploy.errors import CommandFailed, Unreachable
from lava_deploy.model import STAMP, WEB, Revision
from lava_deploy.operations import (
    alone,
    close_route,
    open_route,
    serving_faults,
    wait_for_pages,
)
from lava_deploy.parts import configuration as configuration_file
from lava_deploy.parts import (
    console,
    database,
    device,
    facts,
    folders,
    guest,
    job,
    release,
    route,
    schema,
    services,
    settings,
    tls,
    tokens,
    user,
    worker,
)
from lava_deploy.steps import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lava_deploy.configuration import Configuration, Database
    from lava_deploy.model import Built, Wanted
    from lava_deploy.operations import Doors
    from lava_deploy.postgres import Postgres

    AddPackages = Callable[[Sequence[str]], None]

OPERATION = "install"
GIGABYTE = 10**9
# Measured: a release takes 0.2 GB, a new database 0.02 GB; the rest is room for media.
DISK_NEEDED = 3 * GIGABYTE
# Measured: about 0.35 GB at rest with two web processes; a job in QEMU needs as much again.
MEMORY_NEEDED = 1 * GIGABYTE
# bind(2) takes 108 bytes with the final zero; this is the longest name in the instance's run/
SOCKET_PATH_LENGTH = 107


@dataclass(frozen=True)
class Request:
    """All that decides what an installation makes; a resumed one is rebuilt from it.

    `stamp` is the time as it stands in the release's label, `worker` the name of the dispatcher on
    this host, `values` what instance.yaml says, without any secret.
    """

    name: str
    revision: Mapping[str, Any]
    stamp: str
    worker: str
    admin: str = "admin"
    admin_mail: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def faults(doors: Doors, name: str, configuration: Configuration) -> list[str]:
    """Everything that stands in the way of an instance of that name, found without any change."""
    found = name_faults(name)
    instance = doors.host.instance(name)
    if not doors.system.is_directory(doors.host.instances):
        found.append(f"{doors.host.instances} does not exist: run `lava-deploy setup` first")
    if found:
        return found
    if folders.exists(doors.system, instance):
        found.append(f"the name {name} is taken: {instance.root} exists")
    elif user.exists(doors.system, instance):
        found.append(f"the name {name} is taken: there is a system user or group {instance.user}")
    if len(str(instance.publisher_socket)) > SOCKET_PATH_LENGTH:
        found.append(f"{instance.publisher_socket} is too long for the name of a socket")
    found += serving_faults(doors, instance, configuration.route)
    if configuration.route.certificate == OWN:
        found.append("route.certificate: own: install it without, then `lava-deploy tls set`")
    found += doors.keeper.faults(configuration.limits)
    found += _room_faults(doors)
    try:
        located = database.located(doors.system, configuration.database)
        found += database.faults(doors.postgres(located), instance)
    except Unreachable as error:
        found.append(str(error))
    return found


def choose(doors: Doors, wanted: Wanted, tell: Callable[[str], None]) -> Revision:
    """The revision an admin means; `tell` is given a line for each source that does not answer.

    Raises UnknownRevision, Unreachable, UsageError.
    """
    return sources.find(doors.system, doors.host.cache, wanted, tell)


def has_git(doors: Doors) -> bool:
    """Whether git is installed, without which one source cannot be asked."""
    try:
        return bool(doors.system.run(["git", "--version"]).stdout)
    except CommandFailed:
        return False


def worker_name(doors: Doors) -> str:
    """The name under which this host's dispatcher registers: the host's own."""
    return doors.system.run(["uname", "-n"]).stdout.strip()


def resolvable_name(doors: Doors, name: str) -> str:
    """A host name for an instance that other machines can resolve, '' if this host knows none."""
    try:
        whole = doors.system.run(["hostname", "--fqdn"]).stdout.strip().lower()
    except CommandFailed:
        return ""
    candidate = f"{name}.{whole}"
    known = doors.system.run(["getent", "hosts", candidate], check=False).status == 0
    return candidate if "." in whole and known else ""


def prepare(doors: Doors, revision: Revision, add_packages: AddPackages) -> Built:
    """Fetch and build a revision into the cache, where it serves every instance of this host.

    All downloads come first: a network that fails leaves nothing but the cache. `add_packages` is
    called for a release that has to compile something.
    """
    host, system = doors.host, doors.system
    built = release.cached(system, host.cache, revision)
    if built:
        return built
    code = sources.fetch(system, host.cache, revision, doors.report.progress)
    if code.build_packages:
        add_packages(code.build_packages)
    return release.build(system, doors.packs, host.cache, code, doors.report.progress)


def prepare_guest(doors: Doors) -> None:
    """Build the image of the virtual device into the cache."""
    guest.make(doors.system, doors.host)


def plan(
    doors: Doors, request: Request, configuration: Configuration, add_packages: AddPackages
) -> Plan:
    """The steps that make an instance, and unmake it."""
    making = _Making(doors, request, configuration, add_packages)
    return Plan(OPERATION, request.name, making.steps(), decisions=asdict(request))


class _Making:
    """The pieces of an installation, as callables without arguments for its steps."""

    def __init__(
        self,
        doors: Doors,
        request: Request,
        configuration: Configuration,
        add_packages: AddPackages,
    ) -> None:
        self.doors, self.request, self.configuration = doors, request, configuration
        self.add_packages = add_packages
        self.system = doors.system
        self.instance = doors.host.instance(request.name)
        self.revision = Revision(**request.revision)
        self.label = release.label(request.stamp, self.revision.version)

    def steps(self) -> tuple[Step, ...]:
        system, instance = self.system, self.instance
        return (
            Step(
                f"make the system user {instance.user}",
                lambda: user.make(system, instance),
                lambda: user.remove(system, instance),
            ),
            Step(
                f"make the directories in {instance.root}",
                self.make_folders,
                lambda: folders.remove(system, instance),
            ),
            Step(
                f"install LAVA {self.revision.version}",
                self.make_release,
                lambda: release.remove(system, instance, self.label),
            ),
            Step(
                f"make the database {instance.database}",
                self.make_database,
                lambda: database.remove(self.server, instance),
            ),
            Step("write the settings", self.write_settings),
            Step("make the tables", self.make_tables),
            Step("start the web server", self.start_web, self.remove_services),
            # while it loads LAVA
            Step("make the accounts and the device", self.make_accounts),
            Step("open the route", self.open_route, self.close_route),
            # a worker that finds no server asks again after 20 seconds only
            Step("start the other services", self.start_all),
            Step("register the instance", self.register, self.unregister),
        )

    @cached_property
    def located(self) -> Database:
        return database.located(self.system, self.configuration.database)

    @property
    def server(self) -> Postgres:
        return self.doors.postgres(self.located)

    def make_folders(self) -> None:
        folders.make(self.system, self.instance)
        configuration_file.make(self.system, self.instance, self.configuration)

    def make_release(self) -> None:
        built = prepare(self.doors, self.revision, self.add_packages)
        release.make(self.system, self.instance, self.label, built)
        release.switch(self.system, self.instance, self.label)

    def make_database(self) -> None:
        settings.make_secrets(self.system, self.instance)
        password = settings.database_password(self.system, self.instance)
        database.make(self.server, self.instance, password)

    def write_settings(self) -> None:
        settings.make(self.system, self.instance, self.configuration, self.located)
        if self.configuration.components.dispatcher:
            tokens.make(self.system, self.instance.worker_token)
            worker.make(self.system, self.instance, self.request.worker)
            device.make(self.system, self.instance, guest.make(self.system, self.doors.host))

    def make_tables(self) -> None:
        """Load the tables of this release if they are kept, else migrate and keep them."""
        built = prepare(self.doors, self.revision, self.add_packages)
        password = settings.database_password(self.system, self.instance)
        dump = schema.place(self.doors.host, built, self.server.version())
        if self.system.exists(dump):
            schema.load(self.system, self.instance, self.located, password, dump)
            return
        actions = [{"action": "migrate"}, {"action": "forget_example_worker"}]
        new = release.of(self.system, self.instance, self.label)
        console.ask(self.system, self.instance, new, actions)
        schema.keep(self.system, self.instance, self.located, password, dump)

    def make_accounts(self) -> None:
        """Accounts, worker and device, in one process of LAVA's."""
        actions = self.accounts()
        if self.configuration.components.dispatcher:
            token = tokens.read(self.system, self.instance.worker_token)
            actions += worker.registration(self.request.worker, token)
            actions += device.registration(self.request.worker)
        built = release.of(self.system, self.instance, self.label)
        console.ask(self.system, self.instance, built, actions)

    def accounts(self) -> list[dict[str, Any]]:
        """The first admin, the user of smoke jobs, and the name in the links of mails."""
        password = tokens.make(self.system, self.instance.admin_password)
        token = tokens.make(self.system, self.instance.client_token)
        return [
            {"action": "renew_unusable_passwords"},  # they may be out of a dump
            {
                "action": "superuser",
                "name": self.request.admin,
                "mail": self.request.admin_mail,
                "password": password.reveal(),
            },
            {"action": "submitter", "name": job.USER},
            {
                "action": "api_token",
                "user": job.USER,
                "description": job.DESCRIPTION,
                "secret": token.reveal(),
            },
            {
                "action": "site",
                "domain": self.configuration.route.hostname,
                "name": self.instance.name,
            },
        ]

    def start_web(self) -> None:
        built = release.of(self.system, self.instance, self.label)
        with alone(self.doors, OPERATION):
            services.make(
                self.system,
                self.doors.keeper,
                self.instance,
                built,
                self.configuration,
                self.request.worker,
            )
        services.start(self.system, self.doors.keeper, self.instance, self.configuration, WEB)

    def start_all(self) -> None:
        services.start(self.system, self.doors.keeper, self.instance, self.configuration)

    def remove_services(self) -> None:
        with alone(self.doors, OPERATION):
            services.remove(self.system, self.doors.keeper, self.instance)

    def open_route(self) -> None:
        route = self.configuration.route
        if route.certificate == SELF_SIGNED:
            now = datetime.strptime(self.request.stamp, STAMP).replace(tzinfo=UTC)
            with alone(self.doors, OPERATION):
                pair = tls.issue(self.system, self.doors.host, route.hostname, now)
            tls.change(self.system, self.instance, tls.texts(self.instance, pair))
        open_route(self.doors, self.instance, route)
        wait_for_pages(self.doors, self.instance, self.configuration)

    def close_route(self) -> None:
        close_route(self.doors, self.instance)
        tls.change(self.system, self.instance, tls.absent(self.instance))

    def register(self) -> None:
        """Remember what no file of the instance says; from here on, `list` shows it."""
        facts.remember(
            self.system,
            self.instance,
            revision=dict(self.request.revision),
            admin=self.request.admin,
            worker=self.request.worker,
            route=asdict(self.configuration.route),
            database=asdict(self.located),
            limits=asdict(self.configuration.limits),
            services=[
                each.name for each in services.of(self.system, self.instance, self.configuration)
            ],
        )
        texts = route.texts(self.instance, self.configuration.route)
        facts.remember_texts(self.system, self.instance, texts)

    def unregister(self) -> None:
        self.system.remove(self.instance.facts)


def _room_faults(doors: Doors) -> list[str]:
    """Too little disk or memory, with the figures."""
    disk, memory = doors.system.free_space(doors.host.instances), doors.system.free_memory()
    found = []
    for what, have, need in (("disk", disk, DISK_NEEDED), ("memory", memory, MEMORY_NEEDED)):
        if have < need:
            found.append(
                f"an instance needs {need / GIGABYTE:.0f} GB of {what}, "
                f"{have / GIGABYTE:.1f} GB are free"
            )
    return found
