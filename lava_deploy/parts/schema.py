"""The tables of a release, kept as a dump: loading it takes a tenth of the time of migrations.

The dump is of a database that was migrated and has had no other use; what a migration makes by
chance (the token of LAVA's example worker) is removed before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lava_deploy.model import POSTGRES_SOCKETS

if TYPE_CHECKING:
    from pathlib import Path

    from lava_deploy.configuration import Database
    from lava_deploy.model import Built, Host, Instance, Secret
    from lava_deploy.system import System


def place(host: Host, built: Built, major: int) -> Path:
    """Where the dump of a release for servers of a major version is kept."""
    return host.cache / "schemas" / f"{built.path.name}-postgres-{major}.sql"


def load(
    system: System, instance: Instance, server: Database, password: Secret, dump: Path
) -> None:
    """Fill the instance's database, wholly or not at all; tables that are there are replaced."""
    system.run(
        [
            *("psql", "--quiet", "--no-psqlrc", "--single-transaction"),
            *("--set=ON_ERROR_STOP=1", "--output=/dev/null", "--file=-"),
            *_connection(instance, server),
        ],
        stdin=system.read(dump),
        user=instance.user,
        environment={"PGPASSWORD": password.reveal()},
    )


def keep(
    system: System, instance: Instance, server: Database, password: Secret, dump: Path
) -> None:
    """Dump the instance's freshly migrated database."""
    whole = ["pg_dump", "--no-owner", "--no-privileges", "--clean", "--if-exists"]
    dumped = system.run(
        [*whole, *_connection(instance, server)],
        user=instance.user,
        environment={"PGPASSWORD": password.reveal()},
    ).stdout
    system.make_directory(dump.parent)
    system.write(dump, dumped)


def _connection(instance: Instance, server: Database) -> list[str]:
    host = server.host or POSTGRES_SOCKETS
    return [f"--host={host}", f"--port={server.port}", f"--dbname={instance.database}"]
