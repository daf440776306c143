"""Random secrets of an instance that stand in a file of their own, one line each, 0600."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from lava_deploy.model import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from lava_deploy.system import System

# LAVA's tables hold tokens of up to 32 (workers) and 128 (API) letters and digits.
TOKEN_BYTES = 16


def make(system: System, path: Path) -> Secret:
    """The secret in a file; a new one, 32 hexadecimal digits, when there is no such file yet."""
    if not system.exists(path):
        system.write(path, secrets.token_hex(TOKEN_BYTES) + "\n", mode=0o600)
    return read(system, path)


def exists(system: System, path: Path) -> bool:
    return system.exists(path)


def read(system: System, path: Path) -> Secret:
    """The secret in a file. Raises FileNotFoundError."""
    return Secret(system.read(path).strip())
