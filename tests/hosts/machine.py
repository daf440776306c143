"""What this machine offers the test hosts: its package registries, its memory, its tools."""

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from . import cgroups
from .errors import HostsUnavailable

# The only packages the tests may install on the machine, by a command each provides.
PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "unshare": "util-linux",
    "mount": "mount",
    "tar": "tar",
}
KEYRING = "debian-archive-keyring"
LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# Half of it is the disk of a bed: a long life takes 5 GB, and an installation asks for 3 more.
MEMORY_WORTH_USING = 16 << 30
# apt's settings for a mirror frozen in time; hosts of such a machine need them as well.
FROZEN_MIRROR_SETTINGS = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")

_PIP_INDEX = """
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
import json
settings = Configuration(isolated=False)
settings.load()
found = dict(settings.items())
# A configuration is either flat or, from pip 25.1 on, one dictionary per file.
flat = {}
for key, value in found.items():
    flat.update(value if isinstance(value, dict) else {key: value})
index = flat.get(":env:.index-url") or flat.get("global.index-url")
print(json.dumps([index, [PyPI.simple_url, "https://" + PyPI.file_storage_domain]]))
"""


@dataclass(frozen=True)
class Mirror:
    """The Debian mirrors: URIs as in apt's sources; `security` is empty without one."""

    main: str
    security: str

    def sources(self, suite: str) -> list[str]:
        """The lines of sources.list for a suite."""
        lines = [f"deb {self.main} {suite} main", f"deb {self.main} {suite}-updates main"]
        if self.security:
            lines.append(f"deb {self.security} {suite}-security main")
        return lines


@dataclass(frozen=True)
class PythonIndex:
    """Where pip of this machine looks: `configured` is empty when it is pip's own default."""

    configured: str
    addresses: tuple[str, ...]


@functools.cache
def debian_mirror() -> Mirror:
    """The mirrors apt of this machine uses, in whatever format its sources are written.

    A machine which is not Debian names them in LAVA_DEPLOY_TEST_MIRROR and
    LAVA_DEPLOY_TEST_SECURITY_MIRROR.
    """
    if named := os.environ.get("LAVA_DEPLOY_TEST_MIRROR"):
        return Mirror(named, os.environ.get("LAVA_DEPLOY_TEST_SECURITY_MIRROR", ""))
    codename = _os_release().get("VERSION_CODENAME", "stable")
    found = {release: uri for uri, release in _apt_repositories()}
    if _os_release().get("ID") != "debian" or codename not in found:
        raise HostsUnavailable(
            ["apt's sources name no Debian mirror; LAVA_DEPLOY_TEST_MIRROR can name one"]
        )
    return Mirror(found[codename], found.get(f"{codename}-security", ""))


@functools.cache
def python_index() -> PythonIndex:
    """The index of Python packages and its file host, as pip of this machine knows them."""
    for python in (sys.executable, "python3", "/usr/bin/python3"):
        answer = subprocess.run(
            [python, "-c", _PIP_INDEX], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            configured, defaults = json.loads(answer.stdout)
            addresses = [configured, *defaults] if configured else defaults
            return PythonIndex(configured or "", tuple(addresses))
    raise HostsUnavailable(["no Python here has pip, which knows where Python packages are"])


def registries() -> set[str]:
    """The registries as `host:port`, which are all that hosts may reach."""
    mirror = debian_mirror()
    addresses = [mirror.main, mirror.security, *python_index().addresses]
    return {_endpoint(address) for address in addresses if address}


def apt_settings() -> str:
    """This machine's apt settings that hosts need to accept the same mirror."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return "".join(
        line + "\n" for line in dump.splitlines() if line.split(" ")[0] in FROZEN_MIRROR_SETTINGS
    )


def local_authorities() -> list[Path]:
    """Certificates of authorities this machine trusts beyond Debian's own."""
    return sorted(LOCAL_AUTHORITIES.glob("*.crt"))


def memory_available() -> int:
    """Bytes that can be used without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def install_tools() -> None:
    """Install what boots the hosts and is not there yet."""
    missing = {package for command, package in PACKAGES.items() if not shutil.which(command)}
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        missing.add(KEYRING)
    if not missing:
        return
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600"]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*apt, "update"], check=True, env=quiet, stdout=sys.stderr)
    install = [*apt, "install", "-y", "--no-install-recommends", *sorted(missing)]
    subprocess.run(install, check=True, env=quiet, stdout=sys.stderr)


def require_root() -> None:
    """Raise HostsUnavailable when this process is not root's."""
    if os.geteuid() != 0:
        raise HostsUnavailable(["only root can make namespaces, bridges and mounts"])


def require_hosts() -> None:
    """Raise HostsUnavailable with all the reasons why this machine cannot run hosts."""
    require_root()
    install_tools()
    reasons = []
    everything = ["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--fork"]
    try_out = ["unshare", *everything, "--mount-proc", "mount", "-t", "tmpfs", "none", "/mnt"]
    attempt = subprocess.run(try_out, capture_output=True, text=True, check=False)
    if attempt.returncode != 0:
        reasons.append(f"namespaces are not allowed: {attempt.stderr.strip()}")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text() and not _loads("overlay"):
        reasons.append("the kernel has no overlay file system")
    try:
        cgroups.make_root()
    except OSError as error:
        reasons.append(f"no control groups (version 2) to write to: {error}")
    if reasons:
        raise HostsUnavailable(reasons)


def _loads(module: str) -> bool:
    """Whether the kernel takes the module; there may be no modprobe, as in a container."""
    if not shutil.which("modprobe"):
        return False
    return subprocess.run(["modprobe", module], check=False).returncode == 0


def _os_release() -> dict[str, str]:
    """The fields of os-release, without their quotes."""
    pairs = (line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines())
    return {pair[0]: pair[1].strip('"') for pair in pairs if len(pair) == 2}


def _apt_repositories() -> list[tuple[str, str]]:
    """(URI, release) of each source apt knows; apt itself reads both of its formats."""
    if not shutil.which("apt-get"):
        return []
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pairs = {tuple(line.split(" ", 1)) for line in listing.splitlines()}
    return [(uri.rstrip("/"), release) for uri, release in sorted(pairs)]


def _endpoint(address: str) -> str:
    """`host:port` of a URL."""
    parts = urlsplit(address)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
