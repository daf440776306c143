"""What a new host is told: who it is, whom it knows, and whom it trusts."""

import shutil
from pathlib import Path

from . import machine
from .host import Place


def write_identity(place: Place) -> None:
    """Host name and machine id. An empty resolv.conf makes unknown names fail at once."""
    (place.root / "etc/hostname").write_text(f"{place.name}\n")
    (place.root / "etc/resolv.conf").write_text("")
    identifier = Path("/proc/sys/kernel/random/uuid").read_text().replace("-", "")
    (place.root / "etc/machine-id").write_text(identifier)


def write_names(place: Place, others: list[Place], gateway: str) -> None:
    """The new host's /etc/hosts, and its line in those of the others; there is no DNS."""
    registries = {endpoint.rpartition(":")[0] for endpoint in machine.registries()}
    names = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    names += [f"{gateway} {name}" for name in sorted(registries)]
    names += [f"{each.address} {each.name}" for each in (place, *others)]
    (place.root / "etc/hosts").write_text("".join(line + "\n" for line in names))
    for other in others:
        with open(other.root / "etc/hosts", "a") as hosts:
            hosts.write(f"{place.address} {place.name}\n")


def write_trust(place: Place) -> None:
    """What hosts of a machine with its own authorities or index need; on others, nothing."""
    pip, uv = [], []
    authorities = machine.local_authorities()
    if authorities:
        for certificate in authorities:
            shutil.copy(certificate, _within(place, machine.LOCAL_AUTHORITIES))
        shutil.copy(machine.AUTHORITIES, _within(place, machine.AUTHORITIES))
        pip.append(f"cert = {machine.AUTHORITIES}")
        uv.append("native-tls = true")
    if index := machine.python_index().configured:
        pip.append(f"index-url = {index}")
        uv += ["[[index]]", f'url = "{index}"', "default = true"]
    if pip:
        (place.root / "etc/pip.conf").write_text("\n".join(["[global]", *pip, ""]))
        (place.root / "etc/uv").mkdir(exist_ok=True)
        (place.root / "etc/uv/uv.toml").write_text("\n".join([*uv, ""]))


def keep_downloads(place: Place) -> None:
    """Let apt keep what it downloads, whichever of its commands does."""
    setting = place.root / "etc/apt/apt.conf.d/91-test-host-downloads"
    setting.write_text('APT::Keep-Downloaded-Packages "true";\n')


def _within(place: Place, path: Path) -> Path:
    """The same path in a host."""
    return place.root / path.relative_to("/")
