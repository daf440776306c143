"""The Postgres role and database of an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lava_deploy.model import Instance, Secret
    from lava_deploy.postgres import Postgres


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


def remove(postgres: Postgres, instance: Instance) -> None:
    """Remove both, with all data."""
    postgres.remove_database(instance.database)
    postgres.remove_role(instance.user)
