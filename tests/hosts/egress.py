"""The one way out of a bed: to the package registries, and to nothing else.

    egress.py NAMESPACE ADDRESS HOST:PORT...

Listens in a network namespace of the bed, which the hosts see, and connects from the machine's
own. The hosts map each HOST to ADDRESS in /etc/hosts. Which registry is meant is read from the
start of each connection (the name in the TLS greeting, else the HTTP Host field) and checked
against the list; TLS passes through untouched, end to end. Where the machine itself goes through
a proxy (http_proxy, https_proxy, no_proxy), so does this, with CONNECT.
"""

import asyncio
import base64
import ctypes
import os
import re
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

NAME_TRIES = 8
GREETING_LIMIT = 1 << 16
GREETING_SECONDS = 20
TLS_HANDSHAKE = 0x16
CLONE_NEWNET = 0x40000000


def asked_name(start: bytes) -> str | None:
    """The host a connection wants: '' if it does not say, None if more bytes are needed."""
    if not start:
        return None
    return _tls_name(start) if start[0] == TLS_HANDSHAKE else _http_name(start)


def _http_name(start: bytes) -> str | None:
    """The Host field of an HTTP request, without a port."""
    if b"\r\n\r\n" not in start:
        return None
    field = re.search(rb"(?im)^host:[ \t]*([^\r\n:]+)", start)
    return field.group(1).decode("ascii", "replace").strip() if field else ""


def _tls_name(start: bytes) -> str | None:
    """The server name of a TLS ClientHello (RFC 8446, 4.1.2; RFC 6066, 3)."""
    if len(start) < 5 or len(start) < 5 + _short(start, 3):
        return None
    at = 5 + 4 + 2 + 32  # record and handshake headers, version, random
    at += 1 + start[at]  # session id
    at += 2 + _short(start, at)  # cipher suites
    at += 1 + start[at]  # compression methods
    end = at + 2 + _short(start, at)
    at += 2
    while at + 4 <= end:
        kind, size = _short(start, at), _short(start, at + 2)
        if kind == 0:
            return start[at + 9 : at + 4 + size].decode("ascii", "replace")
        at += 4 + size
    return ""


def _short(start: bytes, at: int) -> int:
    """The 16-bit number at a position."""
    return struct.unpack_from(">H", start, at)[0]


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
STREAM = socket.SOCK_STREAM
_lookups: dict[str, asyncio.Future[list[str]]] = {}


async def connect(name: str, port: int) -> Streams:
    """A connection to a registry, through the machine's proxy where it has one."""
    proxy = getproxies().get("https" if port == 443 else "http")
    if not proxy or proxy_bypass(name):
        return await _open(name, port)
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    reader, writer = await _open(parts.hostname or "", parts.port or 80)
    writer.write(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n".encode())
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        writer.write(b"Proxy-Authorization: Basic " + base64.b64encode(user) + b"\r\n")
    writer.write(b"\r\n")
    status = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0]
    if status.split(b" ")[1:2] != [b"200"]:
        raise ConnectionError(f"the proxy answered {status!r}")
    return reader, writer


async def _open(name: str, port: int) -> Streams:
    """A connection to the first address of a name that takes it."""
    failure: OSError = ConnectionError(f"{name} has no address")
    for address in await _addresses(name):
        try:
            return await asyncio.open_connection(address, port)
        except OSError as error:
            failure = error
    _lookups.pop(name, None)
    raise failure


async def _addresses(name: str) -> list[str]:
    """The addresses of a name, asked for once: installers open fifty connections at a time."""
    if name not in _lookups:
        _lookups[name] = asyncio.ensure_future(_look_up(name))
    try:
        return await asyncio.shield(_lookups[name])
    except OSError:
        _lookups.pop(name, None)
        raise


async def _look_up(name: str) -> list[str]:
    """Ask for a name, and a busy name server again."""
    for _ in range(NAME_TRIES):
        try:
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=STREAM)
            return [address[0] for *_, address in found]
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN:
                raise
            await asyncio.sleep(1)
    raise ConnectionError(f"no name server answers for {name}")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on one direction of a connection, and its end."""
    try:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except (OSError, RuntimeError):
        writer.close()


async def _read_greeting(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """The first bytes of a connection, and the host they ask for."""
    start = b""
    async with asyncio.timeout(GREETING_SECONDS):
        while (name := asked_name(start)) is None:
            piece = await reader.read(1 << 14)
            if not piece or len(start) > GREETING_LIMIT:
                return start, ""
            start += piece
    return start, name


def forwarder(port: int, allowed: set[str]) -> Callable[..., Awaitable[None]]:
    """What serves the connections to one port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = None
        try:
            start, name = await _read_greeting(reader)
            if f"{name}:{port}" not in allowed:
                print(f"refused {name}:{port} to {writer.get_extra_info('peername')}", flush=True)
                return
            answers, onward = await connect(name, port)
            onward.write(start)
            await asyncio.gather(_copy(reader, onward), _copy(answers, writer))
        except (OSError, asyncio.IncompleteReadError, IndexError, struct.error) as error:
            print(f"failed on port {port}: {error!r}", flush=True)
        finally:
            for each in (writer, onward):
                if each:
                    each.close()

    return serve


def listen_within(namespace: str, address: str, ports: set[int]) -> dict[int, socket.socket]:
    """Listening sockets in another network namespace; this process then is back in its own."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    theirs = os.open(namespace, os.O_RDONLY)
    _enter(theirs)
    try:
        return {port: socket.create_server((address, port), backlog=512) for port in ports}
    finally:
        _enter(own)


def _enter(namespace: int) -> None:
    """setns(2), which Python has from 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")


async def main(namespace: str, address: str, allowed: set[str]) -> None:
    """Serve until killed; says `ready` once connections are taken."""
    ports = {int(endpoint.rpartition(":")[2]) for endpoint in allowed}
    sockets = listen_within(namespace, address, ports)
    servers = [
        await asyncio.start_server(forwarder(port, allowed), sock=sock)
        for port, sock in sockets.items()
    ]
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], set(sys.argv[3:])))
