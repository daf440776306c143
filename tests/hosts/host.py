"""One test host: its place on this machine, its power switch, and commands in it."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import cgroups, network
from .errors import BootFailed, CommandFailed
from .images import PLAIN, SYSTEMD
from .manifest import Entry, Reader
from .waiting import until

BOOT = Path(__file__).with_name("boot.py")
BOOT_LIMIT = 120.0
POWER_OFF_LIMIT = 60.0
# How long services of a host without systemd may take to end.
GRACE = 10.0
# Of this machine, as far as it has them: QEMU, networks of its own, mounts of its own.
DEVICES = ("/dev/kvm", "/dev/net/tun", "/dev/fuse")
LEFT_OUT_OF_COPIES = {".git", "__pycache__"}

Command = str | Sequence[str]


@dataclass(frozen=True)
class Place:
    """Where a host lives on this machine; all that is needed to find it again."""

    name: str
    suite: str
    init: str
    address: str
    identity: str
    bed: Path
    key: Path
    lower: tuple[Path, ...]
    devices: tuple[str, ...]
    shares: tuple[tuple[str, str], ...]

    @property
    def directory(self) -> Path:
        """What belongs to this host alone."""
        return self.bed / "hosts" / self.name

    @property
    def root(self) -> Path:
        """The host's root file system, without what the host mounts on it."""
        return self.directory / "root"

    @property
    def log(self) -> Path:
        """What the host's console said."""
        return self.directory / "console.log"

    @property
    def group(self) -> Path:
        """The control group of the host's processes."""
        return cgroups.root() / self.identity / self.name

    @property
    def connection(self) -> Path:
        """The socket of the ssh connection that all commands share."""
        return self.bed / f"ssh-{self.name}"

    @property
    def connection_group(self) -> Path:
        """The control group of that connection, so that it never outlives the bed."""
        return cgroups.root() / self.identity / f"_ssh-{self.name}"

    @property
    def namespace(self) -> str:
        """The name of the host's network namespace."""
        return network.namespace(self.identity, self.name)

    @property
    def ssh(self) -> list[str]:
        """The start of every ssh command line."""
        options = {
            "UserKnownHostsFile": self.bed / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "5",
            "ServerAliveInterval": "15",
            "LogLevel": "ERROR",
            "ControlPath": self.connection,
        }
        flags = [f"-o{name}={value}" for name, value in options.items()]
        return ["ssh", "-F", "none", "-i", str(self.key), *flags]


@dataclass(frozen=True)
class Finished:
    """How a command in a host ended."""

    status: int
    stdout: str
    stderr: str


class Host:
    """A running Debian host of its own: name, address, processes, sshd."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._manifests = Reader(place.root)

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address} {self.place.suite} {self.place.init}>"

    @property
    def name(self) -> str:
        """The host name; the other hosts of the bed know it."""
        return self.place.name

    @property
    def address(self) -> str:
        """The IPv4 address, which this machine can reach as well."""
        return self.place.address

    @property
    def root(self) -> Path:
        """The root file system as seen from this machine, without the host's /proc, /run and so on.

        Absolute links in it point into this machine: do not follow them.
        """
        return self.place.root

    @property
    def log(self) -> Path:
        """The console log."""
        return self.place.log

    def run(
        self,
        command: Command,
        input: str | bytes | None = None,
        timeout: float = 600,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run a command as root: a list as it is, a string through the shell.

        Raises CommandFailed for a status other than 0 unless `check` is false, and
        subprocess.TimeoutExpired after `timeout` seconds; the command itself may then go on.
        """
        ended = subprocess.run(
            self._line(command, env),
            input=input.encode() if isinstance(input, str) else (input or b""),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        stdout, stderr = (text.decode(errors="replace") for text in (ended.stdout, ended.stderr))
        if check and ended.returncode != 0:
            raise CommandFailed(self.name, command, ended.returncode, stdout, stderr)
        return Finished(ended.returncode, stdout, stderr)

    def popen(
        self, command: Command, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen:
        """Start a command whose output can be read as it comes; options as of subprocess.Popen.

        By default the output is text, both streams in `stdout`. Ending the returned process does
        not end the command in the host.
        """
        defaults = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
            "errors": "replace",
        }
        return subprocess.Popen(self._line(command, env), **{**defaults, **options})

    def put(self, local: Path | str, remote: str) -> None:
        """Copy a file or a directory to exactly the path `remote`, owned by root.

        A directory is added to what is there. Git's own and compiled Python files stay behind.
        """
        local, target = Path(local), Path(remote)
        directory = target if local.is_dir() else target.parent
        place = shlex.quote(str(directory))
        line = self._line(f"mkdir -p {place} && tar -xf - -C {place}", None)
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as archive:
                name = "." if local.is_dir() else target.name
                archive.add(local, arcname=name, filter=_as_root)
            packed.seek(0)
            ended = subprocess.run(line, stdin=packed, capture_output=True, check=False)
        if ended.returncode != 0:
            said = ended.stderr.decode(errors="replace")
            raise CommandFailed(self.name, f"put {remote}", ended.returncode, "", said)

    def get(self, remote: str, local: Path | str) -> None:
        """Copy a file or a directory of the host to exactly the path `local`, replacing a file."""
        source, target = Path(remote), Path(local)
        pack = ["tar", "-C", str(source.parent), "-cf", "-", source.name]
        archive = subprocess.run(
            self._line(pack, None), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if archive.returncode != 0:
            said = archive.stderr.decode(errors="replace")
            raise CommandFailed(self.name, f"get {remote}", archive.returncode, "", said)
        with tempfile.TemporaryDirectory(dir=target.parent) as beside:
            unpack = ["tar", "-xf", "-", "-C", beside]
            subprocess.run(unpack, input=archive.stdout, check=True)
            os.replace(Path(beside) / source.name, target)

    def manifest(self, exclude: Sequence[str] = ()) -> dict[str, Entry]:
        """Every path of the root file system, whether the host runs or not; see manifest.py.

        `exclude` lists paths to leave out, with all that is in them; one that ends with `*` leaves
        out every path that begins so. RESTLESS lists what changes in an idle host.
        """
        return self._manifests.read(exclude)

    def reboot(self) -> None:
        """Power off in an orderly way, then boot again with what the host wrote."""
        self.power_off()
        self.power_on()
        self.wait()

    def power_on(self) -> None:
        """Start the host; wait() waits for it."""
        place = self.place
        description = place.directory / "host.json"
        fields = {"root": str(place.root), "shares": dict(place.shares)}
        description.write_text(json.dumps(asdict(place) | fields, default=str))
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child"]
        command = ["nsenter", f"--net=/run/netns/{place.namespace}", "unshare", *spaces]
        command += ["--propagation=private", sys.executable, "-I", "-S", str(BOOT)]
        cgroups.start(place.group, [*command, str(description)], place.log)

    def wait(self, limit: float = BOOT_LIMIT) -> None:
        """Wait until root can log in and the boot is over; raise BootFailed after the limit."""
        until(self._answers, limit, self._boot_failed)
        until(self._connected, limit, self._boot_failed)
        if self.place.init == SYSTEMD:
            # ssh answers before the boot ends; any final state is the caller's to judge
            self.run(["systemctl", "is-system-running", "--wait"], timeout=limit, check=False)

    def power_off(self) -> None:
        """End the host in an orderly way: its init ends the services, then itself."""
        cgroups.kill(self.place.connection_group)
        self.place.connection.unlink(missing_ok=True)
        leader = self.leader()
        if leader:
            {SYSTEMD: _power_off_systemd, PLAIN: _power_off_plain}[self.place.init](self, leader)
        cgroups.kill(self.place.group)

    def leader(self) -> int | None:
        """This machine's id of the host's process 1; None when the host is off."""
        for process in cgroups.processes(self.place.group):
            # ids from here inwards: the host's own process 1 is one level down
            if _namespaced_ids(process)[1:] == ["1"]:
                return process
        return None

    def enter(self) -> list[str]:
        """The command line that enters the host past ssh, as when ssh is broken."""
        clean = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", f"TERM={os.environ.get('TERM', '')}"]
        return [*clean, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "nsenter", "-a", f"-t{self.leader()}"]

    def _line(self, command: Command, env: Mapping[str, str] | None) -> list[str]:
        """The ssh command line for a command."""
        text = command if isinstance(command, str) else shlex.join(command)
        settings = [f"export {name}={shlex.quote(value)};" for name, value in (env or {}).items()]
        return [*self.place.ssh, f"root@{self.address}", " ".join([*settings, text])]

    def _answers(self) -> bool:
        """Whether something listens for ssh; raise at once when the host has ended instead."""
        if not cgroups.processes(self.place.group):
            raise self._boot_failed()
        try:
            with socket.create_connection((self.address, 22), timeout=1):
                return True
        except OSError:
            return False

    def _connected(self) -> bool:
        """Open the connection that all commands share."""
        connect = [*self.place.ssh, "-fMN", f"root@{self.address}"]
        return cgroups.run(self.place.connection_group, connect, self.log) == 0

    def _boot_failed(self) -> BootFailed:
        """What to raise when the host does not come up."""
        said = self.log.read_text(errors="replace")[-4000:]
        return BootFailed(f"{self.name} did not come up; its console said:\n{said}")


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Each member of an archive as root's, or None for what stays behind."""
    if Path(member.name).name in LEFT_OUT_OF_COPIES:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _namespaced_ids(process: int) -> list[str]:
    """The ids of a process, from this machine's inwards; empty when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return next(line.split()[1:] for line in lines if line.startswith("NSpid:"))


def _power_off_systemd(host: Host, leader: int) -> None:
    """SIGRTMIN+4 is poweroff.target (systemd(1)); without the right to reboot, systemd exits."""
    os.kill(leader, signal.SIGRTMIN + 4)
    until(
        lambda: host.leader() is None,
        POWER_OFF_LIMIT,
        lambda: TimeoutError(f"{host.name} does not power off; its console log is {host.log}"),
    )


def _power_off_plain(host: Host, leader: int) -> None:
    """Services get SIGTERM and some time; then process 1 takes the rest along."""
    for process in _services(host, leader):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        until(lambda: not _services(host, leader), GRACE, TimeoutError)
    os.kill(leader, signal.SIGTERM)


def _services(host: Host, leader: int) -> list[int]:
    """The processes of a plain host without process 1 and its first child, which is sshd."""
    children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    spared = {leader, *map(int, children[:1])}
    inside = set(cgroups.processes(host.place.group)) - spared
    return [process for process in inside if len(_namespaced_ids(process)) > 1]
