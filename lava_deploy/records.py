"""What is known of snapshots and stands in none of them: which are kept, what was found broken."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    Statuses = Mapping[str, os.stat_result]

FORMAT = 1
ABOUT = "What lava-deploy knows of the snapshots beside this file; nothing here is to be edited."


@dataclass
class Records:
    """By the id of a snapshot, whether it is kept and how it was last verified; broken files.

    `broken` has, by what tells a file from all others, where it was when it was found broken: what
    is wrong with it is wrong in every snapshot that has the file.
    """

    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def known_faults(self, id: str, statuses: Statuses) -> dict[str, str]:
        """What is known to be wrong with a snapshot, by the paths of its files."""
        shared = {
            path: f"is one file with {self.broken[identity]}, which was found broken"
            for path, identity in identities(statuses).items()
            if identity in self.broken
        }
        its = self.snapshots.get(id, {})
        found = its.get("faults", {}).items()
        own = {path: f"{fault} (found at {its['verified']})" for path, fault in found}
        return {**shared, **own}

    def remember(
        self, id: str, statuses: Statuses, faults: Mapping[str, str], when: str, level: str
    ) -> None:
        """Take over what a verification found, in place of what was known of the same files."""
        its = self.snapshots.setdefault(id, {})
        its |= {"verified": when, "level": level, "faults": dict(faults)}
        for path, identity in identities(statuses).items():
            self.broken.pop(identity, None)
            if path in faults:
                self.broken[identity] = f"{id}/{path}"

    def forget_others(self, there: Mapping[str, Statuses]) -> None:
        """Forget snapshots and files that there are no more."""
        self.snapshots = {id: its for id, its in self.snapshots.items() if id in there and its}
        if self.broken:
            files = {file for statuses in there.values() for file in identities(statuses).values()}
            self.broken = {file: at for file, at in self.broken.items() if file in files}


def identities(statuses: Statuses) -> dict[str, str]:
    """What tells each file from all others: inodes alone are given to new files again."""
    return {
        path: f"{status.st_ino}:{status.st_mtime_ns}"
        for path, status in statuses.items()
        if stat.S_ISREG(status.st_mode)
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
