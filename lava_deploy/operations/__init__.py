"""What an admin asks for: each module plans one thing, out of parts, for `steps` to carry out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lava_deploy.model import Database, Host
    from lava_deploy.playbook import Playbook
    from lava_deploy.postgres import Postgres
    from lava_deploy.report import Report
    from lava_deploy.system import System
    from lava_deploy.web import Web


@dataclass(frozen=True)
class Doors:
    """The ways to the outside that operations hand to parts, and the host they lead to."""

    host: Host
    system: System
    postgres: Callable[[Database], Postgres]
    playbook: Playbook
    web: Web
    report: Report
