"""A life for each kind of machine, long or short: its tests run in the order of ORDER."""

from collections.abc import Iterator

import pytest

from tests.e2e.machines import (
    HERE,
    KINDS,
    LONG,
    SHORT_LIFE,
    Admin,
    Here,
    Machine,
    copy_repository,
    files,
)
from tests.hosts.bed import Bed, HostSpec, HostsUnavailable, Images
from tests.hosts.manifest import Entry

ORDER = (
    "bare",
    "quickstart",
    "daily",
    "web",
    "location",
    "tls",
    "protocols",
    "browser",
    "attacks",
    "remote_worker",
    "jobs",
    "adapted",
    "bad_input",
    "full_disk",
    "many",
    "killed",
    "killed_change",
    "snapshots",
    "restored",
    "misfortune",
    "side_by_side",
    "legacy",
    "removed",
    "contract",
    "undone",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that uses a machine runs on every kind, or on the one that is asked for."""
    if "machine" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--machine")
        kinds = [HERE] if metafunc.config.getoption("--here") else asked or list(KINDS)
        metafunc.parametrize("machine", kinds, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A life has an order, and a short one has some of the tests only."""
    here = [item for item in items if item.path.parent.name == "e2e"]
    here.sort(key=lambda item: ORDER.index(_about(item)))
    others = [item for item in items if item not in here]
    lived = [item for item in here if _is_lived(item)]
    items[:] = [*others, *lived]
    config.hook.pytest_deselected(items=[item for item in here if item not in lived])


def _about(item: pytest.Item) -> str:
    return item.path.stem.removeprefix("test_")


def _is_lived(item: pytest.Item) -> bool:
    """Whether a test is part of the life of its kind of machine."""
    kind, about = KINDS.get(item.callspec.params["machine"]), _about(item)
    if kind is None:
        return True
    if any(about in each.for_all for each in KINDS.values()):
        return about in kind.for_all
    if about == "side_by_side":
        return bool(kind.beside)
    return kind.life == LONG or about in SHORT_LIFE


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
        [found] = bed.up([HostSpec(kind, KINDS[kind].suite, KINDS[kind].init)])
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
    kind = KINDS.get(admin.machine.name)
    if kind and not kind.set_up_first:
        return None
    admin("setup")
    return files(admin.machine)
