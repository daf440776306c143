"""Releases of the real LAVA out of git repositories and working trees, and what can go wrong."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lava_deploy import sources
from lava_deploy.errors import UnknownRevision, Unreachable
from lava_deploy.model import Wanted
from lava_deploy.packs import Packs
from lava_deploy.parts import release
from lava_deploy.sources import directory, git, repositories
from lava_deploy.system import System
from tests.contract import upstream

pytestmark = pytest.mark.contract
TOPIC, NEW_FILE = "topic/one", "lava_common/of_the_topic.py"


def quiet(_line: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A clone of upstream's, at a commit of its own on top of the newest release here."""
    path = tmp_path_factory.mktemp("clone") / "tree"
    original = upstream.obtain(tmp_path_factory.mktemp("upstream"))
    subprocess.run(["git", "clone", "--quiet", original, path], check=True)
    found = git.find(System(), path.parent / "cache", "latest", str(path), quiet)
    upstream.git(path, "checkout", "--quiet", "-b", TOPIC, found.version)
    (path / NEW_FILE).write_text("")
    upstream.git(path, "add", "--all")
    upstream.git(path, "commit", "--quiet", "--message=a change")
    return path


@pytest.fixture(scope="module")
def newest(cache, tree):
    return sources.find(System(), cache, Wanted("latest", "git", str(tree)), quiet)


@pytest.fixture
def changed(tmp_path, tree):
    """A working tree with changes that nobody committed, of another user's."""
    path = tmp_path / "changed"
    subprocess.run(["git", "clone", "--quiet", tree, path], check=True)
    with (path / "lava_common/version.py").open("a") as file:
        file.write("# changed\n")
    (path / ".gitignore").write_text("*.ignored\n")
    (path / "lava_common/new.py").write_text("NEW = True\n")
    (path / "lava_common/secret.ignored").write_text("")
    subprocess.run(["chown", "--recursive", "nobody", path], check=True)
    return path


def test_a_release_is_built_with_all_that_serves_it(cache, newest):
    code = sources.fetch(System(), cache, newest, quiet)
    assert code.commit == newest.locator
    built = release.build(System(), Packs(), cache, code, quiet)
    assert built.version == newest.version
    assert System().run([built.path / "venv/bin/lava-run", "--help"]).stdout
    packages = next(built.path.glob("venv/lib/python3*/site-packages"))
    assert (packages / "usr/share/lava-server/device-types/qemu.jinja2").exists()
    assert sorted((built.path / "static/lava_server/js").glob("jquery-*.js"))
    assert not (packages / "etc").exists()
    assert "--hash=sha256:" in (built.path / release.LOCK).read_text()


def test_a_commit_after_a_release_has_a_version_of_its_own(cache, tree, newest):
    revision = git.find(System(), cache, TOPIC, str(tree), quiet)
    assert revision.version == f"{newest.version}.dev0001"
    code = sources.fetch(System(), cache, revision, quiet)
    packages = code.tree / "packages"
    assert (packages / NEW_FILE).exists()
    says = "from lava_common.version import __version__; print(__version__)"
    said = System().run(["python3", "-c", says], environment={"PYTHONPATH": str(packages)})
    assert said.stdout.strip() == revision.version == code.version


def test_the_tip_of_upstream_is_called_what_git_describes(cache, tree):
    described = upstream.git(tree, "describe", "--match=[0-9]*", "origin/master")
    commit = upstream.git(tree, "rev-parse", "origin/master")
    revision = git.find(System(), cache, commit, str(tree), quiet)
    tag, _, rest = described.partition("-")
    count = rest.partition("-")[0]
    assert revision.version == (f"{tag}.dev{int(count):04}" if rest else tag)


def test_a_release_of_before_uv_brings_the_django_of_its_debian(cache, tree):
    if not upstream.git(tree, "tag", "--list", "2023.01") or sys.version_info > (3, 12):
        pytest.skip("the repository has no such release, or this Python cannot run it")
    revision = git.find(System(), cache, "2023.01", str(tree), quiet)
    code = sources.fetch(System(), cache, revision, quiet)
    assert "django>=3.2." in code.requirements
    assert "gcc" in code.build_packages
    assert (code.tree / "packages/guestfs.py").exists()
    assert (code.tree / "packages/lava_common/VERSION").read_text() == "2023.01\n"


def test_a_commit_can_be_abbreviated(cache, tree, newest):
    revision = git.find(System(), cache, newest.locator[:9], str(tree), quiet)
    assert (revision.version, revision.locator) == (newest.version, newest.locator)


def test_a_commit_that_no_branch_has_is_found_by_its_hash(cache, tree):
    detached = upstream.git(tree, "commit-tree", "-p", "HEAD", "-m", "request", "HEAD^{tree}")
    assert git.find(System(), cache, detached, str(tree), quiet).locator == detached


def test_a_branch_that_is_new_is_found_at_once(cache, tree, newest):
    upstream.git(tree, "branch", "--force", "another", newest.version)
    revision = git.find(System(), cache, "another", str(tree), quiet)
    assert revision.locator == newest.locator


def test_a_branch_is_what_it_was_while_the_repository_is_away(cache, tree):
    known = git.find(System(), cache, TOPIC, str(tree), quiet)
    away, told = tree.with_name("away"), []
    tree.rename(away)
    try:
        assert git.find(System(), cache, TOPIC, str(tree), told.append) == known
    finally:
        away.rename(tree)
    assert len(told) == 1 and str(tree) in told[0]


@pytest.mark.parametrize("wanted", ["1999.12", "no-such-branch", "0123456789"])
def test_what_a_repository_does_not_have_is_unknown(cache, tree, wanted):
    with pytest.raises(UnknownRevision, match=wanted):
        git.find(System(), cache, wanted, str(tree), quiet)


def test_what_is_in_the_cache_can_be_built_while_the_repository_is_away(cache, tree, newest):
    away = tree.with_name("away")
    git.find(System(), cache, "latest", str(tree), quiet)
    sources.fetch(System(), cache, newest, quiet)
    tree.rename(away)
    try:
        found = git.find(System(), cache, newest.version, str(tree), quiet)
        assert sources.fetch(System(), cache, found, quiet).version == newest.version
        assert len(git.offers(System(), cache, str(tree)).unreachable) == 1
    finally:
        away.rename(tree)


def test_a_server_that_never_answers_is_a_line_and_not_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(repositories, "ANSWER", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/lava.git"
        (line,) = git.offers(System(), tmp_path, url).unreachable
        assert line == f"{url}: no answer within 1 seconds"
        started = time.monotonic()
        assert git.offers(System(), tmp_path, url).unreachable == (line,)
        assert time.monotonic() - started < 0.5
        with pytest.raises(Unreachable, match="no answer"):
            git.find(System(), tmp_path, "latest", url, quiet)


def test_a_server_that_stops_in_the_middle_is_an_error_and_the_next_try_succeeds(
    tmp_path, tree, monkeypatch
):
    monkeypatch.setattr(repositories, "TRANSFER", 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"git://127.0.0.1:{server.getsockname()[1]}/"
        limit = [50_000]
        threading.Thread(target=_serve, args=(server, tree, limit), daemon=True).start()
        with pytest.raises(Unreachable, match="no answer within 3 seconds"):
            git.find(System(), tmp_path, TOPIC, url, quiet)
        limit[0] = sys.maxsize
        monkeypatch.setattr(repositories, "TRANSFER", 60)
        assert git.find(System(), tmp_path, TOPIC, url, quiet).locator


def _serve(server: socket.socket, tree: Path, limit: list[int]) -> None:
    """Serve one connection after the other by git's daemon, and stop after so many bytes each."""
    daemon = ["git", "daemon", "--inetd", "--export-all", f"--base-path={tree}"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        running = subprocess.Popen(
            daemon, stdin=connection, stdout=subprocess.PIPE, env=environment
        )
        threading.Thread(target=_pass_on, args=(running, connection, limit[0]), daemon=True).start()


def _pass_on(running: subprocess.Popen, connection: socket.socket, limit: int) -> None:
    sent = 0
    with running, connection:
        while sent < limit and (some := running.stdout.read1(10_000)):
            try:
                connection.sendall(some)
            except OSError:
                break
            sent += len(some)
        if sent >= limit:
            connection.recv(1 << 20)
            time.sleep(5)
        running.terminate()
        connection.shutdown(socket.SHUT_RDWR)


def test_a_changed_tree_is_marked_and_what_git_ignores_stays_out(cache, tree, newest, changed):
    before = sorted(changed.rglob("*"))
    revision = sources.find(System(), cache, Wanted("", "directory", str(changed)), quiet)
    assert revision.version == f"{newest.version}.dev0001+dirty.{revision.locator[:8]}"
    # what is changed from here on is of no consequence
    (changed / "lava_common/new.py").unlink()
    code = sources.fetch(System(), cache, revision, quiet)
    common = code.tree / "packages/lava_common"
    assert (common / "new.py").read_text() == "NEW = True\n"
    assert (common / "VERSION").read_text() == f"{revision.version}\n"
    assert not (common / "secret.ignored").exists()
    later = directory.find(System(), cache, str(changed))
    assert later.version != revision.version
    assert sorted(changed.rglob("*")) == [path for path in before if path.name != "new.py"]


def test_a_tree_without_changes_is_its_commit(cache, tree):
    in_directory = directory.find(System(), cache, str(tree))
    assert in_directory.version == git.find(System(), cache, TOPIC, str(tree), quiet).version


def test_a_tree_without_git_is_what_its_version_file_says(cache, changed):
    System().remove_tree(changed / ".git")
    System().remove(changed / directory.VERSION)
    with pytest.raises(UnknownRevision, match="VERSION"):
        directory.find(System(), cache, str(changed))
    (changed / directory.VERSION).write_text("2026.07\n")
    assert directory.find(System(), cache, str(changed)).version == "2026.07"


def test_a_directory_of_something_else_is_refused(cache, tmp_path):
    with pytest.raises(UnknownRevision, match="no tree of LAVA"):
        directory.find(System(), cache, str(tmp_path))
