"""The README's first command, on a machine on which only the tool's own virtualenv was made."""

import pytest

from tests.e2e.machines import Admin, Machine, files
from tests.hosts.manifest import Entry

pytestmark = pytest.mark.e2e
NAME = "demo"


def test_one_command_makes_a_lava_with_a_passed_job(
    admin: Admin, only_set_up: dict[str, Entry] | None
) -> None:
    made = admin.json("quickstart", NAME, timeout=1200)
    assert made["url"] == f"http://{NAME}.localhost/"
    assert made["job"]["health"] == "Complete"
    assert made["job"]["cases"]["kernel"] == "pass"


def test_quickstart_again_is_refused_and_changes_nothing(admin: Admin) -> None:
    before = files(admin.machine)
    refused = admin("quickstart", NAME, status=4)
    assert f"the name {NAME} is taken" in refused.stderr
    assert files(admin.machine) == before


def test_setup_again_changes_nothing(admin: Admin) -> None:
    before = files(admin.machine)
    assert "nothing had to be changed" in admin("setup").stderr
    assert files(admin.machine) == before


def test_the_name_resolves_for_every_program(machine: Machine) -> None:
    [address, *_] = machine.run(["getent", "hosts", f"{NAME}.localhost"]).stdout.split()
    assert address in ("::1", "127.0.0.1")


def test_the_first_admin_logs_in_with_the_password_in_the_file(admin: Admin) -> None:
    made = admin.json("show", NAME)["instance"]
    password = admin.machine.run(
        f"cat /srv/lava/instances/{NAME}/etc/admin-password"
    ).stdout.strip()
    check = (
        "from django.contrib.auth import authenticate; "
        f"print('is superuser:', authenticate(username={made['admin']!r}, password={password!r})"
        ".is_superuser)"
    )
    assert "is superuser: True" in admin("manage", NAME, "shell", input=check).stdout
