"""The parts of lava_site that need no LAVA: the prefix, the paths, the holder of sockets."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

SITE = Path(__file__).resolve().parents[2] / "instance_templates/lava_site"
INTERNAL = "/scheduler/internal/v1/"


def loaded(name: str) -> Any:
    """A module of lava_site by itself."""
    specification = importlib.util.spec_from_file_location(f"site_{name}", SITE / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("", "demo-"),
        ("dispatcher_ip: 10.0.0.1\n", "demo-"),
        ("prefix: lab-\n", "demo-lab-"),
        ("prefix: demo-lab-\n", "demo-lab-"),
        ("prefix: 7\n", "demo-7"),
    ],
)
def test_the_job_prefix_begins_with_the_instances(text: str, prefix: str) -> None:
    changed = yaml.safe_load(loaded("prefix").with_prefix(text, "demo-"))
    assert changed["prefix"] == prefix
    assert changed == {**(yaml.safe_load(text) or {}), "prefix": prefix}


@pytest.mark.parametrize("text", ["a: [", "- a list\n"])
def test_a_faulty_configuration_is_left_for_lava_to_complain_about(text: str) -> None:
    assert loaded("prefix").with_prefix(text, "demo-") == text


STOCK = "purge: true\noverrides:\n  LANG: C\n  PATH: /usr/bin:/bin\n"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (STOCK, "/release/bin:/usr/bin:/bin"),
        ("overrides: {PATH: '/usr/bin:/release/bin'}\n", "/release/bin:/usr/bin"),
        (
            "purge: true\n",
            "/release/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
    ],
)
def test_jobs_find_the_programs_of_the_release_whatever_path_they_are_given(
    text: str, path: str
) -> None:
    before = yaml.safe_load(text)
    after = yaml.safe_load(loaded("prefix").with_programs(text, "/release/bin"))
    assert after == {**before, "overrides": {**before.get("overrides", {}), "PATH": path}}


@pytest.mark.parametrize(
    "text", ["", "# a comment\n", "overrides: {LANG: C}\n", "a: [", "- a list\n", "overrides: 7\n"]
)
def test_an_environment_that_leaves_the_path_alone_stays_as_it_is(text: str) -> None:
    assert loaded("prefix").with_programs(text, "/release/bin") == text


@pytest.fixture(params=["", "demo"])
def mounted(request: pytest.FixtureRequest) -> str:
    """The mount point: that of a vhost, and that of a location."""
    return request.param


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, mounted: str) -> Any:
    """The path that lava_site hands to LAVA for a SCRIPT_NAME and a PATH_INFO, or its refusal.

    Without the mount point, which all paths that reach LAVA have to begin with.
    """
    django, lava = ModuleType("django.conf"), ModuleType("lava_server.wsgi")
    settings = SimpleNamespace(
        MOUNT_POINT=mounted, LAVA_SITE_PREFIX="/demo", LAVA_SITE_WORKER_LOCATION="/.lava/demo"
    )
    mount = f"/{mounted}".rstrip("/")
    django.settings = settings  # type: ignore[attr-defined]
    lava.application = lambda environ, _: environ  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "django.conf", django)
    monkeypatch.setitem(sys.modules, "lava_server.wsgi", lava)
    site, health = ModuleType("lava_site"), ModuleType("lava_site.health")
    health.is_missing = lambda path: path == f"{mount}/v1/healthz/"  # type: ignore[attr-defined]
    health.answer = lambda start: start("200 OK", [])  # type: ignore[attr-defined]
    site.health = health  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lava_site", site)
    monkeypatch.setitem(sys.modules, "lava_site.health", health)
    application = loaded("wsgi").application

    def ask(path: str, script: str = "") -> str:
        said: list[str] = []
        environ = {"SCRIPT_NAME": script, "PATH_INFO": path}
        answer = application(environ, lambda status, _: said.append(status))
        if said:
            return said[0]
        assert answer["SCRIPT_NAME"] == ""
        assert answer["PATH_INFO"].startswith(f"{mount}/")
        return answer["PATH_INFO"].removeprefix(mount)

    return ask


def test_an_ordinary_path_is_passed_on_whole(served: Any) -> None:
    assert served("/results/") == "/results/"
    assert served("/results/", script=INTERNAL.rstrip("/")) == f"{INTERNAL}results/"


def test_the_prefix_of_a_location_is_known_to_the_code_behind_every_kind(served: Any) -> None:
    assert served("/demo/results/") == "/results/"
    assert served("/demo") == served("/demo/") == served("/") == "/"
    assert served("/demonstration/") == "/demonstration/"
    assert served(f"/demo/.lava/demo{INTERNAL}") == f"/.lava/demo{INTERNAL}"
    assert served("/demo/demo/results/") == "/demo/results/"


def test_the_worker_location_leads_to_the_interface_for_workers_alone(served: Any) -> None:
    assert served(f"/.lava/demo{INTERNAL}workers/w/") == f"{INTERNAL}workers/w/"
    assert served(f"{INTERNAL}workers/w/", script="/.lava/demo") == f"{INTERNAL}workers/w/"
    for path in ("/.lava/demo", "/.lava/demo/", "/.lava/demo/results/", "/.lava/demo/api/"):
        assert served(path) == "404 Not Found"


def test_another_instances_worker_location_is_no_special_path(served: Any) -> None:
    assert served(f"/.lava/demo-two{INTERNAL}") == f"/.lava/demo-two{INTERNAL}"


def test_a_release_without_a_health_page_gets_one(served: Any) -> None:
    assert served("/v1/healthz/") == "200 OK"


def test_a_held_socket_outlives_who_takes_it(tmp_path: Path) -> None:
    script = [sys.executable, "-I", str(SITE / "sockets.py")]
    # says its name to one client, then ends
    once = "import socket; s=socket.socket(fileno=3).accept()[0]; s.send(b'%s'); s.close()"
    holder = subprocess.Popen([*script, "hold", str(tmp_path), "web"])
    try:
        heard = []
        for name in ("first", "second"):
            take = [*script, "take", str(tmp_path), "web", sys.executable, "-c", once % name]
            environment = {**os.environ, "LAVA_SITE_SERVICE": f"web-{name}"}
            with (
                subprocess.Popen(take, env=environment) as taker,
                socket.socket(socket.AF_UNIX) as client,
            ):
                _connect(client, tmp_path / "web.sock")
                heard.append(client.recv(16))
                assert taker.wait(10) == 0
        assert heard == [b"first", b"second"]
        assert (tmp_path / "web.sock").stat().st_mode & 0o777 == 0o660
        assert (tmp_path / "sockets.ctl").stat().st_mode & 0o777 == 0o600
    finally:
        holder.kill()
        holder.wait()


def _connect(client: socket.socket, path: Path) -> None:
    client.settimeout(10)
    limit = time.monotonic() + 10
    while True:
        try:
            return client.connect(str(path))
        except OSError:
            assert time.monotonic() < limit
            time.sleep(0.02)


def replaced(*names: str, by: str = "") -> dict[tuple[str, str], set[tuple[str, str]]]:
    """A release's migrations of the app `lab`; the one named `by` stands for 0001 and 0002."""
    old = {("lab", "0001_initial"), ("lab", "0002_more")}
    return {**{("lab", name): set() for name in names}, **({("lab", by): old} if by else {})}


@pytest.mark.parametrize(
    ("applied", "release", "unknown", "missing", "too_old"),
    [
        ([], replaced("0001_initial"), [], ["0001_initial"], []),
        (["0001_initial"], replaced("0001_initial"), [], [], []),
        (["0001_initial", "0002_more"], replaced("0001_initial"), ["0002_more"], [], []),
        (["0001_initial", "0002_more"], replaced(by="0001_squashed_0002"), [], [], []),
        (
            ["0001_initial"],
            replaced(by="0001_squashed_0002"),
            [],
            ["0001_squashed_0002"],
            ["0001_squashed_0002"],
        ),
        (
            ["0001_initial", "0001_squashed_0002", "0003_newer"],
            replaced("0001_squashed_0002"),
            ["0003_newer"],
            [],
            [],
        ),
    ],
)
def test_migrations_are_known_also_by_what_replaced_them(
    applied: list[str],
    release: dict[tuple[str, str], set[tuple[str, str]]],
    unknown: list[str],
    missing: list[str],
    too_old: list[str],
) -> None:
    rows = {("lab", name) for name in applied} | {("gone", "0001_initial")}
    found = loaded("restored").compared(rows, release)
    named = {kind: [name for _, name in keys] for kind, keys in found.items()}
    assert named == {"unknown": unknown, "missing": missing, "too_old": too_old}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1\nextra: /old/job-output/2026/01/02/3/a.yaml\n", "/new/job-output/2026/01/02/3"),
        ("extra: '/old/job-output/job-3/a: b.yaml'\n", "'/new/job-output/job-3/a: b.yaml'"),
        ('extra: "/\\xF6/job-output/2026/01/02/3/\\xF6"\n', '"/new/job-output/2026/01/02/3/\\xF6"'),
        ("{a: b, extra: /old/job-output/job-3/a, c: d}", "{a: b, extra: /new/job-output/job-3/a,"),
        ("{a: b,\n  extra: /old/job-output/job-3/a}", ",\n  extra: /new/job-output/job-3/a}"),
        ("extra: null\nurl: /old/job-output/job-3/a\n", "url: /old/job-output/job-3/a"),
        ("error_msg: an extra: /old/job-output/job-3/a\n", "extra: /old/job-output/job-3/a"),
        ("extra: /old/else\n", "extra: /old/else"),
    ],
)
def test_the_paths_of_media_files_are_found_in_what_lava_writes(before: str, after: str) -> None:
    """By Python here: PostgreSQL reads these parts of a pattern alike."""
    assert after in re.sub(loaded("restored").MEDIA_PATH, r"\1/new/job-output/", before)
