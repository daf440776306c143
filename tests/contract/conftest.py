"""What several contract tests stand on: a release of the real LAVA, a cluster to be restarted.

The release is of the Debian archive that this host uses, and built once.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lava_deploy import sources
from lava_deploy.configuration import Database
from lava_deploy.model import Host, Wanted
from lava_deploy.packs import Packs
from lava_deploy.parts import database, release, user
from lava_deploy.system import System
from tests.contract.trial import CLUSTER, PASSWORD, TABLES, Rig, control


def quiet(_line: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    return Host.below(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="session")
def revision(host):
    return sources.find(System(), host.cache, Wanted("latest", "debian", ""), quiet)


@pytest.fixture(scope="session")
def built(host, revision):
    code = sources.fetch(System(), host.cache, revision, quiet)
    return release.build(System(), Packs(), host.cache, code, quiet)


@pytest.fixture(scope="module")
def trial_cluster() -> Iterator[tuple[int, int]]:
    """The major version and the port of a new cluster."""
    if os.geteuid() != 0 or not Path("/usr/bin/pg_createcluster").exists():
        pytest.skip("only root makes a cluster, where Debian's Postgres is installed")
    major = max(int(path.name) for path in Path("/usr/lib/postgresql").iterdir())
    drop = ["pg_dropcluster", "--stop", str(major), CLUSTER]
    subprocess.run(drop, capture_output=True)
    create = ["pg_createcluster", "--locale=C.UTF-8", str(major), CLUSTER]
    subprocess.run(create, check=True, capture_output=True)
    control(major, "start")
    lines = subprocess.run(["pg_lsclusters", "--no-header"], capture_output=True, text=True).stdout
    fields = [line.split() for line in lines.splitlines()]
    [port] = [int(one[2]) for one in fields if one[:2] == [str(major), CLUSTER]]
    try:
        yield major, port
    finally:
        control(major, "stop", "--mode", "immediate")
        subprocess.run(drop, check=True, capture_output=True)


@pytest.fixture
def trial(trial_cluster, tmp_path) -> Iterator[Rig]:
    major, port = trial_cluster
    instance = Host.below(tmp_path / "root").instance("dump-test")
    rig = Rig(major, Database(port=port), instance)
    user.make(rig.system, instance)
    try:
        database.make(rig.postgres, instance, PASSWORD)
        rig.psql(TABLES)
        yield rig
    finally:
        for name in rig.postgres.databases(instance.database):
            rig.postgres.remove_database(name)
        rig.postgres.remove_role(instance.user)
        user.remove(rig.system, instance)
