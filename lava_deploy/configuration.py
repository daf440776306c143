"""What an admin may set of an instance: its name, and the contents of instance.yaml, as types."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lava_deploy.model import Secret

NAME = re.compile(r"[a-z][a-z0-9-]*")
NAME_LENGTH = 20
# Words that are commands, components, or directories beside the instances.
RESERVED_NAMES = frozenset(
    (
        "all backups cache code components current default deploy dispatcher host instances "
        "latest lab lava localhost master publisher root scheduler server static supervisor "
        "system web worker www"
    ).split()
)

ROUTES = VHOST, LOCATION = "vhost", "location"
# Whose certificate a route shows: no one's, the host's own authority's, the admin's.
CERTIFICATES = NONE, SELF_SIGNED, OWN = "none", "self-signed", "own"


def name_faults(name: str) -> list[str]:
    """Why a text cannot be the name of an instance; empty when it can.

    The name becomes part of a user's and a database's name (`lava-NAME`: at most 32 characters for
    useradd, 63 bytes for Postgres), of unit and file names, of a URL and of a host name.
    """
    faults = []
    if not NAME.fullmatch(name):
        faults.append(
            f"the name {name!r} should begin with a lower-case letter and "
            "go on with lower-case letters, digits and hyphens only"
        )
    elif name.endswith("-"):
        faults.append(f"the name {name!r} should not end with a hyphen: it is part of a host name")
    if len(name) > NAME_LENGTH:
        faults.append(f"the name {name!r} has {len(name)} characters, at most {NAME_LENGTH} fit")
    if name in RESERVED_NAMES:
        faults.append(f"the name {name!r} is reserved: it would be taken for something else")
    return faults


@dataclass(frozen=True)
class Route:
    """How people reach an instance: by a host name of its own, or below a path of the host.

    `kind` is "vhost" or "location"; `hostname` stands in links; `prefix` is the path of a location,
    such as /demo. With `redirect`, the address of the other kind sends people on. `certificate` is
    "none" for plain HTTP, "self-signed" or "own"; `hsts` the seconds for which browsers then keep
    to HTTPS, 0 to leave that to them; with `plain_workers`, those on other machines may go on
    without it.
    """

    kind: str = VHOST
    hostname: str = ""
    prefix: str = ""
    redirect: bool = False
    certificate: str = NONE
    hsts: int = 0
    plain_workers: bool = False

    @property
    def mount(self) -> str:
        """What all paths begin with: nothing, or the prefix."""
        return self.prefix if self.kind == LOCATION else ""

    @property
    def secure(self) -> bool:
        """Whether it is served by HTTPS."""
        return self.certificate != NONE

    @property
    def origin(self) -> str:
        """Scheme and host name, as browsers name who a page comes from."""
        return f"{'https' if self.secure else 'http'}://{self.hostname}"

    @property
    def url(self) -> str:
        return f"{self.origin}{self.mount}/"


@dataclass(frozen=True)
class Mail:
    """How LAVA sends notifications; empty values leave LAVA's defaults."""

    server: str = ""
    port: int = 25
    user: str = ""
    password: Secret = Secret("")
    tls: bool = False
    sender: str = ""
    admins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gunicorn:
    """The size of the web server."""

    workers: int = 2
    threads: int = 4


@dataclass(frozen=True)
class Components:
    """Which components run on this host."""

    publisher: bool = True
    scheduler: bool = True
    dispatcher: bool = True


@dataclass(frozen=True)
class Limits:
    """What all processes of an instance may take together, its jobs among them.

    `memory` is a size as systemd takes it (512M, 4G), '' for any; `cpu_weight` the share of the
    processor among instances, 0 for systemd's default of 100; `tasks` counts processes and threads,
    0 for any number.
    """

    memory: str = ""
    cpu_weight: int = 0
    tasks: int = 0


@dataclass(frozen=True)
class Database:
    """The Postgres server. Without `host`: the distribution's cluster, by its socket.

    `port` 0 is the port of the default cluster, or 5432. `admin` and `admin_password_file` are how
    lava-deploy itself logs in to a server on another machine.
    """

    host: str = ""
    port: int = 0
    admin: str = "postgres"
    admin_password_file: str = ""


@dataclass(frozen=True)
class Configuration:
    """All that an admin may set, as read from instance.yaml."""

    route: Route = Route()
    mail: Mail = Mail()
    web: Gunicorn = Gunicorn()
    components: Components = Components()
    limits: Limits = Limits()
    database: Database = Database()
    settings: Mapping[str, Any] = field(default_factory=dict)
