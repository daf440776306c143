"""What https takes on the host: its own authority, an instance's certificate, Apache's module."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lava_deploy import certificates
from lava_deploy.certificates import Pair
from lava_deploy.errors import BadCertificate, CommandFailed
from lava_deploy.model import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from lava_deploy.certificates import Certificate
    from lava_deploy.model import Host, Instance
    from lava_deploy.system import System

MODULE = "ssl"
AVAILABLE, ENABLED = Path("/etc/apache2/mods-available"), Path("/etc/apache2/mods-enabled")
# In the host's state: which of Apache's modules were switched on for https.
RECORD = "ssl-module"
RENEWED = timedelta(days=30)
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


# The authority


def authority(system: System, host: Host, now: datetime) -> Pair:
    """The host's own authority, made the first time; under the host's lock.

    Raises BadCertificate when only its key is gone: another authority in its place would not be
    the one that browsers and workers trust.
    """
    if not system.exists(host.authority):
        _make_authority(system, host, now)
    if not system.exists(host.authority_key):
        raise BadCertificate(
            f"the authority's key {host.authority_key} is gone",
            hint=f"Put it back; or remove {host.authority} for a new one, to be trusted anew.",
        )
    key = Secret(system.read(host.authority_key))
    return Pair(system.read(host.authority), key)


def remove_authority(system: System, host: Host) -> None:
    system.remove(host.authority)
    system.remove(host.authority_key)
    system.remove_directory(host.tls)


def issue(system: System, host: Host, hostname: str, now: datetime) -> Pair:
    """A certificate of the host's own authority, for a name and for those of the host.

    Nothing of it is on disk yet. Under the host's lock.
    """
    return certificates.issue(authority(system, host, now), hostname, names_of_host(system), now)


def names_of_host(system: System) -> list[str]:
    """The names and addresses by which this machine can be asked."""
    full = system.run(["hostname", "--fqdn"], check=False).stdout.split()
    return [
        *dict.fromkeys(
            [
                *THIS_MACHINE,
                *system.run(["hostname"]).stdout.split(),
                *(name for name in full if "." in name),
                *system.run(["hostname", "-I"], check=False).stdout.split(),
            ]
        )
    ]


def _make_authority(system: System, host: Host, now: datetime) -> None:
    """The certificate goes last: by it the authority is known to be whole."""
    [name] = system.run(["hostname"]).stdout.split()
    pair = certificates.make_authority(
        f"lava-deploy on {name}"[: certificates.COMMON_NAME_LENGTH], now
    )
    system.make_directory(host.tls)
    system.write(host.authority_key, pair.key.reveal(), mode=0o600)
    system.write(host.authority, pair.certificate)


# An instance's certificate


def texts(instance: Instance, pair: Pair) -> dict[Path, str | None]:
    """The files of a certificate; the key's is a Secret."""
    return {instance.certificate_key: pair.key, instance.certificate: pair.certificate}


def absent(instance: Instance) -> dict[Path, str | None]:
    return {instance.certificate_key: None, instance.certificate: None}


def change(system: System, instance: Instance, wanted: Mapping[Path, str | None]) -> None:
    """Write the files of a certificate, or remove those with None. They count from a reload."""
    directory = instance.certificate.parent
    for path, text in wanted.items():
        if text is None:
            system.remove(path)
            continue
        if not system.exists(directory):
            system.make_directory(directory, mode=0o750)
        mode = 0o600 if path == instance.certificate_key else 0o644
        system.write(path, text.reveal() if isinstance(text, Secret) else text, mode=mode)
    system.remove_directory(directory)


def taken(system: System, certificate: str, key: str) -> Pair:
    """The certificate and the key in an admin's files. Raises BadCertificate for one not there."""
    return Pair(_text(system, certificate), Secret(_text(system, key)))


def faults(system: System, certificate: str, key: str, hostname: str, now: datetime) -> list[str]:
    """Why an admin's files do not do for a host name: each with the name of the file."""
    texts, found = [], []
    for path in (certificate, key):
        try:
            texts.append(_text(system, path))
        except BadCertificate as error:
            found.append(str(error))
    if found:
        return found
    pem, secret = texts
    return [
        f"{certificate} and {key}: {fault}"
        for fault in certificates.faults(pem, Secret(secret), hostname, now)
    ]


def is_due(system: System, instance: Instance, hostname: str, now: datetime) -> bool:
    """Whether the host's own authority has to issue a certificate.

    There is none of its, or none for that name, or it is over within a month.
    """
    host = instance.host
    if not system.exists(instance.certificate) or not system.exists(host.authority):
        return True
    text = system.read(instance.certificate)
    said = certificates.read(text)
    ours = text.endswith(system.read(host.authority))
    return not ours or not certificates.covers(said, hostname) or said.expires - now < RENEWED


def _text(system: System, path: str) -> str:
    try:
        return system.read(Path(path))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", "") or "it is no text in PEM form"
        raise BadCertificate(f"{path} cannot be read: {reason}") from error


def certificate(system: System, instance: Instance) -> Certificate | None:
    """What an instance's certificate says, None without one. Raises BadCertificate."""
    if not system.exists(instance.certificate):
        return None
    return certificates.read(system.read(instance.certificate))


# Apache's module


def module_on(system: System, host: Host) -> None:
    """Switch on Apache's module, with those it depends on; in force at the next reload.

    It makes Apache listen on port 443, too. What was off before is remembered.
    """
    if not system.exists(_record(host)):
        if _is_on(system, MODULE):
            return
        off = [name for name in _with_dependencies(system, MODULE) if not _is_on(system, name)]
        system.write(_record(host), json.dumps(off))
    system.run(["a2enmod", "--quiet", MODULE])


def module_off(system: System, host: Host) -> bool:
    """Switch off what `module_on` switched on, but for what others use by now; whether there is
    any.

    In force at the next reload, after which `forget_module` is due. Nothing of ours may need it
    any more.
    """
    if not system.exists(_record(host)):
        return False
    for name in json.loads(system.read(_record(host))):
        if _is_on(system, name) and not _is_needed(system, name):
            _switch_off(system, name)
    return True


def forget_module(system: System, host: Host) -> None:
    """Forget what was switched on, once Apache has read that it is off."""
    system.remove(_record(host))


def _switch_off(system: System, name: str) -> None:
    """Switch a module off, unless Apache then does not understand its files."""
    system.run(["a2dismod", "--quiet", "--purge", name])
    try:
        system.run(["apache2ctl", "configtest"])
    except CommandFailed:
        system.run(["a2enmod", "--quiet", name])


def _with_dependencies(system: System, name: str) -> Iterator[str]:
    """A module, then those it depends on, as a2enmod(8) finds them."""
    yield name
    for each in _dependencies(system, AVAILABLE / f"{name}.load"):
        yield from _with_dependencies(system, each)


def _dependencies(system: System, path: Path) -> list[str]:
    return " ".join(re.findall(r"(?m)^# Depends:(.*)$", system.read(path))).split()


def _is_needed(system: System, name: str) -> bool:
    """Whether a module that is on depends on another."""
    loads = [ENABLED / each for each in system.names(ENABLED) if each.endswith(".load")]
    return any(name in _dependencies(system, path) for path in loads)


def _is_on(system: System, name: str) -> bool:
    return system.exists(ENABLED / f"{name}.load")


def _record(host: Host) -> Path:
    return host.state / RECORD
