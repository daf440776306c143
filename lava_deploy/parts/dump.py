"""Dumps of an instance's database as pg_dump makes them, and databases loaded from them.

The programs are those of the server's own major version: newer ones write statements that it does
not know, older ones refuse it. They run as the instance's user, as whom alone Debian's Postgres
takes its role on a local socket (pg_hba.conf), with the right to pass by root's directories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy.errors import CommandFailed
from lava_deploy.model import POSTGRES_SOCKETS

if TYPE_CHECKING:
    from lava_deploy.configuration import Database
    from lava_deploy.model import Instance, Secret
    from lava_deploy.system import System

JOBS = 2
# pg_dump can do better than gzip since this version, if it is built so.
ZSTD_SINCE = 16
# pg_restore takes the end of a file that was cut short for the end of its table; these do not.
UNPACKERS = {"gzip": ".gz", "zstd": ".zst"}
# What building an index may take, in MB: Postgres's default, and where more is of no use.
LEAST_MEMORY, MOST_MEMORY = 64, 512
# Lines of `pg_restore --list` that only a superuser may carry out, though every database begins
# with what they make; or comments on what may belong to somebody else.
NOT_FOR_OWNERS = re.compile(
    r"\d+; \d+ \d+ (COMMENT - EXTENSION |(EXTENSION|PROCEDURAL LANGUAGE) - plpgsql "
    r"|SCHEMA - public |(COMMENT|ACL) - SCHEMA public )"
)
DUMPED_BY = re.compile(r"^;\s+Dumped by pg_dump version: (\d+)", re.MULTILINE)
HINT = (
    "If Postgres was stopped or restarted meanwhile, try again when it answers; "
    "its own log, in /var/log/postgresql on its machine, tells more."
)


def programs(major: int) -> Path:
    """Where Debian has the client programs of a major version of Postgres."""
    return Path(f"/usr/lib/postgresql/{major}/bin")


def faults(system: System, major: int) -> list[str]:
    """What is missing for servers of a major version."""
    if system.exists(programs(major) / "pg_dump"):
        return []
    package = f"postgresql-client-{major}"
    return [
        f"{programs(major)}/pg_dump does not exist, and the server is Postgres {major}: "
        f"`apt-get install {package}`, from PostgreSQL's own archive if Debian's has none"
    ]


def readable_faults(system: System, dump: Path, major: int) -> list[str]:
    """Why a dump cannot be loaded into a server of a major version, as far as can be told."""
    listed = system.run([programs(major) / "pg_restore", "--list", dump], check=False)
    if listed.status != 0:
        said = listed.stderr.strip()
        return [f"pg_restore of Postgres {major} cannot read {dump}: {said}"]
    by = DUMPED_BY.search(listed.stdout)
    if by and int(by[1]) > major:
        return [
            f"{dump} was made by pg_dump {by[1]}, and the server is Postgres {major}: "
            "it can be loaded into a server that is at least as new"
        ]
    return []


def make(
    system: System,
    instance: Instance,
    server: Database,
    password: Secret,
    to: Path,
    major: int,
    frozen: str,
    gently: bool = False,
) -> str:
    """Dump the instance's database into a new directory, in pg_dump's directory format.

    `frozen` is the state to be dumped (`postgres.Frozen.id`); what is at `to` is replaced; `gently`
    takes one session at a time. All is on the disk in the end: 0700, files 0600, of root. Returns
    how pg_dump names its version. Raises CommandFailed.
    """
    system.remove_tree(to)
    access = [*_connection(server, instance.database), "--no-password"]
    compression = _compression(system, instance, access, password, major)
    command = [
        *(str(programs(major) / "pg_dump"), *access, f"--snapshot={frozen}"),
        *("--no-owner", "--no-privileges", "--format=directory", f"--file={to}"),
        *(f"--jobs={1 if gently else JOBS}", f"--compress={compression}"),
    ]
    _run(system, instance, command, {"PGPASSWORD": password.reveal()})
    system.run(["chown", "--recursive", "--no-dereference", "root:root", to])
    system.run(["chmod", "--recursive", "go=", to])
    return system.run([programs(major) / "pg_dump", "--version"]).stdout.strip()


@contextmanager
def loading(
    system: System,
    instance: Instance,
    server: Database,
    password: Secret,
    dump: Path,
    database: str,
    major: int,
    jobs: int = JOBS,
) -> Iterator[None]:
    """Fill an empty database, which the instance's role owns, with a dump, while the block runs.

    In the block Postgres is not to be asked for anything; after it all is loaded, and wants
    `analyzing`. The dump is a directory or a file in pg_dump's custom format; what its checksums do
    not vouch for is to be checked before. Raises CommandFailed; then the database has a part of it.
    """
    access = [*_connection(server, database), "--no-password", f"--jobs={jobs}"]
    secret = {"PGPASSWORD": password.reveal()}
    listing = system.run([programs(major) / "pg_restore", "--list", dump]).stdout
    command = [
        *(str(programs(major) / "pg_restore"), *access, "--exit-on-error"),
        *("--no-owner", "--no-privileges", "--use-list=/dev/stdin", str(dump)),
    ]
    options = " ".join(f"-c {one}" for one in _settings(system, server, jobs))
    environment = {**secret, "PGOPTIONS": options}
    whole = [*_as_user(instance), *map(str, command)]
    with _hinting(), system.meanwhile(whole, for_owners(listing), environment):
        yield


@contextmanager
def analyzing(
    system: System,
    instance: Instance,
    server: Database,
    password: Secret,
    database: str,
    major: int,
    jobs: int = JOBS,
) -> Iterator[None]:
    """Gather what Postgres plans by of a database that was loaded, while the block runs.

    Its commits wait for the disk, and with them those of `loading`, which did not. Raises
    CommandFailed.
    """
    access = [*_connection(server, database), "--no-password", f"--jobs={jobs}"]
    command = [str(programs(major) / "vacuumdb"), *access, "--analyze-only", "--quiet"]
    whole = [*_as_user(instance), *command]
    with _hinting(), system.meanwhile(whole, "", {"PGPASSWORD": password.reveal()}):
        yield


def check(system: System, dump: Path, major: int) -> str:
    """What is wrong with the structure of a dump, or its compression; '' if nothing is.

    A flipped bit passes where zstd was used, as pg_dump has it write no checksums.
    """
    commands: list[list[str | Path]] = [[programs(major) / "pg_restore", "--file=/dev/null", dump]]
    names = system.names(dump) if system.is_directory(dump) else []
    for program, ending in UNPACKERS.items():
        packed = [dump / name for name in names if name.endswith(ending)]
        if packed:
            commands.append([program, "--test", "--quiet", *packed])
    ended = [system.run(command, check=False) for command in commands]
    return "\n".join(
        one.stderr.strip() or f"status {one.status}" for one in ended if one.status != 0
    )


def text_size(system: System, dump: Path, major: int) -> int:
    """Bytes of a dump as SQL: about what the database takes with its indexes.

    Raises CommandFailed for a dump that `check` has a fault of.
    """
    command = [str(programs(major) / "pg_restore"), "--file=-", str(dump)]
    return sum(len(line) + 1 for line in system.lines(command) if line is not None)


def for_owners(listing: str) -> str:
    """The list of a dump's contents without what the owner of a database may not, or need not."""
    lines = listing.splitlines(keepends=True)
    return "".join(line for line in lines if not NOT_FOR_OWNERS.match(line))


def _compression(
    system: System, instance: Instance, access: list[str], password: Secret, major: int
) -> str:
    """The best that this pg_dump is built with, found out by dumping nothing with it."""
    if major < ZSTD_SINCE:
        return "1"
    command = [
        *(str(programs(major) / "pg_dump"), *access, "--compress=zstd:1", "--format=custom"),
        *("--schema-only", "--exclude-schema=*", "--no-sync", "--file=/dev/null"),
    ]
    try:
        _run(system, instance, command, {"PGPASSWORD": password.reveal()})
    except CommandFailed:  # if not for the compression, then the dump itself fails and says why
        return "gzip:1"
    return "zstd:1"


def _settings(system: System, server: Database, jobs: int) -> list[str]:
    """What speeds up loading a new database, for its sessions alone; which a crash may cost."""
    settings = ["synchronous_commit=off", "max_parallel_maintenance_workers=0"]
    if not server.host:  # the memory of another machine is not known
        share = system.free_memory() // 2**20 // (4 * jobs)
        memory = max(LEAST_MEMORY, min(MOST_MEMORY, share))
        settings.append(f"maintenance_work_mem={memory}MB")
    return settings


def _connection(server: Database, database: str) -> list[str]:
    host = server.host or POSTGRES_SOCKETS
    return [f"--host={host}", f"--port={server.port}", f"--dbname={database}"]


def _run(
    system: System,
    instance: Instance,
    command: Sequence[str | Path],
    environment: Mapping[str, str],
) -> None:
    with _hinting():
        system.run([*_as_user(instance), *command], environment=environment)


def _as_user(instance: Instance) -> list[str]:
    """What runs a program as the instance's user, who ends with us and may open root's files."""
    right = "-all,+dac_override"
    return [
        *("setpriv", f"--reuid={instance.user}", f"--regid={instance.user}", "--init-groups"),
        *(f"--inh-caps={right}", f"--ambient-caps={right}", "--pdeathsig=TERM"),
        # or access(2), by which pg_restore looks for files, goes without: capabilities(7)
        "--securebits=+no_setuid_fixup",
    ]


@contextmanager
def _hinting() -> Iterator[None]:
    """Say of a program that failed what may be the cause."""
    try:
        yield
    except CommandFailed as failed:
        raise CommandFailed(
            failed.command, failed.status, failed.output, hint=failed.hint or HINT
        ) from failed
