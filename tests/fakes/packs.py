"""The door to packs on the machine in memory, with the methods of lava_deploy.packs.Packs.

A pack is a file with its entries in plain JSON.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lava_deploy.beside import HIDDEN
from lava_deploy.packs.index import Index
from lava_deploy.snapshot import PACK, Group, Member, Packed, State
from tests.fakes.system import fault
from tests.fakes.world import DIRECTORY, FILE, Node, World

OTHER = "other"
DAY = re.compile(r"job-output/(\d{4})/(\d\d)/(\d\d)")
OLD = re.compile(r"job-output/job-(\d+)")
# Where days and old jobs are.
PLACES = re.compile(r"job-output(/\d{4}(/\d\d)?)?")
# All that a machine in memory knows of time: the scan came after every change.
NOW = 10**18


class FakePacks:
    def __init__(self, world: World) -> None:
        self.world = world

    # What there is

    def groups(self, media: Path) -> list[Group]:
        paths = [path for path in self._entries(media) if self._is_directory(media / path)]
        days = sorted(filter(DAY.fullmatch, paths), reverse=True)
        jobs = sorted((int(old[1]), path) for path in paths if (old := OLD.fullmatch(path)))
        thousands = itertools.groupby(jobs, lambda job: job[0] // 1000)
        return [
            *(Group("-".join(day.split("/")[1:]), (day,)) for day in days),
            *(Group(f"old-{one}", tuple(job[1] for job in some)) for one, some in thousands),
            Group(OTHER, ()),
        ]

    def states(self, media: Path, groups: Sequence[Group], tell: Any = None) -> dict[str, State]:
        return {group.name: self._state(media, self._of(media, group, groups)) for group in groups}

    def untouched(self, media: Path, known: Index, tell: Any = None) -> list[str]:
        found = self.states(media, self.groups(media))
        return [name for name, state in found.items() if state == known.states.get(name)]

    def loose(self, media: Path) -> list[str]:
        roots = {root for group in self.groups(media) for root in group.roots}
        entries = self._entries(media)
        loose = [one for one in entries if one not in roots and not self._is_place(media, one)]
        return [one for one in loose if not {*map(str, Path(one).parents)} & {*loose, *roots}]

    def on_one_disk(self, path: Path, other: Path) -> bool:
        return self.world.disk(path) == self.world.disk(other)

    def now(self) -> int:
        return NOW

    def owner(self, user: str) -> tuple[Any, Any]:
        """Names, where the real one has numbers."""
        if user not in self.world.users:
            raise KeyError(f"name not found: {user}")
        return user, user

    # Writing packs

    def share(self, path: Path, to: Path) -> None:
        text = self.world.text(path)
        with self.world.trouble.change(f"share {to}", fault(to)):
            self._put(to, text)

    def pack(
        self,
        media: Path,
        groups: Sequence[Group],
        to: Path,
        known: Mapping[str, State],
        scanned: int,
        rate: int = 0,
        tell: Any = None,
    ) -> Iterator[Packed]:
        for group in groups:
            paths = self._of(media, group, groups)
            state = self._state(media, paths)
            if state == known.get(group.name):
                yield Packed(group, state, ())
                continue
            pack = to / f"{group.name}{PACK}"
            with self.world.trouble.change(f"pack {pack}", fault(pack)):
                self._put(pack, json.dumps([self._entry(media / one, one) for one in paths]))
            yield Packed(group, state, (self.member(pack, to),))

    def bundle(
        self, to: Path, entries: Sequence[tuple[Path, str]]
    ) -> tuple[Member, tuple[tuple[str, str], ...]]:
        there = [(path, name) for path, name in entries if str(path) in self.world.nodes]
        packed = [self._entry(path, name) for path, name in there]
        for path, name in there:
            packed += [self._entry(path / one, f"{name}/{one}") for one in self._entries(path)]
        with self.world.trouble.change(f"bundle {to}", fault(to)):
            self._put(to, json.dumps(packed))
        skipped = tuple(
            (name, "is not there") for path, name in entries if (path, name) not in there
        )
        return self.member(to, to.parent), skipped

    def write_index(
        self, path: Path, groups: Mapping[str, tuple[State, Sequence[str]]], scanned: int
    ) -> None:
        content = {name: [asdict(state), list(packs)] for name, (state, packs) in groups.items()}
        with self.world.trouble.change(f"write_index {path}", fault(path)):
            self._put(path, json.dumps(content))

    # Reading packs

    def read_index(self, path: Path) -> Index:
        if str(path) not in self.world.nodes:
            return Index()
        content = json.loads(self.world.text(path))
        return Index(
            NOW,
            {name: State(**state) for name, (state, _) in content.items()},
            {name: tuple(packs) for name, (_, packs) in content.items()},
        )

    def unpack(self, packs: Sequence[Path], to: Path, uid: Any, gid: Any, tell: Any = None) -> None:
        """File by file, so that it can be broken off in the midst of a pack."""
        for pack in packs:
            for name, kind, text, mode, _, _ in json.loads(self.world.text(pack)):
                with self.world.trouble.change(f"unpack {to / name}", fault(to / name)):
                    self.world.directory((to / name).parent)
                    self.world.nodes[str(to / name)] = Node(kind, text, mode, uid, gid)

    def extract(self, pack: Path, to: Path, names: Collection[str] | None = None) -> None:
        with self.world.trouble.change(f"extract {pack}", fault(to)):
            for name, *node in json.loads(self.world.text(pack)):
                within = {name, *map(str, Path(name).parents)}
                if names is None or within & {*names}:
                    self.world.directory((to / name).parent)
                    self.world.nodes[str(to / name)] = Node(*node)

    def read(self, pack: Path, name: str) -> bytes:
        for each, _, text, *_ in json.loads(self.world.text(pack)):
            if each == name:
                return text.encode()
        raise FileNotFoundError(f"{pack} has no {name}")

    def member(self, path: Path, base: Path) -> Member:
        content = self.world.text(path).encode()
        digest = hashlib.sha256(content).hexdigest()
        return Member(str(path.relative_to(base)), len(content), digest, len(content))

    def members(self, directory: Path, base: Path) -> list[Member]:
        files = [one for one in self.world.below(directory) if self.world.nodes[one].kind == FILE]
        return [self.member(Path(one), base) for one in sorted(files)]

    def check(self, files: Sequence[tuple[Path, int, str]], tell: Any = None) -> dict[Path, str]:
        return {
            path: "has other bytes"
            for path, _, sha256 in files
            if self.member(path, path.parent).sha256 != sha256
        }

    # Trees

    def _entries(self, tree: Path) -> list[str]:
        """The paths of all below a directory, but for what a restore prepares."""
        length = len(f"{tree}/")
        found = (path[length:] for path in self.world.below(tree))
        return sorted(one for one in found if one.split("/")[0] != HIDDEN)

    def _is_directory(self, path: Path) -> bool:
        return self.world.nodes[str(path)].kind == DIRECTORY

    def _is_place(self, media: Path, path: str) -> bool:
        return bool(PLACES.fullmatch(path)) and self._is_directory(media / path)

    def _of(self, media: Path, group: Group, groups: Sequence[Group]) -> list[str]:
        """What is in a group; `groups` are all there are."""
        others = tuple(f"{root}/" for one in groups for root in one.roots)
        wanted = tuple(f"{root}/" for root in group.roots)
        entries = self._entries(media)
        if wanted:
            return [one for one in entries if f"{one}/".startswith(wanted)]
        return [one for one in entries if not f"{one}/".startswith(others)]

    def _state(self, media: Path, paths: Sequence[str]) -> State:
        entries = [self._entry(media / path, path) for path in paths]
        digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
        files = [text for _, kind, text, *_ in entries if kind == FILE]
        return State(digest, 0, len(files), sum(map(len, files)))

    def _entry(self, path: Path, name: str) -> list[Any]:
        node = self.world.nodes[str(path)]
        return [name, node.kind, node.text, node.mode, node.owner, node.group]

    def _put(self, path: Path, text: str) -> None:
        if str(path.parent) not in self.world.nodes:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        self.world.nodes[str(path)] = Node(FILE, text, 0o600)
