import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from lava_deploy.model import Host
from lava_deploy.operations import setup
from lava_deploy.system import Finished

HEADER = "sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode"
LISTENING = f"{HEADER}\n0: 00000000:0050 00000000:0000 0A 0:0 0:0 0 0 0 4711 1"
CONNECTED = f"{HEADER}\n0: 0100007F:0050 0100007F:D431 01 0:0 0:0 0 0 0 4711 1"
BOOKWORM = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04 LTS"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n'


@dataclass
class Machine:
    """A machine in memory: files, links, directories of names, and the packages it has."""

    files: dict[str, str]
    links: dict[str, str]
    packages: list[str]
    architecture: str = "amd64"

    def read(self, path):
        if str(path) not in self.files:
            raise FileNotFoundError(path)
        return self.files[str(path)]

    def write(self, path, text):
        self.files[str(path)] = text

    def make_directory(self, path):
        pass

    def exists(self, path):
        return any(f"{name}/".startswith(f"{path}/") for name in [*self.files, *self.links])

    def names(self, directory):
        below = [name for name in [*self.files, *self.links] if name.startswith(f"{directory}/")]
        return sorted({name.removeprefix(f"{directory}/").split("/")[0] for name in below})

    def target(self, link):
        return self.links.get(str(link), "")

    def free_space(self, path):
        return 10**12

    def run(self, command):
        answers = {
            "dpkg --print-architecture": self.architecture,
            "dpkg-query --show": "".join(f"installed {name}\n" for name in self.packages),
        }
        return Finished(0, answers[" ".join(command[:2])], "")


class Playbook:
    """Installs `git`, then fails if it is to."""

    def __init__(self, machine, failure=None):
        self.machine, self.failure = machine, failure

    def variables(self, name):
        return {"packages": ["git"]}

    def run(self, name, variables, progress):
        self.machine.packages.append("git")
        if self.failure:
            raise self.failure
        return SimpleNamespace(changed=("Install the packages",))


def doors(machine, failure=None):
    return SimpleNamespace(
        system=machine,
        host=Host(),
        playbook=Playbook(machine, failure),
        report=SimpleNamespace(progress=print),
    )


def machine(
    os_release=BOOKWORM, tcp=HEADER, program="", packages=("qemu-system-x86", "git"), **more
):
    files = {
        "/etc/os-release": os_release,
        "/proc/net/tcp": tcp,
        "/proc/7/comm": f"{program}\n",
        "/proc/filesystems": "ext4\n",
        "/proc/sys/kernel/osrelease": "6.1.0\n",
        "/run/systemd/system/x": "",
    }
    return Machine(files, {"/proc/7/fd/3": "socket:[4711]"}, list(packages), **more)


def test_a_host_that_has_all_has_no_fault():
    assert setup.faults(doors(machine())) == []


def test_another_distribution_is_refused_with_those_that_work():
    [fault] = setup.faults(doors(machine(UBUNTU)))
    assert re.search(r"Ubuntu 24.04.*Debian 12.*Debian 13.*--force", fault)


def test_force_tries_another_distribution():
    assert setup.faults(doors(machine(UBUNTU)), force=True) == []


def test_another_architecture_is_refused_with_those_that_work():
    [fault] = setup.faults(doors(machine(architecture="riscv64")))
    assert re.search(r"riscv64.*amd64.*arm64", fault)


@pytest.mark.parametrize(
    ("tcp", "program", "faults"),
    [
        (LISTENING, "nginx", ["port 80 is held by nginx, Apache needs it"]),
        (LISTENING, "apache2", []),
        (CONNECTED, "nginx", []),
    ],
    ids=["nginx listens", "Apache listens", "nobody listens"],
)
def test_only_another_program_that_listens_on_port_80_is_a_fault(tcp, program, faults):
    assert setup.faults(doors(machine(tcp=tcp, program=program))) == faults


def test_setup_is_not_taken_back_under_instances():
    with_instance = machine()
    with_instance.files["/srv/lava/instances/demo/instance.yaml"] = ""
    assert setup.undo_faults(doors(with_instance)) == ["there are instances: demo"]


def test_packages_that_were_there_are_not_counted_as_ours():
    host = doors(machine(packages=["perl"]))
    outcome = setup.Outcome()
    [_, make_ready] = setup.plan(host, outcome, new=True).steps
    make_ready.do()
    assert setup.left_packages(host) == ["git"]
    assert outcome.changes == ["Install the packages"]


def test_a_failed_installation_does_not_forget_what_it_installed():
    host = doors(machine(packages=["perl"]), RuntimeError())
    [_, make_ready] = setup.plan(host, setup.Outcome(), new=True).steps
    with pytest.raises(RuntimeError):
        make_ready.do()
    assert setup.left_packages(host) == ["git"]


def test_a_killed_installation_does_not_forget_what_it_installed():
    host = doors(machine(packages=["perl", "zstd"]))
    memory = {"before": ["perl"], "packages": []}
    host.system.files[str(host.host.state / setup.MEMORY)] = json.dumps(memory)
    [_, make_ready] = setup.plan(host, setup.Outcome(), new=True).steps
    make_ready.do()
    assert setup.left_packages(host) == ["git", "zstd"]


def test_a_failure_takes_nothing_back_on_a_host_that_is_in_use():
    set_up = machine()
    set_up.files[str(Path(Host().state, setup.RECORD))] = "{}"
    assert setup.untouched(doors(set_up)) is False
    steps = setup.plan(doors(set_up), setup.Outcome(), new=False).steps
    assert {step.undo for step in steps} == {setup.nothing}


def test_only_a_host_without_systemd_gets_the_supervisor():
    with_systemd, plain = machine(), machine()
    del plain.files["/run/systemd/system/x"]
    names = [
        [step.name for step in setup.plan(doors(each), setup.Outcome(), new=True).steps]
        for each in (with_systemd, plain)
    ]
    assert names[1] == [*names[0], "install the supervisor"]
