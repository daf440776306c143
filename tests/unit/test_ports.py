import pytest

from lava_deploy.parts import ports
from tests.fakes import FakeSystem, World
from tests.fakes.world import LINK, Node

HEADER = "sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode\n"
LISTENS, CONNECTED = "0A", "01"


def system(program: str, port: str, state: str = LISTENS, table: str = "tcp") -> FakeSystem:
    """A machine on which a program has a socket, the kernel's number of which is 4711."""
    world = World()
    line = f"0: 00000000:{port} 00000000:0000 {state} 0:0 0:0 0 0 0 4711 1\n"
    world.put(f"/proc/net/{table}", HEADER + line)
    world.put("/proc/7/comm", f"{program}\n")
    world.directory("/proc/7/fd")
    world.nodes["/proc/7/fd/3"] = Node(LINK, "socket:[4711]")
    return FakeSystem(world)


@pytest.mark.parametrize("table", ["tcp", "tcp6"])
@pytest.mark.parametrize(("number", "port"), [(80, "0050"), (443, "01BB")])
def test_a_program_that_listens_holds_the_port(number, port, table):
    held = system("nginx", port, table=table)
    assert ports.holder(held, number) == "nginx"
    assert ports.faults(held, number) == [f"port {number} is held by nginx, Apache needs it"]


def test_apache_may_listen():
    assert ports.faults(system("apache2", "01BB"), ports.HTTPS) == []


def test_a_connection_and_another_port_hold_nothing():
    assert ports.holder(system("curl", "01BB", CONNECTED), ports.HTTPS) == ""
    assert ports.holder(system("nginx", "0050"), ports.HTTPS) == ""


def test_nobody_holds_a_port_of_a_machine_without_sockets():
    assert ports.holder(FakeSystem(World()), ports.HTTPS) == ""


def test_a_port_held_from_outside_of_a_container_is_held():
    held = system("nginx", "01BB")
    del held.world.nodes["/proc/7/fd/3"]
    assert ports.holder(held, ports.HTTPS) == "a program of another namespace"
