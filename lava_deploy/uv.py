"""How uv and pip are called: this tool's own, with the index that the host uses."""

from __future__ import annotations

import configparser
import sys
import tomllib
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


def run_pip(system: System, python: Path, words: Sequence[str | Path]) -> None:
    """Run this tool's pip for another Python. Raises CommandFailed, whose hint is about the index.

    For what uv cannot do: to download.
    """
    pip = [sys.executable, *"-I -m pip --quiet --disable-pip-version-check --no-input".split()]
    # nothing is to be written into the virtualenv of that Python
    told = {**pip_settings(system), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        system.run([*pip, "--no-cache-dir", "--python", python, *words], environment=told)
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


def pip_settings(system: System) -> dict[str, str]:
    """What pip is told besides its own configuration, which it reads itself.

    Where only uv was told of an index, pip gets that one.
    """
    environment = {}
    if system.exists(CERTIFICATES):
        environment["REQUESTS_CA_BUNDLE"] = str(CERTIFICATES)
    if system.exists(UV_SETTINGS) and not system.exists(PIP_SETTINGS):
        told = tomllib.loads(system.read(UV_SETTINGS))
        told |= told.get("pip", {})
        listed = told.get("index", ())
        default = [one["url"] for one in listed if one.get("default")]
        more = [one["url"] for one in listed if not one.get("default") and not one.get("explicit")]
        default += [told["index-url"]] if "index-url" in told else []
        more += told.get("extra-index-url", ())
        if default:
            environment["PIP_INDEX_URL"] = default[0]
        if more:
            environment["PIP_EXTRA_INDEX_URL"] = " ".join(more)
    return environment
