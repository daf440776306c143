"""The private network of a bed: a bridge, and a network namespace for the gateway and each host."""

import ipaddress
import re
import subprocess
from pathlib import Path

from .errors import HostsUnavailable

PREFIXES = [f"10.214.{number}" for number in range(256)]
NAMESPACES = Path("/run/netns")
# Of routes that are there in case the bridge is not; no other route here is that far down.
GUARD_METRIC = "4096"


def free_prefix() -> str:
    """The first three numbers of a network this machine has no route to but its default one."""
    listing = _listing("route", "show", "table", "all")
    words = re.findall(r"(?:^|\s)(\d+\.\d+\.\d+\.\d+(?:/\d+)?)", listing)
    taken = [ipaddress.ip_network(word, strict=False) for word in words]
    for prefix in PREFIXES:
        network = ipaddress.ip_network(f"{prefix}.0/24")
        if not any(network.overlaps(other) for other in taken):
            return prefix
    raise HostsUnavailable(["no private network is free for the hosts"])


def make(identity: str, prefix: str) -> None:
    """A bridge with an address of this machine, and the gateway on it.

    The gateway listens in a namespace of its own, so that a web server of this machine neither is
    in its way nor within the hosts' reach under the registries' names.
    """
    bridge = _bridge(identity)
    _ip("link", "add", bridge, "type", "bridge")
    _ip("addr", "add", f"{prefix}.1/24", "dev", bridge)
    # While the bridge is down, nothing for the hosts may leave by the machine's default route.
    _ip("route", "replace", "unreachable", f"{prefix}.0/24", "metric", GUARD_METRIC)
    _ip("link", "set", bridge, "up")
    space = namespace(identity, "gateway")
    wire(identity, "gateway", gateway(prefix), "unreachable", "default")
    # It routes nowhere, and says so at once: who forwards nothing says nothing either.
    _ip("netns", "exec", space, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")


def gateway(prefix: str) -> str:
    """The address at which hosts find the package registries."""
    return f"{prefix}.2"


def namespace(identity: str, name: str) -> str:
    """The name of the network namespace of a host, or of the gateway."""
    return f"{identity}-{name}"


def wire(identity: str, name: str, address: str, *default_route: str) -> None:
    """A network namespace with one interface on the bridge, and no way out of the bed.

    Programs that look for the machine's main interface want a default route, if only to a gateway
    that refuses everything.
    """
    space, port = namespace(identity, name), f"{identity}v{address.rpartition('.')[2]}"
    _ip("netns", "add", space)
    _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", port, "master", _bridge(identity), "up")
    _ip("-n", space, "link", "set", "lo", "up")
    _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", space, "link", "set", "eth0", "up")
    _ip("-n", space, "route", "add", *default_route)


def remove(identity: str) -> None:
    """Remove whatever there is of a network: the namespaces, the bridge and its guard route."""
    for space in NAMESPACES.glob(f"{identity}-*"):
        _ip("netns", "delete", space.name)
    bridge = Path("/sys/class/net") / _bridge(identity)
    if not bridge.exists():
        return
    for port in (bridge / "brif").glob("*"):
        # its namespace, being deleted, takes it along in its own time: it may just have gone
        subprocess.run(["ip", "link", "delete", port.name], capture_output=True, check=False)
    # the bridge goes last: only by its address is the guard known to be ours
    for network in _guarded() & _networks_of(bridge.name):
        _ip("route", "delete", "unreachable", network, "metric", GUARD_METRIC)
    _ip("link", "delete", bridge.name)


def _bridge(identity: str) -> str:
    """The name of a bed's bridge."""
    return f"{identity}br0"


def _networks_of(bridge: str) -> set[str]:
    """The networks of the addresses a bridge has."""
    found = re.findall(r"inet (\S+)", _listing("addr", "show", "dev", bridge))
    return {str(ipaddress.ip_network(address, strict=False)) for address in found}


def _guarded() -> set[str]:
    """The networks with a guard route."""
    return set(re.findall(r"unreachable (\S+)", _listing("route", "show", "metric", GUARD_METRIC)))


def _ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True)


def _listing(*arguments: str) -> str:
    """What ip(8) says of IPv4."""
    command = ["ip", "-4", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
