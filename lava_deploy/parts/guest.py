"""The tiny bootable image of the smoke job, made of two Debian packages: a kernel and busybox.

It needs no network but the Debian mirror, no lock of dpkg and no package that a bare host lacks,
so it can be built while apt installs other things.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from lava_deploy import templates
from lava_deploy.errors import CommandFailed, PreflightFailed
from lava_deploy.model import Guest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lava_deploy.model import Host
    from lava_deploy.system import System

# Debian's kernels for virtual machines: small, with the serial console built in.
KERNELS = {"amd64": "linux-image-cloud-amd64", "arm64": "linux-image-cloud-arm64"}
KERNEL, INITRD = "vmlinuz", "initrd.cpio.gz"


def architecture(system: System) -> str:
    """The host's architecture, in Debian's words. Raises PreflightFailed for one without image."""
    name = system.run(["dpkg", "--print-architecture"]).stdout.strip()
    if name not in KERNELS:
        raise PreflightFailed([f"a smoke job runs on {' and '.join(KERNELS)} only, not on {name}"])
    return name


def find(system: System, host: Host) -> Guest | None:
    """The image there is for this host by the present recipe; the kernel may be an older one."""
    kind, folder = architecture(system), _folder(host)
    built = [name for name in system.names(folder) if name.endswith(f"-{kind}-{_recipe()}")]
    return _guest(kind, folder / built[-1]) if built else None


def make(system: System, host: Host) -> Guest:
    """The image there is, or a new one of the packages that the host's apt would install.

    The directory is named after the kernel and the recipe, and is never changed once it is there.
    Raises CommandFailed when the packages cannot be had.
    """
    found = find(system, host)
    if found:
        return found
    with system.locked(host.cache / ".guest.lock"):
        # who came second finds what the first has built
        return find(system, host) or _build(system, host, architecture(system))


def remove(system: System, host: Host) -> None:
    """Remove all images."""
    system.remove_tree(_folder(host))


def _build(system: System, host: Host, kind: str) -> Guest:
    system.make_directory(_folder(host))
    with system.temporary_directory(_folder(host)) as work:
        packages, image = work / "packages", work / "image"
        for directory in (packages, image):
            system.make_directory(directory)
        _download(system, packages, kind)
        for package in system.names(packages):
            system.run(["dpkg-deb", "--extract", packages / package, work / "files"])
        kernel = next(n for n in system.names(work / "files/boot") if n.startswith("vmlinuz-"))
        system.rename(work / "files/boot" / kernel, image / KERNEL)
        _pack(system, work / "files", work / "tree", image)
        finished = _folder(host) / f"{kernel.removeprefix('vmlinuz-')}-{_recipe()}"
        system.rename(image, finished)
    return _guest(kind, finished)


def _download(system: System, to: Path, kind: str) -> None:
    """Download the packages with what apt knows; if that is nothing or old, with new indexes.

    The new indexes lie in a directory of their own: another apt may be at work on the host's.
    """
    try:
        _download_with(system, (), to, kind)
    except CommandFailed:
        with system.temporary_directory(to.parent) as indexes:
            private = (f"-oDir::State::Lists={indexes}/", f"-oDir::Cache={indexes}/")
            system.run(["apt-get", *private, "update"])
            _download_with(system, private, to, kind)


def _download_with(system: System, options: Sequence[str], to: Path, kind: str) -> None:
    kernel = ["apt-cache", *options, "show", "--no-all-versions", KERNELS[kind]]
    described = system.run(kernel).stdout
    depends = re.search(r"^Depends: (linux-image-\S+)", described, re.MULTILINE)
    if not depends:
        raise CommandFailed(kernel, 0, described, hint="It should depend on a linux-image-….")
    packages = [depends[1], "busybox-static"]
    system.run(["env", f"--chdir={to}", "apt-get", *options, "--quiet", "download", *packages])


def _pack(system: System, files: Path, tree: Path, image: Path) -> None:
    """Pack busybox and the first process as an initramfs, with the cpio that is in busybox."""
    system.make_directory(tree / "bin")
    # in /bin up to Debian 12, in /usr/bin since
    places = (files / "bin/busybox", files / "usr/bin/busybox")
    busybox = next(place for place in places if system.exists(place))
    system.rename(busybox, tree / "bin/busybox")
    system.link(tree / "bin/sh", "busybox")
    system.write(tree / "init", templates.source("guest-init.sh"), mode=0o755)
    archive = image / INITRD.removesuffix(".gz")
    pack = ["bin/busybox", "cpio", "-o", "-H", "newc", "-R", "0:0", "-F", str(archive)]
    names = "bin\nbin/busybox\nbin/sh\ninit\n"
    system.run(["env", f"--chdir={tree}", *pack], stdin=names)
    system.run(["gzip", "-1", "--no-name", archive])


def _recipe() -> str:
    """What changes with the contents of the image, but for the packages."""
    return hashlib.sha256(templates.source("guest-init.sh").encode()).hexdigest()[:12]


def _folder(host: Host) -> Path:
    return host.cache / "guest"


def _guest(kind: str, image: Path) -> Guest:
    return Guest(kind, image / KERNEL, image / INITRD)
