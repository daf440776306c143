"""Root file systems of the test hosts: built once per recipe, kept in a cache all beds share."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from . import machine

SYSTEMD, PLAIN = "systemd", "plain"
BARE_PACKAGES = ("openssh-server", "sudo", "iproute2", "ca-certificates", "procps")
# apt reads `systemd-` as: without it. sshd of trixie would bring it along, if allowed to.
INIT_PACKAGES = {
    SYSTEMD: ("systemd", "systemd-sysv", "libpam-systemd", "dbus"),
    PLAIN: ("tini", "systemd-"),
}
# Nothing in a test host fetches, trims or prompts on its own, or wants hardware it has not.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty.target",
    "console-getty.service",
    "systemd-firstboot.service",
    "systemd-timesyncd.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "systemd-pstore.service",
    "systemd-binfmt.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-modules-load.service",
    "systemd-journald-audit.socket",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
)
FILES = {
    "etc/ssh/sshd_config.d/test-host.conf": (
        "UseDNS no\nPermitRootLogin prohibit-password\nMaxStartups 100\nMaxSessions 100\n"
    ),
    # A test host outlives no power cut: syncing each unpacked file would only take time.
    "etc/dpkg/dpkg.cfg.d/test-host": "force-unsafe-io\n",
}
SYSTEMD_FILES = {
    "etc/systemd/journald.conf.d/test-host.conf": (
        "[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\nRateLimitBurst=0\n"
    ),
}
# Only while the base is built: later packages of a host come complete, as on any machine.
UNPACK_WITHOUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
# What mmdebstrap leaves in an image of its own command line.
BUILD_SETTINGS = ("etc/dpkg/dpkg.cfg.d/99mmdebstrap", "etc/apt/apt.conf.d/99mmdebstrap")
# Each host gets its own of these when it first boots.
IDENTITY_FILES = (
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
)

# $1 layer, $2 work directory, $3 directories below it, $4 downloads, then the packages.
_INSTALL_LAYER = r"""
set -eu
layer=$1 work=$2 below=$3 downloads=$4
shift 4
root=$work/root
mkdir "$work/work" "$root"
mount -t overlay overlay -o "lowerdir=$below,upperdir=$layer,workdir=$work/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$downloads" "$root/var/cache/apt/archives"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
chroot "$root" apt-get -qq update
chroot "$root" apt-get -qqy --no-install-recommends -o Dpkg::Use-Pty=0 install "$@"
rm "$root/usr/sbin/policy-rc.d" "$root/etc/resolv.conf"
"""


@contextmanager
def usual_modes() -> Iterator[None]:
    """Make files of hosts readable in them, whatever the umask of who runs the tests."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@dataclass(frozen=True)
class Recipe:
    """All that decides what is in an image; another recipe is another image."""

    suite: str
    init: str
    sources: tuple[str, ...]
    packages: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    masked_units: tuple[str, ...]
    below: str = ""
    # Raised when the way images are built changes in another manner than the fields above.
    version: int = 1

    @property
    def digest(self) -> str:
        """A short name for exactly this recipe."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Image:
    """A root file system: its directories, topmost first, as an overlay's lowerdir takes them."""

    suite: str
    init: str
    directories: tuple[Path, ...]

    @property
    def host_key(self) -> str:
        """The public key by which sshd of all hosts of this image is known."""
        return (self.directories[-1] / "etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()


class Images:
    """The cache of images. Any number of processes may use one directory at once."""

    def __init__(self, directory: Path | str | None = None) -> None:
        """Use a directory; by default LAVA_DEPLOY_TEST_CACHE, else one below /var/cache."""
        default = os.environ.get("LAVA_DEPLOY_TEST_CACHE", "/var/cache/lava-deploy-tests")
        self.directory = Path(directory or default)

    @property
    def key(self) -> Path:
        """The private key that lets root into every host."""
        return self.directory / "id_ed25519"

    @property
    def snapshots(self) -> Path:
        """Where each bed has its links to downloaded packages; one file system with them."""
        return self.directory / "snapshots"

    def downloads(self, suite: str) -> Path:
        """Where packages that hosts of a suite have downloaded are kept."""
        directory = self.directory / "downloads" / suite
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    @usual_modes()
    def base(self, suite: str, init: str) -> Image:
        """The bare image of a suite (`bookworm`) and an init (`systemd`, `plain`)."""
        recipe = self._base_recipe(suite, init)
        root = self.directory / f"{suite}-{init}-{recipe.digest}"
        with self._locked(f"{suite}-{init}"):
            if not root.exists():
                machine.require_hosts()
                self._make_key()
                self._build_base(recipe, root)
        return Image(suite, init, (root,))

    @usual_modes()
    def layer(self, suite: str, init: str, name: str, packages: Sequence[str]) -> Image:
        """The bare image with packages on top, installed but never started."""
        base = self.base(suite, init)
        below = base.directories[0].name
        recipe = Recipe(suite, init, (), tuple(packages), (), (), below)
        layer = self.directory / f"{suite}-{init}-{name}-{recipe.digest}"
        with self._locked(f"{suite}-layers"):
            if not layer.exists():
                machine.require_hosts()
                self._build_layer(recipe, base, layer)
        return Image(suite, init, (layer, *base.directories))

    def _base_recipe(self, suite: str, init: str) -> Recipe:
        """The recipe of a bare image, with the mirrors of this machine."""
        files = {**FILES, "etc/apt/apt.conf.d/90-test-host": machine.apt_settings()}
        if init == SYSTEMD:
            files |= SYSTEMD_FILES
        return Recipe(
            suite,
            init,
            tuple(machine.debian_mirror().sources(suite)),
            (*INIT_PACKAGES[init], *BARE_PACKAGES),
            tuple(sorted(files.items())),
            MASKED_UNITS if init == SYSTEMD else (),
        )

    def _make_key(self) -> None:
        """Make the key of all hosts, once; another process may be about to as well."""
        with self._locked("key"):
            if not self.key.exists():
                generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test-hosts"]
                subprocess.run([*generate, "-f", str(self.key)], check=True)

    def _build_base(self, recipe: Recipe, root: Path) -> None:
        """Build beside, then rename: a directory of the final name is always complete."""
        unfinished = _emptied(root.with_suffix(".unfinished"))
        command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--format=directory"]
        command += ["--skip=cleanup/apt/lists", "--include=" + ",".join(recipe.packages)]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in UNPACK_WITHOUT]
        command += ["--dpkgopt=force-unsafe-io"]
        command += [f"--aptopt={line}" for line in machine.apt_settings().splitlines()]
        _run([*command, recipe.suite, str(unfinished), *recipe.sources])
        self._furnish(recipe, unfinished)
        unfinished.rename(root)

    def _furnish(self, recipe: Recipe, root: Path) -> None:
        """Make the bare system one that root of this machine can enter, and that is nobody yet."""
        for name in (*BUILD_SETTINGS, *IDENTITY_FILES):
            (root / name).unlink(missing_ok=True)
        for name, text in recipe.files:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        keys = root / "root/.ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(f"{self.key}.pub", keys / "authorized_keys")
        units = root / "etc/systemd/system"
        for unit in recipe.masked_units:
            (units / unit).unlink(missing_ok=True)
            (units / unit).symlink_to("/dev/null")
        if recipe.init == SYSTEMD:
            # systemd asks for its first-boot dialogue when the file is missing altogether
            (root / "etc/machine-id").write_text("")
            (units / "default.target").unlink(missing_ok=True)
            (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")

    def _build_layer(self, recipe: Recipe, base: Image, layer: Path) -> None:
        """Install packages in a chroot of a private mount namespace, which ends with the shell."""
        unfinished = _emptied(layer.with_suffix(".unfinished"))
        work = _emptied(layer.with_suffix(".work"))
        below = ":".join(str(directory) for directory in base.directories)
        downloads = self.downloads(recipe.suite)
        script = ["unshare", "--mount", "--propagation=private", "sh", "-c", _INSTALL_LAYER, "sh"]
        _run([*script, str(unfinished), str(work), below, str(downloads), *recipe.packages])
        shutil.rmtree(work)
        unfinished.rename(layer)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keep other processes out of one piece of work."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / f".{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _emptied(directory: Path) -> Path:
    """A new directory; what a crash left of it before is removed."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o755)
    return directory


def _run(command: list[str]) -> None:
    """Run a build step; its output goes to standard error, its language and home are fixed."""
    proxies = {name: text for name, text in os.environ.items() if name.lower().endswith("_proxy")}
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "DEBIAN_FRONTEND": "noninteractive",
        **proxies,
    }
    subprocess.run(
        command, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr
    )
