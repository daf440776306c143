"""The kinds of route, an instance that has each, and a browser's session without a browser."""

import http.client
import re
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar
from typing import Any

from tests.e2e.machines import CLONE, Admin, Machine

FORM_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
# The certificate of the host's own authority, once it has issued one.
AUTHORITY = "/srv/lava/tls/ca.pem"
LAVACLI = f"{CLONE}/.venv/bin/lavacli"
# The submitter of smoke jobs; LAVA's REST knows tokens by themselves, XML-RPC with their user.
SUBMITTER = "lava-deploy"


@dataclass(frozen=True)
class Way:
    """A kind of route, an instance that has it, and the address that people use."""

    kind: str
    name: str
    scheme: str
    address: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}/"


VHOST = Way("vhost", "demo", "http", "demo.localhost")
LOCATION = Way("location", "below", "http", "localhost/below")
WAYS = (VHOST, LOCATION)
SECURED = tuple(replace(way, scheme="https") for way in WAYS)


@dataclass(frozen=True)
class Answer:
    """What a request was answered with; `url` is where redirects have led to."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Session:
    """Asks a machine by names that may not be known here, and keeps cookies as browsers do."""

    def __init__(self, machine: Machine) -> None:
        authority = machine.run(["cat", AUTHORITY], check=False).stdout
        self._opener = urllib.request.build_opener(
            _Http(machine.address),
            _Https(machine.address, authority),
            urllib.request.HTTPCookieProcessor(CookieJar()),
        )

    def get(self, url: str, **headers: str) -> Answer:
        return self._ask(urllib.request.Request(url, headers=headers))

    def post(self, url: str, body: bytes, **headers: str) -> Answer:
        return self._ask(urllib.request.Request(url, body, headers))

    def send_form(self, url: str, target: str = "", **fields: str) -> Answer:
        """Open the page with a form, and send it filled in, as Django wants it."""
        token = FORM_TOKEN.search(self.get(url).text)
        assert token, f"{url} has no form"
        filled = {"csrfmiddlewaretoken": token[1], **fields}
        return self.post(target or url, urllib.parse.urlencode(filled).encode(), Referer=url)

    def log_in(self, way: Way, password: str) -> Answer:
        login = f"{way.url}accounts/login/"
        return self.send_form(login, username="admin", password=password)

    def log_out(self, way: Way) -> Answer:
        return self.send_form(f"{way.url}me/", target=f"{way.url}accounts/logout/")

    def is_logged_in(self, way: Way) -> bool:
        """Whether the page of one's own is shown; else it leads to the login."""
        return self.get(f"{way.url}me/").url == f"{way.url}me/"

    def _ask(self, request: urllib.request.Request) -> Answer:
        try:
            answer = self._opener.open(request, timeout=60)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            return Answer(answer.status, answer.url, answer.headers, answer.read())


class _Http(urllib.request.HTTPHandler):
    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(connections_to(self._address, http.client.HTTPConnection), request)


class _Https(urllib.request.HTTPSHandler):
    """Trusts nobody but the host's own authority."""

    def __init__(self, address: str, authority: str) -> None:
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if authority:
            trust.load_verify_locations(cadata=authority)
        super().__init__(context=trust)
        self._address, self._trust = address, trust

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        opened = connections_to(self._address, http.client.HTTPSConnection)
        return self.do_open(opened, request, context=self._trust)


def connections_to(address: str, kind: Any) -> Callable[..., http.client.HTTPConnection]:
    """Connections to one address, whatever the name in a URL."""

    def connection(host: str, **options: Any) -> http.client.HTTPConnection:
        made = kind(host, **options)
        made._create_connection = lambda named, *rest: socket.create_connection(
            (address, named[1]), *rest
        )
        return made

    return connection


def secret(machine: Machine, way: Way, name: str) -> str:
    """A password or token of an instance, out of its file."""
    return machine.run(f"cat /srv/lava/instances/{way.name}/etc/{name}").stdout.strip()


def client_of(
    machine: Machine,
    way: Way,
    user: str = SUBMITTER,
    token: str = "",
    program: Sequence[str] = (LAVACLI,),
) -> list[str]:
    """The words of a lavacli that shows what it hears at once, up to its subcommand.

    By this URI alone it finds the websocket, too. XML-RPC is trusted by the one variable, the
    websocket by the other.
    """
    token = token or secret(machine, way, "client-token")
    uri = f"{way.scheme}://{user}:{token}@{way.address}/RPC2"
    trust = [f"REQUESTS_CA_BUNDLE={AUTHORITY}", f"SSL_CERT_FILE={AUTHORITY}"]
    return ["env", *trust, f"{CLONE}/.venv/bin/python", "-u", *program, "--uri", uri]


def ask_lavacli(machine: Machine, way: Way, *words: str) -> str:
    return machine.run([*client_of(machine, way), *words]).stdout


def install_location(admin: Admin, way: Way, *options: str) -> None:
    admin("install", way.name, "-n", "--yes", "--route", "location", *options)
