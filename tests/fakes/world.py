"""What there is on the machine in memory, and what goes wrong on it."""

import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

# How tests draw secrets: so they can be found anywhere, and two runs can be compared.
DRAWN = re.compile(r"drawn\d+secret")
FILE, DIRECTORY, LINK = "file", "directory", "link"
# Numbers of processes, never the same twice.
PROCESSES = itertools.count(1)


class Killed(BaseException):
    """The process is gone: from here on, nothing that it still tries takes effect."""


@dataclass
class Trouble:
    """Numbers the calls that change something, from 1, and lets those of `at` fail.

    They fail before or after they took effect, with `error`, or else with the fault that such a
    call has by nature. `calls` tells what was called.
    """

    at: frozenset[int] = frozenset()
    before: bool = True
    error: BaseException | None = None
    calls: list[str] = field(default_factory=list)

    @contextmanager
    def change(self, what: object, fault: BaseException) -> Iterator[None]:
        """A call that changes something. Raises its fault when it is to fail."""
        self._strike(len(self.calls) in self.at and isinstance(self.error, Killed), fault)
        self.calls.append(str(what))
        due = len(self.calls) in self.at
        self._strike(due and self.before, fault)
        yield
        self._strike(due, fault)

    def _strike(self, due: bool, fault: BaseException) -> None:
        if due:
            raise self.error or fault


@dataclass(frozen=True)
class Node:
    """A file with its text, a directory, or a link with its target."""

    kind: str
    text: str = ""
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"


@dataclass
class World:
    """The whole machine.

    `running` has, for each service, what it was started with; `units` and `programs` what systemd
    and the supervisor have loaded (`programs` is None while the daemon does not run), `available`
    what the supervisor could load; `served` what Apache has loaded; `touched` which services were
    started or ended, in order; `disks` the directories that are on a disk of their own.
    """

    nodes: dict[str, Node] = field(default_factory=lambda: {"/": Node(DIRECTORY)})
    users: set[str] = field(default_factory=lambda: {"root", "www-data"})
    groups: set[str] = field(default_factory=lambda: {"root", "www-data"})
    packages: set[str] = field(default_factory=set)
    roles: dict[str, str] = field(default_factory=dict)
    databases: dict[str, dict[str, str]] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] | None = None
    available: dict[str, str] = field(default_factory=dict)
    served: dict[str, str] = field(default_factory=dict)
    touched: list[str] = field(default_factory=list)
    disks: set[str] = field(default_factory=set)
    trouble: Trouble = field(default_factory=Trouble)

    def copy(self) -> "World":
        """The same machine once more, without its trouble and with nothing touched yet."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        del values["trouble"]
        copied = {name: one if one is None else one.copy() for name, one in values.items()}
        copied["databases"] = {name: rows.copy() for name, rows in self.databases.items()}
        return World(**{**copied, "touched": []})

    def state(self, *without: Path) -> list[str]:
        """All there is, a line each, to be compared; trees in `without` are left out."""
        skipped = tuple(f"{path}/" for path in without)
        lines = [
            f"{path} {node.kind} {node.mode:04o} {node.owner}:{node.group} {node.text!r}"
            for path, node in sorted(self.nodes.items())
            if not f"{path}/".startswith(skipped)
        ]
        programs = self.programs if self.programs is not None else {"the supervisor": "is off"}
        for kind, things in (
            ("user", dict.fromkeys(self.users)),
            ("group", dict.fromkeys(self.groups)),
            ("package", dict.fromkeys(self.packages)),
            ("role", self.roles),
            ("database", self.databases),
            ("running", self.running),
            ("unit", self.units),
            ("program", programs),
            ("served", self.served),
        ):
            lines += [f"{kind} {name} {things[name]!r}" for name in sorted(things)]
        return renumbered("\n".join(lines)).splitlines()

    def put(self, path: Path | str, text: str) -> None:
        """A file, with the directories above it."""
        self.directory(Path(path).parent)
        self.nodes[str(path)] = Node(FILE, text, 0o644)

    def directory(self, path: Path | str) -> None:
        """A directory, with those above it."""
        if str(path) not in self.nodes:
            self.directory(os.path.dirname(path))
            self.nodes[str(path)] = Node(DIRECTORY)

    def below(self, directory: Path | str) -> list[str]:
        """The paths of everything in a tree."""
        start = f"{directory}/"
        return [path for path in self.nodes if path.startswith(start)]

    def names(self, directory: Path | str) -> list[str]:
        length = len(f"{directory}/")
        inside = {path[length:] for path in self.below(directory)}
        return sorted(name for name in inside if "/" not in name)

    def text(self, path: Path | str) -> str:
        """The text of a file, through a link. Raises FileNotFoundError."""
        node = self.nodes.get(str(path))
        if node and node.kind == LINK:
            return self.text(os.path.normpath(Path(path).parent / node.text))
        if node is None:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        if node.kind == DIRECTORY:
            raise IsADirectoryError(21, "Is a directory", str(path))
        return node.text

    def disk(self, path: Path | str) -> str:
        """The directory with which the disk of a path begins."""
        return max((one for one in self.disks if f"{path}/".startswith(f"{one}/")), default="/")

    def start(self, service: str, launcher: str) -> None:
        """Start a process by its launcher, if it has one, and keep what it reads at its start."""
        etc = Path(launcher).parent.parent
        read = [launcher, *sorted(self.below(etc / "settings.d"))]
        read += [f"{etc}/secrets.yaml", f"{etc}/gunicorn.yaml"]
        texts = renumbered("".join(self.text(path) for path in read if path in self.nodes))
        self.running[service] = hashlib.sha256(texts.encode()).hexdigest()[:12]
        self.touched.append(service)
        self._mark(Path(launcher))

    def _mark(self, launcher: Path) -> None:
        """A web server says when its processes have loaded LAVA: lava_site/gunicorn.conf.py."""
        if launcher.name.startswith("web-"):
            runs = launcher.parents[2] / "run"
            for path in self.below(runs):
                if path.startswith(f"{runs}/{launcher.name}."):
                    del self.nodes[path]
            self.nodes[f"{runs}/{launcher.name}.1.{next(PROCESSES)}.ready"] = Node(FILE)

    def end(self, service: str) -> None:
        if self.running.pop(service, None) is not None:
            self.touched.append(service)


def renumbered(text: str) -> str:
    """A text with drawn secrets named in the order in which they occur in it."""
    names: dict[str, str] = {}
    return DRAWN.sub(lambda found: names.setdefault(found[0], f"<secret {len(names)}>"), text)
