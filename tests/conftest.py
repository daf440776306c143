"""Options of all tests, and the order of their layers."""

import pytest

LAYERS = ("unit", "golden", "hosts", "contract", "e2e")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--here",
        action="store_true",
        help="run tests that change a machine on this machine, not in throw-away hosts",
    )
    parser.addoption(
        "--machine",
        action="append",
        metavar="KIND",
        help="run end-to-end tests on this kind of host only, for instance trixie-plain",
    )
    parser.addoption(
        "--write-golden", action="store_true", help="write the golden files instead of comparing"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick layers first."""
    items.sort(key=lambda item: LAYERS.index(item.path.relative_to(item.config.rootpath).parts[1]))
