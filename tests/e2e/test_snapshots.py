"""Snapshots of the real LAVA: nobody notices one, it costs what is new, and no fault escapes."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest

from tests.e2e.machines import Admin, Machine, files_at_rest, small_disk
from tests.e2e.test_jobs import LIMIT, Jobs, lasting
from tests.e2e.test_quickstart import NAME
from tests.e2e.test_side_by_side import undisturbed
from tests.hosts.manifest import difference
from tests.hosts.waiting import until

pytestmark = pytest.mark.e2e
BACKUPS = "/srv/lava/backups"
INSTANCE = f"/srv/lava/instances/{NAME}"
MEDIA = f"{INSTANCE}/var/lib/lava-server/media"
# Where LAVAs of old kept logs; what is there belongs to no job of today's.
OLD_LOGS = f"{MEDIA}/job-output/job-900001"
OLD_BYTES = 20 * 10**6
SECONDS_OF_JOB = 10
ID = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}-[0-9]{2}Z")
SECRETS = f"cat {INSTANCE}/etc/*-token {INSTANCE}/etc/admin-password {INSTANCE}/etc/secrets.yaml"
# What others see of what runs, and what is on the disk while it does.
SEEN, ENOUGH = "/tmp/seen", "/tmp/enough"
WATCH = (
    f"rm -f {ENOUGH}; while ! test -e {ENOUGH}; do ps -eo args=; "
    f"cat /var/lib/lava-deploy/journals/*; sleep 0.02; done >{SEEN} 2>/dev/null"
)
# argv: PATH. One bit of the byte in the middle.
FLIP = """
import sys
path = sys.argv[1]
content = bytearray(open(path, "rb").read())
content[len(content) // 2] ^= 1
open(path, "wb").write(content)
"""


@dataclass(frozen=True)
class Snapshots:
    """Those of one instance, as an admin has them."""

    admin: Admin
    name: str = NAME

    @property
    def place(self) -> str:
        return f"{BACKUPS}/{self.name}"

    def back_up(self, *options: str, status: int = 0) -> str:
        """The id that is printed."""
        return self.admin("backup", self.name, *options, status=status).stdout.strip()

    def listed(self) -> dict[str, dict]:
        found = self.admin.json("snapshots", "list", self.name)["snapshots"]
        return {one["id"]: one for one in found}

    def latest(self) -> str:
        return self.admin.machine.run(["readlink", f"{self.place}/latest"]).stdout.strip()

    def manifest(self, id: str) -> dict:
        return json.loads(
            self.admin.machine.run(["cat", f"{self.place}/{id}/manifest.json"]).stdout
        )

    def inodes(self, id: str) -> dict[str, str]:
        """The number of each file, by its path in the snapshot."""
        find = ["find", f"{self.place}/{id}", "-type", "f", "-printf", "%P\\t%i\\n"]
        lines = self.admin.machine.run(find).stdout.splitlines()
        return dict(line.split("\t") for line in lines)

    def leftovers(self) -> list[str]:
        """What a snapshot directory should not have."""
        known = {*self.listed(), "latest", "records.json"}
        return sorted({*self.admin.machine.run(["ls", self.place]).stdout.split()} - known)

    def clear(self) -> None:
        """Be as if there had been none."""
        self.admin.machine.run(["rm", "-rf", self.place])


def same_packs(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """The packs that two snapshots share."""
    shared = {*before.items()} & {*after.items()}
    return {path for path, _ in shared if path.startswith("media/")}


@pytest.fixture(scope="module")
def jobs(machine: Machine) -> Jobs:
    return Jobs(Admin(machine), NAME)


@pytest.fixture(scope="module")
def snapshots(machine: Machine) -> Iterator[Snapshots]:
    """None yet; and media that no job changes any more, as every lab has most of."""
    found = Snapshots(Admin(machine))
    found.clear()
    fill = f"head -c {OLD_BYTES} /dev/urandom >{OLD_LOGS}/output.yaml"
    machine.run(f"mkdir {OLD_LOGS} && {fill} && chown -R lava-{NAME}: {OLD_LOGS}")
    yield found
    machine.run(["rm", "-rf", OLD_LOGS])
    found.clear()


def test_without_a_snapshot_that_is_told(snapshots: Snapshots) -> None:
    admin = snapshots.admin
    [about] = [one for one in admin.json("list")["instances"] if one["name"] == NAME]
    assert about["snapshot_age"] is None
    assert snapshots.listed() == {}
    refused = admin("restore", NAME, "latest", "--stop", status=2).stderr
    assert f"{NAME} has no good snapshot" in refused and "There are none" in refused


def test_a_backup_while_a_job_runs_is_noticed_by_nobody(snapshots: Snapshots, jobs: Jobs) -> None:
    admin = snapshots.admin
    number = jobs.submit(lasting(jobs.smoke_definition(), SECONDS_OF_JOB))
    until(
        lambda: jobs.guest_lines(number),
        LIMIT,
        lambda: TimeoutError(f"the guest of job {number} says nothing"),
    )
    with undisturbed(admin.machine, NAME):
        made = snapshots.back_up("--note", "while a job runs")
    assert jobs.show(number)["state"] == "Running"
    assert ID.fullmatch(made)
    assert snapshots.latest() == made
    manifest = snapshots.manifest(made)
    assert manifest["running"] == [int(number)] and manifest["skipped"] == []
    assert jobs.wait(number, "Finished")["health"] == "Complete"
    assert snapshots.leftovers() == []


def test_a_second_backup_costs_what_is_new(snapshots: Snapshots) -> None:
    [first] = snapshots.listed()
    second = snapshots.back_up()
    after_the_job = snapshots.back_up()
    found = snapshots.listed()
    assert [*found] == [first, second, after_the_job]
    packs = [snapshots.inodes(id) for id in found]
    assert "media/old-900.tar.zst" in same_packs(packs[0], packs[1])
    # the job was over by then: all is as it was
    assert same_packs(packs[1], packs[2]) == {p for p in packs[2] if p.startswith("media/")}
    assert found[second]["own"] < OLD_BYTES / 10 < OLD_BYTES < found[second]["shared"]
    assert snapshots.latest() == after_the_job


def test_what_there_is_is_told(snapshots: Snapshots) -> None:
    admin, [first, *_, newest] = snapshots.admin, snapshots.listed()
    version = admin.json("show", NAME)["instance"]["version"]
    table = admin("snapshots", "list", NAME).stdout
    assert "while a job runs" in table and "good, not verified yet" in table
    about = admin.json("snapshots", "show", NAME, first)["snapshot"]
    assert (about["note"], about["version"]) == ("while a job runs", version)
    assert newest in admin("snapshots", "show", NAME).stdout
    [listed] = [one for one in admin.json("list")["instances"] if one["name"] == NAME]
    assert 0 <= listed["snapshot_age"] < 600
    assert re.search(r"snapshot +[0-9]+ (seconds|minutes) ago", admin("status", NAME).stdout)


def test_a_good_one_is_found_good(snapshots: Snapshots) -> None:
    [first, *_] = snapshots.listed()
    read = snapshots.admin("snapshots", "verify", NAME, first).stdout
    assert read == f"{snapshots.place}/{first} is good\n"
    snapshots.admin("snapshots", "verify", NAME, "--deep")
    assert [one["level"] for one in snapshots.listed().values()] == ["read", "", "unpacked"]
    by_hand = f"cd {snapshots.place}/{first} && sha256sum --check --strict --quiet MANIFEST.sha256"
    assert snapshots.admin.machine.run(by_hand).stdout == ""


def test_only_root_may_look_into_it(snapshots: Snapshots) -> None:
    """LAVA's own code is the file that the release has, which everybody may read there."""
    place = snapshots.place
    lax = f"find {place} -type d ! -perm 0700 -o -type f ! -perm 0600 ! -path '*/release/*'"
    assert snapshots.admin.machine.run(f"{lax}; find {place} ! -user root").stdout == ""


def test_no_secret_is_to_be_seen_while_it_runs(snapshots: Snapshots) -> None:
    machine = snapshots.admin.machine
    found = machine.run(SECRETS).stdout.split()
    secrets = [word.strip("'\"") for word in found if not word.endswith(":")]
    with machine.popen(["sh", "-c", WATCH]) as watch:
        snapshots.back_up()
        machine.run(["touch", ENOUGH])
        watch.wait()
    seen = machine.run(["cat", SEEN, "/var/log/lava-deploy/lava-deploy.log"]).stdout
    machine.run(["rm", SEEN, ENOUGH])
    assert "pg_dump" in seen and '"begun"' in seen
    assert len(secrets) >= 5 and [word for word in secrets if word in seen] == []


def test_one_that_is_kept_is_not_removed(snapshots: Snapshots) -> None:
    admin, [first, *_] = snapshots.admin, snapshots.listed()
    admin("snapshots", "keep", NAME, first)
    assert snapshots.listed()[first]["kept"]
    assert "is kept" in admin("snapshots", "remove", NAME, first, "--yes", status=4).stderr
    admin("snapshots", "keep", NAME, first, "--off")
    assert not snapshots.listed()[first]["kept"]


def test_the_first_goes_and_the_others_are_not_hurt(snapshots: Snapshots) -> None:
    admin, [first, second, *others] = snapshots.admin, snapshots.listed()
    assert "--yes" in admin("snapshots", "remove", NAME, first, status=2).stderr
    admin("snapshots", "remove", NAME, first, "--yes")
    assert [*snapshots.listed()] == [second, *others]
    for one in (second, *others):
        admin("snapshots", "verify", NAME, one)
    assert snapshots.leftovers() == []


def test_what_prune_frees_is_what_it_said(snapshots: Snapshots) -> None:
    """On a disk that nobody else uses, so that its room can be measured."""
    admin = snapshots.admin
    with small_disk(admin.machine, BACKUPS, 200):
        kept, *_, newest = [snapshots.back_up() for _ in range(4)]
        before = snapshots.listed()
        assert all(one["shared"] for one in before.values())
        inodes = [snapshots.inodes(id)["release/code.tar.zst"] for id in before]
        assert len({*inodes}) == 1
        admin("snapshots", "keep", NAME, kept)
        planned = admin.json("snapshots", "prune", NAME, "--keep", "1d", "--dry-run")
        assert planned["removed"] == [id for id in before if id not in (kept, newest)]
        assert [*snapshots.listed()] == [*before]
        used = used_of(admin.machine, BACKUPS)
        assert "--yes" in admin("snapshots", "prune", NAME, "--keep", "1d", status=2).stderr
        told = admin.json("snapshots", "prune", NAME, "--keep", "1d", "--yes")
        assert {**told, "only_planned": True} == planned
        assert used - used_of(admin.machine, BACKUPS) == planned["freed"]
        assert [*snapshots.listed()] == [kept, newest]
        assert admin.json("snapshots", "prune", NAME, "--keep", "1d")["removed"] == []


def used_of(machine: Machine, disk: str) -> int:
    """The bytes that are taken of a disk."""
    return int(machine.run(["df", "--block-size=1", "--output=used", disk]).stdout.split()[1])


# What is broken


@pytest.fixture
def newest(snapshots: Snapshots) -> Iterator[str]:
    """A snapshot that shares nothing and is whole again afterwards, and an older good one."""
    while len(snapshots.listed()) < 2:
        snapshots.back_up()
    id, machine = snapshots.latest(), snapshots.admin.machine
    whole, aside = f"{snapshots.place}/{id}", "/var/tmp/whole"
    machine.run(f"cp -a {whole} {aside} && rm -r {whole} && cp -a {aside} {whole}")
    yield id
    machine.run(f"rm -r {whole} && mv {aside} {whole}")
    snapshots.admin("snapshots", "verify", NAME, id)
    assert snapshots.latest() == id


def assert_broken(snapshots: Snapshots, id: str, faults: dict[str, str]) -> None:
    """All of it is told at once, nothing is restored from it, and it is not the latest."""
    admin, machine = snapshots.admin, snapshots.admin.machine
    before = files_at_rest(machine, NAME)
    with undisturbed(machine, NAME):
        for verb in ("restore", "restore-db"):
            told = admin(verb, NAME, id, "--stop", status=4).stderr
            assert [path for path, fault in faults.items() if f"{path}: {fault}" not in told] == []
    changed = difference(before, files_at_rest(machine, NAME))
    assert [path for path in changed if not path.startswith(snapshots.place)] == []
    found = admin.json("snapshots", "verify", NAME, id, status=4)["faults"]
    assert {path: fault[: len(faults.get(path, ""))] for path, fault in found.items()} == faults
    assert [one["id"] for one in snapshots.listed().values() if not one["good"]] == [id]
    assert re.search(rf"{id} .* BROKEN", admin("snapshots", "list", NAME).stdout)
    assert snapshots.latest() in {*snapshots.listed()} - {id}


def test_a_flipped_bit_is_found_in_each_kind_of_file(snapshots: Snapshots, newest: str) -> None:
    place, machine = f"{snapshots.place}/{newest}", snapshots.admin.machine
    dump = machine.run(f"ls {place}/db/*.dat.* | head -1").stdout.strip()
    flipped = (
        "db/toc.dat",
        str(PurePosixPath(dump).relative_to(place)),
        "media/old-900.tar.zst",
        "media/other.tar.zst",
        "media.index.json.zst",
        "etc.tar.zst",
        "worker.tar.zst",
        "release/code.tar.zst",
        "release/release.json",
        "release/requirements.lock",
    )
    for path in flipped:
        machine.run(["python3", "-c", FLIP, f"{place}/{path}"])
    assert_broken(snapshots, newest, dict.fromkeys(flipped, "is damaged: its SHA-256 differs"))


def test_what_is_cut_short_missing_or_too_much_is_found(snapshots: Snapshots, newest: str) -> None:
    place, machine = f"{snapshots.place}/{newest}", snapshots.admin.machine
    machine.run(f"truncate -s 1000000 {place}/media/old-900.tar.zst")
    machine.run(f"mv {place}/worker.tar.zst {place}/media/2011-11-11.tar.zst")
    machine.run(f"ln -sf /etc/passwd {place}/etc.tar.zst")
    faults = {
        "media/old-900.tar.zst": "has 1000000 bytes instead of ",
        "worker.tar.zst": "is missing",
        "media/2011-11-11.tar.zst": "",
        "etc.tar.zst": "",
    }
    assert_broken(snapshots, newest, faults)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        ('s/"note": "/&edited/', ""),
        ('s/"format": 1/"format": 99/', "made by a newer lava-deploy"),
        ('s/"sha256": "[0-9a-f]*/"sha256": "x/', ""),
        ("1d", "is no JSON"),
    ],
)
def test_an_edited_manifest_is_found(
    snapshots: Snapshots, newest: str, edit: str, fault: str
) -> None:
    manifest = f"{snapshots.place}/{newest}/manifest.json"
    snapshots.admin.machine.run(["sed", "-i", edit, manifest])
    assert_broken(snapshots, newest, {"manifest.json": fault})


def test_edited_checksums_are_found(snapshots: Snapshots, newest: str) -> None:
    checksums = f"{snapshots.place}/{newest}/MANIFEST.sha256"
    snapshots.admin.machine.run(["sed", "-i", "3s/^[0-9a-f]/g/", checksums])
    assert_broken(snapshots, newest, {"MANIFEST.sha256": ""})


def test_a_broken_file_breaks_those_that_share_it_and_the_next_does_not(
    snapshots: Snapshots,
) -> None:
    admin, machine = snapshots.admin, snapshots.admin.machine
    for id in [*snapshots.listed()]:
        admin("snapshots", "remove", NAME, id, "--yes")
    one, other = snapshots.back_up(), snapshots.back_up()
    pack = "media/old-900.tar.zst"
    machine.run(["python3", "-c", FLIP, f"{snapshots.place}/{one}/{pack}"])
    admin("snapshots", "verify", NAME, one, status=4)
    assert not any(each["good"] for each in snapshots.listed().values())
    machine.run(f"! test -L {snapshots.place}/latest")
    assert f"{NAME} has no good snapshot" in admin("restore", NAME, "latest", status=2).stderr
    healed = snapshots.back_up()
    assert snapshots.latest() == healed
    assert pack not in same_packs(*map(snapshots.inodes, (other, healed)))
    admin("snapshots", "verify", NAME, healed, "--deep")
