"""Options of all tests, and their order: the quick ones first."""

import pytest

LAYERS = ("unit", "golden", "hosts", "contract", "e2e")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--here",
        action="store_true",
        help="run tests that change a machine on this machine, not in throw-away hosts",
    )
    parser.addoption(
        "--write-golden", action="store_true", help="write the golden files instead of comparing"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the layers, and keep together, in one process of pytest-xdist, what shares a host.

    First, since pytest-xdist reads the marks at the same occasion.
    """
    items.sort(key=_layer)
    for item in items:
        if _layer(item) in (LAYERS.index("hosts"), LAYERS.index("e2e")):
            item.add_marker(pytest.mark.xdist_group(_machine(item)))


def _layer(item: pytest.Item) -> int:
    return LAYERS.index(item.path.relative_to(item.config.rootpath / "tests").parts[0])


def _machine(item: pytest.Item) -> str:
    """The machine an item of the e2e layer runs on; all tests of hosts share one bed."""
    parameters = getattr(item, "callspec", None)
    machine = parameters.params.get("machine") if parameters else None
    return str(machine or item.path.parent.name)
