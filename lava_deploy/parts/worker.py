"""The dispatcher on the instance's own host, as the server knows it: its token, its address."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lava_deploy import templates

if TYPE_CHECKING:
    from pathlib import Path

    from lava_deploy.model import Instance, Secret
    from lava_deploy.system import System

# A migration of LAVA's leaves it in every database.
EXAMPLE = "example.com"


def registration(name: str, token: Secret) -> list[dict[str, Any]]:
    """The actions, for the instance's console, that make LAVA know the worker; repeatable."""
    return [{"action": "worker", "name": name, "token": token.reveal()}]


def exists(system: System, instance: Instance, name: str) -> bool:
    return system.exists(_configuration(instance, name))


def make(system: System, instance: Instance, name: str) -> None:
    """Name the address at which boards find the files of their jobs, where LAVA cannot.

    LAVA takes that of the default route (lava_dispatcher/utils/network.py); a lab without a way
    out has none.
    """
    if exists(system, instance, name) or _default_route(system):
        return
    address = _first_address(system)
    if address:
        path, user = _configuration(instance, name), instance.user
        system.make_directory(path.parent, 0o750, user, user)
        text = templates.dump({"dispatcher_ip": address})
        system.write(path, text, mode=0o640, owner=user, group=user)


def _default_route(system: System) -> bool:
    routes = json.loads(system.run(["ip", "-json", "route", "show", "default"]).stdout or "[]")
    return any("dev" in route for route in routes)


def _first_address(system: System) -> str:
    """The first IPv4 address that other machines can reach, '' if there is none."""
    shown = system.run(["ip", "-json", "-4", "address", "show", "scope", "global", "up"]).stdout
    found = [address["local"] for link in json.loads(shown) for address in link["addr_info"]]
    return found[0] if found else ""


def _configuration(instance: Instance, name: str) -> Path:
    return instance.etc / "dispatcher.d" / name / "dispatcher.yaml"
