"""A real Chromium, Debian's, walks through a LAVA: nothing may fail, by either kind of route."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machines import CLONE, Admin, Machine
from tests.e2e.test_jobs import Jobs, lasting
from tests.e2e.ways import LOCATION, VHOST, WAYS, Way, install_location, secret

pytestmark = pytest.mark.e2e
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"
# Playwright brings a Node.js that needs libatomic
PACKAGES = ("chromium", "fonts-dejavu-core", "libatomic1")
VIRTUALENV, PICTURES = "/root/browser", "/tmp/pictures"
# What the browser finds amiss that is no fault of a route, and why.
KNOWN = (
    # the documentation asks GitLab for the number of stars; throw-away hosts reach no GitLab
    "https://gitlab.com/api/v4/projects/lava%2Flava",
    # Chromium asks for it where a page names no icon, as REST's and the documentation's do not
    "the server responded with a status of 404 (Not Found) ({origin}/favicon.ico)",
)


@pytest.fixture(scope="module")
def browser(machine: Machine) -> Iterator[Machine]:
    """A machine with Chromium and what drives it."""
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends"
    machine.run(f"{install} {' '.join(PACKAGES)}")
    uv = f"{CLONE}/.venv/bin/uv"
    machine.run(
        f"{uv} venv -q --clear {VIRTUALENV} && {uv} pip install -q -p {VIRTUALENV} playwright"
    )
    install_location(Admin(machine), LOCATION)
    yield machine
    Admin(machine)("remove", LOCATION.name, "--yes")
    machine.run(["rm", "-rf", VIRTUALENV, PICTURES])


@pytest.fixture(scope="module")
def visits(browser: Machine) -> dict[Way, dict[str, Any]]:
    """What a browser met by each kind of route; both walk at once, as they wait much."""
    definition = lasting(Jobs(Admin(browser), VHOST.name).smoke_definition(), 10)
    numbers = [Jobs(Admin(browser), way.name, way.address).submit(definition) for way in WAYS]
    with ThreadPoolExecutor() as pool:
        told = pool.map(visited, [browser] * len(WAYS), WAYS, numbers)
        return dict(zip(WAYS, told, strict=True))


@pytest.fixture(params=WAYS, ids=lambda way: way.kind)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


@pytest.fixture
def visit(way: Way, visits: dict[Way, dict[str, Any]]) -> dict[str, Any]:
    return visits[way]


def visited(machine: Machine, way: Way, number: str) -> dict[str, Any]:
    """Send the browser on its way while a job runs, and keep its pictures."""
    Jobs(Admin(machine), way.name, way.address).wait(number, "Running")
    pictures = f"{PICTURES}/{way.kind}"
    order = {
        "url": way.url,
        "user": "admin",
        "password": secret(machine, way, "admin-password"),
        "job": number,
        "pictures": pictures,
    }
    machine.run(["mkdir", "-p", pictures])
    command = [f"{VIRTUALENV}/bin/python", f"{CLONE}/tests/e2e/browsing.py"]
    told = machine.run(command, input=json.dumps(order)).stdout
    keep(machine, pictures, ARTEFACTS / way.kind)
    (ARTEFACTS / way.kind / "visit.json").write_text(told)
    return json.loads(told)


def keep(machine: Machine, pictures: str, target: Path) -> None:
    """Copy screenshots to this side."""
    target.mkdir(parents=True, exist_ok=True)
    for name in machine.run(["ls", pictures]).stdout.split():
        encoded = machine.run(["base64", f"{pictures}/{name}"]).stdout
        (target / name).write_bytes(base64.b64decode(encoded))


def unknown(complaints: list[str], way: Way) -> list[str]:
    """Those that are not known to be no fault of the route."""
    origin = f"{way.scheme}://{way.address.partition('/')[0]}"
    known = [text.format(origin=origin) for text in KNOWN]
    return [one for one in complaints if not any(text in one for text in known)]


def test_the_page_of_a_running_job_comes_to_its_end_by_itself(visit: dict[str, Any]) -> None:
    assert visit["states"][0] == "Running" and visit["states"][-1] == "Complete"
    assert not visit["reloaded"]
    before, after = visit["lines"]
    assert after > max(before, 100)


def test_no_request_fails_and_the_console_has_no_errors(way: Way, visit: dict[str, Any]) -> None:
    found = visit["failed"] + visit["refused"] + visit["complaints"]
    assert unknown(found, way) == []


def test_the_menu_leads_to_every_kind_of_page(way: Way, visit: dict[str, Any]) -> None:
    visited = {address.removeprefix(way.url) for address in visit["visited"]}
    wanted = {"", "scheduler/alldevices/active", "api/help/", "admin/", "static/docs/index.html"}
    assert wanted <= visited
    assert visit["elsewhere"] == ["https://lavasoftware.org/"]


def test_what_is_seen_has_style(way: Way, visit: dict[str, Any]) -> None:
    """Pages have loaded LAVA's style sheets: their menu is a bar at the top."""
    assert visit["bar"] == "fixed"
    names = {path.stem for path in (ARTEFACTS / way.kind).glob("*.png")}
    assert names >= {"login", "devices", "job-running", "job-complete", "admin", "help"}
