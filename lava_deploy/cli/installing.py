"""What `install` asks and shows, and how it goes on to the proof by a job."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from lava_deploy import config
from lava_deploy.configuration import LOCATION, ROUTES, name_faults
from lava_deploy.errors import DeployError, JobFailed, PreflightFailed, UsageError, remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lava_deploy.cli.context import Context
    from lava_deploy.configuration import Configuration
    from lava_deploy.model import Wanted
    from lava_deploy.operations.install import Request
    from lava_deploy.parts.job import Outcome
    from lava_deploy.steps import Plan

LOCAL = "localhost"
# The option of all commands that choose a revision.
source = click.option(
    "--source",
    metavar="S",
    default="",
    help="Where the code comes from: debian, git (upstream's, or LAVA_DEPLOY_GIT), "
    "the URL of a git repository, or a path: of a repository if there is a REVISION, "
    "else of a working tree.",
)
# The option of all commands that make an instance.
route = click.option(
    "--route",
    type=click.Choice(ROUTES),
    default=None,
    help="How people reach it: by a host name of its own (vhost), or as http://HOST/NAME.",
)


@dataclass
class Order:
    """What an admin orders; an empty text is a question, or its default."""

    name: str
    revision: str = ""
    source: str = ""
    route: str | None = None
    hostname: str = ""
    admin: str = ""
    admin_mail: str = ""
    dispatcher: bool | None = None
    assignments: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)


def place_database(order: Order, **options: str | int | None) -> None:
    """Put the `--database…` options where instance.yaml has them. Raises UsageError."""
    server, colon, port = str(options["database"] or "").partition(":")
    if colon and not port.isdigit():
        raise UsageError(f"--database should be HOST or HOST:PORT, not {options['database']!r}")
    chosen = {
        "host": server,
        "port": int(port) if port else options["database_port"],
        "admin": options["database_admin"],
        "admin_password_file": options["database_password_file"],
    }
    if given := {key: value for key, value in chosen.items() if value}:
        order.values["database"] = given


def complete(context: Context, order: Order, *, ask: bool) -> tuple[Configuration, list[str]]:
    """Answer what the order leaves open, by questions or by their defaults.

    The configuration that is ordered, and what of it makes no sense.
    """
    for assignment in order.assignments:
        config.assign(order.values, assignment)
    route = order.values.setdefault("route", {})
    components = order.values.setdefault("components", {})
    mail = order.values.setdefault("mail", {})
    if order.route:
        route["kind"] = order.route
    if order.hostname:
        route["hostname"] = order.hostname
    if order.dispatcher is not None:
        components["dispatcher"] = order.dispatcher
    if ask:
        _ask(context, order, route, components)
    order.admin = order.admin or "admin"
    if not name_faults(order.name):
        by_path = route.get("kind") == LOCATION
        route.setdefault("hostname", LOCAL if by_path else f"{order.name}.{LOCAL}")
        route.setdefault("prefix", f"/{order.name}")
    if order.admin_mail:
        mail.setdefault("admins", [order.admin_mail])
    return config.examine(order.values)


def _ask(context: Context, order: Order, route: dict[str, Any], components: dict[str, Any]) -> None:
    """Ask what no option answered; each question has a default."""
    proposed = wanted(context, order).revision
    if proposed and not order.revision:
        order.revision = click.prompt("Revision of LAVA", proposed, err=True)
    if "hostname" not in route:
        proposal = _proposal(context, order.name)
        route["hostname"] = click.prompt("Host name that people use", proposal, err=True)
    order.admin = order.admin or click.prompt("Name of the first admin", "admin", err=True)
    if not order.admin_mail:
        order.admin_mail = click.prompt(
            "Mail address of the admin", "", show_default=False, err=True
        )
    if "dispatcher" not in components:
        components["dispatcher"] = click.confirm(
            "Run a dispatcher on this machine?", default=True, err=True
        )
    if "database" not in order.values:
        port = click.prompt("Port of the Postgres cluster (0: the first)", 0, err=True)
        order.values["database"] = {"port": port}


def wanted(context: Context, order: Order) -> Wanted:
    """Which LAVA is ordered. Raises UsageError."""
    return config.wanted(order.revision, order.source, context.environment)


def _proposal(context: Context, name: str) -> str:
    """A host name that other machines can resolve, if this machine has one; else NAME.localhost."""
    from lava_deploy.operations import install

    return install.resolvable_name(context.doors, name) or f"{name}.{LOCAL}"


def request(
    context: Context, order: Order, configuration: Configuration, faults: Sequence[str]
) -> Request:
    """The order made definite.

    Raises PreflightFailed with everything that is wrong with it, `faults` among it.
    """
    from lava_deploy.operations import install

    faults = [*faults, *install.faults(context.doors, order.name, configuration)]
    faults += admin_faults(order)
    revision = None
    try:
        revision = install.choose(context.doors, wanted(context, order), context.report.warn)
    except DeployError as error:
        faults.append(f"{error}. {error.hint}".rstrip(". ") + "." if error.hint else str(error))
    if faults or revision is None:
        raise PreflightFailed(faults)
    return install.Request(
        name=order.name,
        revision=dataclasses.asdict(revision),
        stamp=context.stamp,
        worker=install.worker_name(context.doors),
        admin=order.admin,
        admin_mail=order.admin_mail,
        values=order.values,
    )


def build(context: Context, request: Request) -> None:
    """Have the release in the cache, so that no network is needed once things are changed.

    Raises PreflightFailed when it cannot be had.
    """
    from lava_deploy.model import Revision
    from lava_deploy.operations import install

    revision = Revision(**request.revision)
    try:
        with context.report.working(f"build LAVA {revision.version}"):
            install.prepare(context.doors, revision, package_adder(context))
            install.prepare_guest(context.doors)
    except (DeployError, OSError) as error:
        fault = f"LAVA {revision.version} could not be built: {error}"
        raise PreflightFailed([fault], hint=remedy(error)) from error


def admin_faults(order: Order) -> list[str]:
    """Why the admin's name or mail address does not do. The rule of names is Django's."""
    faults = []
    if not config.USER_NAME.fullmatch(order.admin):
        faults.append(f"the admin's name {order.admin!r} should be letters, digits and @.+-_ only")
    if order.admin_mail and not config.MAIL_ADDRESS.fullmatch(order.admin_mail):
        faults.append(f"{order.admin_mail!r} is no mail address")
    return faults


def summary(request: Request, configuration: Configuration) -> list[str]:
    """What is about to be made, a line each."""
    here = "with" if configuration.components.dispatcher else "without"
    server = configuration.database.host or "this machine's Postgres"
    return [
        f"instance    {request.name}",
        f"LAVA        {request.revision['version']} from {request.revision['origin']}",
        f"address     {configuration.route.url}",
        f"admin       {request.admin} {request.admin_mail}".rstrip(),
        f"dispatcher  {here} one on this machine",
        f"database    {server}",
    ]


def package_adder(context: Context) -> Callable[[Sequence[str]], None]:
    """What installs the Debian packages that building a release takes."""
    from lava_deploy.operations import setup

    return lambda packages: setup.install_build_tools(context.doors, packages)


def plan(context: Context, request: Request, configuration: Configuration) -> Plan:
    """The plan of an installation."""
    from lava_deploy.operations import install

    return install.plan(context.doors, request, configuration, package_adder(context))


def carry_out(context: Context, request: Request, configuration: Configuration) -> None:
    """Install, and say how to get in."""
    context.carry_out(plan(context, request, configuration))


def prove(context: Context, name: str, configuration: Configuration) -> Outcome:
    """Run the smoke job, and show what it does."""
    from lava_deploy.operations import smoke

    instance = context.host.instance(name)
    context.report.note(f"running a real job on {name}, in QEMU")
    try:
        return smoke.run(context.doors, instance, configuration.route)
    except JobFailed as failed:
        raise JobFailed(
            f"{failed}\n{name} is installed and runs, but this proof failed", hint=failed.hint
        ) from failed


def present(
    context: Context,
    name: str,
    configuration: Configuration,
    outcome: Outcome | None,
    *,
    as_json: bool,
) -> None:
    """The address, the way in and the proof of a new instance."""
    from lava_deploy.operations import inspect

    instance = context.host.instance(name)
    url = configuration.route.url
    admin = inspect.admin(context.doors, instance)
    if as_json:
        proof = {"job": outcome and dataclasses.asdict(outcome)}
        password_file = str(instance.admin_password)
        login = {"admin": admin, "password_file": password_file}
        context.report.json({"name": name, "url": url, **login, **proof})
        return
    context.report.line(f"address   {url}")
    context.report.line(f"admin     {admin}")
    # the password itself is for eyes only: what goes to a file or a pipe may be kept
    seen = sys.stdout.isatty()
    password = inspect.admin_password(context.doors, instance) if seen else ""
    context.report.line(f"password  {password or f'in {instance.admin_password}'}")
    if outcome:
        context.report.line(
            f"job       {outcome.url} {outcome.health} after {outcome.seconds:.0f} s"
        )
