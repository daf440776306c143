"""The door to the machine in memory, with the methods of lava_deploy.system.System."""

import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lava_deploy.errors import CommandFailed
from lava_deploy.system import Finished
from tests.fakes import commands
from tests.fakes.world import DIRECTORY, FILE, LINK, Node, World

GIGABYTE = 10**9


def fault(path: Path | str) -> OSError:
    return OSError(28, "No space left on device", str(path))


class FakeSystem:
    def __init__(self, world: World) -> None:
        self.world = world

    def run(
        self,
        command: Sequence[str | Path],
        *,
        stdin: str = "",
        user: str = "",
        environment: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Finished:
        words = [str(word) for word in command]
        try:
            ended = commands.run(self.world, words, stdin, user, environment or {})
        except CommandFailed as failed:
            if check:
                raise
            return Finished(failed.status, "", failed.output)
        if check and ended.status != 0:
            raise CommandFailed(words, ended.status, ended.stderr or ended.stdout)
        return ended

    @contextmanager
    def meanwhile(
        self, words: Sequence[str], stdin: str, environment: Mapping[str, str]
    ) -> Iterator[None]:
        self.run(words, stdin=stdin, environment=environment)
        yield

    def has_ended(self, process: int, seconds: float) -> bool:
        return f"/proc/{process}/cmdline" not in self.world.nodes

    def wait_until(self, ask: Callable[[], bool], seconds: float) -> bool:
        return ask()

    def exists(self, path: Path) -> bool:
        return str(path) in self.world.nodes

    def is_newer(self, path: Path, than: Path) -> bool:
        return False

    def is_directory(self, path: Path) -> bool:
        return str(path) in self.world.nodes and self.world.nodes[str(path)].kind == DIRECTORY

    def read(self, path: Path) -> str:
        return self.world.text(path)

    def texts(self, paths: Iterable[Path]) -> dict[Path, str | None]:
        return {path: self.read(path) if self.exists(path) else None for path in paths}

    def names(self, directory: Path) -> list[str]:
        return self.world.names(directory)

    def target(self, link: Path) -> str:
        node = self.world.nodes.get(str(link))
        return node.text if node and node.kind == LINK else ""

    def statuses(self, tree: Path) -> dict[str, os.stat_result]:
        """Each file has an inode of its own, by its path."""
        if not self.is_directory(tree):
            raise FileNotFoundError(2, "No such file or directory", str(tree))
        paths = [str(tree), *self.world.below(tree)]
        return {os.path.relpath(path, tree): self._status(path) for path in paths}

    def _status(self, path: str) -> os.stat_result:
        node = self.world.nodes[path]
        kind = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, LINK: stat.S_IFLNK}[node.kind]
        size = len(node.text.encode())
        fields = (kind | node.mode, zlib.crc32(path.encode()), 0, 1, 0, 0, size, 0, 0, 0)
        return os.stat_result(fields, {"st_blocks": -(-size // 512), "st_mtime_ns": 0})

    def flush(self, path: Path) -> None:
        if not self.exists(path):
            raise FileNotFoundError(2, "No such file or directory", str(path))

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """There is nobody else here."""
        yield

    def free_space(self, path: Path) -> int:
        return 100 * GIGABYTE

    def free_memory(self) -> int:
        return 8 * GIGABYTE

    def write(
        self, path: Path, text: str, mode: int = 0o644, owner: str = "root", group: str = "root"
    ) -> None:
        with self.world.trouble.change(f"write {path}", fault(path)):
            self._parent(path)
            self._known(owner, group)
            if self.is_directory(path):
                raise IsADirectoryError(21, "Is a directory", str(path))
            self.world.nodes[str(path)] = Node(FILE, text, mode, owner, group)

    def append(self, path: Path, line: str) -> None:
        """Never in trouble: what is told of a plan is no part of it."""
        self.world.directory(path.parent)
        there = self.world.nodes.get(str(path), Node(FILE, "", 0o640))
        self.world.nodes[str(path)] = replace(there, text=f"{there.text}{line}\n")

    def make_directory(
        self, path: Path, mode: int = 0o755, owner: str = "root", group: str = "root"
    ) -> None:
        with self.world.trouble.change(f"make_directory {path}", fault(path)):
            self._known(owner, group)
            if self.exists(path) and not self.is_directory(path):
                raise FileExistsError(17, "File exists", str(path))
            self.world.directory(path.parent)
            self.world.nodes[str(path)] = Node(DIRECTORY, "", mode, owner, group)

    def link(self, path: Path, target: str | Path) -> None:
        with self.world.trouble.change(f"link {path}", fault(path)):
            self._parent(path)
            if self.is_directory(path):
                raise IsADirectoryError(21, "Is a directory", str(path))
            self.world.nodes[str(path)] = Node(LINK, str(target), 0o777)

    def rename(self, path: Path, to: Path) -> None:
        with self.world.trouble.change(f"rename {path}", fault(path)):
            if not self.exists(path):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            self._parent(to)
            if self.world.disk(path) != self.world.disk(to):
                raise OSError(18, "Invalid cross-device link", str(to))
            if self.world.below(to):
                raise OSError(39, "Directory not empty", str(to))
            self._copy(path, to)
            self._delete(path)

    def copy_linked(self, tree: Path, to: Path) -> None:
        with self.world.trouble.change(f"copy_linked {tree}", fault(to)):
            if not self.exists(tree):
                raise CommandFailed(["cp", str(tree)], 1, "No such file or directory")
            self._parent(to)
            self._copy(tree, to)

    def remove(self, path: Path) -> None:
        if self.is_directory(path):
            raise IsADirectoryError(21, "Is a directory", str(path))
        if self.exists(path):
            with self.world.trouble.change(f"remove {path}", fault(path)):
                del self.world.nodes[str(path)]

    def remove_directory(self, path: Path) -> None:
        """Never in trouble: the real one passes by what it cannot remove."""
        if self.is_directory(path) and not self.world.below(path):
            del self.world.nodes[str(path)]

    def remove_tree(self, path: Path) -> None:
        if self.target(path):
            raise NotADirectoryError(f"{path} is a link, not a directory")
        if self.exists(path):
            with self.world.trouble.change(f"remove_tree {path}", fault(path)):
                self._delete(path)

    def _parent(self, path: Path) -> None:
        if not self.is_directory(path.parent):
            raise FileNotFoundError(2, "No such file or directory", str(path))

    def _known(self, owner: str, group: str) -> None:
        if owner not in self.world.users or group not in self.world.groups:
            raise KeyError(f"name not found: {owner}:{group}")

    def _copy(self, tree: Path, to: Path) -> None:
        for path in [str(tree), *self.world.below(tree)]:
            self.world.nodes[f"{to}{path[len(str(tree)) :]}"] = self.world.nodes[path]

    def _delete(self, path: Path) -> None:
        for each in [str(path), *self.world.below(path)]:
            del self.world.nodes[each]
