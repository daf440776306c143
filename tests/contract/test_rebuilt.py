"""A release of the real LAVA built again out of what a snapshot has of it."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lava_deploy import uv
from lava_deploy.errors import UnknownRevision
from lava_deploy.model import CODE, DESCRIPTION, LOCK, PYTHON, WHEELS, Built, Host
from lava_deploy.packs import Packs
from lava_deploy.parts import release, wheels
from lava_deploy.sources import snapshot
from lava_deploy.system import System

pytestmark = pytest.mark.contract

# In a network namespace of its own, without any network and with empty caches.
ALONE = ["unshare", "--net", sys.executable, "-c"]
REBUILD = """
import sys
from pathlib import Path
from tests.contract import test_rebuilt
print(test_rebuilt.rebuild(Path(sys.argv[1]), Path(sys.argv[2])).path)
"""
SOURCE_ONLY = "voluptuous==0.12.2\n"
# What uv tells itself of a file that it installed, and the list that this is in.
NOTES = ("uv_cache.json", "RECORD")
ROOT = Path(__file__).resolve().parents[2]


def quiet(_line: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory, host, built):
    """What a backup takes of the release of an instance."""
    instance = host.instance("kept")
    release.make(System(), instance, "first", built)
    directory = tmp_path_factory.mktemp("snapshot") / "release"
    directory.mkdir(parents=True)
    for path in release.sources(System(), release.of(System(), instance, "first")):
        (directory / path.name).hardlink_to(path)
    return directory


def files(tree: Path) -> dict[str, bytes]:
    """What is in a tree, links by their targets, without what Python and uv note down."""
    return {
        str(path.relative_to(tree)): bytes(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in tree.rglob("*")
        if path.suffix != ".pyc"
        and path.name not in NOTES
        and (path.is_symlink() or path.is_file())
    }


def test_a_snapshot_has_what_its_release_is_built_of(kept, built):
    assert [path.name for path in sorted(kept.iterdir())] == [CODE, DESCRIPTION, LOCK]
    assert (kept / CODE).samefile(built.path / CODE)
    assert (kept / CODE).stat().st_size < 10_000_000


def test_a_release_that_an_older_lava_deploy_built_has_no_code_of_its_own(tmp_path, kept):
    instance = Host.below(tmp_path).instance("demo")
    old = instance.releases / "old"
    shutil.copytree(kept, old)
    (old / CODE).unlink()
    found = release.sources(System(), release.of(System(), instance, "old"))
    assert [path.name for path in found] == [DESCRIPTION, LOCK]
    with pytest.raises(UnknownRevision, match="does not have the code of LAVA"):
        snapshot.fetch(System(), Packs(), tmp_path / "cache", old, quiet)


def test_the_release_of_a_snapshot_is_known_where_it_was_built(kept, host, revision, built):
    found = snapshot.revision(System(), kept)
    assert found == revision
    assert release.cached(System(), host.cache, found) == built


def test_code_is_packed_the_same_each_time(tmp_path, kept, host):
    code = snapshot.fetch(System(), Packs(), tmp_path / "cache", kept, quiet)
    Packs().bundle(tmp_path / "again", [(path, path.name) for path in sorted(code.tree.iterdir())])
    assert (tmp_path / "again").read_bytes() == (kept / CODE).read_bytes()


def test_a_release_out_of_a_snapshot_is_that_very_release(tmp_path, kept, built):
    again = rebuild(tmp_path / "cache", kept)
    assert again.path.name == built.path.name
    before, after = files(built.path), files(again.path)
    assert before.keys() == after.keys()
    assert [path for path in before if before[path] != after[path]] == []
    assert System().run([again.path / "venv/bin/lava-run", "--help"]).stdout


def test_the_release_of_a_snapshot_with_code_is_built_without_a_network(
    tmp_path, host, built, kept
):
    whole = with_wheels(tmp_path, host, kept)
    command = [*ALONE, REBUILD, tmp_path / "cache", whole]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    again = Path(said.strip())
    assert files(built.path) == files(again)


def test_wheels_are_downloaded_once(tmp_path, host, kept):
    first, second = with_wheels(tmp_path / "1", host, kept), with_wheels(tmp_path / "2", host, kept)
    names = sorted(path.name for path in (first / WHEELS).iterdir())
    assert len(names) > 30
    assert all((first / WHEELS / name).samefile(second / WHEELS / name) for name in names)


def test_wheels_of_another_machine_or_python_are_not_taken(tmp_path, host, kept):
    whole = with_wheels(tmp_path, host, kept)
    assert snapshot.fetch(System(), Packs(), host.cache, whole, quiet).wheels == whole / WHEELS
    described = json.loads((kept / DESCRIPTION).read_text())
    for other in ({"machine": "m68k"}, {"python": "3.99.1"}):
        (whole / DESCRIPTION).unlink()
        (whole / DESCRIPTION).write_text(json.dumps({**described, **other}))
        assert snapshot.fetch(System(), Packs(), host.cache, whole, quiet).wheels is None


def test_what_is_there_as_source_only_comes_with_what_builds_it(tmp_path, host, kept):
    system, lock = System(), tmp_path / LOCK
    compile_ = ["pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--python", PYTHON]
    # the last release of it that has no wheel
    uv.run(system, host.cache, [*compile_, "--output-file", lock, "-"], stdin=SOURCE_ONLY)
    found = release.of(system, host.instance("kept"), "first")
    (tmp_path / "venv").symlink_to(found.path / "venv")
    wheels.make(system, host.cache, dataclasses.replace(found, path=tmp_path), tmp_path / WHEELS)
    offline = ["pip", "install", "--require-hashes", "--no-index", "--find-links"]
    install = [*offline, tmp_path / WHEELS, "--target", tmp_path / "installed", "-r", lock]
    uv.run(system, tmp_path / "cache", [*install, "--python", PYTHON])
    assert (tmp_path / "installed/voluptuous/__init__.py").exists()


def with_wheels(directory: Path, host: Host, kept: Path) -> Path:
    """What a backup takes of a release if it is told to take its dependencies, too."""
    shutil.copytree(kept, directory / "release")
    found = release.of(System(), host.instance("kept"), "first")
    wheels.make(System(), host.cache, found, directory / "release" / WHEELS)
    return directory / "release"


def rebuild(cache: Path, kept: Path) -> Built:
    """A release built of what is in a snapshot, on a host that has had none."""
    code = snapshot.fetch(System(), Packs(), cache, kept, quiet)
    return release.build(System(), Packs(), cache, code, quiet)
