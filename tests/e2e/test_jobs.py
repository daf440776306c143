"""Jobs of all kinds on the real LAVA: refused, failing, running, and side by side."""

import contextlib
import socket
import struct
from pathlib import PurePosixPath

import pytest
import yaml

from tests.e2e.machines import CLONE, Admin, Machine, trace
from tests.e2e.test_quickstart import NAME
from tests.hosts.waiting import until

pytestmark = pytest.mark.e2e
LIMIT = 120
BOARD_FILES = "/var/lib/lava/dispatcher/tmp"
TFTP_READ, TFTP_DATA, TFTP_ACKNOWLEDGE = 1, 3, 4


class Jobs:
    """Jobs of one instance, by lavacli, as the user who submits smoke jobs."""

    def __init__(self, admin: Admin, name: str, address: str = "") -> None:
        self.machine, self.name = admin.machine, name
        token = f"$(cat /srv/lava/instances/{name}/etc/client-token)"
        uri = f"http://lava-deploy:{token}@{address or f'{name}.localhost'}/RPC2"
        self._lavacli = f"{CLONE}/.venv/bin/lavacli --uri {uri} jobs"

    def submit(self, definition: dict, status: int = 0) -> str:
        """The number of a submitted job, or why it was refused."""
        self.machine.run("cat >/tmp/job.yaml", input=yaml.safe_dump(definition))
        ended = self.machine.run(f"{self._lavacli} submit /tmp/job.yaml", check=False)
        assert ended.status == status, ended
        return (ended.stdout + ended.stderr).strip()

    def smoke_definition(self) -> dict:
        """That of the first job, which quickstart submitted."""
        return yaml.safe_load(self.machine.run(f"{self._lavacli} definition 1").stdout)

    def show(self, number: str) -> dict:
        return yaml.safe_load(self.machine.run(f"{self._lavacli} show --yaml {number}").stdout)

    def guest_lines(self, number: str) -> list[str]:
        """What the guest of a job has said so far."""
        said = self.machine.run(f"{self._lavacli} logs --raw --no-follow {number}").stdout
        events = yaml.safe_load(said) or []
        return [str(event["msg"]).strip() for event in events if event["lvl"] == "target"]

    def cancel(self, number: str) -> None:
        self.machine.run(f"{self._lavacli} cancel {number}")

    def wait(self, number: str, state: str) -> dict:
        until(
            lambda: self.show(number)["state"] == state,
            LIMIT,
            lambda: TimeoutError(f"job {number} is {self.show(number)}"),
        )
        return self.show(number)


@pytest.fixture(scope="module")
def jobs(machine: Machine) -> Jobs:
    return Jobs(Admin(machine), NAME)


def lasting(definition: dict, seconds: int) -> dict:
    """A smoke job whose guest goes on for a while."""
    [test] = definition["actions"][2]["test"]["definitions"]
    test["repository"]["run"]["steps"] = [f"sleep {seconds}"]
    return definition


def test_an_invalid_job_is_refused_at_submission(jobs: Jobs) -> None:
    refused = jobs.submit({"job_name": "invalid", "actions": []}, status=1)
    assert "nvalid" in refused or "required" in refused


def test_a_job_that_cannot_work_ends_with_the_type_of_its_error(jobs: Jobs) -> None:
    definition = jobs.smoke_definition()
    images = definition["actions"][0]["deploy"]["images"]
    images["kernel"]["url"] = "file:///no/such/kernel"
    ended = jobs.wait(jobs.submit(definition), "Finished")
    assert ended["health"] == "Incomplete"


def test_a_running_jobs_file_is_fetched_by_tftp(jobs: Jobs) -> None:
    """As a board does: LAVA names files below the one directory that the server serves."""
    number = jobs.submit(lasting(jobs.smoke_definition(), LIMIT))
    jobs.wait(number, "Running")
    find = f"find {BOARD_FILES}/{NAME}-{number} -name vmlinuz -size +0"
    until(
        lambda: jobs.machine.run(find, check=False).stdout,
        LIMIT,
        lambda: TimeoutError("the job has fetched no kernel"),
    )
    path = PurePosixPath(jobs.machine.run(find).stdout.strip())
    kernel = jobs.machine.run(f"sha256sum <{path}").stdout.split()[0]
    fetched = tftp_get(jobs.machine.address, str(path.relative_to(BOARD_FILES)))
    jobs.machine.run("cat >/tmp/fetched", input=fetched)
    assert jobs.machine.run("sha256sum </tmp/fetched").stdout.split()[0] == kernel
    jobs.cancel(number)
    jobs.wait(number, "Finished")


def test_an_instance_that_is_removed_takes_its_running_jobs_along(jobs: Jobs) -> None:
    machine, admin = jobs.machine, Admin(jobs.machine)
    admin("install", "busy", "-n", "--yes")
    number = Jobs(admin, "busy").submit(lasting(jobs.smoke_definition(), LIMIT))
    guest = ["pgrep", "-f", f"qemu-system.*{BOARD_FILES}/busy-{number}/"]
    until(
        lambda: machine.run(guest, check=False).stdout,
        LIMIT,
        lambda: TimeoutError("the job starts no guest"),
    )
    admin("remove", "busy", "--yes")
    assert machine.run(guest, check=False).stdout == ""
    assert not any(trace(machine, "busy").values())


def tftp_get(address: str, name: str) -> bytes:
    """A file by TFTP in its plainest form, RFC 1350: blocks of 512 bytes, each acknowledged.

    What is not answered is sent again, as by every client: packets may get lost.
    """
    content: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        packet, server = struct.pack("!H", TFTP_READ) + name.encode() + b"\0octet\0", (address, 69)
        while not content or len(content[-1]) == 512:
            answer, server = _exchange(client, packet, server)
            kind, number = struct.unpack("!HH", answer[:4])
            assert kind == TFTP_DATA, answer[4:]
            if number == (len(content) + 1) % 65536:
                content.append(answer[4:])
            packet = struct.pack("!HH", TFTP_ACKNOWLEDGE, number)
        client.sendto(packet, server)
    return b"".join(content)


def _exchange(
    client: socket.socket, packet: bytes, server: tuple[str, int]
) -> tuple[bytes, tuple[str, int]]:
    """Send a packet until it is answered."""
    for _ in range(10):
        client.sendto(packet, server)
        with contextlib.suppress(TimeoutError):
            return client.recvfrom(1024)
    raise TimeoutError(f"{server} does not answer")
