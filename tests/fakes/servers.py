"""The other doors to the machine in memory: Postgres, the web, the supervisor, Ansible."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lava_deploy.errors import CommandFailed, Unreachable
from tests.fakes import commands, lava
from tests.fakes.world import World

# supervisor.xmlrpc.Faults
BAD_NAME, ALREADY_STARTED, NOT_RUNNING, ALREADY_ADDED, STILL_RUNNING = 10, 60, 70, 90, 91
CONFIGURATION = "/etc/apache2/conf-available/lava-deploy.conf"
AWAY = Unreachable("the connection was lost")


class FakePostgres:
    """One server; that a database has an owner is all that its rows begin with."""

    def __init__(self, world: World) -> None:
        self.world = world

    def version(self) -> int:
        return 15

    def answers(self) -> bool:
        return True

    def has_role(self, role: str) -> bool:
        return role in self.world.roles

    def has_database(self, name: str) -> bool:
        return name in self.world.databases

    def databases(self, prefix: str) -> list[str]:
        return sorted(name for name in self.world.databases if name.startswith(prefix))

    def data_directory(self) -> str:
        return "/var/lib/postgresql/15/main"

    def size(self, name: str) -> int:
        return 10**7

    @contextmanager
    def frozen(self, name: str) -> Iterator[SimpleNamespace]:
        if name not in self.world.databases:
            raise Unreachable(f"database {name} does not exist")
        begun = [row for row in self.world.databases[name] if row.startswith(lava.RUNNING)]
        jobs = [(int(row.removeprefix(lava.RUNNING)),) for row in sorted(begun)]
        yield SimpleNamespace(id="00000003-0000001B-1", rows=lambda query, *values: jobs)

    def rename_database(self, name: str, to: str) -> None:
        databases = self.world.databases
        if (name in databases) == (to in databases):
            raise CommandFailed(["ALTER", "DATABASE", name, "RENAME", "TO", to], 1, "both or none")
        if name in databases:
            with self.world.trouble.change(f"rename_database {name} {to}", AWAY):
                databases[to] = databases.pop(name)

    def end_sessions(self, name: str) -> None:
        """Nobody else is in a database in memory."""

    def make_role(self, role: str, password: str) -> None:
        with self.world.trouble.change(f"make_role {role}", AWAY):
            self.world.roles[role] = password

    def remove_role(self, role: str) -> None:
        with self.world.trouble.change(f"remove_role {role}", AWAY):
            if role in [rows["owner"] for rows in self.world.databases.values()]:
                raise ValueError(f"role {role} cannot be dropped because some objects depend on it")
            self.world.roles.pop(role, None)

    def make_database(self, name: str, owner: str) -> None:
        with self.world.trouble.change(f"make_database {name}", AWAY):
            if owner not in self.world.roles:
                raise ValueError(f"role {owner} does not exist")
            self.world.databases.setdefault(name, {"owner": owner})

    def remove_database(self, name: str) -> None:
        with self.world.trouble.change(f"remove_database {name}", AWAY):
            self.world.databases.pop(name, None)


class FakeWeb:
    """A page answers when Apache serves its name or path and its web server runs."""

    def __init__(self, world: World) -> None:
        self.world = world

    def status(self, url: str, host_header: str = "") -> int:
        page = re.fullmatch("(https?)://127.0.0.1(/.+)?/v1/healthz/", url)
        assert page, f"unknown page: {url}"
        by = f'ProxyPass {page[2]}/ "unix:' if page[2] else f"ServerName {host_header}\n"
        served = re.compile(rf"(?m)^\s*{re.escape(by)}")
        sites = [path for path, text in self.world.served.items() if served.search(text)]
        if not sites:
            return 404
        name = Path(sites[0]).stem.removeprefix("lava-")
        if page[1] == "https" and not self._speaks_tls(name):
            raise AWAY
        running = {f"lava-deploy-web-a@{name}.service", f"{name}.web-a"} & {*self.world.running}
        return 200 if running and "migrate" in self.world.databases[f"lava-{name}"] else 503

    def _speaks_tls(self, name: str) -> bool:
        """Whether Apache has loaded its module, and a file of the instance's that needs it."""
        site = f"{commands.APACHE}/sites-enabled/lava-{name}.conf"
        module = f"{commands.APACHE}/mods-enabled/ssl.load"
        return module in self.world.served and "SSLEngine on" in self.world.served.get(site, "")

    def wait(self, url: str, seconds: float, host_header: str = "") -> None:
        fault = Unreachable(f"no good answer from {url} in {seconds:g} seconds")
        with self.world.trouble.change(f"wait for {url} of {host_header}", fault):
            if self.status(url, host_header) != 200:
                raise fault

    def supervisor(self, path: Path) -> "FakeSupervisor":
        return FakeSupervisor(self.world)


class FakeSupervisor:
    """The methods of a supervisor daemon, and its faults."""

    def __init__(self, world: World) -> None:
        self.world = world

    def ask(self, method: str, *words: Any, harmless: tuple[int, ...] = ()) -> Any:
        if self.world.programs is None:
            raise Unreachable("nobody answers on supervisor.sock")
        match method, *words:
            case ["getState"]:
                return None
            case ["getAllProcessInfo"]:
                return [self._shown(name) for name in self.world.programs]
            case ["reloadConfig"]:
                commands.read_programs(self.world)
                return None
        with self.world.trouble.change(f"{method} {words[0]}", AWAY):
            fault = self._change(method, *words)
        if fault and fault not in harmless:
            raise CommandFailed(["supervisorctl", method, *map(str, words)], fault, "a fault")
        return None

    def _shown(self, name: str) -> dict[str, str]:
        state = "RUNNING" if name in self.world.running else "STOPPED"
        return {"group": name, "name": name, "statename": state, "description": ""}

    def wait_stopped(self, program: str, seconds: float) -> None:
        """Nothing is ever just ending here."""

    def _change(self, method: str, program: str, *more: Any) -> int:
        """The code of the fault, 0 without."""
        world, programs = self.world, self.world.programs or {}
        match method, *more:
            case ["addProcessGroup"]:
                if program in programs:
                    return ALREADY_ADDED
                if program not in world.available:
                    return BAD_NAME
                commands.start_program(world, program)
            case ["removeProcessGroup"]:
                if program not in programs:
                    return BAD_NAME
                if program in world.running:
                    return STILL_RUNNING
                del programs[program]
            case ["startProcess", False]:
                if program not in programs:
                    return BAD_NAME
                if program in world.running:
                    return ALREADY_STARTED
                commands.launch(world, program)
            case ["signalProcess", "HUP"]:
                assert program in world.running, "what has not loaded its settings dies of it"
                world.end(program)
                commands.launch(world, program)
            case ["stopProcess", False]:
                if program not in programs:
                    return BAD_NAME
                if program not in world.running:
                    return NOT_RUNNING
                world.end(program)
            case _:
                raise AssertionError(f"unknown request: {method} {more}")
        return 0


class FakePlaybook:
    """Makes a record of what it made, and takes back what the record has."""

    def __init__(self, world: World) -> None:
        self.world = world

    def variables(self, name: str) -> dict[str, Any]:
        return {"packages": ["git"]}

    def run(
        self, name: str, variables: Mapping[str, Any], progress: Callable[[str], None]
    ) -> SimpleNamespace:
        record = f"{variables['state']}/host.json"
        fault = CommandFailed(["ansible-playbook", name], 2, "it was made to fail")
        with self.world.trouble.change(f"playbook {name}", fault):
            match name:
                case "host.yml":
                    self.world.packages |= {"git", "qemu-system-x86"}
                    self.world.put(record, "{}")
                    self.world.put(CONFIGURATION, "# ours")
                case "host-undo.yml":
                    self.world.nodes.pop(record, None)
                    self.world.nodes.pop(CONFIGURATION, None)
                case _:
                    raise AssertionError(f"unknown playbook: {name}")
        return SimpleNamespace(changed=(name,))
