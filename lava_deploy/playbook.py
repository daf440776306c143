"""The door to Ansible, which makes hosts ready. Above it nobody knows that it is Ansible."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lava_deploy.errors import CommandFailed

# This machine is changed without ssh; modules run in the distribution's Python, which alone has
# the bindings to apt.
LOCAL = "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"
SECONDS_BETWEEN_LOOKS = 1


@dataclass(frozen=True)
class Converged:
    """What a playbook had to change; nothing if the hosts were as it wants them."""

    changed: tuple[str, ...]


@dataclass
class _Events:
    """What a running playbook has told so far."""

    progress: Callable[[str], None]
    changed: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def take(self, event: Mapping[str, Any]) -> None:
        """One event of ansible-runner: a task begins, or ended well or badly on one host."""
        kind, details = event.get("event", ""), event.get("event_data", {})
        result = details.get("res") or {}
        if kind == "playbook_on_task_start":
            self.progress(details.get("task", ""))
        elif kind == "runner_on_ok" and result.get("changed"):
            self.changed += result.get("changes") or [details.get("task", "")]
        elif kind == "runner_on_unreachable" or (
            kind == "runner_on_failed" and not details.get("ignore_errors")
        ):
            self.failures.append(f"{details.get('task', '')}: {_said(result)}")


class Playbook:
    """Runs the playbooks of this project; each may be repeated, which is also the repair."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is the admin's, with the proxies that downloads go through."""
        self._environment = dict(os.environ if environment is None else environment)

    def variables(self, name: str) -> dict[str, Any]:
        """The variables of a playbook with their defaults, not evaluated."""
        text = _home().joinpath(name).read_text(encoding="utf-8")
        return yaml.safe_load(text)[0].get("vars", {})

    def run(
        self,
        name: str,
        variables: Mapping[str, Any],
        progress: Callable[[str], None],
        secrets: Mapping[str, str] | None = None,
        hosts: str = LOCAL,
    ) -> Converged:
        """Carry out a playbook (`host.yml`) and tell what it changed.

        `progress` gets the name of each task as it begins, in another thread. `secrets` are
        variables that are on disk in a file of mode 0600 only, while the playbook runs. `hosts` is
        an inventory in Ansible's INI format. A playbook is carried out to its end, even if the
        admin interrupts meanwhile. Raises CommandFailed with the failing task's message.
        """
        from importlib.resources import as_file

        # in memory: what a killed run leaves there is gone at the next boot
        with tempfile.TemporaryDirectory(prefix="lava-deploy-playbook-", dir="/run") as private:
            directory = Path(private)
            _write(directory / "inventory", hosts)
            _write(directory / "variables.json", json.dumps(dict(variables)))
            _write(directory / "secrets.json", json.dumps(dict(secrets or {})))
            _write(directory / "ansible.cfg", "")
            with as_file(_home()) as playbooks:
                return self._run(playbooks / name, directory, _Events(progress))

    def _run(self, playbook: Path, directory: Path, events: _Events) -> Converged:
        from concurrent.futures import ThreadPoolExecutor

        import ansible_runner

        # In a thread of its own, as what apt is doing must come to its end: an interruption takes
        # effect afterwards. With a cancel_callback, ansible-runner leaves the signals to us.
        with ThreadPoolExecutor(max_workers=1) as pool:
            running = pool.submit(
                ansible_runner.run,
                private_data_dir=str(directory),
                playbook=str(playbook),
                inventory=str(directory / "inventory"),
                cmdline=f"-e @{directory}/variables.json -e @{directory}/secrets.json",
                envvars=_ansible_environment(self._environment, directory),
                settings={"pexpect_timeout": SECONDS_BETWEEN_LOOKS},
                quiet=True,
                event_handler=events.take,
                cancel_callback=lambda: False,
            )
            runner = running.result()
        if runner.rc != 0:
            said = "\n".join(events.failures) or runner.stdout.read()
            raise CommandFailed(
                ["ansible-playbook", playbook.name],
                runner.rc,
                said,
                hint="Once the cause is mended, run the command again: it goes on where it ended.",
            )
        return Converged(tuple(events.changed))


def _ansible_environment(environment: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Ansible of our own virtualenv, deaf to the admin's configuration, without traces at home."""
    ours = f"{sys.prefix}/bin"
    inherited = {name: text for name, text in environment.items() if "ansible" not in name.lower()}
    return {
        **inherited,
        "PATH": f"{ours}:{environment.get('PATH', os.defpath)}",
        # Ansible refuses to start in a locale without UTF-8.
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_REMOTE_TEMP": str(directory / "remote"),
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_NOCOLOR": "true",
    }


def _said(result: Mapping[str, Any]) -> str:
    """What a failed task has to tell: what its program wrote, if it ran one that did."""
    return str(result.get("stderr") or result.get("msg") or result.get("stdout") or "").strip()


def _home() -> Any:
    from importlib.resources import files

    return files("lava_deploy.playbooks")


def _write(path: Path, text: str) -> None:
    """Write a file for our eyes only; the directory is 0700 besides."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
