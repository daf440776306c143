"""What there is: hosts, instances, revisions, releases; the only source of names and paths."""

from dataclasses import dataclass, field
from pathlib import Path

# The Python that releases are built for: the distribution's, whatever else is installed.
PYTHON = Path("/usr/bin/python3")

WEB, PUBLISHER, SCHEDULER, DISPATCHER = COMPONENTS = ("web", "publisher", "scheduler", "dispatcher")
SLOTS = ("a", "b")
# The service that holds the listening sockets on hosts without systemd.
HOLDER = "sockets"
# There, if systemd is process 1: sd_booted(3).
SYSTEMD = Path("/run/systemd/system")
# Where Debian's Postgres keeps the sockets of local servers.
POSTGRES_SOCKETS = "/var/run/postgresql"
# How a time stands in the names of snapshots and releases: UTC, sortable, without colons.
STAMP = "%Y-%m-%dT%H-%M-%SZ"


class Secret(str):
    """A text that shows itself as *** wherever it is formatted; `reveal` gives the text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    def __str__(self) -> str:
        return "***"

    def __format__(self, specification: str) -> str:
        return "***"

    def reveal(self) -> str:
        """The text itself, to be written to a file of mode 0600 or 0640 or to a standard input."""
        return str.__str__(self)


@dataclass(frozen=True)
class Host:
    """A machine that carries instances: where everything of lava-deploy lies on it."""

    root: Path = Path("/srv/lava")
    instances: Path = Path("/srv/lava/instances")
    state: Path = Path("/var/lib/lava-deploy")
    log: Path = Path("/var/log/lava-deploy")

    @classmethod
    def below(cls, root: Path, instances: Path | None = None) -> "Host":
        """A host with everything below another directory than /srv/lava."""
        if root == cls.root:
            return cls(instances=instances or cls.instances)
        return cls(
            root=root,
            instances=instances or root / "instances",
            state=root / "state",
            log=root / "log",
        )

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def cache(self) -> Path:
        """What can be made again: downloads, built releases, images, schema dumps."""
        return self.root / "cache"

    @property
    def supervisor(self) -> Path:
        """The supervisor of hosts without systemd: its virtualenv, socket, programs and logs."""
        return self.root / "supervisor"

    @property
    def tls(self) -> Path:
        """The authority of the host's own, which vouches for its instances."""
        return self.root / "tls"

    @property
    def authority(self) -> Path:
        """The certificate of that authority, for browsers and workers to trust; 0644."""
        return self.tls / "ca.pem"

    @property
    def authority_key(self) -> Path:
        """0600."""
        return self.tls / "ca-key.pem"

    @property
    def journals(self) -> Path:
        return self.state / "journals"

    @property
    def locks(self) -> Path:
        return self.state / "locks"

    def instance(self, name: str) -> "Instance":
        """The instance of that name, whether it exists or not."""
        return Instance(name, self)


@dataclass(frozen=True)
class Instance:
    """One self-contained LAVA and all names and paths that belong to it."""

    name: str
    host: Host = field(default_factory=Host)

    @property
    def user(self) -> str:
        """System user and group, and role in Postgres."""
        return f"lava-{self.name}"

    @property
    def database(self) -> str:
        return f"lava-{self.name}"

    @property
    def root(self) -> Path:
        return self.host.instances / self.name

    @property
    def configuration(self) -> Path:
        """The one file an admin edits."""
        return self.root / "instance.yaml"

    @property
    def releases(self) -> Path:
        return self.root / "code"

    @property
    def current(self) -> Path:
        """A link for people; no process is started through it."""
        return self.releases / "current"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def settings(self) -> Path:
        """YAML files with LAVA's settings, read in the order of their names."""
        return self.etc / "settings.d"

    @property
    def secrets(self) -> Path:
        """SECRET_KEY and the database's password, in the form of LAVA's settings; 0640."""
        return self.etc / "secrets.yaml"

    @property
    def site(self) -> Path:
        """The directory on PYTHONPATH that holds the package `lava_site`."""
        return self.etc / "site"

    @property
    def launchers(self) -> Path:
        """One executable per service: how it is started, from which real release."""
        return self.etc / "services"

    @property
    def facts(self) -> Path:
        """What lava-deploy remembers of the instance: source, revision, hashes of written files."""
        return self.etc / "installed.json"

    @property
    def worker_token(self) -> Path:
        """The token of the local worker; 0600."""
        return self.etc / "worker-token"

    @property
    def client_token(self) -> Path:
        """The API token of the user `lava-deploy`, who submits smoke jobs; 0600."""
        return self.etc / "client-token"

    @property
    def admin_password(self) -> Path:
        """The generated password of the first superuser, until the admin removes it; 0600."""
        return self.etc / "admin-password"

    @property
    def certificate(self) -> Path:
        """What the web server shows for https: the instance's certificate, then its issuers'."""
        return self.etc / "tls/certificate.pem"

    @property
    def certificate_key(self) -> Path:
        """0600."""
        return self.etc / "tls/key.pem"

    @property
    def media(self) -> Path:
        return self.root / "var/lib/lava-server/media"

    @property
    def worker_directory(self) -> Path:
        return self.root / "var/lib/lava-dispatcher"

    @property
    def log(self) -> Path:
        return self.root / "var/log"

    @property
    def runs(self) -> Path:
        """Sockets and marks of running processes."""
        return self.root / "run"

    @property
    def web_socket(self) -> Path:
        return self.runs / "web.sock"

    @property
    def publisher_socket(self) -> Path:
        return self.runs / "publisher.sock"

    @property
    def internal_events(self) -> Path:
        """Where LAVA's processes send their events to the publisher."""
        return self.runs / "events-in.sock"

    @property
    def events(self) -> Path:
        """Where the publisher sends events on to the scheduler."""
        return self.runs / "events-out.sock"

    def environment(self, release: "Release") -> dict[str, str]:
        """What the programs of a release need to be those of this instance."""
        return {
            "PATH": f"{release.programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.media.parent),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(self.site),
            "LAVA_SITE_ETC": str(self.etc),
            "DJANGO_SETTINGS_MODULE": "lava_site.settings",
        }

    @property
    def canonical_host(self) -> str:
        """The Host header of the worker location, and the name of the backend in a web server."""
        return f"lava-{self.name}"

    @property
    def worker_location(self) -> str:
        """The path that workers and lava-run use, the same in every kind of route."""
        return f"/.lava/{self.name}"

    @property
    def job_prefix(self) -> str:
        """What keeps job directories of instances apart in /var/lib/lava/dispatcher/tmp."""
        return f"{self.name}-"


# The newest revision that runs on the host.
LATEST = "latest"


@dataclass(frozen=True)
class Wanted:
    """Which LAVA an admin asks for.

    `revision` is what a source calls it, or `latest`; `source` is the one to be asked, or '' for
    all; `place` is the git repository, or the working tree of the source "directory".
    """

    revision: str
    source: str
    place: str


@dataclass(frozen=True)
class Revision:
    """A version of LAVA that a source offers.

    `version` is what the code calls itself (`2026.10`); `origin` tells people where it comes from;
    `locator` is for the source alone (a package version, a commit), as is `place` (a repository).
    """

    version: str
    source: str
    origin: str
    locator: str
    runs_here: bool = True
    why_not: str = ""
    place: str = ""


@dataclass(frozen=True)
class Offers:
    """What sources have, the newest first; `unreachable`: a line per place without an answer."""

    revisions: tuple[Revision, ...] = ()
    unreachable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Code:
    """LAVA's code as a source hands it over, laid out the same whatever the source.

    Below `tree`: `packages/` goes into site-packages, `share/lava-server/` has LAVA's data,
    `programs/` its scripts, `static/` what is served besides the collected files. `version` is what
    the code calls itself. `lock` has exact versions with hashes; without one, `requirements` are
    compiled to it. `build_packages` are Debian packages without which a dependency cannot be built.
    `wheels` is a directory with all that the lock names, to be used instead of an index.
    """

    revision: Revision
    version: str
    tree: Path
    requirements: str = ""
    lock: str = ""
    build_packages: tuple[str, ...] = ()
    commit: str = ""
    wheels: Path | None = None


# What a release can be built from again: what it is, the versions of its dependencies, and LAVA's
# code; beside them in a snapshot, a directory with the dependencies themselves.
DESCRIPTION, LOCK, CODE, WHEELS = "release.json", "requirements.lock", "code.tar.zst", "wheels"


@dataclass(frozen=True)
class Built:
    """A release built in the host's cache; instances get it as hard links."""

    version: str
    path: Path


@dataclass(frozen=True)
class Release:
    """A revision built for one host, with Python of the version `interpreter`."""

    label: str
    version: str
    source: str
    locator: str
    path: Path
    origin: str = ""
    place: str = ""
    commit: str = ""
    interpreter: str = ""

    @property
    def python(self) -> Path:
        return self.path / "venv/bin/python"

    @property
    def programs(self) -> Path:
        return self.path / "venv/bin"


@dataclass(frozen=True)
class Service:
    """A process that is kept running. `socket` names the listening socket it is handed, if any."""

    component: str
    name: str
    user: str
    socket: str = ""


# How lines of logs are written: journald's JSON, what a service says, LAVA's YAML about a job.
JOURNAL, SAID, JOB = "journal", "said", "job"


@dataclass(frozen=True)
class Log:
    """Where a component's lines come from: the output of commands, one after the other."""

    component: str
    form: str
    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ServiceState:
    """How a service fares; `detail` is for people, in the words of what looks after it."""

    running: bool
    detail: str


@dataclass(frozen=True)
class Guest:
    """The tiny system that the smoke job boots; `architecture` in Debian's words."""

    architecture: str
    kernel: Path
    initrd: Path

    @property
    def emulator(self) -> str:
        """The program that runs it on this host."""
        return {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}[self.architecture]

    @property
    def console(self) -> str:
        """The kernel's name for the first serial port of QEMU's machine."""
        return {"amd64": "ttyS0", "arm64": "ttyAMA0"}[self.architecture]
