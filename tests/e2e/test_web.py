"""What the real Apache and the real gunicorn let through, seen from another machine."""

import socket

import pytest

from tests.e2e.machines import Admin, Machine, answer
from tests.e2e.test_daily import YAML, wait_for_answers
from tests.e2e.test_quickstart import NAME

pytestmark = pytest.mark.e2e
HOST = f"{NAME}.localhost"
PRIVATE = ["/results/1", "/scheduler/job/1", "/scheduler/alljobs"]
# What a client may send to be taken for LAVA's own worker.
DISGUISES = [
    {},
    {"SCRIPT_NAME": "/scheduler/internal/v1"},
    {"Script-Name": "/scheduler/internal/v1"},
    {"SCRIPT_NAME": "/scheduler/internal/v1", "PATH_INFO": "/scheduler/internal/v1"},
    {"PATH_INFO": "/scheduler/internal/v1/jobs"},
    {"X-Script-Name": "/scheduler/internal/v1"},
]


def get(machine: Machine, path: str, **headers: str) -> tuple[int, str]:
    """Status and target of an answer over the network; none is followed."""
    said = answer(machine, path, HOST, **headers)
    return said.status, said.headers.get("Location", "")


def body(machine: Machine, path: str) -> tuple[int, str]:
    """Status and text of an answer over the network."""
    said = answer(machine, path, HOST)
    return said.status, said.read().decode()


@pytest.fixture(scope="module")
def closed(machine: Machine) -> Admin:
    """The instance with REQUIRE_LOGIN, through instance.yaml."""
    admin = Admin(machine)
    machine.run(["sed", "-i", r"s/^settings:.*/settings:\n  REQUIRE_LOGIN: true/", YAML])
    admin("apply", NAME)
    wait_for_answers(admin)
    return admin


def test_pages_static_files_and_probes_answer(machine: Machine) -> None:
    assert get(machine, "/")[0] == 200
    assert get(machine, "/v1/healthz/")[0] == 200
    assert get(machine, "/ws/v1/healthz")[0] == 200
    assert get(machine, "/static/docs/assets/stylesheets/extra.css")[0] == 200
    assert get(machine, "/api/v0.2/system/version/")[0] == 200


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize("headers", DISGUISES, ids=" ".join)
def test_no_header_walks_around_the_login(
    closed: Admin, path: str, headers: dict[str, str]
) -> None:
    status, target = get(closed.machine, path, **headers)
    assert (status, target.split("?")[0]) == (302, "/accounts/login/")


@pytest.mark.parametrize("headers", DISGUISES, ids=" ".join)
def test_gunicorn_itself_does_not_believe_the_headers_either(
    closed: Admin, headers: dict[str, str]
) -> None:
    lines = [f"GET {PRIVATE[0]} HTTP/1.1", f"Host: {HOST}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = "\r\n".join([*lines, "", ""])
    ask = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); "
        f"s.connect('/srv/lava/instances/{NAME}/run/web.sock'); "
        "s.sendall(sys.stdin.buffer.read()); print(s.makefile().readline())"
    )
    said = closed.machine.run(["python3", "-c", ask], input=request).stdout
    assert said.split()[1] in ("302", "400")


def test_the_worker_location_serves_workers_and_nothing_else(closed: Admin) -> None:
    machine, place = closed.machine, f"/.lava/{NAME}"
    status, said = body(machine, f"{place}/scheduler/internal/v1/workers/nobody/")
    assert (status, said) == (404, '{"error": "Unknown worker \'nobody\'"}')
    for path in (*PRIVATE, "/", "/admin/", "/scheduler/internal/v1/../../../results/1"):
        assert get(machine, place + path)[0] in (301, 302, 400, 403, 404)
        assert "login" not in get(machine, place + path)[1]


def test_other_names_of_the_machine_do_not_show_the_instance(machine: Machine) -> None:
    assert b"LAVA" not in answer(machine, "/", "somebody.else").read()


def test_nothing_of_the_instance_listens_on_the_network(machine: Machine) -> None:
    if machine.address == "127.0.0.1":
        return
    for port in (8000, 8001, 5500, 3079, 5432):
        with socket.socket() as probe:
            probe.settimeout(5)
            assert probe.connect_ex((machine.address, port)) != 0
