"""The very end: what setup made can be taken back."""

import pytest

from tests.e2e.machines import Admin

pytestmark = pytest.mark.e2e


def test_setup_is_taken_back_but_for_the_packages_which_are_named(admin: Admin) -> None:
    told = admin("setup", "--undo", "--yes")
    assert "apt-get purge" in told.stdout
    for path in (
        "/srv/lava/instances",
        "/var/lib/lava",
        "/etc/apache2/conf-enabled/lava-deploy.conf",
    ):
        assert admin.machine.run(["test", "-e", path], check=False).status != 0
