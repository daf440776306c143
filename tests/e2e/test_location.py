"""An instance below a path of the machine, beside others that have host names of their own."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.machines import Admin, Machine, answer, files_at_rest
from tests.e2e.test_jobs import Jobs, lasting
from tests.e2e.test_quickstart import NAME as NEIGHBOUR
from tests.hosts.manifest import difference

pytestmark = pytest.mark.e2e
NAME = "below"


@pytest.fixture(scope="module")
def located(machine: Machine) -> Iterator[Admin]:
    admin = Admin(machine)
    admin("install", NAME, "-n", "--yes", "--route", "location", "--smoke")
    yield admin
    admin("remove", NAME, "--yes")


def test_a_job_passes_through_a_location(located: Admin) -> None:
    """Submitted and watched over XML-RPC, read back over REST, all below the prefix."""
    found = {one["name"]: one for one in located.json("list")["instances"]}
    assert found[NAME]["url"] == f"http://localhost/{NAME}/"
    assert found[NAME]["smoke"]["health"] == "Complete"
    assert located.json("status", NAME)["instances"][0]["answers"] == 200


@pytest.mark.parametrize("host", ["", "localhost", "any.name.of.the.machine", NEIGHBOUR])
def test_it_answers_under_every_name_of_the_machine(located: Admin, host: str) -> None:
    name = f"{host}.localhost" if host == NEIGHBOUR else host
    page = answer(located.machine, f"/{NAME}/", name)
    assert page.status == 200
    assert f'href="/{NAME}/scheduler/' in page.read().decode()
    bare = answer(located.machine, f"/{NAME}", name)
    assert (bare.status, bare.headers["Location"].endswith(f"/{NAME}/")) == (302, True)


def test_all_kinds_of_pages_are_below_the_prefix(located: Admin) -> None:
    machine = located.machine
    for path in (
        *("/v1/healthz/", "/ws/v1/healthz", "/static/docs/assets/stylesheets/extra.css"),
        *("/api/v0.2/system/version/", "/accounts/login/", "/scheduler/alljobs"),
    ):
        assert answer(machine, f"/{NAME}{path}").status == 200, path
    refused = answer(machine, f"/{NAME}/admin/")
    assert refused.headers["Location"].startswith(f"/{NAME}/admin/login/")


def test_scripts_and_styles_lead_below_the_prefix_as_well(located: Admin) -> None:
    for path, place in (
        ("lava_results_app/js/chart.js", '"/%s/results/chart/"'),
        ("lava_scheduler_app/css/scheduler.css", "url(/%s/static/"),
    ):
        text = answer(located.machine, f"/{NAME}/static/{path}").read().decode()
        assert place % NAME in text and place.replace("/%s", "") not in text


def test_its_cookies_are_its_own(located: Admin) -> None:
    cookie = answer(located.machine, f"/{NAME}/accounts/login/").headers["Set-Cookie"]
    assert cookie.startswith(f"csrftoken_{NAME}=") and "Path=/;" in cookie


def test_the_neighbour_keeps_its_pages(located: Admin) -> None:
    page = answer(located.machine, "/", f"{NEIGHBOUR}.localhost")
    assert page.status == 200 and f"/{NAME}/" not in page.read().decode()


def test_a_prefix_that_is_taken_is_refused(located: Admin) -> None:
    ordered = ("install", "another", "-n", "--yes", "--route", "location")
    taken = located(*ordered, "--set", f"route.prefix=/{NAME}", status=4)
    assert f"Apache already serves /{NAME}/" in taken.stderr
    hidden = located(*ordered, "--set", "route.prefix=/scheduler", status=4)
    assert "would hide pages" in hidden.stderr


def test_it_becomes_a_vhost_and_a_location_again_as_it_was_and_a_job_goes_on(
    located: Admin,
) -> None:
    """Its worker and its job know the permanent location of workers only."""
    machine = located.machine
    jobs = Jobs(located, NAME, f"localhost/{NAME}")
    number = jobs.submit(lasting(jobs.smoke_definition(), 20))
    jobs.wait(number, "Running")
    before = files_at_rest(machine, NAME)
    located("toggle", NAME, "vhost")
    assert answer(machine, "/", f"{NAME}.localhost").status == 200
    assert answer(machine, f"/{NAME}/").status == 404
    assert located.json("list")["instances"][0]["url"] == f"http://{NAME}.localhost/"
    located("toggle", NAME, "location")
    assert answer(machine, f"/{NAME}/").status == 200
    assert difference(before, files_at_rest(machine, NAME)) == {}
    assert jobs.wait(number, "Finished")["health"] == "Complete"


def test_a_route_that_does_not_answer_is_put_back(located: Admin) -> None:
    machine = located.machine
    before = files_at_rest(machine, NAME)
    own = f"/etc/apache2/sites-available/lava-{NAME}.local.conf"
    machine.run(["tee", own], input="<Location /v1/healthz/>\nRequire all denied\n</Location>\n")
    failed = located("toggle", NAME, "vhost", status=10)
    assert "All was undone" in failed.stderr and "status 403" in failed.stderr
    assert answer(machine, f"/{NAME}/").status == 200
    machine.run(["rm", own])
    assert difference(before, files_at_rest(machine, NAME)) == {}


def test_all_are_toggled_at_once_but_one_that_apache_does_not_take(located: Admin) -> None:
    machine = located.machine
    before = files_at_rest(machine, NAME)
    broken = f"/etc/apache2/conf-available/lava-{NEIGHBOUR}.local.conf"
    machine.run(["tee", broken], input="NoSuchDirective on\n")
    lines = located("toggle-all", "location", status=13).stdout.splitlines()
    machine.run(["rm", broken])
    told = {line.split()[0]: line for line in lines if "http://" in line}
    assert told[NAME].endswith("as it was") and "failed (10)" in told[NEIGHBOUR]
    assert answer(machine, "/", f"{NEIGHBOUR}.localhost").status == 200
    assert difference(before, files_at_rest(machine, NAME)) == {}
    located("toggle-all", "vhost")
    assert answer(machine, "/", f"{NAME}.localhost").status == 200
    located("toggle_all", "location")
    for name in (NAME, NEIGHBOUR):
        assert answer(machine, f"/{name}/").status == 200
    located("toggle", NEIGHBOUR, "vhost")
    assert difference(before, files_at_rest(machine, NAME)) == {}


def test_websockets_that_stay_open_over_many_reloads_leave_apache_room(located: Admin) -> None:
    """Each keeps a process of Apache's; with 16 of them it answers nobody unless it is told to."""
    lines = [
        *(f"GET /{NAME}/ws/ HTTP/1.1", "Host: localhost", "Connection: Upgrade"),
        *("Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {'x' * 22}=="),
    ]
    with ExitStack() as held:
        for _ in range(20):
            client = socket.create_connection((located.machine.address, 80), timeout=30)
            held.enter_context(client)
            client.sendall("\r\n".join([*lines, "", ""]).encode())
            assert client.recv(12) == b"HTTP/1.1 101"
            located.machine.run(["apache2ctl", "graceful"])
        assert answer(located.machine, f"/{NAME}/v1/healthz/").status == 200


def test_a_toggle_that_is_impossible_changes_nothing(located: Admin) -> None:
    before = files_at_rest(located.machine, NAME)
    taken = located("toggle", NAME, "vhost", "--hostname", f"{NEIGHBOUR}.localhost", status=4)
    assert f"already serves the host name {NEIGHBOUR}.localhost" in taken.stderr
    assert "no prefix" in located("toggle", NAME, "location", "--prefix", "//", status=3).stderr
    assert "route.kind" not in located("toggle", NAME, "location").stderr
    assert difference(before, files_at_rest(located.machine, NAME)) == {}
