"""Instances of different revisions on one machine: what happens to one, the other does not notice.

Ends with the removal of the first instance, which leaves the others as they were.
"""

import http.client
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract import upstream
from tests.e2e.machines import KINDS, NEXT, OLDEST, TIP, Admin, Machine, answer
from tests.e2e.test_daily import COMPONENTS, LIMIT, process, wait_for_answers
from tests.e2e.test_quickstart import NAME as FIRST
from tests.hosts.bed import SYSTEMD
from tests.hosts.waiting import until

pytestmark = pytest.mark.e2e
SECOND, THIRD = "beside", "third"
REPOSITORY = "/var/tmp/lava.git"
INSTALL = ("install", "-n", "--yes")
# Faster than any restart, and little enough work for the machine.
SECONDS_BETWEEN_LOOKS = 0.2


def processes(machine: Machine, name: str) -> dict[str, str]:
    return {component: process(machine, name, component) for component in COMPONENTS}


@contextmanager
def undisturbed(machine: Machine, name: str) -> Iterator[None]:
    """The page of an instance answers all the while, from the same processes."""
    before, seen, over = processes(machine, name), [], threading.Event()

    def look() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            try:
                seen.append(answer(machine, "/", f"{name}.localhost").status)
            except (OSError, http.client.HTTPException) as error:
                seen.append(error)

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
    assert set(seen) <= {200, 302}, seen
    assert seen and all(before.values())
    assert processes(machine, name) == before


@pytest.fixture(scope="module")
def revision(admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """How another LAVA than the first instance's is ordered, and its version."""
    kind = KINDS.get(admin.machine.name)
    beside = kind.beside if kind else NEXT
    if beside == TIP:
        return _tip(admin.machine, tmp_path_factory.mktemp("upstream"))
    first = admin.json("show", FIRST)["instance"]["version"]
    others = [
        one["version"]
        for one in admin.json("revisions")["revisions"]
        if one["source"] == "debian" and one["runs_here"] and one["version"] != first
    ]
    version = min(others) if beside == OLDEST else max(others)
    return [version, "--source", "debian"], version


def _tip(machine: Machine, directory: Path) -> tuple[list[str], str]:
    """The tip of upstream, put on the machine; its version is what git describes."""
    bare = directory / "lava.git"
    clone = ["git", "clone", "--quiet", "--bare", str(upstream.obtain(directory)), str(bare)]
    subprocess.run(clone, check=True)
    machine.put(bare, REPOSITORY)
    tag, _, rest = upstream.git(bare, "describe", "--match=[0-9]*", "master").partition("-")
    version = f"{tag}.dev{int(rest.partition('-')[0]):04}" if rest else tag
    return ["master", "--source", REPOSITORY], version


def test_an_instance_of_another_revision_is_installed_and_passes_a_job(
    admin: Admin, revision: tuple[list[str], str]
) -> None:
    words, version = revision
    with undisturbed(admin.machine, FIRST):
        admin(*INSTALL, SECOND, *words, "--smoke", timeout=1200)
    found = {one["name"]: one for one in admin.json("list")["instances"]}
    assert found[SECOND]["smoke"]["health"] == "Complete"
    assert found[SECOND]["version"] == version != found[FIRST]["version"]
    assert admin.json("show", SECOND)["instance"]["version"] == version
    assert version in admin("list").stdout


def test_one_instance_stops_and_starts_and_the_other_does_not_notice(admin: Admin) -> None:
    with undisturbed(admin.machine, FIRST):
        admin("stop", SECOND)
        assert not any(processes(admin.machine, SECOND).values())
        admin("status", FIRST)
        admin("start", SECOND)
    wait_for_answers(admin, SECOND)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_that_crashes_comes_back_and_the_other_instance_does_not_notice(
    admin: Admin, component: str
) -> None:
    machine = admin.machine
    with undisturbed(machine, FIRST):
        crashed = process(machine, SECOND, component)
        machine.run(["kill", "-9", crashed])
        until(
            lambda: process(machine, SECOND, component) not in ("", crashed),
            LIMIT,
            lambda: TimeoutError(f"{component} does not come back"),
        )
        wait_for_answers(admin, SECOND)


def test_everything_comes_back_when_the_machine_does(admin: Admin) -> None:
    """On a machine without systemd nobody starts anything: an admin does."""
    machine = admin.machine
    place = getattr(machine, "place", None)
    if place is None:  # the machine that runs the tests is not rebooted
        return
    machine.reboot()
    if place.init != SYSTEMD:
        admin("setup")
        for name in (FIRST, SECOND):
            admin("start", name)
    for name in (FIRST, SECOND):
        wait_for_answers(admin, name)


def test_the_first_instance_goes_and_those_that_shared_its_release_stay(admin: Admin) -> None:
    machine = admin.machine
    version = admin.json("show", FIRST)["instance"]["version"]
    admin(*INSTALL, THIRD, version)
    with undisturbed(machine, SECOND), undisturbed(machine, THIRD):
        admin("remove", FIRST, "--yes")
    admin("restart", THIRD)
    for name in (SECOND, THIRD):
        wait_for_answers(admin, name)
    assert admin.json("show", THIRD)["instance"]["version"] == version
