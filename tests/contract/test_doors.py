"""What plans rely on in the doors, held by the machine in memory and by the real one alike."""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lava_deploy import postgres as postgres_door
from lava_deploy.beside import HIDDEN
from lava_deploy.errors import CommandFailed, Unreachable
from lava_deploy.model import Host
from lava_deploy.packs import Packs
from lava_deploy.parts import user
from lava_deploy.postgres import Postgres
from lava_deploy.snapshot import Packed
from lava_deploy.system import System
from tests.fakes import FakePacks, FakePostgres, FakeSystem, World

pytestmark = pytest.mark.contract
SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
# Nobody has these; the machine's own are left alone.
ROLE, DATABASE, RENAMED = "lava-doors-test", "lava-doors-test", "lava-doors-test_former"

DAY = "job-output/2026/11/20"


class Rig:
    """A system, a directory on it to work in, and its way to tell modes and owners."""

    def __init__(
        self, system: System | FakeSystem, packs: Packs | FakePacks, directory: Path
    ) -> None:
        self.system, self.packs, self.directory = system, packs, directory

    def ownership(self, path: Path) -> tuple[int, str]:
        if isinstance(self.system, FakeSystem):
            node = self.system.world.nodes[str(path)]
            return node.mode, node.owner
        found = path.lstat()
        return stat.S_IMODE(found.st_mode), pwd.getpwuid(found.st_uid).pw_name


@pytest.fixture(params=["in memory", "real"])
def rig(request, tmp_path) -> Rig:
    if request.param == "real":
        return Rig(System(), Packs(), tmp_path)
    world = World()
    world.directory(tmp_path)
    return Rig(FakeSystem(world), FakePacks(world), tmp_path)


def test_a_file_is_written_whole_with_its_mode_and_owner(rig):
    path = rig.directory / "file"
    rig.system.write(path, "first\n")
    rig.system.write(path, "zweite Zeile: ü\n", mode=0o640, owner="www-data", group="www-data")
    assert rig.system.read(path) == "zweite Zeile: ü\n"
    assert rig.ownership(path) == (0o640, "www-data")
    assert rig.system.names(rig.directory) == ["file"]


def test_a_file_needs_its_directory(rig):
    with pytest.raises(FileNotFoundError):
        rig.system.write(rig.directory / "missing/file", "")


def test_a_file_of_an_unknown_owner_is_not_written(rig):
    with pytest.raises(KeyError):
        rig.system.write(rig.directory / "file", "", owner="lava-no-such-user")
    assert rig.system.names(rig.directory) == []


def test_a_directory_gets_its_mode_though_it_is_there(rig):
    path = rig.directory / "outer/inner"
    rig.system.make_directory(path)
    rig.system.make_directory(path, 0o2750, "www-data", "www-data")
    assert rig.ownership(path) == (0o2750, "www-data")
    assert rig.ownership(path.parent) == (0o755, "root")
    assert rig.system.is_directory(path)


def test_a_file_is_no_directory(rig):
    rig.system.write(rig.directory / "file", "")
    with pytest.raises(FileExistsError):
        rig.system.make_directory(rig.directory / "file")


def test_a_link_is_turned_and_read_through(rig):
    link = rig.directory / "link"
    rig.system.write(rig.directory / "file", "text")
    rig.system.link(link, "nowhere")
    assert rig.system.exists(link) and rig.system.target(link) == "nowhere"
    with pytest.raises(FileNotFoundError):
        rig.system.read(link)
    rig.system.link(link, "file")
    assert rig.system.read(link) == "text"
    assert rig.system.target(rig.directory / "file") == ""


def test_what_is_not_there_is_told_as_nothing(rig):
    path = rig.directory / "missing"
    assert not rig.system.exists(path) and not rig.system.is_directory(path)
    assert rig.system.names(path) == [] and rig.system.target(path) == ""
    with pytest.raises(FileNotFoundError):
        rig.system.read(path)


def test_removing_what_is_not_there_is_no_fault(rig):
    path = rig.directory / "missing"
    rig.system.remove(path)
    rig.system.remove_directory(path)
    rig.system.remove_tree(path)
    assert rig.system.names(rig.directory) == []


def test_a_directory_in_use_stays_unless_its_tree_is_removed(rig):
    inner = rig.directory / "outer/inner"
    rig.system.make_directory(inner)
    rig.system.remove_directory(inner.parent)
    assert rig.system.exists(inner)
    rig.system.remove_tree(inner.parent)
    assert not rig.system.exists(inner.parent)


def test_a_link_to_a_tree_is_not_removed_as_a_tree(rig):
    rig.system.make_directory(rig.directory / "tree")
    rig.system.link(rig.directory / "link", "tree")
    with pytest.raises(NotADirectoryError):
        rig.system.remove_tree(rig.directory / "link")
    assert rig.system.exists(rig.directory / "tree")


def test_a_tree_is_copied_and_renamed_with_all_in_it(rig):
    tree, copy, renamed = (rig.directory / name for name in ("tree", "copy", "renamed"))
    rig.system.make_directory(tree / "inner")
    rig.system.write(tree / "inner/file", "text", mode=0o600)
    rig.system.copy_linked(tree, copy)
    rig.system.rename(copy, renamed)
    assert rig.system.names(rig.directory) == ["renamed", "tree"]
    assert rig.system.read(renamed / "inner/file") == "text"
    assert rig.ownership(renamed / "inner/file") == (0o600, "root")


def test_a_tree_is_not_renamed_over_another(rig):
    for name in ("one/file", "other/file"):
        rig.system.make_directory((rig.directory / name).parent)
        rig.system.write(rig.directory / name, name)
    with pytest.raises(OSError):
        rig.system.rename(rig.directory / "one", rig.directory / "other")
    assert rig.system.read(rig.directory / "other/file") == "other/file"


def test_a_line_is_added_to_a_log_that_is_made(rig):
    path = rig.directory / "logs/log"
    rig.system.append(path, "one")
    rig.system.append(path, "two")
    assert rig.system.read(path) == "one\ntwo\n"
    assert rig.ownership(path) == (0o640, "root")


def test_a_user_is_made_and_removed_with_the_group(rig):
    instance = Host().instance("doors-test")
    try:
        assert not user.exists(rig.system, instance)
        user.make(rig.system, instance)
        user.make(rig.system, instance)
        assert user.exists(rig.system, instance)
        with pytest.raises(CommandFailed):
            rig.system.run(["groupadd", "--system", instance.user])
    finally:
        user.remove(rig.system, instance)
    user.remove(rig.system, instance)
    assert not user.exists(rig.system, instance)
    with pytest.raises(CommandFailed):
        rig.system.run(["userdel", instance.user])


def test_the_machine_in_memory_refuses_commands_it_does_not_know():
    with pytest.raises(AssertionError, match="unknown command"):
        FakeSystem(World()).run(["rm", "--recursive", "/"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A private Postgres of an unprivileged user, on a unix socket only."""
    if not SERVERS:
        pytest.skip("Debian's Postgres is not installed")
    programs, owner = SERVERS[-1].parent, "nobody"
    with tempfile.TemporaryDirectory(prefix="lava-deploy-doors-", dir="/tmp") as directory:
        shutil.chown(directory, owner)
        become = ["setpriv", f"--reuid={owner}", "--regid=nogroup", "--clear-groups"]
        data = f"{directory}/data"
        initdb = ["initdb", "--auth=trust", "--no-sync", "--username=nobody", "-D", data]
        options = f"-c listen_addresses= -k {directory} -c fsync=off"
        control = [f"{programs}/pg_ctl", "-D", data, "-s", "-w", "-l", f"{directory}/log"]
        subprocess.run(
            [*become, f"{programs}/{initdb[0]}", *initdb[1:]], check=True, stdout=subprocess.DEVNULL
        )
        subprocess.run([*become, *control, "-o", options, "start"], check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run([*become, *control, "-m", "immediate", "stop"], check=True)


@pytest.fixture(params=["in memory", "real"])
def server(request, monkeypatch) -> Postgres | FakePostgres:
    if request.param == "in memory":
        return FakePostgres(World())
    monkeypatch.setattr(postgres_door, "SOCKETS", str(request.getfixturevalue("cluster")))
    return Postgres(admin="nobody")


@pytest.fixture(autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("the real machine lets only root do this")


def test_a_role_and_its_database_are_made_twice_and_removed_twice(server):
    assert server.answers() and server.version() >= 13
    for _ in range(2):
        server.make_role(ROLE, "a password")
        server.make_database(DATABASE, ROLE)
        assert server.has_role(ROLE) and server.has_database(DATABASE)
    for _ in range(2):
        server.remove_database(DATABASE)
        server.remove_role(ROLE)
        assert not server.has_role(ROLE) and not server.has_database(DATABASE)


def test_a_database_needs_its_owner(server):
    with pytest.raises(Exception, match="does not exist"):
        server.make_database(DATABASE, "lava-no-such-role")
    assert not server.has_database(DATABASE)


def test_a_role_that_owns_a_database_stays(server):
    server.make_role(ROLE, "a password")
    server.make_database(DATABASE, ROLE)
    try:
        with pytest.raises(Exception, match="cannot be dropped"):
            server.remove_role(ROLE)
        assert server.has_role(ROLE)
    finally:
        server.remove_database(DATABASE)
        server.remove_role(ROLE)


@pytest.fixture
def database(server):
    """An empty database; it and that of RENAMED are gone in the end."""
    server.make_role(ROLE, "a password")
    server.make_database(DATABASE, ROLE)
    yield DATABASE
    for name in (DATABASE, RENAMED):
        server.remove_database(name)
    server.remove_role(ROLE)


def test_a_database_is_renamed_twice_and_back(server, database):
    for _ in range(2):
        server.rename_database(database, RENAMED)
        assert server.databases(ROLE) == [RENAMED]
    for _ in range(2):
        server.rename_database(RENAMED, database)
        assert server.databases(ROLE) == [database]
    assert server.databases("lava-no-such-") == []


def test_a_database_is_not_renamed_over_another(server, database):
    server.make_database(RENAMED, ROLE)
    with pytest.raises(CommandFailed):
        server.rename_database(database, RENAMED)
    assert server.databases(ROLE) == [database, RENAMED]


def test_a_database_that_is_not_there_is_not_renamed(server):
    with pytest.raises(CommandFailed):
        server.rename_database(DATABASE, RENAMED)


def test_a_database_that_is_not_there_has_no_state_to_keep(server):
    with pytest.raises(Unreachable), server.frozen(DATABASE):
        pass


@pytest.fixture
def media(rig) -> Path:
    """A day, a job of old, and what belongs to no job."""
    media = rig.directory / "media"
    for path in (f"{DAY}/7/output.yaml", "job-output/job-12/output.yaml", "export/results.csv"):
        rig.system.make_directory((media / path).parent)
        rig.system.write(media / path, path)
    return media


def test_media_are_grouped_and_told_what_belongs_to_no_job(rig, media):
    rig.system.write(media / "job-output/2026/note", "")
    rig.system.make_directory(media / HIDDEN / "media")
    groups = [("2026-11-20", (DAY,)), ("old-0", ("job-output/job-12",)), ("other", ())]
    assert [(one.name, one.roots) for one in rig.packs.groups(media)] == groups
    assert sorted(rig.packs.loose(media)) == ["export", "job-output/2026/note"]
    assert {*rig.packs.states(media, rig.packs.groups(media))} == {one[0] for one in groups}


def packed(rig, media: Path) -> dict[str, Packed]:
    """Everything packed into the directory `to`, by groups."""
    rig.system.make_directory(rig.directory / "to")
    found = rig.packs.pack(media, rig.packs.groups(media), rig.directory / "to", {}, 0)
    return {one.group.name: one for one in found}


def test_what_is_packed_is_unpacked_for_its_owner(rig, media):
    found, to = packed(rig, media), rig.directory / "to"
    assert [one.path for one in found["2026-11-20"].members] == ["2026-11-20.tar.zst"]
    new = rig.directory / "new"
    rig.system.make_directory(new)
    rig.packs.unpack([to / "2026-11-20.tar.zst"], new, *rig.packs.owner("www-data"))
    log = new / DAY / "7/output.yaml"
    assert rig.system.read(log) == f"{DAY}/7/output.yaml"
    assert rig.ownership(log) == (0o644, "www-data")
    assert not rig.system.exists(new / "export")
    with pytest.raises(KeyError):
        rig.packs.owner("lava-no-such-user")


def test_what_was_touched_since_is_told_by_the_index(rig, media):
    index = rig.directory / "index"
    found = packed(rig, media)
    groups = {name: (one.state, [m.path for m in one.members]) for name, one in found.items()}
    rig.packs.write_index(index, groups, rig.packs.now() + 60 * 10**9)
    rig.system.write(media / DAY / "7/output.yaml", "more")
    known = rig.packs.read_index(index)
    assert sorted(rig.packs.untouched(media, known)) == ["old-0", "other"]
    again = rig.packs.pack(
        media, rig.packs.groups(media), rig.directory / "to", known.states, known.scanned
    )
    made = {one.group.name: [each.path for each in one.members] for one in again}
    assert made == {"2026-11-20": ["2026-11-20.tar.zst"], "old-0": [], "other": []}
    assert known.members["other"] == ("other.tar.zst",)
    assert rig.packs.untouched(media, rig.packs.read_index(rig.directory / "none")) == []


def test_a_bundle_is_extracted_with_its_owners_and_read(rig, media):
    rig.system.write(media / "export/mine", "mine", 0o600, "www-data", "www-data")
    entries = [(media / "export", "out"), (media / "missing", "missing")]
    member, skipped = rig.packs.bundle(rig.directory / "bundle", entries)
    assert skipped == (("missing", "is not there"),) and member.path == "bundle"
    assert rig.packs.read(rig.directory / "bundle", "out/results.csv") == b"export/results.csv"
    with pytest.raises(FileNotFoundError):
        rig.packs.read(rig.directory / "bundle", "missing")
    new = rig.directory / "new"
    rig.system.make_directory(new)
    rig.packs.extract(rig.directory / "bundle", new, ["out/mine"])
    assert rig.ownership(new / "out/mine") == (0o600, "www-data")
    assert rig.system.names(new / "out") == ["mine"]


def test_a_shared_file_replaces_what_is_there_and_is_a_member(rig):
    one, other = rig.directory / "one", rig.directory / "below/other"
    rig.system.write(one, "content")
    rig.system.make_directory(other.parent)
    for _ in range(2):
        rig.packs.share(one, other)
    [member] = rig.packs.members(other.parent, rig.directory)
    sha256 = hashlib.sha256(b"content").hexdigest()
    assert (member.path, member.size, member.sha256) == ("below/other", 7, sha256)
    assert rig.packs.check([(other, 7, sha256)]) == {}
    assert [*rig.packs.check([(other, 7, "0" * 64)])] == [other]
    assert rig.packs.on_one_disk(rig.directory, other.parent)
