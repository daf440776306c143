import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lava_deploy import certificates
from lava_deploy.errors import BadCertificate, CommandFailed
from lava_deploy.model import Host, Secret
from lava_deploy.parts import tls
from tests.fakes import FakeSystem, Killed, Trouble, World
from tests.fakes.commands import APACHE

NOW = datetime(2026, 11, 25, tzinfo=UTC)
HOST = Host()
DEMO = HOST.instance("demo")
MODULES = {
    "ssl": "# Depends: setenvif mime socache_shmcb\n",
    "socache_shmcb": "",
    "setenvif": "",
    "mime": "",
    "other": "# Depends: socache_shmcb\n",
}


@pytest.fixture
def system():
    """A host with an instance and Debian's Apache, of whose modules two are on."""
    world = World()
    for path in (DEMO.etc, HOST.state, f"{APACHE}/mods-enabled"):
        world.directory(path)
    for name, text in MODULES.items():
        world.put(f"{APACHE}/mods-available/{name}.load", text)
    machine = FakeSystem(world)
    for name in ("mime", "setenvif"):
        machine.run(["a2enmod", "--quiet", name])
    return machine


def modules(system):
    return [name.removesuffix(".load") for name in system.names(Path(APACHE, "mods-enabled"))]


def mode(system, path):
    node = system.world.nodes[str(path)]
    return node.mode, node.owner, node.group


def issued(system):
    return tls.issue(system, HOST, "demo.localhost", NOW)


def module_on(system):
    tls.module_on(system, HOST)


def module_off(system):
    if tls.module_off(system, HOST):
        tls.forget_module(system, HOST)


def test_the_authority_is_made_once(system):
    first = tls.authority(system, HOST, NOW)
    assert tls.authority(system, HOST, NOW + timedelta(days=1)) == first
    assert certificates.read(first.certificate).issuer == "CN=lava-deploy on lab"
    assert mode(system, HOST.tls) == (0o755, "root", "root")
    assert mode(system, HOST.authority) == (0o644, "root", "root")
    assert mode(system, HOST.authority_key) == (0o600, "root", "root")


@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_authority_half_made_is_made_anew(system, call):
    system.world.trouble = Trouble(frozenset([call]), error=Killed())
    with pytest.raises(Killed):
        tls.authority(system, HOST, NOW)
    system.world.trouble = Trouble()
    pair = tls.authority(system, HOST, NOW)
    assert certificates.faults(pair.certificate, pair.key, "", NOW) == []


def test_an_authority_without_its_key_is_not_replaced(system):
    tls.authority(system, HOST, NOW)
    system.remove(HOST.authority_key)
    with pytest.raises(BadCertificate, match=r"ca-key\.pem is gone"):
        tls.authority(system, HOST, NOW)


def test_the_authority_is_removed_without_a_trace(system):
    before = system.world.state()
    tls.authority(system, HOST, NOW)
    tls.remove_authority(system, HOST)
    tls.remove_authority(system, HOST)
    system.remove_directory(HOST.root)
    assert [line for line in system.world.state() if "/srv/lava/tls" in line] == []
    assert len(system.world.state()) == len(before)


def test_a_host_has_the_names_by_which_it_can_be_asked(system):
    assert tls.names_of_host(system) == [
        *("localhost", "127.0.0.1", "::1"),
        *("lab", "lab.example.com", "10.0.0.7", "2001:db8::7"),
    ]


def test_an_instance_gets_a_certificate_and_loses_it(system):
    before = system.world.state()
    pair = issued(system)
    tls.remove_authority(system, HOST)
    assert tls.certificate(system, DEMO) is None
    tls.change(system, DEMO, tls.texts(DEMO, pair))
    assert tls.certificate(system, DEMO).names[0] == "demo.localhost"
    assert system.read(DEMO.certificate) == pair.certificate
    assert type(system.read(DEMO.certificate_key)) is str
    assert mode(system, DEMO.certificate.parent) == (0o750, "root", "root")
    assert mode(system, DEMO.certificate) == (0o644, "root", "root")
    assert mode(system, DEMO.certificate_key) == (0o600, "root", "root")
    for _ in range(2):
        tls.change(system, DEMO, tls.absent(DEMO))
        assert system.world.state() == before


def test_the_text_of_a_key_does_not_show_itself(system):
    wanted = tls.texts(DEMO, issued(system))
    assert isinstance(wanted[DEMO.certificate_key], Secret)
    assert "PRIVATE KEY" not in repr(wanted)


def test_a_file_that_is_no_certificate_is_told_as_such(system):
    tls.change(system, DEMO, {DEMO.certificate: "nonsense"})
    with pytest.raises(BadCertificate):
        tls.certificate(system, DEMO)


def test_the_module_is_on_with_what_it_needs_and_off_again(system):
    before = system.world.state()
    for _ in range(2):
        module_on(system)
        assert modules(system) == ["mime", "setenvif", "socache_shmcb", "ssl"]
    for _ in range(2):
        module_off(system)
        assert system.world.state() == before


def test_a_module_that_was_on_stays_on(system):
    system.run(["a2enmod", "--quiet", "ssl"])
    before = system.world.state()
    module_on(system)
    module_off(system)
    assert system.world.state() == before


@pytest.mark.parametrize("change", [module_on, module_off])
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_killed_switch_is_taken_back(system, change, early, call):
    before = system.world.state()
    if change is module_off:
        module_on(system)
    system.world.trouble = Trouble(frozenset([call]), before=early, error=Killed())
    with contextlib.suppress(Killed):
        change(system)
    system.world.trouble = Trouble()
    module_on(system)
    assert "ssl" in modules(system)
    module_off(system)
    assert system.world.state() == before


def test_what_another_module_needs_by_now_stays_on(system):
    module_on(system)
    system.run(["a2enmod", "--quiet", "other"])
    module_off(system)
    assert modules(system) == ["mime", "other", "setenvif", "socache_shmcb"]


def test_a_module_without_which_apache_fails_its_test_stays_on(system, monkeypatch):
    def run(words, **options):
        if words[1] == "configtest" and "ssl" not in modules(system):
            raise CommandFailed(words, 1, "Invalid command 'SSLEngine'")
        return FakeSystem.run(system, words, **options)

    module_on(system)
    monkeypatch.setattr(system, "run", run)
    module_off(system)
    assert modules(system) == ["mime", "setenvif", "socache_shmcb", "ssl"]
