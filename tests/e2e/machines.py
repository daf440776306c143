"""The machines the end-to-end layer works on, and lava-deploy as an admin runs it there."""

import http.client
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.hosts.bed import PLAIN, RESTLESS, SYSTEMD, CommandFailed, Finished
from tests.hosts.manifest import Entry, Reader

ROOT = Path(__file__).resolve().parents[2]
CLONE = "/root/lava-deploy"
HERE = "here"
# A long life has every test but those that one kind of machine has for all, as they take long or
# are about no kind of machine. A short one is that of two instances side by side, on the kinds of
# machine that have each half in common with a long one.
LONG, SHORT = "long", "short"
SHORT_LIFE = ("quickstart", "side_by_side", "removed")
# Which LAVA comes beside the newest: Debian's oldest or newest other one, or the tip of upstream.
OLDEST, NEXT, TIP = "oldest", "next", "tip"
# What strangers, browsers and workers elsewhere do.
WORLD = ("attacks", "browser", "remote_worker")
# What becomes of an instance's state.
SAFE = ("snapshots", "restored")


@dataclass(frozen=True)
class Kind:
    """A kind of machine: Debian's suite, the init, and what is lived there."""

    suite: str
    init: str
    life: str
    beside: str  # which LAVA comes beside the newest, '' for none
    set_up_first: bool  # else quickstart finds a bare machine
    for_all: tuple[str, ...]  # tests that it has for the others, too


# How the tests name their hosts.
KINDS = {
    "bookworm-systemd": Kind("bookworm", SYSTEMD, LONG, OLDEST, False, ("legacy",)),
    "trixie-plain": Kind("trixie", PLAIN, LONG, "", True, ("tls",)),
    "trixie-systemd": Kind("trixie", SYSTEMD, SHORT, TIP, False, (*WORLD, *SAFE)),
    "bookworm-plain": Kind(
        "bookworm", PLAIN, SHORT, NEXT, True, ("full_disk", "misfortune", "protocols")
    ),
}
# What changes on a machine though nothing of an instance is left: logs, caches, what the tests and
# the tool itself need, the copies that useradd keeps, and data of servers, which are asked instead.
UNWATCHED = (
    *RESTLESS,
    "/etc/hosts",  # it gets a line for each further host
    CLONE,
    "/root/.ansible",
    "/root/.cache",
    "/srv/lava/cache",
    "/srv/lava/supervisor/supervisord.log*",
    # the authority of the machine's own stays for those who trust it
    "/srv/lava/tls",
    "/tmp",
    # which of its modules and files Apache's own tools have ever switched
    "/var/lib/apache2",
    "/var/cache",
    "/var/lib/apt",
    "/var/lib/lava-deploy/locks",
    "/var/lib/postgresql",
    "/var/log",
    "/var/tmp",
    # of the instance that lives all the time, what its own processes write
    *(f"/srv/lava/instances/demo/{name}" for name in ("run", "var")),
    *(f"/etc/{name}-" for name in ("group", "gshadow", "passwd", "shadow", "subgid", "subuid")),
)
# On a machine of its owner's, what instances could leave is in these.
WATCHED_HERE = {"etc", "srv", "var"}


# Without the slices, which systemd makes and forgets in its own time.
UNITS = (
    "command -v systemctl >/dev/null || exit 0; systemctl list-units --all --plain "
    "--type=service,socket,target,timer,path"
)
# A bare host has no mount(8). argv: mount|resize|unmount PLACE [MEGABYTES]; 32 is MS_REMOUNT.
DISK = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
verb, place, *size = sys.argv[1:]
if verb == "unmount":
    status = libc.umount2(place.encode(), 0)
else:
    options, flags = f"size={size[0]}m,mode=755".encode(), 32 if verb == "resize" else 0
    status = libc.mount(b"tmpfs", place.encode(), b"tmpfs", flags, options)
sys.exit(ctypes.get_errno() if status else 0)
"""


class Machine(Protocol):
    """What tests do with a machine, as tests.hosts.Host has it."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...
    def run(
        self,
        command: str | Sequence[str],
        input: str | bytes | None = None,
        timeout: float = 600,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Finished: ...
    def popen(self, command: str | Sequence[str], **options: Any) -> subprocess.Popen: ...
    def put(self, local: Path | str, remote: str) -> None: ...
    def manifest(self, exclude: Sequence[str] = ()) -> dict[str, Entry]: ...


class Here:
    """This machine, which is disposable."""

    name = HERE
    address = "127.0.0.1"

    def __init__(self) -> None:
        others = {f"/{each.name}" for each in Path("/").iterdir()}
        self._elsewhere = others - {f"/{name}" for name in WATCHED_HERE}
        self._manifests = Reader(Path("/"))

    def run(self, command, input=None, timeout=600, check=True, env=None):
        ended = subprocess.run(
            _words(command, env),
            input=input.encode() if isinstance(input, str) else (input or b""),
            capture_output=True,
            timeout=timeout,
            check=False,
            cwd="/root",
        )
        stdout, stderr = (text.decode(errors="replace") for text in (ended.stdout, ended.stderr))
        if check and ended.returncode != 0:
            raise CommandFailed(self.name, command, ended.returncode, stdout, stderr)
        return Finished(ended.returncode, stdout, stderr)

    def popen(self, command, **options):
        defaults = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
            "errors": "replace",
            "cwd": "/root",
        }
        return subprocess.Popen(_words(command, None), **{**defaults, **options})

    def put(self, local: Path | str, remote: str) -> None:
        shutil.copytree(local, remote, dirs_exist_ok=True)

    def manifest(self, exclude: Sequence[str] = ()) -> dict[str, Entry]:
        return self._manifests.read([*exclude, *self._elsewhere])


@dataclass(frozen=True)
class Admin:
    """Runs ./lava-deploy on a machine."""

    machine: Machine

    def __call__(
        self, *words: str, status: int = 0, input: str = "", timeout: float = 600
    ) -> Finished:
        """Run a command and want its exit status."""
        ended = self.machine.run(self.line(*words), input=input, timeout=timeout, check=False)
        if ended.status != status:
            raise CommandFailed(
                self.machine.name, " ".join(words), ended.status, ended.stdout, ended.stderr
            )
        return ended

    def json(self, *words: str, **options: Any) -> dict[str, Any]:
        """The answer of a command that has --json."""
        answer = json.loads(self(*words, "--json", **options).stdout)
        assert answer.pop("version") == 1
        return answer

    def line(self, *words: str) -> list[str]:
        """The command line, as the machine runs it."""
        return [f"{CLONE}/lava-deploy", *words]


def copy_repository(machine: Machine) -> None:
    """Put this clone on a machine: its files as they are, committed or not, and nothing made."""
    generated = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build")
    with tempfile.TemporaryDirectory() as directory:
        tree = shutil.copytree(ROOT, Path(directory) / "tree", ignore=generated)
        machine.put(tree, CLONE)


def trace(machine: Machine, name: str = "") -> dict[str, list[str]]:
    """What there is of one instance, or of any, outside of files."""
    subject = f"lava-{name}"
    roles = "SELECT rolname FROM pg_roles UNION SELECT datname FROM pg_database"
    ask_postgres = ["runuser", "-u", "postgres", "--", "psql", "-XAtc", roles]
    return {
        "postgres": _matching(machine, ask_postgres, subject),
        "processes": _matching(machine, ["ps", "-eo", "args="], f"/srv/lava/instances/{name}"),
        "units": [line for line in _matching(machine, UNITS, "lava-") if name in line],
        "users": _matching(machine, ["getent", "passwd"], subject),
    }


def files(machine: Machine) -> dict[str, Entry]:
    """The manifest of what instances could leave on a machine."""
    found = machine.manifest(UNWATCHED)
    return {path: entry for path, entry in found.items() if "/__pycache__" not in path}


def files_at_rest(machine: Machine, name: str) -> dict[str, Entry]:
    """Without what the processes of an instance write themselves."""
    restless = tuple(f"/srv/lava/instances/{name}/{part}" for part in ("run", "var"))
    return {path: entry for path, entry in files(machine).items() if not path.startswith(restless)}


def answer(machine: Machine, path: str, host: str = "", **headers: str) -> http.client.HTTPResponse:
    """What is served over the network, by a Host header or the address; nothing is followed."""
    connection = http.client.HTTPConnection(machine.address, timeout=60)
    named = {"Host": host} if host else {}
    connection.request("GET", path, headers={**named, "Connection": "close", **headers})
    return connection.getresponse()


@contextmanager
def small_disk(machine: Machine, place: str, megabytes: int) -> Iterator[None]:
    """Put a real disk of that size over a directory, for a while."""
    machine.run(["python3", "-c", DISK, "mount", place, str(megabytes)])
    try:
        yield
    finally:
        machine.run(["python3", "-c", DISK, "unmount", place])


def resize_disk(machine: Machine, place: str, megabytes: int) -> None:
    machine.run(["python3", "-c", DISK, "resize", place, str(megabytes)])


def _matching(machine: Machine, command: str | list[str], subject: str) -> list[str]:
    """The lines of a command's output that name a subject."""
    return [line for line in machine.run(command).stdout.splitlines() if subject in line]


def _words(command: str | Sequence[str], env: Mapping[str, str] | None) -> list[str]:
    words = ["sh", "-c", command] if isinstance(command, str) else list(command)
    return ["env", *(f"{name}={value}" for name, value in (env or {}).items()), *words]
