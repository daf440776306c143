"""What is known of snapshots and stands in none of them: which are kept, what was found broken."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from lava_deploy.inventory import Inventory

FORMAT = 1
# How a snapshot was verified: each file read; each pack unpacked and the dump gone through, too;
# restored into an instance, which ran a job.
LEVELS = READ, UNPACKED, REHEARSED = "read", "unpacked", "rehearsed"
ABOUT = "What lava-deploy knows of the snapshots beside this file; nothing here is to be edited."


@dataclass
class Records:
    """By the id of a snapshot, whether it is kept and how it was last verified; broken files.

    `broken` has, by what tells a file from all others, where it was when it was found broken: what
    is wrong with it is wrong in every snapshot that has the file.
    """

    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def known_faults(self, id: str, files: Inventory) -> dict[str, str]:
        """What is known to be wrong with a snapshot, by the paths of its files."""
        shared = {
            path: f"is one file with {self.broken[identity]}, which was found broken"
            for path, identity in identities(files).items()
            if identity in self.broken
        }
        its = self.snapshots.get(id, {})
        found = its.get("faults", {}).items()
        own = {path: f"{fault} (found at {its['verified']})" for path, fault in found}
        return {**shared, **own}

    def remember(
        self, id: str, files: Inventory, faults: Mapping[str, str], when: str, level: str
    ) -> None:
        """Take over what a verification found, in place of what was known of the same files."""
        its = self.snapshots.setdefault(id, {})
        proven = {} if faults else its.get("proven", {})
        its |= {"verified": when, "faults": dict(faults), "proven": {**proven, level: when}}
        for path, identity in identities(files).items():
            self.broken.pop(identity, None)
            if path in faults:
                self.broken[identity] = f"{id}/{path}"

    def proof(self, id: str) -> tuple[str, str]:
        """The most that a snapshot was verified by since it was last found broken, and when."""
        its = self.snapshots.get(id, {})
        found = [(level, its.get("proven", {}).get(level, "")) for level in LEVELS]
        return next((one for one in reversed(found) if one[1]), ("", ""))

    def forget_others(self, ids: Collection[str], there: Iterable[Inventory]) -> None:
        """Forget snapshots that there are no more, and broken files that are in none of them."""
        self.snapshots = {id: its for id, its in self.snapshots.items() if id in ids and its}
        if self.broken:
            files = {identity for one in there for identity in identities(one).values()}
            self.broken = {file: at for file, at in self.broken.items() if file in files}


def identities(files: Inventory) -> dict[str, str]:
    """What tells each file, with what should be in it, from all others.

    Inodes alone are given to new files again. What was damaged before a snapshot came to share it
    is no fault of that snapshot.
    """
    return {
        path: f"{status.st_ino}:{status.st_mtime_ns}:{files.sums[path]}"
        for path, status in files.statuses.items()
        if path in files.sums
    }


def text(records: Records) -> str:
    """The text of the file; '' when there is nothing to be known."""
    if not records.snapshots and not records.broken:
        return ""
    known = {"snapshots": records.snapshots, "broken": records.broken}
    return json.dumps({"about": ABOUT, "format": FORMAT, **known}, indent=2) + "\n"


def parse(text: str) -> Records:
    """What stands in the file. Raises ValueError for one that is damaged, or of another format."""
    said = json.loads(text) if text else {"format": FORMAT, "snapshots": {}, "broken": {}}
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    snapshots, broken = said.get("snapshots"), said.get("broken")
    if not isinstance(broken, dict) or not isinstance(snapshots, dict):
        raise ValueError("it lacks what is known")
    return Records(snapshots, broken)
