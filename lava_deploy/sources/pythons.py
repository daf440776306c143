"""Which Python can run which LAVA, by the Django that a LAVA is written for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lava_deploy.model import PYTHON

if TYPE_CHECKING:
    from lava_deploy.system import System

# From which year of LAVA on, the oldest Python for it and the newest, as LAVA's pyproject.toml and
# Django's release notes say: Django 2.2 up to Python 3.9, 3.2 with its dependencies up to 3.11.
SINCE = (
    (2026, (3, 11), (3, 14)),
    (2021, (3, 7), (3, 11)),
    (0, (3, 5), (3, 9)),
)


def here(system: System) -> tuple[int, int]:
    """The version of the distribution's Python, which its link to the real program names."""
    major, minor = system.target(PYTHON).rpartition("python")[2].split(".")
    return int(major), int(minor)


def why_not(lava: str, python: tuple[int, int]) -> str:
    """Why a Python cannot run a version of LAVA (`2023.01`), empty when it can."""
    year = re.match(r"\d{4}", lava)
    if not year:
        return ""
    oldest, newest = next(limits for since, *limits in SINCE if int(year[0]) >= since)
    if oldest <= python <= newest:
        return ""
    return f"it needs Python {_text(oldest)} to {_text(newest)}, this host has {_text(python)}"


def numbers(lava: str) -> list[int]:
    """What sorts versions of LAVA."""
    return [int(number) for number in re.findall(r"\d+", lava)]


def _text(python: tuple[int, int]) -> str:
    return ".".join(map(str, python))
