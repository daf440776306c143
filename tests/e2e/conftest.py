"""One life for each kind of machine: the tests of this layer run in the order of ORDER."""

from collections.abc import Iterator

import pytest

from tests.e2e.machines import HERE, KINDS, Admin, Here, Machine, copy_repository, files
from tests.hosts.bed import Bed, HostSpec, HostsUnavailable, Images
from tests.hosts.manifest import Entry

ORDER = (
    "bare",
    "quickstart",
    "daily",
    "web",
    "jobs",
    "bad_input",
    "many",
    "killed",
    "removed",
    "contract",
    "undone",
)
# On the others, quickstart finds a bare machine.
SET_UP_FIRST = ("trixie-plain", HERE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that uses a machine runs on every kind, or on the one that is asked for."""
    if "machine" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--machine")
        kinds = [HERE] if metafunc.config.getoption("--here") else asked or list(KINDS)
        metafunc.parametrize("machine", kinds, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A life has an order."""
    here = [item for item in items if item.path.parent.name == "e2e"]
    here.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))
    others = [item for item in items if item not in here]
    items[:] = [*others, *here]


@pytest.fixture(scope="session")
def bed(request: pytest.FixtureRequest) -> Iterator[Bed | None]:
    """The test hosts of this process. None if all is to happen on this machine."""
    if request.config.getoption("--here"):
        yield None
        return
    images = Images()
    # what pip and uv downloaded for earlier hosts is at hand for this one
    downloads = images.directory / "caches"
    downloads.mkdir(parents=True, exist_ok=True)
    try:
        with Bed(images, share_downloads=True, share={"/root/.cache": downloads}) as bed:
            yield bed
    except HostsUnavailable as reason:
        pytest.exit(f"{reason}", returncode=1)


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest, bed: Bed | None) -> Machine:
    """A bare machine with a clone of this repository."""
    kind = request.param
    if bed is None:
        found: Machine = Here()
    elif kind in bed.hosts:
        found = bed.hosts[kind]
    else:
        [found] = bed.up([HostSpec(kind, *KINDS[kind])])
    copy_repository(found)
    return found


@pytest.fixture(scope="session")
def admin(machine: Machine) -> Admin:
    return Admin(machine)


@pytest.fixture(scope="session")
def set_up(admin: Admin) -> Admin:
    """A machine on which setup has run, by itself or in quickstart."""
    admin("setup")
    return admin


@pytest.fixture(scope="session")
def only_set_up(admin: Admin) -> dict[str, Entry] | None:
    """The files of a machine that was set up and carried no instance yet, where it was so."""
    if admin.machine.name not in SET_UP_FIRST:
        return None
    admin("setup")
    return files(admin.machine)
