"""The verbs of `bed.py` for those who try things by hand."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable

from .beds import Bed, HostSpec, existing_beds
from .errors import BedInUse, BootFailed, CommandFailed, HostsUnavailable
from .host import Host
from .images import PLAIN, SYSTEMD, Images

FAULTS = (
    BedInUse,
    BootFailed,
    CommandFailed,
    HostsUnavailable,
    LookupError,
    OSError,
    ValueError,
    subprocess.SubprocessError,
)


def main(manual: str) -> int:
    """Run one verb; the status is that of the command in the host, where there is one."""
    arguments = _parser(manual).parse_args()
    try:
        return arguments.verb(arguments) or 0
    except FAULTS as fault:
        print(f"bed.py: {fault}", file=sys.stderr)
        return 1


def up(arguments: argparse.Namespace) -> None:
    """Boot a host, in a new bed or the one there is."""
    bed = _bed(arguments)
    name = arguments.name or f"host{len(bed.hosts) + 1}"
    layer = None
    if arguments.package:
        packages = sorted(arguments.package)
        layer = bed.images.layer(arguments.suite, arguments.init, "by-hand", packages)
    [host] = bed.up([HostSpec(name, arguments.suite, arguments.init, layer)])
    print(f"{host.name} is up at {host.address}")
    print(f"  enter:     {sys.argv[0]} --bed {arguments.bed} run {host.name}")
    print(f"  by ssh:    {shlex.join([*host.place.ssh, f'root@{host.address}'])}")
    print(f"  files:     {host.root}")


def run(arguments: argparse.Namespace) -> int:
    """Run a command in a host, or a shell."""
    place = _host(arguments).place
    words = arguments.command
    text = words[0] if len(words) == 1 else shlex.join(words)
    terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    command = [text] if words else []
    return subprocess.call([*place.ssh, *terminal, f"root@{place.address}", *command])


def put(arguments: argparse.Namespace) -> None:
    """Copy into a host."""
    _host(arguments).put(arguments.local, arguments.remote)


def get(arguments: argparse.Namespace) -> None:
    """Copy out of a host."""
    _host(arguments).get(arguments.remote, arguments.local)


def reboot(arguments: argparse.Namespace) -> None:
    """Power a host off, and on."""
    _host(arguments).reboot()


def enter(arguments: argparse.Namespace) -> int:
    """A shell in a host past ssh."""
    return subprocess.call([*_host(arguments).enter(), "/bin/bash"])


def log(arguments: argparse.Namespace) -> None:
    """What a host's console said."""
    print(_host(arguments).log.read_text(errors="replace"), end="")


def cut(arguments: argparse.Namespace) -> None:
    """Take the registries away."""
    _bed(arguments).cut_network()


def restore(arguments: argparse.Namespace) -> None:
    """Give the registries back."""
    _bed(arguments).restore_network()


def status(arguments: argparse.Namespace) -> None:
    """All beds of this machine and their hosts."""
    for identity, hosts in existing_beds().items():
        print(identity)
        for host in hosts:
            power = "on" if host.leader() else "off"
            place = host.place
            print(f"  {host.name} {host.address} {place.suite} {place.init} {power}")


def down(arguments: argparse.Namespace) -> None:
    """End a bed."""
    _bed(arguments).down()


def _bed(arguments: argparse.Namespace) -> Bed:
    """The bed the command line names."""
    images = Images()
    return Bed(images, arguments.bed, share_downloads=True, keep=True)


def _host(arguments: argparse.Namespace) -> Host:
    """The host the command line names."""
    bed = _bed(arguments)
    if arguments.host not in bed.hosts:
        known = ", ".join(bed.hosts) or "none"
        raise LookupError(f"the bed {arguments.bed} has no host {arguments.host}, but: {known}")
    return bed.hosts[arguments.host]


def _parser(manual: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=manual, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("LAVA_DEPLOY_BED", "dev")
    parser.add_argument("--bed", default=default, help="name of the bed, at most 8 characters")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(verb: Callable, *positions: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(verb.__name__, help=verb.__doc__)
        added.set_defaults(verb=verb)
        for position in positions:
            added.add_argument(position)
        return added

    making = add(up)
    making.add_argument("--suite", default="bookworm")
    making.add_argument("--init", choices=(SYSTEMD, PLAIN), default=SYSTEMD)
    making.add_argument("--name", help="host name")
    making.add_argument("--package", action="append", help="have it installed from the start")
    add(run, "host").add_argument("command", nargs=argparse.REMAINDER)
    add(put, "host", "local", "remote")
    add(get, "host", "remote", "local")
    for verb in (reboot, enter, log):
        add(verb, "host")
    for verb in (cut, restore, status, down):
        add(verb)
    return parser
