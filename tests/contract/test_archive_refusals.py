"""What apt refuses of a package archive, tried with one that is built and signed on the spot."""

import dataclasses
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lava_deploy.errors import UnknownRevision, Unreachable
from lava_deploy.sources import archive as archives
from lava_deploy.sources import debian, packages
from lava_deploy.sources.archive import Archive
from lava_deploy.system import System

pytestmark = pytest.mark.contract

VERSION = "2099.01-1"
FUTURE, PAST = "Thu, 01 Jan 2099 00:00:00 UTC", "Sun, 01 Jan 2023 00:00:00 UTC"
TRUSTED, STRANGER = "trusted@example.org", "stranger@example.org"
# A host with a frozen mirror may be lenient; these tests are about apt's own rules.
STRICT = 'Acquire::Check-Valid-Until "true";\nAcquire::Check-Date "true";\n'

# The apt of Debian 13 has no word for it when the file is copied from a disk.
WRONG_HASH = "Hash Sum mismatch|Undetermined Error"


class Repository:
    """A tiny archive with LAVA's packages, one suite per way to be right or wrong."""

    def __init__(self, root: Path) -> None:
        self.root, self.keyring = root / "archive", root / "trusted.gpg"
        self.secrets = root / "gnupg"
        self.secrets.mkdir(mode=0o700)
        for name in (TRUSTED, STRANGER):
            self._gpg("--passphrase", "", "--quick-gen-key", name, "rsa2048", "sign", "never")
        self._gpg("--output", str(self.keyring), "--export", TRUSTED)
        self.pool = self.root / "pool"
        self.pool.mkdir(parents=True)
        for name in (*packages.LAVA, "libjs-tiny"):
            self._package(root / "build" / name, name)

    def suite(self, name: str, valid_until: str = FUTURE, key: str = TRUSTED) -> Archive:
        """Publish a suite, and give the archive that consists of it."""
        architecture = _said(["dpkg", "--print-architecture"]).strip()
        index = self.root / f"dists/{name}/main/binary-{architecture}/Packages"
        index.parent.mkdir(parents=True)
        index.write_text("\n".join(map(self._stanza, sorted(self.pool.iterdir()))))
        content = index.read_bytes()
        release = self.root / f"dists/{name}/Release"
        release.write_text(
            f"Origin: Debian\nSuite: {name}\nCodename: {name}\nDate: {PAST}\n"
            f"Valid-Until: {valid_until}\nArchitectures: {architecture}\nComponents: main\n"
            f"SHA256:\n {hashlib.sha256(content).hexdigest()} {len(content)} "
            f"main/binary-{architecture}/Packages\n"
        )
        signed = str(release.with_name("InRelease"))
        self._gpg("--local-user", key, "--output", signed, "--clearsign", str(release))
        return Archive(f"file://{self.root}", (name,), self.keyring)

    def index(self, suite: str) -> Path:
        return next((self.root / "dists" / suite).rglob("Packages"))

    def _package(self, tree: Path, name: str) -> None:
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {VERSION}\nArchitecture: all\n"
            "Maintainer: Nobody <nobody@example.org>\nDescription: to be refused\n"
            + ("Depends: libjs-tiny\n" if name == "lava-server" else "")
        )
        _said(["dpkg-deb", "--build", str(tree), str(self.pool / f"{name}.deb")])

    def _stanza(self, package: Path) -> str:
        content = package.read_bytes()
        return (
            f"{_said(['dpkg-deb', '--field', str(package)])}"
            f"Filename: pool/{package.name}\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
        )

    def _gpg(self, *arguments: str) -> None:
        _said(["gpg", "--homedir", str(self.secrets), "--batch", "--yes", "--quiet", *arguments])


def _said(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that apt's own user can enter, which pytest's are not."""
    monkeypatch.setattr(archives, "CONFIGURATION", archives.CONFIGURATION + STRICT)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def repository(place: Path) -> Repository:
    return Repository(place)


def _only_fault(place: Path, archive: Archive) -> str:
    offered = debian.offers(System(), place / "cache", archive=archive)
    assert offered.revisions == ()
    (fault,) = offered.unreachable
    return fault


def test_a_signed_index_is_believed(place: Path, repository: Repository) -> None:
    offered = debian.offers(System(), place / "cache", archive=repository.suite("good"))
    assert [(one.version, one.locator) for one in offered.revisions] == [("2099.01", VERSION)]
    assert offered.unreachable == ()


def test_an_expired_index_is_refused(place: Path, repository: Repository) -> None:
    assert "expired" in _only_fault(place, repository.suite("old", valid_until=PAST))


def test_an_index_signed_by_a_stranger_is_refused(place: Path, repository: Repository) -> None:
    assert "not signed" in _only_fault(place, repository.suite("forged", key=STRANGER))


def test_an_index_that_was_changed_is_refused(place: Path, repository: Repository) -> None:
    archive = repository.suite("changed")
    index = repository.index("changed")
    index.write_text(index.read_text().replace("2099.01", "2098.01"))
    assert re.search(WRONG_HASH, _only_fault(place, archive))


def test_a_package_with_another_hash_is_refused(place: Path, repository: Repository) -> None:
    archive, cache = repository.suite("good"), place / "cache"
    revision = debian.find(System(), cache, "2099.01", archive=archive)
    package = repository.pool / "lava-server.deb"
    package.write_bytes(package.read_bytes()[:-1] + b"?")
    with pytest.raises(Unreachable, match=rf"lava-server.*({WRONG_HASH})"):
        debian.fetch(System(), cache, revision, lambda line: None, archive=archive)
    assert list((cache / "code").glob("debian*")) == []


def test_what_was_known_is_offered_while_the_archive_is_away(
    place: Path, repository: Repository
) -> None:
    # apt reads the files of file:// in place, and keeps copies of what copy:// has
    archive = dataclasses.replace(repository.suite("good"), mirror=f"copy://{repository.root}")
    cache = place / "cache"
    debian.offers(System(), cache, archive=archive)
    repository.root.rename(place / "away")
    offered = debian.offers(System(), cache, archive=archive, refresh=True)
    assert [one.version for one in offered.revisions] == ["2099.01"]
    assert len(offered.unreachable) == 1


def test_an_unknown_version_names_what_there_is(place: Path, repository: Repository) -> None:
    with pytest.raises(UnknownRevision) as refused:
        debian.find(System(), place / "cache", "2098.12", archive=repository.suite("good"))
    assert "2099.01" in refused.value.hint
