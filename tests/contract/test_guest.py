"""The smoke job's image, built of real packages and booted by the real QEMU."""

import pytest

from lava_deploy.model import Host
from lava_deploy.parts import guest
from lava_deploy.system import System

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return Host.below(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def image(host):
    return guest.make(System(), host)


def test_an_image_is_built_once(host, image):
    built = image.kernel.stat().st_ino
    assert guest.make(System(), host) == image
    assert image.kernel.stat().st_ino == built


def test_nothing_but_the_image_is_left(host, image):
    assert [path.name for path in (host.cache / "guest").iterdir()] == [image.kernel.parent.name]
    assert {path.name for path in image.kernel.parent.iterdir()} == {guest.KERNEL, guest.INITRD}


def test_the_image_boots_without_kvm(image):
    system = System()
    machine = "virt -cpu cortex-a57" if image.architecture == "arm64" else "pc"
    options = f"-nodefaults -nographic -no-reboot -m 256 -serial stdio -machine {machine}"
    files = ["-kernel", image.kernel, "-initrd", image.initrd]
    append = f"console={image.console} panic=-1 quiet lava_deploy_trial"
    ran = system.run([image.emulator, *options.split(), *files, "-append", append], timeout=120)
    assert "Linux version" in ran.stdout


def test_the_image_is_built_from_new_indexes_where_apt_knows_nothing(tmp_path, monkeypatch):
    """As on a machine on which `apt-get update` has not run yet."""
    (tmp_path / "apt/lists/partial").mkdir(parents=True)
    empty = tmp_path / "apt.conf"
    empty.write_text(f'Dir::State::Lists "{tmp_path}/apt/lists";\nDir::Cache "{tmp_path}/apt";\n')
    run = System.run

    def with_empty_lists(self, command, *, environment=None, **options):
        return run(self, command, environment={"APT_CONFIG": str(empty)}, **options)

    monkeypatch.setattr(System, "run", with_empty_lists)
    image = guest.make(System(), Host.below(tmp_path / "root"))
    assert image.initrd.stat().st_size > 500_000


def test_a_half_done_build_leaves_no_image(tmp_path, monkeypatch):
    host = Host.below(tmp_path)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(guest, "_pack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guest.make(System(), host)
    assert guest.find(System(), host) is None
    assert list((host.cache / "guest").iterdir()) == []


def test_images_are_removed(host, image):
    guest.remove(System(), host)
    assert not (host.cache / "guest").exists()
