"""Apache's module for https, as parts/tls.py switches it, on Debian's Apache and in memory."""

import socket
import ssl
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lava_deploy.model import Host, Instance
from lava_deploy.parts import ports, route, tls
from lava_deploy.system import System
from tests.fakes import FakeSystem, World

pytestmark = pytest.mark.contract
SITE = Path("/etc/apache2/sites-available/lava-tls-test.conf")
SECONDS_TO_LISTEN = 20


@pytest.fixture(params=["in memory", "real"])
def system(request, tmp_path) -> System | FakeSystem:
    if request.param == "real":
        return System()
    world = World()
    for path in (tmp_path, tls.ENABLED):
        world.directory(path)
    for name, needs in {"ssl": "mime socache_shmcb", "socache_shmcb": "", "mime": ""}.items():
        world.put(tls.AVAILABLE / f"{name}.load", f"# Depends: {needs}\n")
    machine = FakeSystem(world)
    machine.run(["a2enmod", "--quiet", "mime"])
    return machine


def test_the_module_is_on_with_what_it_needs_and_off_again(system, tmp_path):
    host = Host(state=tmp_path)
    before = system.names(tls.ENABLED)
    tls.module_on(system, host)
    added = set(system.names(tls.ENABLED)) - set(before)
    assert {"ssl.load", "socache_shmcb.load"} <= added
    assert tls.module_off(system, host)
    assert system.names(tls.ENABLED) == before
    tls.forget_module(system, host)
    assert system.names(tmp_path) == []


@pytest.fixture
def host() -> Iterator[Host]:
    """A host whose Apache serves https for lab.example.com; as before, afterwards."""
    system = System()
    # systemd gives Apache a /tmp of its own
    with tempfile.TemporaryDirectory(dir="/srv") as directory:
        host = Host.below(Path(directory))
        try:
            _serve(system, host.instance("demo"))
            yield host
        finally:
            system.run(["a2dissite", "--quiet", "--purge", SITE.stem])
            system.remove(SITE)
            tls.module_off(system, host)
            route.reload(system)
            tls.forget_module(system, host)
    assert system.wait_until(lambda: not listens(), SECONDS_TO_LISTEN)


def _serve(system: System, demo: Instance) -> None:
    for path in (demo.host.state, demo.etc):
        system.make_directory(path)
    pair = tls.issue(system, demo.host, "lab.example.com", datetime.now(UTC))
    tls.change(system, demo, tls.texts(demo, pair))
    system.write(
        SITE,
        f"<VirtualHost *:443>\nServerName lab.example.com\nSSLEngine on\n"
        f"SSLCertificateFile {demo.certificate}\nSSLCertificateKeyFile {demo.certificate_key}\n"
        "</VirtualHost>\n",
    )
    tls.module_on(system, demo.host)
    system.run(["a2ensite", "--quiet", SITE.stem])
    route.reload(system)


def listens() -> bool:
    try:
        socket.create_connection(("127.0.0.1", ports.HTTPS)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_who_trusts_the_authority_reaches_apache_by_every_name(host):
    system = System()
    assert system.wait_until(listens, SECONDS_TO_LISTEN)
    assert ports.holder(system, ports.HTTPS) == ""
    trusting = ssl.create_default_context(cafile=host.authority)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("lab.example.com", *tls.names_of_host(system)):
        with (
            socket.create_connection(("127.0.0.1", ports.HTTPS)) as connection,
            trusting.wrap_socket(connection, server_hostname=name) as secured,
        ):
            assert secured.version() == "TLSv1.3"


def test_a_program_that_holds_a_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = Path("/proc/self/comm").read_text().strip()
        assert ports.holder(System(), port) == program
    assert ports.holder(System(), port) == ""
