"""The plans there are, and the machines in memory to carry them out on."""

import io
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lava_deploy import config, steps
from lava_deploy.cli import installing, instances
from lava_deploy.cli.context import Context
from lava_deploy.journal import Journal, unfinished
from lava_deploy.model import CODE, DESCRIPTION, LOCK, PYTHON, Revision
from lava_deploy.operations import SYSTEMD, Doors, apply, install, remove, setup
from lava_deploy.parts import guest, release, supervisor
from lava_deploy.report import Report
from lava_deploy.steps import Plan
from tests.fakes import FakePacks, FakePlaybook, FakePostgres, FakeSystem, FakeWeb, Killed, World

REVISION = Revision("2026.07", "debian", "Debian sid", "2026.07-1")
NOW = datetime(2026, 11, 25, tzinfo=UTC)
# What an admin writes into instance.yaml, to be found again.
PASSWORD, BIND_PASSWORD = "drawn0secret", "drawn00secret"
CHANGED = f"""\
route:
  hostname: lab.example.com
mail: {{server: mail.example.com, user: lab, password: {PASSWORD}}}
components: {{publisher: false, dispatcher: false}}
settings:
  AUTH_LDAP_BIND_PASSWORD: {BIND_PASSWORD}
  REQUIRE_LOGIN: true
"""


class Deaf(Report):
    """Tells nothing more once its process is killed; the engine then undoes nothing either."""

    def failed(self, step: str, error: BaseException) -> None:
        if isinstance(error, Killed):
            raise error
        super().failed(step, error)


class Stage:
    """A machine in memory, with the doors to it and a journal on the real disk."""

    def __init__(self, root: Path, world: World) -> None:
        self.world = world
        self.said = io.StringIO()
        self.context = Context(root=str(root))
        self.context.report = Deaf(verbose=True, stdout=self.said, stderr=self.said)
        self.context.doors = Doors(
            host=self.context.host,
            system=FakeSystem(world),
            postgres=lambda _: FakePostgres(world),
            open_playbook=lambda: FakePlaybook(world),
            open_web=lambda: FakeWeb(world),
            open_packs=lambda: FakePacks(world),
            report=self.context.report,
        )

    @property
    def demo(self):
        return self.context.host.instance("demo")

    def state(self) -> list[str]:
        """All there is, but for the cache, the history, and packages, which setup leaves.

        And the authority, which others may trust by then; of certificates, that they are there.
        """
        host = self.context.host
        lines = self.world.state(host.cache, host.log, host.tls, host.state / setup.MEMORY)
        lines = [re.sub(r"^(\S+\.pem .*root:root) .*", r"\1", line) for line in lines]
        # nor the marks of processes, which are other ones after each start
        return [line for line in lines if not line.startswith("package ") and ".ready " not in line]

    def journal(self, subject: str) -> Journal | None:
        return unfinished(self.context.host.journals, subject)

    def carry_out(self, plan: Plan) -> None:
        with self.context.recorded(plan.subject):
            steps.carry_out(plan, self.context.host.journals, self.context.report)

    def finish(self, way: Callable[..., None], subject: str) -> None:
        """Resume or abandon, by a plan built anew out of the journal, as the next command does."""
        journal = self.journal(subject)
        assert journal
        with self.context.recorded(subject):
            undoing = way is steps.abandon
            read = instances.in_force if undoing else instances.read_configuration
            plan = instances._rebuild(self.context, journal, read)
            way(plan, self.context.host.journals, self.context.report)


def of_install(
    stage: Stage, name: str = "demo", certificate: str = "none", revision: Revision = REVISION
) -> Plan:
    values = {"route": {"hostname": f"{name}.localhost", "certificate": certificate}}
    request = install.Request(
        name, asdict(revision), "2026-11-25T00-00-00Z", "worker", values=values
    )
    return installing.plan(stage.context, request, config.build(values, "the order"))


def of_secure_install(stage: Stage) -> Plan:
    return of_install(stage, certificate="self-signed")


def of_request(stage: Stage, request: apply.Request) -> Plan:
    decisions = apply.decide(stage.context.doors, stage.demo, request, NOW)
    return apply.plan(stage.context.doors, stage.demo, request, decisions)


def of_apply(stage: Stage) -> Plan:
    return of_request(stage, apply.Request(instances.read_configuration(stage.context, stage.demo)))


def of_toggle(stage: Stage, kind: str = "location") -> Plan:
    changes = {"route.kind": kind, "route.prefix": "/demo"}
    return of_request(stage, instances.rewritten(stage.context, stage.demo, changes, apply.TOGGLE))


def of_toggle_back(stage: Stage) -> Plan:
    return of_toggle(stage, "vhost")


def of_tls(stage: Stage, certificate: str = "self-signed") -> Plan:
    changes = {"route.certificate": certificate}
    return of_request(stage, instances.rewritten(stage.context, stage.demo, changes, apply.TLS))


def of_tls_off(stage: Stage) -> Plan:
    return of_tls(stage, "none")


def of_remove(stage: Stage) -> Plan:
    decisions = remove.decide(stage.context.doors, stage.demo)
    configuration = instances.in_force(stage.context, stage.demo)
    return remove.plan(stage.context.doors, stage.demo, decisions, configuration)


def of_setup(stage: Stage) -> Plan:
    new = setup.untouched(stage.context.doors)
    return setup.plan(stage.context.doors, setup.Outcome(), new=new)


def of_undoing_setup(stage: Stage) -> Plan:
    return setup.undo_plan(stage.context.doors, setup.Outcome())


def blank(root: Path, keeper: str) -> World:
    """A host that was never set up; where there is systemd, its kernel has no server for NFS."""
    world = World()
    # the engine makes the directory of its journals, whatever it carries out
    for path in (root / "state", "/proc", "/etc/apache2/conf-available"):
        world.directory(path)
    if keeper == "systemd":
        world.put("/proc/sys/kernel/osrelease", "6.1.0\n")
        world.put("/proc/filesystems", "ext4\n")
        world.directory(SYSTEMD)
    return world


def after(world: World, root: Path, plan: Callable[[Stage], Plan]) -> World:
    """A machine on which a plan was carried out."""
    stage = Stage(root, world)
    stage.carry_out(plan(stage))
    return world


def ready(root: Path, keeper: str) -> World:
    return after(blank(root, keeper), root, of_setup)


def bare(root: Path, keeper: str) -> World:
    """A host as setup leaves it, with a release and a guest in the cache."""
    world = World()
    stage = Stage(root, world)
    host, system = stage.context.host, stage.context.doors.system
    for path in (host.instances, host.state, host.log, "/var/lib/lava/dispatcher/tmp", "/proc"):
        world.directory(path)
    for kind, state in itertools.product(("sites", "conf", "mods"), ("available", "enabled")):
        world.directory(f"/etc/apache2/{kind}-{state}")
    # as Debian has them; `mime` is on from the start
    for name, needs in {"ssl": "mime socache_shmcb", "socache_shmcb": "", "mime": ""}.items():
        world.put(f"/etc/apache2/mods-available/{name}.load", f"# Depends: {needs}\n")
    for command in (["a2enmod", "--quiet", "mime"], ["apache2ctl", "graceful"]):
        system.run(command)
    world.put("/etc/systemd/system/multi-user.target.wants/cron.service", "")
    world.put(PYTHON, "")
    put_release(stage, REVISION)
    image = f"6.1.0-cloud-amd64-{guest._recipe()}"
    world.put(host.cache / "guest" / image / guest.KERNEL, "")
    if keeper == "systemd":
        world.directory(SYSTEMD)
        system.run(["systemctl", "daemon-reload"])
    else:
        supervisor.Supervisord(system, FakeWeb(world), host).prepare()
    return world


def put_release(stage: Stage, revision: Revision) -> None:
    """A release in the cache."""
    host, system = stage.context.host, stage.context.doors.system
    folder = release._folder(system, host.cache, revision)
    described = {
        "version": revision.version,
        "source": revision.source,
        "locator": revision.locator,
        "origin": revision.origin,
        "commit": "",
        "python": "3.13.5",
    }
    stage.world.put(folder / DESCRIPTION, json.dumps(described))
    for name in (LOCK, CODE, "venv/bin/python"):
        stage.world.put(folder / name, f"{name} of {revision.version}")


def with_other(root: Path, keeper: str) -> World:
    return after(bare(root, keeper), root, partial(of_install, name="other"))


def with_demo(root: Path, keeper: str) -> World:
    return after(with_other(root, keeper), root, of_install)


def with_demo_alone(root: Path, keeper: str) -> World:
    return after(bare(root, keeper), root, of_install)


def with_changes(root: Path, keeper: str) -> World:
    world = with_demo(root, keeper)
    stage = Stage(root, world)
    stage.context.doors.system.write(stage.demo.configuration, CHANGED, group=stage.demo.user)
    return world


def with_new_limits(root: Path, keeper: str) -> World:
    """Only limits are changed, with the rest as it is installed."""
    world = with_demo(root, keeper)
    stage = Stage(root, world)
    text = world.text(stage.demo.configuration).replace('memory: ""', "memory: 1G")
    stage.context.doors.system.write(stage.demo.configuration, text, group=stage.demo.user)
    return world


def with_limits(root: Path, keeper: str) -> World:
    return after(with_new_limits(root, keeper), root, of_apply)


def with_location(root: Path, keeper: str) -> World:
    return after(with_demo(root, keeper), root, of_toggle)


def with_tls(root: Path, keeper: str) -> World:
    return after(bare(root, keeper), root, of_secure_install)


# What looks after services, the machine before, and what is done to it.
PLANS = {
    "setup, systemd": ("systemd", blank, of_setup),
    "setup, supervisor": ("supervisor", blank, of_setup),
    "undo setup, supervisor": ("supervisor", ready, of_undoing_setup),
    "install the first, systemd": ("systemd", bare, of_install),
    "install another, supervisor": ("supervisor", with_other, of_install),
    "install with tls, systemd": ("systemd", bare, of_secure_install),
    "apply, systemd": ("systemd", with_changes, of_apply),
    "apply, supervisor": ("supervisor", with_changes, of_apply),
    "apply limits, systemd": ("systemd", with_new_limits, of_apply),
    "toggle, systemd": ("systemd", with_demo, of_toggle),
    "toggle, supervisor": ("supervisor", with_demo, of_toggle),
    "toggle back, systemd": ("systemd", with_location, of_toggle_back),
    "tls set, systemd": ("systemd", with_demo, of_tls),
    "tls off, supervisor": ("supervisor", with_tls, of_tls_off),
    "remove with tls, supervisor": ("supervisor", with_tls, of_remove),
    "remove, systemd": ("systemd", with_limits, of_remove),
    "remove the last, supervisor": ("supervisor", with_demo_alone, of_remove),
}
