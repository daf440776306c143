"""A directory as the lava-deployment-tool of 2012 left its backups in: a dump and two tar files.

Nobody wrote down which LAVA it is of; its database tells which migrations it had.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from lava_deploy import templates
from lava_deploy.snapshot import LEGACY, MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from os import stat_result
    from pathlib import Path

    from lava_deploy.packs import Packs
    from lava_deploy.packs.archives import Archive
    from lava_deploy.system import System

    Tell = Callable[[int, int, int], None]

DUMP, MEDIA, ETC = LEGACY
# Where jobs leave their logs, in the media of every LAVA.
OUTPUT = "job-output"
# What LAVA makes again when a log is first read. In an archive that was made while jobs ran, it may
# be ahead of its log.
LOG_INDEXES = ("output.idx",)
# What of its etc/ is taken over, and the directory that had the first three.
DIRECTORIES = ("devices", "device-types", "health-checks", "dispatcher.d")
DISPATCHER_CONFIG = "dispatcher-config"
# Files, by the names that LAVA knows them by now, and had for them before.
FILES = {"env.yaml": ("env.yaml",), "env-dut.yaml": ("env-dut.yaml", "env.dut.yaml")}
# Its settings, in the order in which LAVA reads them. Those that describe the host it was on cannot
# be told from others: an admin takes what is still wanted into instance.yaml.
SETTINGS = ("instance.conf", "secret_key.conf", "settings.conf", "settings.yaml")
SETTINGS_DIRECTORY = "settings.d"
# lava_server/settings/config_file.py, and YAML or JSON of later releases.
SECRET_KEY = re.compile(r"""^\s*['"]?SECRET_KEY['"]?\s*[=:]\s*(['"])(.+)\1[\s,]*$""", re.MULTILINE)
# Where they go in the new etc/.
FORMER = "former"
IN_BETWEEN = "2023.01"


def exists(system: System, path: Path) -> bool:
    """Whether a directory is meant to be one of these, and no snapshot."""
    found = {*system.names(path)} if system.is_directory(path) else set()
    return not found.isdisjoint(LEGACY) and MANIFEST not in found


@dataclass(frozen=True)
class Seen:
    """What a look through the archives found: faults in words, and of the media their place there.

    `size` is that of the media, in bytes; `beside` are directories that are not part of them.
    """

    faults: tuple[str, ...]
    place: str = ""
    size: int = 0
    beside: tuple[str, ...] = ()


def look(system: System, packs: Packs, path: Path, tell: Tell, *, database_only: bool) -> Seen:
    """See whether all is there, and read the archives whole; the dump is for others to read."""
    needed = (DUMP,) if database_only else (DUMP, MEDIA, ETC)
    missing = [f"{name}: is missing" for name in needed if not system.exists(path / name)]
    if missing or database_only:
        return Seen(tuple(missing))
    media = packs.look(path / MEDIA, [OUTPUT], tell)
    etc = packs.look(path / ETC, DIRECTORIES, tell)
    faults = [
        *(f"{MEDIA}: {fault}" for fault in media.faults or _place_faults(media)),
        *(f"{ETC}: {fault}" for fault in etc.faults),
    ]
    if not etc.faults and not any(etc.places.values()):
        faults.append(f"{ETC}: has none of {', '.join(DIRECTORIES)}, so it is no etc/ of a LAVA")
    place = min(media.places[OUTPUT], key=_depth, default="")
    return Seen(tuple(faults), place, media.raw, _beside(media, place))


def _place_faults(media: Archive) -> list[str]:
    """Why it cannot be told where in their archive the media are."""
    places = sorted(sorted(media.places[OUTPUT]), key=_depth)
    if not places:
        return [f"has no directory {OUTPUT}, so it is not the media of a LAVA"]
    if [*map(_depth, places)].count(_depth(places[0])) > 1:
        return [f"has several directories {OUTPUT}: in {' and in '.join(places)}"]
    return []


def _depth(place: str) -> int:
    return len(PurePath(place).parts)


def _beside(media: Archive, place: str) -> tuple[str, ...]:
    """The topmost of the directories that are neither in the media nor on the way to them."""
    way = PurePath(place)
    out = {
        one for one in media.directories if not (way in (one, *one.parents) or one in way.parents)
    }
    return tuple(sorted(str(one) for one in out if not out.intersection(one.parents)))


@dataclass(frozen=True)
class FromLegacy:
    """Such a directory as the origin of a restore; `origin.Origin` says what the functions do."""

    system: System
    packs: Packs
    path: Path
    place: str = ""  # of the media in their archive

    @property
    def dump(self) -> Path:
        return self.path / DUMP

    @property
    def ways(self) -> dict[str, str]:
        return {
            "unknown": "It is of a newer LAVA, or of one with changes of its own. "
            "Install that revision as an instance, and restore into it.",
            "too_old": f"Install an instance of LAVA {IN_BETWEEN}, which can migrate it, restore "
            "into that, back it up, and restore its snapshot into this one.",
        }

    def configuration(self) -> str:
        return ""

    def untouched(self, media: Path, tell: Tell) -> set[str]:
        return set()

    def unpack(self, but: Collection[str], to: Path, owner: str, tell: Tell) -> None:
        """All at once, so that nothing is missing as soon as any group is there."""
        if not but:
            uid, gid = self.packs.owner(owner)
            self.packs.unpack_below(self.path / MEDIA, self.place, to, uid, gid, LOG_INDEXES, tell)

    def extract(self, to: Path) -> None:
        """What LAVA reads today at the places where it does, and former settings beside."""
        archive, etc = to / "archive", to / "etc"
        for directory in (archive, etc, etc / FORMER):
            self.system.make_directory(directory, 0o700)
        self.packs.unpack_below(self.path / ETC, "", archive, 0, 0)
        found = self.system.statuses(archive)
        settings = _settings(found)
        for name, path in _taken(found).items():
            self.system.rename(archive / path, etc / name)
        key = self._secret_key([archive / path for path in settings])
        if key:
            text = templates.dump({"SECRET_KEY": key})
            self.system.write(etc / "secrets.yaml", text, mode=0o600)
        for path in settings:
            self.system.rename(archive / path, etc / FORMER / path.replace("/", "-"))

    def _secret_key(self, paths: Sequence[Path]) -> str:
        """The last one, as LAVA takes it that reads all of them in order."""
        keys = [match for path in paths for match in SECRET_KEY.finditer(self._text(path))]
        return keys[-1][2] if keys else ""

    def _text(self, path: Path) -> str:
        """The text of a file, '' if it is none in UTF-8."""
        try:
            return self.system.read(path)
        except UnicodeDecodeError:
            return ""


def _taken(found: Mapping[str, stat_result]) -> dict[str, str]:
    """What is taken over: its name in an instance's etc/, its path in the archive."""
    files = {path for path, status in found.items() if stat.S_ISREG(status.st_mode)}
    directories = {path for path, status in found.items() if stat.S_ISDIR(status.st_mode)}
    # out of dispatcher.d before that is taken itself; those of single workers stay in it
    taken = {
        name: _nearest(path for path in files if _name(path) in names and not _is_of_worker(path))
        for name, names in FILES.items()
    }
    for name in DIRECTORIES:
        taken[name] = _nearest(path for path in directories if _name(path) == name)
    return {name: path for name, path in taken.items() if path}


def _nearest(paths: Iterable[str]) -> str:
    """Of several directories of one name, that below dispatcher-config, or the topmost."""

    def rank(path: str) -> tuple[bool, int, str]:
        return _name(path.rpartition("/")[0]) != DISPATCHER_CONFIG, path.count("/"), path

    return min(paths, key=rank, default="")


def _settings(found: Mapping[str, stat_result]) -> list[str]:
    """The paths of files with settings, in the order in which LAVA reads them."""

    def rank(path: str) -> tuple[int, str]:
        name = _name(path)
        return SETTINGS.index(name) if name in SETTINGS else len(SETTINGS), path

    files = [path for path, status in found.items() if stat.S_ISREG(status.st_mode)]
    of_directory = re.compile(rf"(.*/)?{re.escape(SETTINGS_DIRECTORY)}/[^/]+\.yaml")
    return sorted(
        (path for path in files if _name(path) in SETTINGS or of_directory.fullmatch(path)),
        key=rank,
    )


def _is_of_worker(path: str) -> bool:
    return DIRECTORIES[-1] in path.split("/")[:-2]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
