"""LAVA's Debian packages: which there are, where their files go, what they need from PyPI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lava_deploy.errors import UnknownRevision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from lava_deploy.system import System

LAVA = (
    "lava-server",
    "lava-common",
    "lava-dispatcher",
    "lava-dispatcher-host",
    "lava-coordinator",
    "lava-server-doc",
)
# To be raised when the way files are laid out changes: what is in the cache is then fetched anew.
LAYOUT = "1"

# JavaScript that LAVA's packages only link to.
SCRIPTS = r"libjs-.*"

# What LAVA's own list of dependencies leaves out, as upstream installs them in another way.
ALWAYS = ("gunicorn", "pyyaml", "sentry-sdk", "voluptuous")

# Packages that older releases do not list, though their dependencies need them.
UNLISTED = ("gunicorn", "python3-asgiref", "python3-sentry-sdk", "python3-setuptools")
# Names on PyPI that do not follow from the package's; '' for what is not to be had there, or needs
# libraries of the system for a feature that is off unless an admin wants it.
ON_PYPI = {
    "python3-bpfcc": "",
    "python3-django-auth-ldap": "",
    "python3-django-filters": "django-filter",
    "python3-djangorestframework-extensions": "drf-extensions",
    "python3-guestfs": "",
    "python3-junit.xml": "junit-xml",
    "python3-magic": "python-magic",
    "python3-psycopg2": "psycopg2-binary",
    "python3-tap": "tap-py",
    "python3-tz": "pytz",
    "python3-yaml": "pyyaml",
    "python3-zmq": "pyzmq",
}
# What PyPI has no built wheel of for the Python of these releases.
COMPILED = {"python3-netifaces": ("gcc", "libc6-dev", "python3-dev")}

# A library of the system that PyPI does not have. Older dispatchers import it at their start,
# though few jobs use it. LAVA reports a RuntimeError of it as the job's fault.
GUESTFS = '''\
"""Stands for python3-guestfs, which PyPI does not have: the host's own, if it is installed."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

specs = [
    PathFinder.find_spec(name, ["/usr/lib/python3/dist-packages"])
    for name in ("libguestfsmod", "guestfs")
]
if all(specs):
    for spec in specs:
        sys.modules[spec.name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[spec.name])


def GuestFS(**options):
    raise RuntimeError("this job needs the Debian package python3-guestfs on the worker")
'''


def depends(descriptions: Iterable[Mapping[str, str]], pattern: str) -> list[str]:
    """The names in `Depends:` that match, first alternatives only, in order."""
    fields = ",".join(description.get("Depends", "") for description in descriptions)
    names = (re.split(r"[\s:(|]", word.strip(), maxsplit=1)[0] for word in fields.split(","))
    return sorted({name for name in names if re.fullmatch(pattern, name)})


def lay_out(system: System, work: Path, needed: Sequence[str]) -> None:
    """Make of the packages in `work/downloaded` a `work/tree` with what a release needs of them.

    Copies take the place of the links to JavaScript of other packages. `needed` are the packages
    of Python's that LAVA's depend on.
    """
    files, tree = work / "files", work / "tree"
    for name in system.names(work / "downloaded"):
        system.run(["dpkg-deb", "--extract", work / "downloaded" / name, files])
    system.remove_tree(files / "usr/share/lava-server/static")
    places = {
        "usr/lib/python3/dist-packages": "packages",
        "usr/share/lava-server": "share/lava-server",
        "usr/bin": "programs",
        "usr/share/doc/lava-server-doc/html": "static/docs",
    }
    for source, target in places.items():
        system.make_directory((tree / target).parent)
        copy = ["cp", "--recursive", "--dereference", "--preserve=mode,timestamps"]
        system.run([*copy, files / source, tree / target])
    if "python3-guestfs" in needed:
        system.write(tree / "packages/guestfs.py", GUESTFS)


def version(system: System, tree: Path) -> str:
    """What the code calls itself; server and worker compare it as an exact text."""
    return system.read(tree / "packages/lava_common/VERSION").strip()


def listed_requirements(system: System, tree: Path) -> str:
    """The requirements that the packages list themselves (since 2026.01), '' if they do not."""
    for name in system.names(tree / "packages"):
        listing = tree / "packages" / name / "requires.txt"
        if re.fullmatch(r"lava-\d.*\.egg-info", name) and system.exists(listing):
            return requirements_of(system.read(listing))
    return ""


def requirements_of(listing: str) -> str:
    """The requirements of server and dispatcher in an egg's requires.txt."""
    sections = re.split(r"^\[(.*)\]$", listing, flags=re.M)
    wanted = {*sections[0].split("\n"), *ALWAYS}
    for name, lines in zip(sections[1::2], sections[2::2], strict=True):
        if name in ("server", "dispatcher"):
            wanted.update(lines.split("\n"))
    return "".join(f"{line}\n" for line in sorted(filter(None, wanted)))


def pinned_requirements(versions: Mapping[str, str]) -> str:
    """Requirements of the same series as Debian's packages have, and at least as new.

    Raises UnknownRevision when a package's version has no meaning to PyPI.
    """
    lines = []
    for package, debian in sorted(versions.items()):
        name = ON_PYPI.get(package, package.removeprefix("python3-"))
        if name:
            lines.append(f"{name}{bounds(debian)}\n")
    return "".join(lines)


def bounds(debian: str) -> str:
    """`>=3.2.25,==3.2.*` for `3:3.2.25-0+deb12u3`."""
    upstream = re.sub(r"^\d+:|[-+].*", "", debian).replace("~", "")
    series = re.match(r"\d+(\.\d+)?", upstream)
    if not series:
        raise UnknownRevision(f"the version {debian} of a dependency is not understood")
    return f">={upstream},=={series[0]}.*"
