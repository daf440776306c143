"""The virtual device of an instance: a QEMU machine of this host, for smoke jobs and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lava_deploy import templates
from lava_deploy.errors import CommandFailed

if TYPE_CHECKING:
    from pathlib import Path

    from lava_deploy.model import Guest, Instance
    from lava_deploy.system import System

TYPE = "qemu"
NAME = "lava-deploy-qemu"
# Smoke jobs ask for a device with this tag; ordinary qemu jobs may use the device as well.
TAG = "lava-deploy-smoke"

# A kernel under KVM is up in one or two seconds; a broken KVM may never come so far.
SECONDS_TO_TRY_KVM = 8


def exists(system: System, instance: Instance) -> bool:
    return system.exists(dictionary(instance))


def make(system: System, instance: Instance, guest: Guest) -> None:
    """Write the device dictionary, unless there is one: then it is the admin's."""
    if exists(system, instance):
        return
    text = templates.render(
        "smoke-device.jinja2.j2",
        kvm=has_kvm(system, guest),
        architecture=guest.architecture,
    )
    system.write(dictionary(instance), text, 0o640, instance.user, instance.user)


def remove(system: System, instance: Instance) -> None:
    system.remove(dictionary(instance))


def registration(worker: str) -> list[dict[str, Any]]:
    """The actions, for the instance's console, that make LAVA know the device; repeatable."""
    description = "QEMU on this host, made by lava-deploy"
    return [
        {"action": "device_type", "name": TYPE},
        {
            "action": "device",
            "name": NAME,
            "device_type": TYPE,
            "worker": worker,
            "tags": [TAG],
            "description": description,
        },
    ]


def has_kvm(system: System, guest: Guest) -> bool:
    """Whether the guest really runs under KVM: a /dev/kvm that is there may still hang."""
    machine = "virt,gic-version=host" if guest.architecture == "arm64" else "pc"
    options = f"-nodefaults -nographic -no-reboot -m 256 -accel kvm -cpu host -machine {machine}"
    files = ["-kernel", str(guest.kernel), "-initrd", str(guest.initrd)]
    append = f"console={guest.console} panic=-1 lava_deploy_trial"
    command = [guest.emulator, *options.split(), "-serial", "stdio", *files, "-append", append]
    try:
        ran = system.run(command, check=False, timeout=SECONDS_TO_TRY_KVM)
    except CommandFailed:
        return False
    return ran.status == 0 and "Linux version" in ran.stdout


def dictionary(instance: Instance) -> Path:
    """Where LAVA looks for it: DEVICES_PATH of its settings."""
    return instance.etc / "devices" / f"{NAME}.jinja2"
