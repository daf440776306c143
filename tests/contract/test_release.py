"""A release built of the real LAVA, from the Debian archive that this host uses."""

import dataclasses
import shutil
import stat

import pytest

from lava_deploy import uv
from lava_deploy.errors import CommandFailed
from lava_deploy.model import Code, Host, Revision
from lava_deploy.packs import Packs
from lava_deploy.parts import release
from lava_deploy.system import System

pytestmark = pytest.mark.contract


def quiet(_line: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def instance(host, built):
    instance = host.instance("demo")
    release.make(System(), instance, "first", built)
    yield instance
    release.remove(System(), instance, "first")


@pytest.fixture
def broken(tmp_path):
    """Code that lacks everything but a list of requirements, to be filled in."""
    for name in ("packages", "share/lava-server", "programs"):
        (tmp_path / "code" / name).mkdir(parents=True)
    revision = Revision("2099.01", "debian", "nowhere", "2099.01-1")
    return Code(revision, "2099.01", tmp_path / "code")


def test_a_release_is_built_once(host, revision, built):
    assert release.cached(System(), host.cache, revision) == built
    unused = Code(revision, revision.version, host.cache / "no such directory")
    assert release.build(System(), Packs(), host.cache, unused, quiet) == built


def test_the_lock_has_a_hash_for_every_dependency(built):
    text = (built.path / release.LOCK).read_text().replace("\\\n", "")
    locked = [line for line in text.splitlines() if line and line[0] not in "# "]
    assert len(locked) > 30
    assert all("==" in line and "--hash=sha256:" in line for line in locked)


def test_nobody_but_root_can_change_a_release(built):
    files = [path for path in built.path.rglob("*") if not path.is_symlink()]
    assert {path.stat().st_uid for path in files} == {0}
    assert [path for path in files if path.stat().st_mode & 0o022] == []


def test_everybody_can_read_a_release_but_for_one_key(built):
    closed = [
        path.name
        for path in built.path.rglob("*")
        if not path.is_symlink() and not path.stat().st_mode & stat.S_IROTH
    ]
    assert closed == ["lava"]


def test_static_files_are_whole(built):
    static = built.path / "static"
    assert [path for path in static.rglob("*") if path.is_symlink()] == []
    scripts = sorted((static / "lava_server/js").glob("jquery-*.js"))
    assert scripts and scripts[0].stat().st_size > 50_000
    assert (static / "admin/css/base.css").exists()
    assert list((static / "docs").rglob("index.html"))


def test_all_of_lava_is_compiled_before_anybody_runs_it(built):
    code = next(built.path.glob("venv/lib/python3*/site-packages/lava_server"))
    sources_, compiled = list(code.glob("*.py")), list(code.glob("__pycache__/*.pyc"))
    assert len(sources_) == len(compiled) > 10


def test_an_instance_shares_the_files_of_the_cache(built, instance):
    path = "venv/bin/lava-run"
    assert (instance.releases / "first" / path).samefile(built.path / path)


def test_an_instance_keeps_working_without_the_cache(tmp_path, built, instance):
    away = tmp_path / "away"
    built.path.rename(away)
    try:
        path = release.of(System(), instance, "first")
        for program in ("lava-run", "lava-worker", "gunicorn"):
            assert System().run([path.programs / program, "--help"]).stdout
    finally:
        away.rename(built.path)


def test_an_instance_on_another_disk_gets_a_copy(tmp_path, built, monkeypatch):
    run = System.run

    def without_links(self, command, **options):
        words = [word for word in command if word != "--link"]
        if words != list(command):
            return run(self, ["false"], **options)
        return run(self, words, **options)

    monkeypatch.setattr(System, "run", without_links)
    instance = Host.below(tmp_path).instance("demo")
    release.make(System(), instance, "first", built)
    assert release.of(System(), instance, "first").version == built.version
    shutil.rmtree(tmp_path / "instances")


def test_the_current_release_is_the_one_switched_to(built, instance):
    system = System()
    assert release.current(system, instance) is None
    release.switch(system, instance, "first")
    assert release.current(system, instance) == release.of(system, instance, "first")
    release.remove(system, instance, "first")
    assert release.current(system, instance) is None
    assert list(instance.releases.iterdir()) == []


def test_removing_what_is_not_there_changes_nothing(host):
    release.remove(System(), host.instance("other"), "first")
    assert not host.instance("other").root.exists()


def test_making_twice_is_making_once(built, instance):
    before = (instance.releases / "first").stat().st_ino
    release.make(System(), instance, "first", built)
    assert (instance.releases / "first").stat().st_ino == before


def test_a_dependency_that_does_not_exist_leaves_no_release(tmp_path, broken):
    code = dataclasses.replace(broken, requirements="lava-deploy-has-no-such-dependency\n")
    refused(tmp_path / "cache", code, "lava-deploy-has-no-such-dependency was not found")


def test_a_lock_that_asks_for_what_does_not_exist_is_refused(tmp_path, broken):
    lock = f"idna==999.99 --hash=sha256:{'0' * 64}\n"
    refused(tmp_path / "cache", dataclasses.replace(broken, lock=lock), "no version of idna==999")
    lock = f"lava-deploy-has-no-such-dependency==1 --hash=sha256:{'0' * 64}\n"
    code = dataclasses.replace(broken, lock=lock)
    refused(tmp_path / "cache", code, "lava-deploy-has-no-such-dependency was not found")


def test_a_dependency_with_another_hash_is_refused(tmp_path, broken):
    lock = f"idna==3.10 --hash=sha256:{'0' * 64}\n"
    refused(tmp_path / "cache", dataclasses.replace(broken, lock=lock), "Hash mismatch for `idna==")


def refused(cache, code, reason):
    """The release is not built, nothing of it is left, and the error says why and what to do."""
    with pytest.raises(CommandFailed) as failed:
        release.build(System(), Packs(), cache, code, quiet)
    assert reason in str(failed.value)
    assert "index" in failed.value.hint
    assert list((cache / "releases").glob("2099*")) == []


def test_an_index_that_only_pip_was_told_of_is_used(tmp_path, monkeypatch):
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = https://index.example/simple\n")
    monkeypatch.setattr(uv, "PIP_SETTINGS", settings)
    monkeypatch.setattr(uv, "UV_SETTINGS", tmp_path / "none")
    environment = uv.settings(System(), tmp_path)
    assert environment["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    monkeypatch.setattr(uv, "UV_SETTINGS", settings)
    assert "UV_DEFAULT_INDEX" not in uv.settings(System(), tmp_path)
