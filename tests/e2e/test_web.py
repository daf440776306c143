"""What the real Apache and the real gunicorn let through, seen from another machine."""

import socket

import pytest

from tests.e2e.machines import Machine, answer
from tests.e2e.test_quickstart import NAME

pytestmark = pytest.mark.e2e
HOST = f"{NAME}.localhost"


def test_pages_static_files_and_probes_answer(machine: Machine) -> None:
    for path in (
        *("/", "/v1/healthz/", "/ws/v1/healthz", "/api/v0.2/system/version/"),
        "/static/docs/assets/stylesheets/extra.css",
    ):
        assert answer(machine, path, HOST).status == 200, path


def test_nothing_of_the_instance_listens_on_the_network(machine: Machine) -> None:
    if machine.address == "127.0.0.1":
        return
    for port in (8000, 8001, 5500, 3079, 5432):
        with socket.socket() as probe:
            probe.settimeout(5)
            assert probe.connect_ex((machine.address, port)) != 0
