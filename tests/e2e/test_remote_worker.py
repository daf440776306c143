"""A worker on another machine: it knows the permanent location of workers, and no route."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.machines import KINDS, Admin, Machine, answer, files_at_rest
from tests.e2e.test_jobs import Jobs
from tests.e2e.test_quickstart import NAME
from tests.hosts.bed import PLAIN, Bed, Host, HostSpec, Images
from tests.hosts.manifest import difference
from tests.hosts.waiting import until

pytestmark = pytest.mark.e2e
WORKER = DEVICE = TAG = "elsewhere"
HOST = f"{NAME}.localhost"
INSTANCE = f"/srv/lava/instances/{NAME}"
GUESTS = "/srv/lava/cache/guest"
DICTIONARY = f"{INSTANCE}/etc/devices/{DEVICE}.jinja2"
# What a worker of QEMU machines calls or loads; `file` brings libmagic.
PACKAGES = ["python3", "qemu-system-x86", "file", "cpio", "fakeroot"]
PLACE = "/var/lib/lava-worker"
LOG, TOKEN = f"{PLACE}/log", f"{PLACE}/token"
LINES = 80
COUNT = f"for n in $(seq 1 {LINES}); do echo counted $n; sleep 0.5; done"
LIMIT = 60
FORGET = f"""
from lava_scheduler_app.models import Device, Tag, Worker
Device.objects.filter(hostname="{DEVICE}").delete()
Worker.objects.filter(hostname="{WORKER}").delete()
Tag.objects.filter(name="{TAG}").delete()
"""


@dataclass(frozen=True)
class Remote:
    """The machine with the worker, and what its server says of it."""

    host: Host
    admin: Admin

    def start(self) -> None:
        """Start the worker by hand, with the server's own release."""
        programs = f"{_release(self.admin.machine)}/venv/bin"
        server = f"http://{self.admin.machine.address}/.lava/{NAME}"
        worker = f"{programs}/python {programs}/lava-worker --name {WORKER} --url {server}"
        options = f"--worker-dir {PLACE} --token-file {TOKEN} --log-file {LOG}"
        start = f"PATH={programs}:$PATH setsid {worker} {options}"
        self.host.run(f"{start} </dev/null >/dev/null 2>&1 &")

    def state(self, prefix: str = "") -> str:
        """Whether the server holds the worker for Online or Offline, by the route of now."""
        token = self.admin.machine.run(["cat", f"{INSTANCE}/etc/client-token"]).stdout.strip()
        page = f"{prefix}/api/v0.2/workers/{WORKER}/"
        said = answer(self.admin.machine, page, HOST, Authorization=f"Token {token}")
        return json.loads(said.read())["state"]

    def log(self) -> str:
        return self.host.run(["cat", LOG]).stdout

    def statuses(self) -> list[str]:
        """What Apache answered to each request of the worker's machine that is over."""
        logs = "/var/log/apache2/*access.log"
        said = self.admin.machine.run(f"grep -hF '{self.host.address} - ' {logs}").stdout
        return re.findall(r'" (\d{3}) ', said)


def _release(machine: Machine) -> str:
    return machine.run(["readlink", "-f", f"{INSTANCE}/code/current"]).stdout.strip()


def _copy(source: Machine, target: Machine, path: str) -> None:
    """Copy a directory to the same place on another machine."""
    binary = {"text": False, "errors": None, "stderr": None}
    pack = source.popen(["tar", "-C", "/", "-cf", "-", path.lstrip("/")], **binary)
    unpack = target.popen(["tar", "-C", "/", "-xf", "-"], stdin=pack.stdout, **binary)
    assert (unpack.wait(), pack.wait()) == (0, 0)


@pytest.fixture(scope="module")
def remote(machine: Machine, admin: Admin, bed: Bed | None) -> Iterator[Remote | None]:
    """A machine with the server's release, registered with a device of its own."""
    if bed is None:
        yield None
        return
    suite = KINDS[machine.name].suite
    layer = Images().layer(suite, PLAIN, "worker", PACKAGES)
    [host] = bed.up([HostSpec(f"worker-{suite}", suite, PLAIN, layer=layer)])
    _copy(machine, host, _release(machine))
    _copy(machine, host, GUESTS)
    admin("manage", NAME, "workers", "add", WORKER)
    device = ("--device-type", "qemu", "--worker", WORKER, "--tags", TAG)
    admin("manage", NAME, "devices", "add", DEVICE, *device)
    smoke = f"{INSTANCE}/etc/devices/lava-deploy-qemu.jinja2"
    machine.run(["cp", "--preserve", smoke, DICTIONARY])
    told = admin("manage", NAME, "workers", "details", WORKER).stdout
    [token] = re.findall(r"^token +: (\S+)$", told, re.MULTILINE)
    host.run(f"mkdir -p {PLACE} && umask 077 && cat >{TOKEN}", input=token)
    found = Remote(host, admin)
    found.start()
    yield found
    host.power_off()
    admin("manage", NAME, "shell", input=FORGET)
    machine.run(["rm", DICTIONARY])


def test_a_job_on_another_machine_runs_while_the_route_is_toggled_there_and_back(
    remote: Remote | None,
) -> None:
    if remote is None:
        return
    admin, machine = remote.admin, remote.admin.machine
    vhost, location = Jobs(admin, NAME), Jobs(admin, NAME, f"localhost/{NAME}")
    before = files_at_rest(machine, NAME)
    _wait(lambda: remote.state() == "Online", remote)
    number = vhost.submit(_counting(vhost.smoke_definition()))
    _wait(lambda: _counted(vhost, number), remote)
    admin("toggle", NAME, "location", "--prefix", f"/{NAME}")
    so_far = _counted(location, number)
    _wait(lambda: _counted(location, number) > so_far, remote)
    assert remote.state(f"/{NAME}") == "Online"
    admin("toggle", NAME, "vhost", "--hostname", HOST)
    assert (vhost.show(number)["state"], remote.state()) == ("Running", "Online")
    ended = vhost.wait(number, "Finished")
    assert (ended["health"], ended["device"]) == ("Complete", DEVICE)
    assert _counted(vhost, number) == list(range(1, LINES + 1))
    assert remote.state() == "Online"
    # the 101 of the websocket is written when that ends
    assert set(remote.statuses()) == {"200"}
    assert not re.search("unavailable|ERROR|WARNING", remote.log())
    assert difference(before, files_at_rest(machine, NAME)) == {}


def _counting(definition: dict) -> dict:
    """A smoke job on the other machine whose guest says a number twice a second."""
    [test] = definition["actions"][2]["test"]["definitions"]
    test["repository"]["run"]["steps"] = [COUNT]
    return {**definition, "tags": [TAG]}


def _counted(jobs: Jobs, number: str) -> list[int]:
    """The numbers that the guest of a job has said so far."""
    said = [re.fullmatch(r"counted (\d+)", line) for line in jobs.guest_lines(number)]
    return [int(match[1]) for match in said if match]


def _wait(reached: Callable[[], object], remote: Remote) -> None:
    until(reached, LIMIT, lambda: TimeoutError(remote.log()))
