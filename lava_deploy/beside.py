"""What a restore prepares beside an instance, and what it keeps of the state before: all names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lava_deploy.model import Instance

# Where media on a disk of their own are prepared: below the media directory, which backups pass by.
HIDDEN = ".lava-deploy"


@dataclass(frozen=True)
class Restoring:
    """What is to become the instance's state: a database, media, etc; gone once it has."""

    instance: Instance

    @property
    def database(self) -> str:
        return f"{self.instance.database}_restoring"

    @property
    def root(self) -> Path:
        return self.instance.root / "restoring"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def configuration(self) -> Path:
        """instance.yaml as it is to be."""
        return self.root / "instance.yaml"

    @property
    def worker(self) -> Path:
        return self.root / "lava-dispatcher"

    @property
    def extracted(self) -> Path:
        """What a snapshot has of etc/, as it has it."""
        return self.root / "extracted"

    def media(self, own_disk: bool) -> Path:
        """Where media wait, on their disk."""
        return (self.instance.media / HIDDEN if own_disk else self.root) / "media"


def befores(instance: Instance) -> Path:
    """Where states before restores are kept, a directory for each."""
    return instance.root / "before"


@dataclass(frozen=True)
class Before:
    """What a restore replaced, kept until it is undone or too old; `stamp` is when that was."""

    instance: Instance
    stamp: str

    @property
    def database(self) -> str:
        digits = self.stamp.replace("-", "")
        return f"{self.instance.database}_before_{digits}"

    @property
    def root(self) -> Path:
        return befores(self.instance) / self.stamp

    def media(self, own_disk: bool) -> Path:
        """Where the media that were replaced are, on their disk."""
        return self.instance.media / HIDDEN / self.stamp if own_disk else self.root / "media"

    @property
    def record(self) -> Path:
        """What was exchanged for what; without it, nothing was yet."""
        return self.root / "record.json"


@dataclass(frozen=True)
class Exchange:
    """A path of the instance: what is there goes `out`, what comes in its place waits at `into`.

    All three are on one file system. What `leaves` is there before, what `comes` afterwards; one
    of the two may be missing.
    """

    path: Path
    into: Path
    out: Path
    comes: bool
    leaves: bool
