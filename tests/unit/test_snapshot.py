"""The manifest of a snapshot and its checksums, as texts."""

import json
import subprocess
from dataclasses import replace

import pytest

from lava_deploy import snapshot
from lava_deploy.errors import BrokenSnapshot
from lava_deploy.snapshot import FORMAT, Manifest, Member

SUM = "0123456789abcdef" * 4
MEMBERS = (
    Member("db/toc.dat", 12, SUM, 12),
    Member("media/2026-11-20.tar.zst", 700, SUM, 9000),
)
MANIFEST = Manifest(
    format=FORMAT,
    id="2026-11-21T18-30-00Z",
    sequence=7,
    instance="demo",
    version="2026.10",
    source="debian",
    origin="Debian sid",
    locator="2026.10-1",
    place="",
    commit="",
    python="3.11.2",
    lock=SUM,
    postgres=15,
    dumped_by="pg_dump 15.18",
    database_size=10**9,
    media="/srv/lava/instances/demo/var/lib/lava-server/media",
    worker="host",
    running=(3, 5),
    stopped=False,
    begun="2026-11-21T18:30:00+00:00",
    ended="2026-11-21T18:30:09Z",
    tool="0.1",
    note="before the move — für alle",
    members=MEMBERS,
    skipped=(("job-output/odd\udcff", "vanished"),),
)


def said(**changes: object) -> str:
    """The text of the manifest with other values in it."""
    return json.dumps({**json.loads(snapshot.text(MANIFEST)), **changes})


def faults(text: str) -> tuple[str, ...]:
    with pytest.raises(BrokenSnapshot) as broken:
        snapshot.parse(text)
    return broken.value.faults


def member(**changes: object) -> dict[str, object]:
    return {"path": "db/toc.dat", "size": 12, "sha256": SUM, "raw": 12, **changes}


def test_what_is_written_is_read_again_odd_names_included():
    assert snapshot.parse(snapshot.text(MANIFEST)) == MANIFEST


def test_the_text_tells_people_what_it_is_and_has_a_line_for_each_member():
    lines = snapshot.text(MANIFEST).splitlines()
    assert lines[1].startswith('  "about": "A snapshot of a LAVA instance')
    assert sum('"path": ' in line for line in lines) == len(MEMBERS)
    assert snapshot.text(MANIFEST) == snapshot.text(replace(MANIFEST))


def test_an_id_is_a_time_as_it_stands_in_names():
    assert snapshot.is_id("2026-11-21T18-30-00Z")
    others = ["2026-11-21T18:30:00Z", "2026-11-21T18-30-00Z.partial", "2026-2-1T1-1-1Z", "latest"]
    assert not any(snapshot.is_id(other) for other in others)


def test_a_newer_format_is_refused_as_such_whatever_else_it_has():
    [fault] = faults(json.dumps({"format": FORMAT + 1, "members": "elsewhere"}))
    assert fault == "made by a newer lava-deploy (format 2, this one reads up to 1)"


def test_what_the_same_format_tells_besides_is_passed_by():
    assert snapshot.parse(said(weather="fine")) == MANIFEST


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "{}", '{"format": true}'])
def test_what_is_no_manifest_at_all_is_refused(text):
    assert len(faults(text)) == 1


def test_all_faults_are_told_together():
    told = faults(
        said(
            sequence="7",
            stopped=1,
            postgres=-15,
            note=None,
            id="yesterday",
            begun="2026-11-21T18:30:00",
            ended="late",
            running=["3"],
            skipped=[["a path"]],
            members=[
                "toc.dat",
                member(size=1.5),
                member(sha256=SUM.upper()),
                member(),
                *(
                    member(path=path)
                    for path in ("/etc/passwd", "db/../x", "a\nb", "manifest.json")
                ),
            ],
        )
    )
    assert told == (
        "sequence: should be a whole number, not '7'",
        "postgres: should be a whole number, not -15",
        "stopped: should be true or false, not 1",
        "note: should be a text, not None",
        "id: 'yesterday' is none",
        "begun: '2026-11-21T18:30:00' is no time in ISO 8601, with its zone",
        "ended: 'late' is no time in ISO 8601, with its zone",
        "running: should be numbers of jobs",
        "members[0]: should have a path, size, sha256 and raw",
        "members[1].size: should be a whole number, not 1.5",
        f"members[2].sha256: '{SUM.upper()}' is no SHA-256",
        "members[3].path: db/toc.dat cannot be a member, or not twice",
        "members[4].path: '/etc/passwd' is no path in a snapshot",
        "members[5].path: 'db/../x' is no path in a snapshot",
        "members[6].path: 'a\\nb' is no path in a snapshot",
        "members[7].path: manifest.json cannot be a member, or not twice",
        "skipped: should be a list of paths with a reason each",
    )


def test_what_is_missing_is_named():
    values = json.loads(said())
    del values["instance"], values["members"], values["running"], values["skipped"]
    assert faults(json.dumps(values)) == (
        "instance: is missing",
        "running: should be a list",
        "members: should be a list",
    )


def test_the_checksums_are_what_sha256sum_checks(tmp_path):
    (tmp_path / "db").mkdir()
    (tmp_path / "db/toc.dat").write_text("dump")
    (tmp_path / snapshot.MANIFEST).write_text(snapshot.text(MANIFEST))
    members = [Member("db/toc.dat", 4, snapshot.digest("dump"), 4)]
    (tmp_path / snapshot.CHECKSUMS).write_text(snapshot.checksums(snapshot.text(MANIFEST), members))
    command = ["sha256sum", "--check", "--strict", snapshot.CHECKSUMS]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "manifest.json: OK\ndb/toc.dat: OK\n")


def test_checksums_that_are_written_are_read_again():
    text = snapshot.text(MANIFEST)
    assert snapshot.parse_checksums(snapshot.checksums(text, MEMBERS)) == {
        "manifest.json": snapshot.digest(text),
        "db/toc.dat": SUM,
        "media/2026-11-20.tar.zst": SUM,
    }


def test_all_faults_of_checksums_are_told_together():
    with pytest.raises(BrokenSnapshot) as broken:
        snapshot.parse_checksums(f"{SUM}  a\n{SUM} b\n{SUM}  a\n{SUM}  c")
    assert broken.value.faults == (
        "line 4: ends too early",
        "line 2: should be a SHA-256, two spaces and a path",
        "line 3: a stands there twice",
    )
