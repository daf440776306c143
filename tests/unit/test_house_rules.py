"""The shape of the code, as CONTRIBUTING.rst draws it: who imports whom, how long files are."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import machine

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lava_deploy"
MODULES = sorted(PACKAGE.rglob("*.py"))
FILE_LENGTH = 400

DOORS = {"system", "postgres", "playbook", "web", "packs"}
# The types that cross all borders.
TYPES = {"model", "configuration", "snapshot", "beside", "errors"}
MAY_IMPORT = {
    "cli": {
        *("cli", "config", "operations", "report", "steps", "journal", "locks", "certificates"),
        "retention",
        *TYPES,
        *DOORS,
    },
    "operations": {
        *("parts", "sources", "steps", "locks", "playbook", "certificates", "retention", "records"),
        *TYPES,
    },
    "parts": {"templates", "uv", "certificates", "inventory", "records", *TYPES},
    "sources": {"sources", "uv", "model", "errors"},
    "packs": {"packs", *TYPES},
    "steps": {"journal", *TYPES},
    "system": {"processes", *TYPES},
    "model": set(),
    "snapshot": {"model", "errors"},
    "errors": set(),
}
ANY_OTHER_MAY_IMPORT = TYPES
# The one module that may use what leads out of the process, or to the terminal; `processes` is the
# part of `system` that commands take.
ONLY_IN = {
    "subprocess": "system processes",
    "shutil": "system",
    "fabric": "system",
    "psycopg2": "postgres",
    "ansible_runner": "playbook",
    "urllib.request": "web",
    "http.client": "web",
    "socket": "web",
    "xmlrpc": "web",
    "requests": "web",
    "click": "cli",
    "zstandard": "packs",
    "tarfile": "packs",
    "multiprocessing": "packs",
    "concurrent.futures.process": "packs",
}
SOURCE_ENDINGS = {".py", ".yml", ".yaml", ".j2", ".sh", ".rst", ".cfg", ".toml", ".conf", ""}
NOT_OURS = {"LICENSE", "build", "dist"}


def place(path: Path) -> str:
    """The place of a module in the house: `cli` for lava_deploy/cli/context.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[str]:
    """The modules that are imported when the code runs; what only types need does not count."""
    for node in running(tree(path)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from running(child)


def ours(path: Path) -> Iterator[list[str]]:
    """The modules of this package that a module imports, without the package's name."""
    for name in imports(path):
        first, *rest = name.split(".")
        if first == "lava_deploy" and rest != ["__version__"]:
            yield rest


def is_shared(name: list[str]) -> bool:
    """Whether a name is one of a package itself (operations.Doors), not one of its modules."""
    return len(name) == 2 and not PACKAGE.joinpath(*name).with_suffix(".py").exists()


def texts() -> Iterator[Path]:
    """Every text file of the project."""
    for path in ROOT.rglob("*"):
        below = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in below)
        generated = "__pycache__" in below or any(part.endswith(".egg-info") for part in below)
        if hidden or generated or below[0] in NOT_OURS or path.suffix not in SOURCE_ENDINGS:
            continue
        if path.is_file():
            yield path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_place_may(path: Path) -> None:
    allowed = MAY_IMPORT.get(place(path), ANY_OTHER_MAY_IMPORT)
    wrong = {
        ".".join(name)
        for name in ours(path)
        if name[0] not in allowed and not (name[0] == place(path) and is_shared(name))
    }
    assert wrong == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_leads_out_of_the_process_is_imported_in_one_module(path: Path) -> None:
    wrong = {
        name
        for name in imports(path)
        for door, only in ONLY_IN.items()
        if f"{name}.".startswith(f"{door}.") and place(path) not in only.split()
    }
    assert wrong == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_report_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    prints = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert place(path) == "report" or prints == []


def test_no_file_is_longer_than_can_be_overlooked() -> None:
    long = {
        str(path.relative_to(ROOT)): length
        for path in texts()
        if path.suffix != ".rst" and (length := len(path.read_text().splitlines())) > FILE_LENGTH
    }
    assert long == {}


def test_no_package_registry_is_named() -> None:
    hosts = {endpoint.rpartition(":")[0] for endpoint in machine.registries()}
    named = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in texts()
        for host in hosts
        if host in path.read_text()
    ]
    assert named == []
