"""The test hosts themselves: they boot, behave like Debian hosts, and leave nothing behind."""

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import cgroups, egress
from .bed import (
    PLAIN,
    RESTLESS,
    SYSTEMD,
    Bed,
    BedInUse,
    BootFailed,
    CommandFailed,
    Host,
    HostSpec,
    HostsUnavailable,
    Images,
    difference,
)
from .host import DEVICES

pytestmark = pytest.mark.hosts

KINDS = [(suite, init) for suite in ("bookworm", "trixie") for init in (SYSTEMD, PLAIN)]
# systemd.exec(5), DynamicUser=
DYNAMIC_USERS = range(61184, 65520)
VERSIONS = {"bookworm": "12", "trixie": "13"}
SOCKET_UNIT = """
[Socket]
ListenStream=/run/greeter.sock
Accept=yes
"""
HARDENED_UNIT = """
[Service]
ExecStart=/bin/sh -c 'touch /usr/mine 2>/dev/null || id -u'
StandardInput=socket
DynamicUser=yes
NoNewPrivileges=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
ProtectSystem=strict
ProtectHome=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX
SystemCallFilter=@system-service
"""
# What a crash leaves behind is judged from a process of its own, which can be killed.
SLEEPING_OWNER = """
import sys, time
sys.path.insert(0, {parent!r})
from {package}.bed import Bed, HostSpec
bed = Bed()
bed.up([HostSpec("left", init="plain")])
print(bed.identity, bed.network, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with Bed(share_downloads=True) as one:
        one.up([HostSpec(f"{suite}-{init}", suite, init) for suite, init in KINDS])
        yield one


@pytest.fixture(params=KINDS, ids="-".join)
def host(request: pytest.FixtureRequest, bed: Bed) -> Host:
    return bed.hosts["-".join(request.param)]


@pytest.fixture
def systemd_host(bed: Bed) -> Host:
    return bed.hosts["bookworm-systemd"]


@pytest.fixture
def plain_host(bed: Bed) -> Host:
    return bed.hosts["trixie-plain"]


def traces(identity: str, network: str) -> list[str]:
    """Whatever there is on this machine of a bed."""
    links = [path.name for path in Path("/sys/class/net").iterdir()]
    processes = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True)
    # who has ended, and only waits for this machine's process 1 to take notice, has gone
    alive = [line for line in processes.stdout.splitlines() if not line.startswith("Z")]
    routes = subprocess.run(["ip", "route", "show"], capture_output=True, text=True).stdout
    found = [path.name for path in Path("/run/netns").glob(f"{identity}-*")]
    found += [name for name in links if name.startswith(identity)]
    found += [line for line in alive if f"lava-deploy-beds/{identity}/" in line]
    found += [line for line in routes.splitlines() if f"{network}.0/24" in line]
    found += [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if f"lava-deploy-beds/{identity}/" in line
    ]
    group = cgroups.root() / identity
    directory = Path("/var/tmp/lava-deploy-beds") / identity
    snapshots = Images().directory / "snapshots" / identity
    return found + [str(path) for path in (group, directory, snapshots) if path.exists()]


def test_a_host_has_its_suite_its_name_and_nothing_more(host: Host) -> None:
    suite = host.place.suite
    assert f'VERSION_ID="{VERSIONS[suite]}"' in host.run(["cat", "/etc/os-release"]).stdout
    assert host.run(["hostname"]).stdout == f"{host.name}\n"
    for absent in ("python3", "git", "curl"):
        assert host.run(f"command -v {absent}", check=False).status != 0


def test_a_systemd_host_boots_without_a_failure(bed: Bed) -> None:
    for host in bed.hosts.values():
        if host.place.init == SYSTEMD:
            failed = host.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout
            state = host.run(["systemctl", "is-system-running"], check=False).stdout
            assert (state, failed) == ("running\n", "")


def test_a_plain_host_has_no_systemd(bed: Bed) -> None:
    for host in bed.hosts.values():
        if host.place.init == PLAIN:
            assert host.run(["cat", "/proc/1/comm"]).stdout == "tini\n"
            assert host.run(["test", "-e", "/run/systemd/system"], check=False).status == 1
            assert host.run("command -v systemctl", check=False).status != 0


def test_a_host_may_not_change_the_machine(host: Host) -> None:
    assert host.run(["date", "-s", "2001-01-01"], check=False).status != 0
    assert host.run("echo 1 >/proc/sys/kernel/panic", check=False).status != 0
    assert int(time.time()) > 1_500_000_000


def test_a_host_has_the_devices_of_the_machine_that_emulators_need(host: Host) -> None:
    for device in DEVICES:
        inside = host.run(["test", "-c", device], check=False).status == 0
        assert inside == Path(device).exists()
    if Path("/dev/net/tun").exists():
        host.run("ip tuntap add tap0 mode tap && ip link delete tap0")


def test_a_plain_host_reaps_orphans(plain_host: Host) -> None:
    plain_host.run("setsid sh -c 'sleep 0.1 & exec sleep 0.2' >/dev/null 2>&1 & sleep 0.5")
    assert "Z" not in plain_host.run(["ps", "-eo", "stat="]).stdout


def test_a_hardened_unit_is_started_by_its_socket(bed: Bed) -> None:
    for host in bed.hosts.values():
        if host.place.init == PLAIN:
            continue
        host.run("cat >/etc/systemd/system/greeter.socket", input=SOCKET_UNIT)
        host.run("cat >/etc/systemd/system/greeter@.service", input=HARDENED_UNIT)
        host.run("systemctl daemon-reload && systemctl start greeter.socket")
        host.run(["apt-get", "install", "-qq", "-y", "socat"], timeout=120)
        greeting = host.run(["socat", "-t5", "-", "UNIX-CONNECT:/run/greeter.sock"]).stdout
        assert int(greeting) in DYNAMIC_USERS


def test_a_package_installs(host: Host) -> None:
    assert host.run("command -v ed", check=False).status != 0
    host.run(["apt-get", "update", "-qq"], timeout=120)
    host.run(["apt-get", "install", "-qq", "-y", "ed"], timeout=120)
    assert host.run("command -v ed").stdout.endswith("/ed\n")


def test_a_package_of_the_python_index_installs(systemd_host: Host) -> None:
    systemd_host.run(["apt-get", "install", "-qq", "-y", "python3-venv"], timeout=300)
    systemd_host.run(["python3", "-m", "venv", "/opt/venv"])
    systemd_host.run(["/opt/venv/bin/pip", "install", "-q", "invoke"], timeout=120)
    assert systemd_host.run(["/opt/venv/bin/invoke", "--version"]).stdout.startswith("Invoke ")


def test_nothing_but_the_registries_is_within_reach(bed: Bed, systemd_host: Host) -> None:
    systemd_host.run(["apt-get", "install", "-qq", "-y", "curl"], timeout=120)
    elsewhere = ["curl", "-sS", "-m", "10", "http://example.org/"]
    assert systemd_host.run(elsewhere, check=False).status == 6  # no such name
    through_gateway = [*elsewhere, "--connect-to", f"::{bed.gateway}:80"]
    assert systemd_host.run(through_gateway, check=False).status == 52  # closed without a word
    by_address = ["curl", "-sS", "-m", "10", "http://192.0.2.1/"]
    assert systemd_host.run(by_address, check=False).status == 7  # no route


def test_hosts_know_one_another(bed: Bed) -> None:
    first, *others = bed.hosts.values()
    for other in others:
        assert first.run(["getent", "hosts", other.name]).stdout.split()[0] == other.address
        assert other.run(f"exec 3<>/dev/tcp/{first.name}/22; head -c3 <&3").stdout == "SSH"


def test_a_cut_network_fails_apt_and_a_restored_one_heals_it(bed: Bed, plain_host: Host) -> None:
    update = ["apt-get", "update", "-qq", "--error-on=any", "-oAcquire::Retries=0"]
    plain_host.run(update, timeout=120)
    bed.cut_network()
    assert plain_host.run(update, check=False, timeout=120).status != 0
    bed.restore_network()
    plain_host.run(update, timeout=120)


def test_a_reboot_keeps_what_the_host_wrote(host: Host) -> None:
    host.run("echo kept >/root/kept; echo gone >/run/gone")
    boot = host.leader()
    before = host.manifest(RESTLESS)
    host.reboot()
    assert difference(before, host.manifest(RESTLESS)) == {}
    assert host.leader() != boot
    assert host.run(["cat", "/root/kept"]).stdout == "kept\n"
    assert host.run(["cat", "/run/gone"], check=False).status == 1


def test_a_reboot_ends_services_in_an_orderly_way(host: Host) -> None:
    service = (
        "trap 'echo ended >/root/ended; exit' TERM; touch /root/ready; while :; do sleep 0.05; done"
    )
    host.run("cat >/root/service", input=service)
    host.run("trap '' HUP; setsid sh /root/service >/dev/null 2>&1 </dev/null &")
    host.run("until test -e /root/ready; do sleep 0.05; done", timeout=10)
    host.reboot()
    assert host.run(["cat", "/root/ended"]).stdout == "ended\n"


def test_a_command_gets_its_input_and_environment(host: Host) -> None:
    ended = host.run(
        ["sh", "-c", 'cat; echo "$A"; exit 3'], input="in ", env={"A": "it's"}, check=False
    )
    assert (ended.status, ended.stdout) == (3, "in it's\n")
    with pytest.raises(CommandFailed, match="oops"):
        host.run("echo oops >&2; false")


def test_the_output_of_a_long_command_comes_live(systemd_host: Host) -> None:
    with systemd_host.popen("echo first; read line; echo $line", stdin=subprocess.PIPE) as running:
        assert running.stdout.readline() == "first\n"
        running.stdin.write("second\n")
        running.stdin.flush()
        assert running.stdout.readline() == "second\n"


def test_files_and_directories_are_copied_both_ways(host: Host, tmp_path: Path) -> None:
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/tool").write_bytes(bytes(range(256)))
    (tmp_path / "tree/inner/tool").chmod(0o755)
    (tmp_path / "tree/link").symlink_to("inner/tool")
    host.put(tmp_path / "tree", "/srv/a place/tree")
    host.put(tmp_path / "tree/inner/tool", "/srv/renamed")
    host.get("/srv/a place/tree", tmp_path / "back")
    host.get("/srv/renamed", tmp_path / "renamed")
    assert (tmp_path / "back/inner/tool").read_bytes() == bytes(range(256))
    assert (tmp_path / "back/inner/tool").stat().st_mode & 0o777 == 0o755
    assert os.readlink(tmp_path / "back/link") == "inner/tool"
    assert (tmp_path / "renamed").read_bytes() == bytes(range(256))


def test_a_manifest_tells_every_change(host: Host) -> None:
    host.run(
        "mkdir /srv/m && cd /srv/m && echo a >same && echo a >grown && ln -s a turned && touch left"
    )
    before = host.manifest(RESTLESS)
    host.run(
        "cd /srv/m && echo b >grown && ln -sfn b turned && chmod 600 same && rm left && mkfifo new"
    )
    assert difference(before, host.manifest(RESTLESS)) == {
        "/srv/m/grown": "changed",
        "/srv/m/left": "removed",
        "/srv/m/new": "added",
        "/srv/m/same": "changed",
        "/srv/m/turned": "changed",
    }
    assert not any(path.startswith("/srv/m") for path in host.manifest(["/srv"]))


def test_a_layer_has_its_packages_and_directories_are_shared(tmp_path: Path) -> None:
    layer = Images().layer("bookworm", PLAIN, "ed", ["ed"])
    with Bed(share={"/root/.cache/shared": tmp_path}) as bed:
        [host] = bed.up([HostSpec("layered", init=PLAIN, layer=layer)])
        host.run("command -v ed && echo seen >/root/.cache/shared/file")
        assert (tmp_path / "file").read_text() == "seen\n"


def test_downloads_are_at_hand_in_the_next_bed() -> None:
    with Bed(share_downloads=True) as bed:
        [host] = bed.up([HostSpec("first", init=PLAIN)])
        host.run(["apt-get", "install", "-qq", "-y", "--download-only", "ed"], timeout=120)
    with Bed(share_downloads=True) as bed:
        [host] = bed.up([HostSpec("second", init=PLAIN)])
        bed.cut_network()
        host.run(["apt-get", "install", "-qq", "-y", "ed"], timeout=120)


def test_hosts_join_a_bed_and_beds_stand_side_by_side() -> None:
    with Bed() as one, Bed() as other:
        [first] = one.up([HostSpec("first", init=PLAIN)])
        [second] = one.up([HostSpec("second", init=PLAIN)])
        [apart] = other.up([HostSpec("first", init=PLAIN)])
        assert first.run(["getent", "hosts", "second"]).stdout.split()[0] == second.address
        assert one.identity != other.identity and one.network != other.network
        reach = f"exec 3<>/dev/tcp/{apart.address}/22"
        assert first.run(["timeout", "5", "bash", "-c", reach], check=False).status == 1


def test_the_bed_of_a_living_owner_is_refused_to_others_and_left_alone() -> None:
    with Bed() as bed:
        [host] = bed.up([HostSpec("mine", init=PLAIN)])
        with pytest.raises(BedInUse):
            Bed(identity=bed.identity)
        assert host.run(["true"]).status == 0


def test_down_leaves_nothing_and_may_be_repeated() -> None:
    bed = Bed(share_downloads=True)
    bed.up([HostSpec("one"), HostSpec("two", init=PLAIN)])
    identity, network = bed.identity, bed.network
    assert traces(identity, network)
    bed.down()
    left = traces(identity, network)
    bed.down()
    assert left == []


def test_a_new_bed_clears_away_what_a_killed_process_left() -> None:
    package = __package__.split(".")
    parent = str(Path(__file__).resolve().parents[len(package)])
    script = SLEEPING_OWNER.format(parent=parent, package=__package__)
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    identity, network = owner.stdout.readline().split()
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert traces(identity, network)
    with Bed() as bed:
        bed.up([HostSpec("next", init=PLAIN)])
        assert (bed.identity, bed.network) == (identity, network)
        assert list(bed.hosts) == ["next"]
    assert traces(identity, network) == []


def test_a_failed_boot_says_what_the_console_said() -> None:
    with Bed() as bed:
        [host] = bed.up([HostSpec("broken", init=PLAIN)])
        host.run(["mv", "/usr/bin/tini", "/usr/bin/moved"])
        with pytest.raises(BootFailed, match="tini"):
            host.reboot()


def test_who_is_not_root_is_told_of_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostsUnavailable, match="--here"):
        Bed()


def test_egress_reads_the_name_a_connection_asks_for() -> None:
    client = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    greeter = client.wrap_bio(incoming, outgoing, server_hostname="mirror.test")
    with pytest.raises(ssl.SSLWantReadError):
        greeter.do_handshake()
    greeting = outgoing.read()
    assert egress.asked_name(greeting) == "mirror.test"
    assert egress.asked_name(greeting[:40]) is None
    assert egress.asked_name(b"GET / HTTP/1.1\r\nHost: mirror.test:80\r\n\r\n") == "mirror.test"
    assert egress.asked_name(b"GET / HTTP/1.1\r\n") is None
    assert egress.asked_name(b"GET / HTTP/1.0\r\n\r\n") == ""


def test_egress_goes_through_the_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\nhello")
        writer.close()

    async def scenario() -> bytes:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        reader, writer = await egress.connect("mirror.test", 443)
        answer = await reader.read()
        writer.close()
        server.close()
        return answer

    assert asyncio.run(scenario()) == b"hello"
    assert asked[0].startswith(b"CONNECT mirror.test:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in asked[0]
