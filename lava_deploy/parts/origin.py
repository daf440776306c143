"""What a restore takes the state of an instance from: a snapshot, or what `legacy.py` reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lava_deploy.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from lava_deploy.packs import Packs
    from lava_deploy.snapshot import Manifest
    from lava_deploy.system import System

    Tell = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Described:
    """What is known of an origin that was verified.

    `name` is for people. `version` is LAVA's, '' where nobody wrote it down; `running` are jobs
    that had begun and not ended; `media` is where the media lay, '' for some other place than here.
    `worker` is the name of the local worker, '' for none, None where that is not known. Sizes are
    in bytes: of the database on its server, of the media unpacked. `place` is where in its archive
    the media are.
    """

    name: str
    version: str = ""
    running: tuple[int, ...] = ()
    media: str = ""
    worker: str | None = None
    database_size: int = 0
    media_size: int = 0
    place: str = ""


class Origin(Protocol):
    """What a restore needs of it, whatever its form; it is verified before."""

    @property
    def dump(self) -> Path:
        """What pg_restore reads."""

    @property
    def ways(self) -> dict[str, str]:
        """What to do when a release cannot bring the database up: `unknown` or `too_old`."""

    def configuration(self) -> str:
        """The text of its instance.yaml, '' if it has none. Raises FileNotFoundError."""

    def untouched(self, media: Path, tell: Tell) -> set[str]:
        """The names of groups of which every file is just as it has them."""

    def unpack(self, but: Collection[str], to: Path, owner: str, tell: Tell) -> None:
        """Unpack all groups but those named into a directory of that user's."""

    def extract(self, to: Path) -> None:
        """Unpack what it has of etc/ to `to`/etc, laid out as an instance has it."""


@dataclass(frozen=True)
class FromSnapshot:
    """A snapshot as the origin of a restore."""

    system: System
    packs: Packs
    path: Path

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.path)

    @property
    def dump(self) -> Path:
        return self.snapshot.dump

    @property
    def ways(self) -> dict[str, str]:
        way = "--with-release installs the snapshot's own release as well."
        return {"unknown": way, "too_old": way}

    def configuration(self) -> str:
        return self.packs.read(self.snapshot.etc, "instance.yaml").decode()

    def untouched(self, media: Path, tell: Tell) -> set[str]:
        return {*self.packs.untouched(media, self.packs.read_index(self.snapshot.index), tell)}

    def unpack(self, but: Collection[str], to: Path, owner: str, tell: Tell) -> None:
        media = self.snapshot.media
        found = by_group(media / name for name in self.system.names(media))
        chosen = [path for name, paths in found.items() if name not in but for path in paths]
        self.packs.unpack(chosen, to, *self.packs.owner(owner), tell)

    def extract(self, to: Path) -> None:
        self.packs.extract(self.snapshot.etc, to)


def described(manifest: Manifest) -> Described:
    """What a snapshot says of itself, as far as a restore asks."""
    packs = [one for one in manifest.members if one.path.startswith("media/")]
    return Described(
        f"{manifest.instance}/{manifest.id}",
        manifest.version,
        manifest.running,
        manifest.media,
        manifest.worker,
        manifest.database_size,
        sum(one.raw for one in packs),
    )


def by_group(packed: Iterable[Path]) -> dict[str, list[Path]]:
    """Packs by the names of their groups: a large one has several, NAME.1, NAME.2 …"""
    found: dict[str, list[Path]] = {}
    for path in packed:
        found.setdefault(path.name.partition(".")[0], []).append(path)
    return found
