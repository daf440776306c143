"""A repository of LAVA's to test with: a cut of upstream's, or one made of Debian's packages."""

import os
import re
import subprocess
from pathlib import Path

from lava_deploy import config, sources
from lava_deploy.errors import DeployError
from lava_deploy.model import Wanted
from lava_deploy.system import System

ROOT = Path(__file__).resolve().parents[2]
CUT = ROOT.parent / "shared/data/lava-git.tar"
GIVEN = "LAVA_DEPLOY_TEST_GIT"
WHO = ("-c", "user.name=Tests", "-c", "user.email=tests@example.com", "-c", "commit.gpgSign=false")
# What LAVA's own setup.py does, as far as a release needs it.
SETUP = """\
from glob import glob
from setuptools import find_packages, setup

setup(
    name="lava",
    version="0",
    packages=find_packages(include=["lava_*", "lava_*.*", "linaro_django_xmlrpc*"]),
    package_data={"": ["*", "**/*"]},
    scripts=glob("programs/lava-*"),
    data_files=[("/usr/share/lava-server/device-types", glob("device-types/*"))],
)
"""


def git(repository: Path, *words: str) -> str:
    """What a command of git's says. Raises CalledProcessError."""
    command = ["git", "-C", str(repository), *WHO, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def obtain(directory: Path) -> Path:
    """A repository with a release at least, below a directory.

    The one that LAVA_DEPLOY_TEST_GIT names; the cut of upstream's beside this clone; a clone of the
    configured one; or one made of the packages of the newest LAVA that runs here.
    """
    if GIVEN in os.environ:
        return Path(os.environ[GIVEN])
    if CUT.exists():
        (directory / "cut").mkdir()
        subprocess.run(["tar", "-xf", CUT, "-C", directory / "cut"], check=True)
        return next(path.parent for path in (directory / "cut").rglob("HEAD"))
    clone = directory / "clone.git"
    url = config.repository(os.environ)
    command = ["timeout", "300", "git", "clone", "--quiet", "--bare", url, str(clone)]
    if subprocess.run(command, check=False).returncode == 0:
        return clone
    return _of_packages(directory)


def _of_packages(directory: Path) -> Path:
    """The Python code of Debian's packages, committed and tagged as a release."""
    system, cache, tree = System(), directory / "cache", directory / "packages"
    revision = sources.find(system, cache, Wanted("latest", "debian", ""), print)
    code = sources.fetch(system, cache, revision, print)
    if not code.requirements:
        raise DeployError("Debian's LAVA has no list of what it depends on")
    subprocess.run(["cp", "--recursive", code.tree / "packages", tree], check=True)
    subprocess.run(["cp", "--recursive", code.tree / "programs", tree], check=True)
    types = code.tree / "share/lava-server/device-types"
    subprocess.run(["cp", "--recursive", types, tree], check=True)
    (tree / "setup.py").write_text(SETUP)
    (tree / "pyproject.toml").write_text(_project(code.requirements))
    (tree / "lava_common/VERSION").unlink()
    git(tree, "init", "--quiet", "--initial-branch=master")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message=release")
    git(tree, "tag", "--annotate", "--message=release", revision.version)
    # the tip is another revision than the release
    git(tree, "commit", "--quiet", "--allow-empty", "--message=next")
    return tree


def _project(requirements: str) -> str:
    lines = re.sub(r"(?m)^(.+)$", r'  "\1",', requirements)
    return f"""\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "lava"
dynamic = ["version"]
optional-dependencies.dispatcher = []
optional-dependencies.server = [
{lines}]
"""
