"""The Postgres role and database of an instance."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lava_deploy.errors import CommandFailed

if TYPE_CHECKING:
    from lava_deploy.configuration import Database
    from lava_deploy.model import Instance, Secret
    from lava_deploy.postgres import Postgres
    from lava_deploy.system import System


STANDARD_PORT = 5432


def located(system: System, server: Database) -> Database:
    """A server with its port: that of the machine's first cluster where none was chosen."""
    return server if server.port else replace(server, port=_first_port(system, server))


def _first_port(system: System, server: Database) -> int:
    if server.host:
        return STANDARD_PORT
    try:
        fields = system.run(["pg_lsclusters", "--no-header"]).stdout.split()
    except CommandFailed:  # Postgres is not installed
        return STANDARD_PORT
    return int(fields[2]) if len(fields) > 2 else STANDARD_PORT


def faults(postgres: Postgres, instance: Instance) -> list[str]:
    """What stands in the way of making them. Raises Unreachable."""
    found = []
    if postgres.has_role(instance.user):
        found.append(f"Postgres already has a role {instance.user}")
    if postgres.has_database(instance.database):
        found.append(f"Postgres already has a database {instance.database}")
    return found


def exists(postgres: Postgres, instance: Instance) -> bool:
    return postgres.has_database(instance.database)


def make(postgres: Postgres, instance: Instance, password: Secret) -> None:
    """Make a role and an empty database that only this role may enter."""
    postgres.make_role(instance.user, password.reveal())
    postgres.make_database(instance.database, instance.user)


def exchange(postgres: Postgres, name: str, into: str, out: str) -> None:
    """Give a database's name to the one that waits; the former one is kept as `out`."""
    if postgres.has_database(into):
        if not postgres.has_database(out):
            postgres.rename_database(name, out)
        postgres.rename_database(into, name)


def exchange_back(postgres: Postgres, name: str, into: str, out: str) -> None:
    """Undo an exchange, or what of it was done."""
    if postgres.has_database(out):
        if postgres.has_database(name):
            postgres.rename_database(name, into)
        postgres.rename_database(out, name)


def remove(postgres: Postgres, instance: Instance) -> None:
    """Remove both, with all data, and the databases beside it, such as those before restores."""
    for name in postgres.databases(f"{instance.database}_"):
        postgres.remove_database(name)
    postgres.remove_database(instance.database)
    postgres.remove_role(instance.user)
