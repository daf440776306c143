"""Which contents of a dump the owner of a database can load; dumps on the machine in memory."""

from pathlib import Path

import pytest

from lava_deploy.configuration import Database
from lava_deploy.errors import CommandFailed
from lava_deploy.model import Host, Secret
from lava_deploy.parts import dump
from tests.fakes import FakePostgres, FakeSystem, World

COMMENT = """\
;
; Archive created at 2012-11-21 18:30:00 UTC
;     dbname: lava-server
;     Dumped by pg_dump version: 9.1.6
;
"""
# How pg_restore --list shows what an old pg_dump wrote, and what stays of it.
NEEDS_A_SUPERUSER = """\
5; 2615 2200 SCHEMA - public postgres
2103; 0 0 COMMENT - SCHEMA public postgres
2104; 0 0 ACL - SCHEMA public postgres
171; 3079 11716 EXTENSION - plpgsql 
2105; 0 0 COMMENT - EXTENSION plpgsql 
574; 2612 16386 PROCEDURAL LANGUAGE - plpgsql postgres
2106; 0 0 COMMENT - EXTENSION pg_trgm 
"""  # noqa: W291
STAYS = """\
172; 3079 16385 EXTENSION - pg_trgm 
6; 2615 2201 SCHEMA - public_too lava-server
2107; 0 0 COMMENT - SCHEMA public_too lava-server
161; 1259 16394 TABLE public schema lava-server
162; 1259 16392 SEQUENCE public schema_id_seq lava-server
2108; 0 0 COMMENT public TABLE schema lava-server
2089; 0 16394 TABLE DATA public schema lava-server
"""  # noqa: W291


def test_what_only_a_superuser_may_load_is_left_out() -> None:
    assert dump.for_owners(COMMENT + NEEDS_A_SUPERUSER + STAYS) == COMMENT + STAYS


def test_the_version_that_made_a_dump_is_read_from_its_list() -> None:
    found = dump.DUMPED_BY.search(COMMENT)
    assert found and found[1] == "9"


def test_the_machine_in_memory_loads_what_it_dumped_once_and_for_who_has_the_password() -> None:
    world, instance, path = World(), Host().instance("demo"), Path("/backup/db")
    system, server = FakeSystem(world), FakePostgres(world)
    server.make_role(instance.user, "right")
    for name in (instance.database, "beside"):
        server.make_database(name, instance.user)
    world.databases[instance.database]["migrate"] = "done"
    place, right = Database(port=5432), Secret("right")
    with pytest.raises(CommandFailed):
        dump.make(system, instance, place, Secret("wrong"), path, 15, "a state")
    dump.make(system, instance, place, right, path, 15, "a state")
    assert world.nodes[str(path)].mode == 0o700
    assert dump.readable_faults(system, path, 15) == []
    with dump.loading(system, instance, place, right, path, "beside", 15):
        pass
    assert world.databases["beside"] == world.databases[instance.database]
    again = dump.loading(system, instance, place, right, path, "beside", 15)
    with pytest.raises(CommandFailed), again:
        pass
