"""How many processes of the past Apache can have."""

from pathlib import Path

import pytest

from lava_deploy.parts import apache


class Machine:
    """One with as many children of Apache's, and a few other processes."""

    def __init__(self, children: int, *, restarted: bool) -> None:
        self.restarted = restarted
        self.stats = {"1": "1 (systemd) S 0", "700": "700 (apache2) S 1", "9": "9 (a) b) S 1"}
        self.stats |= {f"{900 + n}": f"{900 + n} (apache2) S 700 1 1" for n in range(children)}

    def exists(self, path: Path) -> bool:
        return path == apache.MAIN

    def names(self, path: Path) -> list[str]:
        return [*self.stats, "net", "4711"]

    def read(self, path: Path) -> str:
        if path == apache.MAIN:
            return "700\n"
        if path.parent.name not in self.stats:
            raise FileNotFoundError
        return self.stats[path.parent.name]

    def is_newer(self, path: Path, than: Path) -> bool:
        assert (path.name, than) == ("700", apache.LIMITS)
        return self.restarted


@pytest.mark.parametrize(
    ("children", "restarted", "full"),
    [
        (2, False, False),
        (12, False, False),
        (13, False, True),
        (13, True, False),
        (253, True, True),
    ],
)
def test_a_reload_that_would_be_the_last_is_refused(children, restarted, full):
    found = apache.faults(Machine(children, restarted=restarted))
    assert bool(found) == full and all(f"has {children} processes" in fault for fault in found)
