"""The end of a life: what is removed is gone, what setup made can be taken back."""

import pytest

from tests.e2e.machines import Admin, files, trace
from tests.e2e.test_quickstart import NAME
from tests.hosts.manifest import Entry, difference

pytestmark = pytest.mark.e2e
NOTHING = {"postgres": [], "processes": [], "units": [], "users": []}
# Those of instances, and the one above them.
SLICES = (
    "command -v systemctl >/dev/null || exit 0; "
    "systemctl list-units --all --plain --no-legend --type=slice 'lava*'"
)


def test_removed_instances_leave_the_machine_as_after_setup(
    admin: Admin, only_set_up: dict[str, Entry] | None
) -> None:
    for one in admin.json("list")["instances"]:
        admin("remove", one["name"], "--yes")
    after = files(admin.machine)
    assert trace(admin.machine) == NOTHING
    assert [path for path in after if f"lava-{NAME}" in path or f"/{NAME}" in path] == []
    assert admin.machine.run(SLICES).stdout == ""
    if only_set_up is not None:
        assert difference(only_set_up, after) == {}


def test_its_history_stays(admin: Admin) -> None:
    entries = admin.json("history", NAME)["history"]
    assert entries[-1]["command"] == f"lava-deploy remove {NAME} --yes"
    assert admin.json("list")["instances"] == []
