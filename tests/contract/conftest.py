"""What contract tests of several files stand on."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lava_deploy.configuration import Database
from lava_deploy.model import Host
from lava_deploy.parts import database, user
from tests.contract.trial import CLUSTER, PASSWORD, TABLES, Rig, control


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
