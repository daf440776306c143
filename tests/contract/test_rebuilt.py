"""A release of the real LAVA built again out of what a snapshot has of it."""

import shutil
from pathlib import Path

import pytest

from lava_deploy import sources
from lava_deploy.errors import UnknownRevision
from lava_deploy.model import CODE, DESCRIPTION, LOCK, Built, Host, Wanted
from lava_deploy.packs import Packs
from lava_deploy.parts import release
from lava_deploy.sources import snapshot
from lava_deploy.system import System

pytestmark = pytest.mark.contract


def quiet(_line: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return Host.below(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def revision(host):
    return sources.find(System(), host.cache, Wanted("latest", "debian", ""), quiet)


@pytest.fixture(scope="module")
def built(host, revision):
    code = sources.fetch(System(), host.cache, revision, quiet)
    return release.build(System(), Packs(), host.cache, code, quiet)


@pytest.fixture(scope="module")
def kept(tmp_path_factory, host, built):
    """What a backup takes of the release of an instance."""
    instance = host.instance("demo")
    release.make(System(), instance, "first", built)
    directory = tmp_path_factory.mktemp("snapshot") / "release"
    directory.mkdir(parents=True)
    for path in release.sources(System(), release.of(System(), instance, "first")):
        (directory / path.name).hardlink_to(path)
    return directory


def files(tree: Path) -> dict[str, bytes]:
    """What is in a tree, links by their targets, without what Python makes of the rest."""
    return {
        str(path.relative_to(tree)): bytes(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in tree.rglob("*")
        if path.suffix != ".pyc" and (path.is_symlink() or path.is_file())
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


def rebuild(cache: Path, kept: Path) -> Built:
    """A release built of what is in a snapshot, on a host that has had none."""
    code = snapshot.fetch(System(), Packs(), cache, kept, quiet)
    return release.build(System(), Packs(), cache, code, quiet)
