"""The index of a snapshot's media: how they were found, so that the next backup need not read."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from lava_deploy.snapshot import State

FORMAT = 1
# More than the index of a million days.
LARGEST = 1024**3


@dataclass(frozen=True)
class Index:
    """When a scan began (nanoseconds since 1970), and by group what it found and its packs."""

    scanned: int = 0
    states: Mapping[str, State] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def write(path: Path, groups: Mapping[str, tuple[State, Sequence[str]]], scanned: int) -> None:
    """Write an index to the disk, 0600, never into a file that is there."""
    content = {
        "format": FORMAT,
        "scanned": scanned,
        "groups": {
            name: {"state": dataclasses.asdict(state), "packs": list(packs)}
            for name, (state, packs) in groups.items()
        },
    }
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(file, "wb") as written:
        written.write(compressor.compress(json.dumps(content).encode()))
        written.flush()
        os.fsync(file)


def read(path: Path) -> Index:
    """What was written; nothing if that cannot be understood: it only saves work."""
    try:
        decompressor = zstandard.ZstdDecompressor()
        content = json.loads(decompressor.decompress(path.read_bytes(), max_output_size=LARGEST))
        groups = content["groups"] if content["format"] == FORMAT else {}
        return Index(
            int(content["scanned"]),
            {name: State(**group["state"]) for name, group in groups.items()},
            {name: tuple(group["packs"]) for name, group in groups.items()},
        )
    except (OSError, zstandard.ZstdError, ValueError, KeyError, TypeError, AttributeError):
        return Index()
