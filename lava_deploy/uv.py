"""How uv is called: this tool's own, with a cache on the host and the index that the host uses."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy.errors import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lava_deploy.system import System

CACHE = "uv"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
UV_SETTINGS, PIP_SETTINGS = Path("/etc/uv/uv.toml"), Path("/etc/pip.conf")
INDEX = (
    "Packages come from the index that uv or pip is told of, in "
    f"{UV_SETTINGS} or {PIP_SETTINGS}. It has to answer, and to have what this LAVA asks for, "
    "unchanged. `lava-deploy revisions` shows other revisions."
)


def run(
    system: System,
    cache: Path,
    words: Sequence[str | Path],
    *,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run uv, and return what it says. Raises CommandFailed, whose hint is about the index."""
    import uv

    # uv's lock files there are open to all, who could keep it waiting
    system.make_directory(cache / CACHE, 0o700)
    told = {**settings(system, cache), **(environment or {})}
    try:
        return system.run([uv.find_uv_bin(), *words], stdin=stdin, environment=told).stdout
    except CommandFailed as failed:
        failed.hint = failed.hint or INDEX
        raise


def settings(system: System, cache: Path) -> dict[str, str]:
    """What uv is told besides its own configuration, which it reads itself.

    Where only pip was told of an index, uv gets that one.
    """
    environment = {
        "UV_CACHE_DIR": str(cache / CACHE),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
    }
    if system.exists(CERTIFICATES):
        # The second is the name that older versions know.
        environment |= {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}
    if system.exists(PIP_SETTINGS) and not system.exists(UV_SETTINGS):
        pip = configparser.RawConfigParser()
        pip.read_string(system.read(PIP_SETTINGS))
        index = pip.get("global", "index-url", fallback="")
        if index:
            environment["UV_DEFAULT_INDEX"] = index
    return environment
