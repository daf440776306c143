"""The door to web servers: probes, REST and XML-RPC, over the network or a unix socket.

Nothing is redirected, and a proxy of the environment is not asked for addresses of this machine.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import xmlrpc.client
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from lava_deploy.errors import CommandFailed, Unreachable
from lava_deploy.model import Secret

SECONDS = 30
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
# supervisor.xmlrpc.Faults
BAD_NAME = 10


class Web:
    """HTTP as lava-deploy needs it; every failure to get an answer is Unreachable."""

    def __init__(
        self, environment: Mapping[str, str] | None = None, authority: Path | None = None
    ) -> None:
        """`environment` names the proxies for addresses elsewhere (`https_proxy` and such).

        `authority` is the file with the certificate of the host's own authority, if it has one; it
        is trusted as those are that the system trusts.
        """
        environment = environment or {}
        names = {"http": "http_proxy", "https": "https_proxy"}
        self._proxies = {
            kind: environment[one] for kind, one in names.items() if one in environment
        }
        self._authority = authority

    def status(self, url: str, host_header: str = "", token: Secret | None = None) -> int:
        """The status of an answer to GET, whatever it is. Raises Unreachable for no answer.

        An address of this machine is asked for the certificate of `host_header`, which is taken as
        it is: who holds the port is known, and whether browsers take it is another question.
        """
        if host_header and url.startswith("https:"):
            return _status_here(url, host_header)
        return self._get(url, host_header, token)[0]

    def json(self, url: str, token: Secret | None = None) -> Any:
        """What a JSON resource says; `token` is one of LAVA's. Raises Unreachable if not 200."""
        try:
            return json.loads(self.text(url, token))
        except ValueError as error:
            raise Unreachable(f"{url} answers with something else than JSON: {error}") from error

    def text(self, url: str, token: Secret | None = None) -> str:
        """The text at a URL. Raises Unreachable if the status is not 200."""
        status, body = self._get(url, "", token)
        if status != http.client.OK:
            raise Unreachable(f"{url} answers with status {status}", hint=_excerpt(body))
        return body

    def wait(self, url: str, seconds: float, host_header: str = "") -> None:
        """Wait until a URL answers with status 200. Raises Unreachable with the last fault."""
        self._wait(url, seconds, lambda: self.status(url, host_header))

    def xmlrpc(self, url: str) -> xmlrpc.client.ServerProxy:
        """The methods of an XML-RPC server; calls raise what xmlrpc.client raises."""
        return xmlrpc.client.ServerProxy(url, allow_none=True)

    def supervisor(self, path: Path) -> Supervisor:
        """The supervisor daemon that listens on a unix socket."""
        return Supervisor(path)

    def _get(self, url: str, host_header: str, token: Secret | None) -> tuple[int, str]:
        headers = {"Host": host_header} if host_header else {}
        if token is not None:
            headers["Authorization"] = f"Token {token.reveal()}"
        asked = urllib.request.Request(url, headers=headers)
        try:
            with self._opener(url).open(asked, timeout=SECONDS) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"{url} does not answer: {getattr(error, 'reason', error)}",
                hint="Is the server running, and does its name resolve on this machine?",
            ) from error

    def _opener(self, url: str) -> urllib.request.OpenerDirector:
        proxies = urllib.request.ProxyHandler({} if _is_local(url) else self._proxies)
        if not url.startswith("https:"):
            return urllib.request.build_opener(proxies, _Stay)
        trust = urllib.request.HTTPSHandler(context=self._trust)
        return urllib.request.build_opener(proxies, trust, _Stay)

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """What the system trusts, and the authority besides."""
        context = ssl.create_default_context()
        if self._authority and self._authority.exists():
            context.load_verify_locations(self._authority)
        return context

    def _wait(self, what: str, seconds: float, ask: Any) -> None:
        limit, pause, fault = time.monotonic() + seconds, FIRST_PAUSE, ""
        while True:
            try:
                status = ask()
                if status == http.client.OK:
                    return
                fault = f"it answers with status {status}"
            except Unreachable as error:
                fault = str(error)
            if time.monotonic() > limit:
                raise Unreachable(f"no good answer from {what} in {seconds:g} seconds: {fault}")
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)


class Supervisor:
    """The XML-RPC methods of a supervisor daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, *words: Any, harmless: tuple[int, ...] = ()) -> Any:
        """Call `supervisor.METHOD`; None for a fault that is harmless to the caller.

        The codes of faults are those of supervisor.xmlrpc.Faults. Raises Unreachable when there is
        no daemon, CommandFailed for another fault. Each call has a new connection: supervisor's own
        transport never recovers from a failed one.
        """
        server = xmlrpc.client.ServerProxy("http://localhost", _UnixTransport(self._path))
        try:
            return getattr(server, f"supervisor.{method}")(*words)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in harmless:
                return None
            command = ["supervisorctl", method, *map(str, words)]
            raise CommandFailed(command, fault.faultCode, fault.faultString) from fault

    def wait_stopped(self, program: str, seconds: float) -> None:
        """Wait until a program that was told to stop has ended, or is not known at all.

        Raises Unreachable when it is still there after that time.
        """
        limit = time.monotonic() + seconds
        while self._state(program) == "STOPPING":
            if time.monotonic() > limit:
                raise Unreachable(f"{program} has not ended after {seconds:g} seconds")
            time.sleep(FIRST_PAUSE)

    def _state(self, program: str) -> str:
        shown = self.ask("getProcessInfo", program, harmless=(BAD_NAME,))
        return shown["statename"] if shown else ""


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirection is an answer like any other."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _TlsConnection(http.client.HTTPSConnection):
    """HTTPS to the address of a URL, whatever host name is asked for and whoever vouches for it."""

    def __init__(self, url: str, hostname: str) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        super().__init__(hostname, timeout=SECONDS, context=context)
        self._unverified, self._address = context, urllib.parse.urlsplit(url)

    def connect(self) -> None:
        place = (self._address.hostname, self._address.port or self.default_port)
        plain = socket.create_connection(place, self.timeout)
        self.sock = self._unverified.wrap_socket(plain, server_hostname=self.host)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket, one connection per call."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _UnixConnection(self._path)

    def request(self, *words: Any, **more: Any) -> Any:
        try:
            return super().request(*words, **more)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"nobody answers on {self._path}: {error}") from error


def _status_here(url: str, hostname: str) -> int:
    """The status of an answer to GET, by HTTPS to an address of this machine."""
    connection = _TlsConnection(url, hostname)
    try:
        connection.request("GET", urllib.parse.urlsplit(url).path, headers={"Connection": "close"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url} does not answer for {hostname}: {error}") from error
    finally:
        connection.close()


def _is_local(url: str) -> bool:
    name = urllib.parse.urlsplit(url).hostname or ""
    return name in ("localhost", "::1") or name.endswith(".localhost") or name.startswith("127.")


def _excerpt(body: str) -> str:
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    return lines[0][:200] if lines else ""
