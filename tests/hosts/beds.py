"""A bed: test hosts on a private network of their own, which leave no trace when it is over."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self, TextIO

from . import cgroups, furnishing, machine, network
from .errors import BedInUse, HostsUnavailable
from .host import DEVICES, Host, Place
from .images import SYSTEMD, Image, Images, usual_modes
from .waiting import until

BEDS = Path("/var/tmp/lava-deploy-beds")
# Interface names have at most 15 characters; the longest of ours is the identity and `br0`.
IDENTITY = re.compile(r"[a-z][a-z0-9]{0,7}")
EGRESS = Path(__file__).with_name("egress.py")
EGRESS_LIMIT = 10.0
ARCHIVES = Path("var/cache/apt/archives")


@dataclass(frozen=True)
class HostSpec:
    """A host to have: `suite` as Debian calls it, `init` is "systemd" or "plain"."""

    name: str
    suite: str = "bookworm"
    init: str = SYSTEMD
    layer: Image | None = None
    devices: tuple[str, ...] = DEVICES


@dataclass
class _State:
    """What another process, or the next one after a crash, has to know of a bed."""

    network: str
    images: str
    share_downloads: bool
    places: dict[str, dict] = field(default_factory=dict)


class Bed:
    """A private bridge with hosts on it.

    A bed ends with down(), or as a context manager. Its owner is the process that made it; what an
    owner that died left behind is cleared away when the next bed is made. A bed with `keep` has no
    owner, and any process that names its identity may use it.
    """

    def __init__(
        self,
        images: Images | None = None,
        identity: str = "",
        network: str = "",
        *,
        share_downloads: bool = False,
        share: Mapping[str, Path | str] | None = None,
        keep: bool = False,
    ) -> None:
        """Nothing is made yet.

        `identity` (at most 8 lower-case letters and digits) names the bed, `network` is the first
        three numbers of its addresses: free ones are found by default. `share_downloads` lets
        packages that hosts download be at hand for later beds. `share` mounts directories of this
        machine (values) in all hosts (keys).
        """
        if identity and not IDENTITY.fullmatch(identity):
            raise ValueError(
                f"the identity of a bed is 1 to 8 lower-case letters and digits: {identity!r}"
            )
        self.images = images or Images()
        self.identity = identity
        self.network = network
        self.hosts: dict[str, Host] = {}
        self._share_downloads = share_downloads
        self._share = {inside: str(outside) for inside, outside in (share or {}).items()}
        self._keep = keep
        self._owned: TextIO | None = None
        self._opened = False
        machine.require_root()
        if identity:
            self._attach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.down()

    @property
    def directory(self) -> Path:
        """Where the bed and its hosts are kept."""
        return BEDS / self.identity

    @property
    def gateway(self) -> str:
        """The address at which hosts find the package registries."""
        return network.gateway(self.network)

    @usual_modes()
    def up(self, specs: Iterable[HostSpec]) -> list[Host]:
        """Boot hosts, all at once; more may follow. Raises BootFailed, HostsUnavailable."""
        specs = list(specs)
        images = [spec.layer or self.images.base(spec.suite, spec.init) for spec in specs]
        if not self._opened:
            self._open()
        hosts = [self._make_host(*pair) for pair in zip(specs, images, strict=True)]
        for host in hosts:
            host.power_on()
        for host in hosts:
            host.wait()
        return hosts

    def down(self) -> None:
        """End all hosts and remove all traces. Works after a crash, and twice."""
        if not self._opened:
            return
        for host in self.hosts.values():
            self._collect_downloads(host.place)
        _remove_traces(self.identity)
        self._let_go()

    def cut_network(self) -> None:
        """Take the package registries away: connections break, new ones are refused."""
        cgroups.kill(self._egress_group)

    def restore_network(self) -> None:
        """Give the package registries back."""
        if self._egress_group.exists():
            return
        namespace = network.NAMESPACES / network.namespace(self.identity, "gateway")
        command = [sys.executable, "-I", str(EGRESS), str(namespace), self.gateway]
        log = self.directory / "egress.log"
        log.write_text("")
        cgroups.start(self._egress_group, [*command, *sorted(machine.registries())], log)
        until(
            lambda: "ready\n" in log.read_text(),
            EGRESS_LIMIT,
            lambda: HostsUnavailable([f"no way to the registries: {log.read_text()}"]),
        )

    @property
    def _snapshots(self) -> Path:
        """Lower layers with the downloaded packages, which no other process changes."""
        return self.images.snapshots / self.identity

    @property
    def _egress_group(self) -> Path:
        return cgroups.root() / self.identity / "_egress"

    def _open(self) -> None:
        """Find a free identity and network, and make the bed without hosts."""
        machine.require_hosts()
        with _all_beds_locked():
            _clear_away_ownerless()
            self.identity = self.identity or _free_identity()
            if self.directory.exists():
                raise BedInUse(f"there is a bed {self.identity} by now")
            self._own()
            self.network = self.network or network.free_prefix()
            try:
                network.make(self.identity, self.network)
                self._make_storage()
                images = str(self.images.directory)
                _write_state(self.identity, _State(self.network, images, self._share_downloads))
                self.restore_network()
            except BaseException:
                _remove_traces(self.identity)
                self._let_go()
                raise
        self._opened = True

    def _own(self) -> None:
        """Mark the bed as in use for as long as this process lives, or for good."""
        self.directory.mkdir(exist_ok=True)
        if self._keep:
            (self.directory / "kept").touch()
            return
        self._owned = open(self.directory / "owner.lock", "w")  # noqa: SIM115, open for life
        if not _lock_now(self._owned):
            raise BedInUse(f"another process has the bed {self.identity}")

    def _let_go(self) -> None:
        """Own nothing any more."""
        self.hosts = {}
        self._opened = False
        if self._owned:
            self._owned.close()
            self._owned = None

    def _attach(self) -> None:
        """Take up the bed of this identity, if there is one, or clear away what a crash left."""
        with _all_beds_locked():  # a bed that is just being made is not to be taken for a wreck
            if not self.directory.exists():
                return
            self._keep = (self.directory / "kept").exists()
            if not self._keep:
                self._own()
            if not _state_file(self.identity).exists():
                _remove_traces(self.identity)
                self._let_go()
                return
        state = _read_state(self.identity)
        self.network, self._share_downloads = state.network, state.share_downloads
        self.images = Images(state.images)
        self.hosts = {name: Host(_place_of(fields)) for name, fields in state.places.items()}
        self._opened = True

    def _make_storage(self) -> None:
        """Where hosts write: in memory if there is plenty, else on disk."""
        hosts = self.directory / "hosts"
        hosts.mkdir(exist_ok=True)
        available = machine.memory_available()
        if available > machine.MEMORY_WORTH_USING:
            options = f"mode=755,size={available // 2}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", hosts], check=True)

    def _make_host(self, spec: HostSpec, image: Image) -> Host:
        """Everything of a host but its processes."""
        state = _read_state(self.identity)
        if spec.name in state.places:
            raise ValueError(f"the bed {self.identity} already has a host {spec.name}")
        number = 10 + len(state.places)
        place = Place(
            name=spec.name,
            suite=image.suite,
            init=image.init,
            address=f"{self.network}.{number}",
            identity=self.identity,
            bed=self.directory,
            key=self.images.key,
            lower=(*self._downloads_snapshot(spec.name, image.suite), *image.directories),
            devices=spec.devices,
            shares=tuple(self._share.items()),
        )
        state.places[place.name] = asdict(place)
        _write_state(self.identity, state)
        network.wire(self.identity, place.name, place.address, "default", "via", self.gateway)
        _mount_root(place)
        self._introduce(place, image)
        self.hosts[place.name] = Host(place)
        return self.hosts[place.name]

    def _introduce(self, place: Place, image: Image) -> None:
        """Tell the host who and where it is, this machine its key, and the others its name."""
        with open(self.directory / "known_hosts", "a") as known:
            known.write(f"{place.address} {image.host_key}\n")
        furnishing.write_identity(place)
        furnishing.write_trust(place)
        if self._share_downloads:
            furnishing.keep_downloads(place)
        others = [host.place for host in self.hosts.values()]
        furnishing.write_names(place, others, self.gateway)

    def _downloads_snapshot(self, name: str, suite: str) -> tuple[Path, ...]:
        """A layer with the packages downloaded before, as links of its own.

        An overlay's lower directory may not change, and hosts side by side may not share apt's
        lock: so each gets its own directory, with the same files.
        """
        if not self._share_downloads:
            return ()
        layer = self._snapshots / name
        archives = layer / ARCHIVES
        archives.mkdir(parents=True)
        for package in self.images.downloads(suite).glob("*.deb"):
            os.link(package, archives / package.name)
        return (layer,)

    def _collect_downloads(self, place: Place) -> None:
        """Keep what a host downloaded; the names of Debian's packages tell them apart."""
        if not self._share_downloads:
            return
        kept = self.images.downloads(place.suite)
        for package in (place.directory / "upper" / ARCHIVES).glob("*.deb"):
            if package.is_file() and not (kept / package.name).exists():
                beside = kept / f".{package.name}.{place.identity}"
                shutil.copyfile(package, beside)
                beside.rename(kept / package.name)


def existing_beds() -> dict[str, list[Host]]:
    """The hosts of all beds on this machine, by the beds' identities."""
    found = {}
    for path in sorted(BEDS.glob("*/bed.json")):
        places = _read_state(path.parent.name).places.values()
        found[path.parent.name] = [Host(_place_of(fields)) for fields in places]
    return found


def _state_file(identity: str) -> Path:
    """Where the state of a bed is kept."""
    return BEDS / identity / "bed.json"


def _read_state(identity: str) -> _State:
    """The state of a bed."""
    return _State(**json.loads(_state_file(identity).read_text()))


def _write_state(identity: str, state: _State) -> None:
    """Replace the state of a bed in one step."""
    beside = _state_file(identity).with_suffix(".new")
    beside.write_text(json.dumps(asdict(state), default=str))
    beside.rename(_state_file(identity))


def _remove_traces(identity: str) -> None:
    """Remove all there is of a bed, in whatever state it is; the state itself goes last."""
    cgroups.kill(cgroups.root() / identity)
    cgroups.remove_root()
    network.remove(identity)
    directory = BEDS / identity
    _unmount_below(directory)
    if _state_file(identity).exists():
        snapshots = Images(_read_state(identity).images).snapshots / identity
        shutil.rmtree(snapshots, ignore_errors=True)
    shutil.rmtree(directory)


def _place_of(fields: dict) -> Place:
    """A place from its stored fields."""
    paths = {name: Path(fields[name]) for name in ("bed", "key")}
    lower = tuple(Path(directory) for directory in fields["lower"])
    shares = tuple((inside, outside) for inside, outside in fields["shares"])
    devices = tuple(fields["devices"])
    return Place(**{**fields, **paths, "lower": lower, "shares": shares, "devices": devices})


def _mount_root(place: Place) -> None:
    """Stack what the host writes on its image."""
    upper, work = place.directory / "upper", place.directory / "work"
    for directory in (upper, work, place.root):
        directory.mkdir(mode=0o755, parents=True)
    lower = ":".join(str(directory) for directory in place.lower)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", place.root], check=True)


@contextmanager
def _all_beds_locked() -> Iterator[None]:
    """Keep other processes from making beds."""
    BEDS.mkdir(exist_ok=True)
    with open(BEDS / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock_now(file: TextIO) -> bool:
    """Lock an open file if nobody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear_away_ownerless() -> None:
    """End the beds whose owner died."""
    for lock in BEDS.glob("*/owner.lock"):
        with open(lock) as file:
            ownerless = _lock_now(file)
        if ownerless:
            _remove_traces(lock.parent.name)


def _free_identity() -> str:
    """An identity no bed has."""
    number = 1
    while (BEDS / f"lvt{number}").exists():
        number += 1
    return f"lvt{number}"


def _unmount_below(directory: Path) -> None:
    """Unmount everything below a directory, the latest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    for point in reversed(points):
        if point.startswith(f"{directory}/"):
            # a developer's shell in a host's files must not keep them
            subprocess.run(["umount", "--lazy", point], check=True)
