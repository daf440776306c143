from pathlib import Path

import pytest

from lava_deploy import templates
from lava_deploy.errors import CommandFailed
from lava_deploy.model import Guest
from lava_deploy.parts import device
from lava_deploy.system import Finished, System

GUEST = Guest("amd64", Path("/cache/vmlinuz"), Path("/cache/initrd.cpio.gz"))


class Emulator(System):
    """Answers for QEMU."""

    def __init__(self, answer: Finished | None):
        super().__init__({})
        self.answer = answer

    def run(self, command, **options):
        assert command[0] == "qemu-system-x86_64", "only QEMU is known here"
        assert options["timeout"] == device.SECONDS_TO_TRY_KVM
        if self.answer is None:
            raise CommandFailed(command, 124, "no end")
        return self.answer


@pytest.mark.parametrize(
    ("answer", "works"),
    [
        (Finished(0, "Linux version 6.1\n", ""), True),
        (Finished(0, "", ""), False),
        (Finished(1, "", "failed to initialize kvm: Permission denied"), False),
        (Finished(-6, "Linux version 6.1\n", "Assertion failed"), False),
        (None, False),
    ],
    ids=["boots", "is silent", "is not allowed", "crashes", "hangs"],
)
def test_kvm_is_used_only_if_a_guest_that_it_runs(answer, works):
    assert device.has_kvm(Emulator(answer), GUEST) is works


@pytest.mark.parametrize(
    ("architecture", "kvm", "settings"),
    [
        ("amd64", True, []),
        ("amd64", False, ["{% set no_kvm = True %}"]),
        ("arm64", False, ["{% set no_kvm = True %}"]),
        (
            "arm64",
            True,
            ["{% set cpu = 'host' %}", "{% set machine = 'virt,accel=kvm,gic-version=host' %}"],
        ),
    ],
)
def test_the_dictionary_sets_what_the_host_can_do(architecture, kvm, settings):
    text = templates.render("smoke-device.jinja2.j2", kvm=kvm, architecture=architecture)
    assert text.splitlines()[0] == "{% extends 'qemu.jinja2' %}"
    assert [line for line in text.splitlines() if line.startswith("{% set")] == settings


def test_the_registration_gives_the_device_the_tag_that_smoke_jobs_ask_for():
    *_, wanted = device.registration("host-1")
    assert wanted["worker"] == "host-1"
    assert wanted["tags"] == [device.TAG]
