"""Requests that no honest client sends show no more than any stranger is shown.

One instance has a host name, the other a path; both have REQUIRE_LOGIN, so that every page that
answers is a leak. What is sent goes out as it is: Python's own client would put it right.
"""

import json
import re
import socket
from collections.abc import Iterable, Iterator
from itertools import product

import pytest

from tests.e2e.machines import Admin, Machine
from tests.e2e.test_daily import YAML, wait_for_answers
from tests.e2e.test_quickstart import NAME

pytestmark = pytest.mark.e2e
BELOW = "hidden"
HOST = f"{NAME}.localhost"
INTERNAL = "/scheduler/internal/v1"
WORKERS = tuple(f"/.lava/{name}" for name in (NAME, BELOW))
PRIVATE = ("/results/1", "/scheduler/job/1", "/scheduler/alljobs", "/v1/prometheus/")
PAGE = PRIVATE[0]
# Where pages are: at a host name, with the prefix that its instance has as a location, and below.
WAYS = ((HOST, ""), (HOST, f"/{NAME}"), (HOST, f"/{BELOW}"), ("localhost", f"/{BELOW}"))
# What some server or other takes for the path, or for a person who has logged in.
DISGUISES = [
    *product(
        [
            *("SCRIPT_NAME", "script_name", "Script-Name", "PATH_INFO", "Path-Info"),
            *("X-Script-Name", "X-Forwarded-Script-Name", "X-Forwarded-Prefix", "X-Forwarded-Path"),
            *("X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "REQUEST_URI", "RAW_URI"),
        ],
        [start + INTERNAL for start in ("", f"/{NAME}", f"/{BELOW}", *WORKERS)],
    ),
    *product(["REMOTE_USER", "Remote-User", "X-Remote-User", "X-Forwarded-User"], ["admin"]),
    *product(["X-Forwarded-For", "X_Forwarded_For", "X-Real-IP", "REMOTE_ADDR"], ["127.0.0.1"]),
]
# One step up, in all the ways that something between the client and LAVA may take for one.
UPS = (
    *("/..", "/%2e%2e", "/.%2e", "%2f..", "/..%2f", "/..;", "/..;/", "/..\\", "/%5c..", "\\.."),
    *("//..", "/./..", "/x/../..", "/..%00", "/%252e%252e", "/..%c0%af", "/%c0%ae%c0%ae"),
)
# What LAVA, Apache or the wrapper serves to everybody.
OPEN = (INTERNAL, f"{INTERNAL}/workers", "/static", "/ws", "/accounts/login", "/v1/healthz")
ATTACKER = "attacker.example"
OTHER_HOSTS = (
    *("127.0.0.1", "localhost", "[::1]", ATTACKER, f"{BELOW}.localhost", f"lava-{NAME}"),
    *(f"lava-{NAME}.localhost", f"x.{HOST}", f"{HOST}.{ATTACKER}"),
)
# Apache takes none of these for a host name at all.
NO_HOSTS = (
    *(None, "", f"{HOST}:x", f"{HOST}@{ATTACKER}", f"{ATTACKER}@{HOST}", f"{HOST}, {ATTACKER}"),
    *(f"{HOST}\r\nHost: {ATTACKER}", f"{ATTACKER}\r\nHost: {HOST}", f"{HOST}/", f"{HOST} x"),
)
# A request inside another's body: whoever counts otherwise than Apache takes it for the next one.
INNER = f"GET {INTERNAL}/workers/smuggled/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
LENGTH, CHUNKED = f"Content-Length: {len(INNER)}", "Transfer-Encoding: chunked"
SMUGGLED = (
    *((LENGTH, CHUNKED), (CHUNKED, LENGTH), (LENGTH, "Transfer-Encoding : chunked")),
    *((LENGTH, "Transfer-Encoding:\tchunked"), (LENGTH, "Transfer-Encoding: xchunked")),
    *((CHUNKED, "Transfer-Encoding: identity"), (LENGTH, "Transfer-Encoding: identity, chunked")),
    *((LENGTH, "Transfer_Encoding: chunked"), (LENGTH, "Content_Length: 0")),
    *(("Content-Length: 0", LENGTH), (LENGTH, "Content-Length: 0")),
    *((f"Content-Length: 0, {len(INNER)}",), (f"Content-Length: +{len(INNER)}",)),
    *(("Content-Length: -1",), (LENGTH, "X: y\rTransfer-Encoding: chunked")),
    *((LENGTH, "X: y", " Transfer-Encoding: chunked"), (LENGTH, "Expect: 100-continue")),
    *((LENGTH, "Connection: Content-Length"), (CHUNKED, "Connection: Transfer-Encoding")),
)
SENT_ON = re.compile(rb"(?s)HTTP/1.1 308 .*?\r\nLocation: http://%b(/[^\r]*)\r\n" % HOST.encode())
ASK_SOCKET = """
import json, socket, sys
def ask(request):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(sys.argv[1])
        client.sendall(request.encode("latin-1"))
        return client.makefile("rb").read().decode("latin-1")
print(json.dumps([ask(request) for request in json.load(sys.stdin)]))
"""


def request(
    target: str, host: str | None, *lines: str, method: str = "GET", body: str = ""
) -> bytes:
    """A request as it goes over the wire; None is no Host header."""
    named = [] if host is None else [f"Host: {host}"]
    head = [f"{method} {target} HTTP/1.1", *named, *lines, "Connection: close"]
    return "\r\n".join([*head, "", body]).encode("latin-1")


def ask(machine: Machine, sent: bytes) -> bytes:
    """All that comes back over a connection of its own."""
    with socket.create_connection((machine.address, 80), timeout=10) as client:
        client.sendall(sent)
        return client.makefile("rb").read()


def ask_through(machine: Machine, sent: bytes) -> bytes:
    """What comes back in the end: the prefix of a vhost sends on to the page without it."""
    reply = ask(machine, sent)
    while moved := SENT_ON.match(reply):
        line, rest = sent.split(b"\r\n", 1)
        sent = b" ".join([line.partition(b" ")[0], moved[1], b"HTTP/1.1\r\n" + rest])
        reply = ask(machine, sent)
    return reply


def ask_socket(machine: Machine, name: str, path: str, sent: list[bytes]) -> list[bytes]:
    """All that comes back from a server of an instance itself, past Apache."""
    line = ["python3", "-c", ASK_SOCKET, f"/srv/lava/instances/{name}/run/{path}"]
    told = json.dumps([each.decode("latin-1") for each in sent])
    return [each.encode("latin-1") for each in json.loads(machine.run(line, input=told).stdout)]


def is_refused(reply: bytes) -> bool:
    """Whether an answer is an error, or names the instance's own login page."""
    head = reply.partition(b"\r\n\r\n")[0]
    login = rf"\r\nLocation: (/{BELOW})?/accounts/login/\?next=".encode()
    return int(head.split()[1]) >= 400 or (b" 302 " in head and bool(re.search(login, head)))


def shown(machine: Machine, sent: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """The requests that were not refused, and what was answered."""
    answered = [(each, ask_through(machine, each)) for each in sent]
    return [(each, reply) for each, reply in answered if not is_refused(reply)]


def detours(starts: Iterable[str], pages: Iterable[str]) -> list[str]:
    """Paths that begin in an open place, climb to the top in some way, and go on to a page."""
    ways = product(starts, UPS, pages)
    return [start + up * start.count("/") + page for start, up, page in ways]


@pytest.fixture(scope="module")
def closed(admin: Admin) -> Iterator[Machine]:
    """The first instance with REQUIRE_LOGIN, which it keeps, and another below a path.

    The other takes the first address in X-Forwarded-For for the client's, as LAVA 2023.01 always
    does, and lets workers of this machine register themselves, as it does by default.
    """
    machine = admin.machine
    assert [each for each in PRIVATE if is_refused(ask(machine, request(each, HOST)))] == []
    settings = ("REQUIRE_LOGIN=true", "WORKER_AUTO_REGISTER=true", "HTTP_X_FORWARDED_FOR_INDEX=0")
    chosen = [word for each in settings for word in ("--set", f"settings.{each}")]
    admin("install", BELOW, "-n", "--yes", "--route", "location", *chosen)
    machine.run(["sed", "-i", r"s/^settings:.*/settings:\n  REQUIRE_LOGIN: true/", YAML])
    admin("apply", NAME)
    wait_for_answers(admin)
    yield machine
    admin("remove", BELOW, "--yes")


def test_no_header_leads_around_the_login(closed: Machine) -> None:
    lines = [(), *((f"{name}: {value}",) for name, value in DISGUISES)]
    lines.append((f"SCRIPT_NAME: {INTERNAL}", f"PATH_INFO: {PAGE}"))
    """A server that splits the path where a header says so needs one that begins with it."""
    pages = (PAGE, INTERNAL + PAGE)
    ways = [(host, prefix + page) for host, prefix in WAYS for page in pages]
    ways += [(HOST, place + page) for place in WORKERS for page in pages]
    assert (
        shown(closed, (request(path, host, *each) for host, path in ways for each in lines)) == []
    )


def test_no_path_leads_around_the_login(closed: Machine) -> None:
    """Neither from what is open to all, nor from the workers' location, nor by the prefix twice."""
    for host, prefix in WAYS:
        starts = [prefix + start for start in OPEN]
        doubled = [2 * prefix + PAGE, f"/{prefix}{PAGE}", f"{prefix}/{PAGE}", f"/.{prefix}{PAGE}"]
        paths = [*(prefix + page for page in PRIVATE), *doubled, *detours(starts, [prefix + PAGE])]
        paths += [prefix + PAGE + end for end in (f";{INTERNAL}", f"?{INTERNAL}", f"#{INTERNAL}")]
        assert shown(closed, (request(path, host) for path in paths)) == []


def test_the_location_of_workers_serves_workers_and_nothing_else(closed: Machine) -> None:
    for place, host in product(WORKERS, (HOST, "localhost", ATTACKER)):
        reply = ask(closed, request(f"{place}{INTERNAL}/workers/nobody/", host))
        assert reply.endswith(b'{"error": "Unknown worker \'nobody\'"}')
    starts = [place + start for place in WORKERS for start in (INTERNAL, "/ws")]
    paths = [place + page for place in WORKERS for page in ("", "/", "/admin/", *PRIVATE)]
    paths += [f"{place}/{name}{PAGE}" for place in WORKERS for name in (NAME, BELOW)]
    paths += [f"/{name}{place}{INTERNAL}/workers/" for place in WORKERS for name in (NAME, BELOW)]
    paths += detours(starts, [PAGE, f"{WORKERS[0]}{PAGE}", f"/{BELOW}{PAGE}"])
    assert shown(closed, (request(path, host) for path in paths for host in (HOST, "x"))) == []


def test_no_path_leads_to_the_servers_files(closed: Machine) -> None:
    places = [f"{prefix}/static" for _, prefix in WAYS] + ["/tmp"]
    climbs = [place + up * steps for place, up, steps in product(places, UPS, (1, 2, 3, 9))]
    files = ("/etc/secrets.yaml", "/instance.yaml", "/etc/passwd", "/venv/pyvenv.cfg")
    paths = [climb + file for climb in climbs for file in files]
    paths += [f"{place}{path}" for place in places for path in ("", "/", "//etc/passwd", "/.")]
    assert shown(closed, (request(path, HOST) for path in paths)) == []


def test_no_host_header_shows_what_is_anothers(closed: Machine) -> None:
    hosts = (*OTHER_HOSTS, *NO_HOSTS)
    sent = [request(page, host) for page in PRIVATE for host in hosts]
    sent += [request(f"http://{HOST}{PAGE}", host) for host in hosts]
    sent += [request(f"http://{host}{PAGE}", HOST) for host in OTHER_HOSTS]
    sent += [f"GET {path} HTTP/1.0\r\n\r\n".encode() for path in (PAGE, f"/{BELOW}{PAGE}")]
    assert shown(closed, sent) == []


def test_the_default_site_stays_what_it_was(closed: Machine) -> None:
    for host in OTHER_HOSTS:
        assert b"LAVA" not in ask(closed, request("/", host)), host
        assert b"LAVA" not in ask(closed, request(f"http://{host}/", HOST)), host


def test_no_header_puts_another_host_into_answers(closed: Machine) -> None:
    names = ("X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "X-Original-Host", "Forwarded")
    lines = [f"{name}: {'host=' if name == 'Forwarded' else ''}{ATTACKER}" for name in names]
    pages = ("", "/", "/accounts/login/", "/accounts/password_reset/", "/admin", PAGE)
    for (host, prefix), page, line in product(WAYS, pages, lines):
        assert ATTACKER.encode() not in ask(closed, request((prefix + page) or "/", host, line))
    assert ATTACKER.encode() not in ask(closed, request(f"http://{HOST}/", ATTACKER))


def test_no_request_hides_another(closed: Machine) -> None:
    for lines, prefix in product(SMUGGLED, ("", f"/{BELOW}", f"{WORKERS[0]}{INTERNAL}")):
        post = request(
            f"{prefix}/v1/healthz/", HOST, *lines, method="POST", body=f"0\r\n\r\n{INNER}"
        )
        reply = ask(closed, post)
        assert reply.replace(b"HTTP/1.1 100 Continue", b"").count(b"HTTP/1.1 ") == 1, post
        assert b"smuggled" not in reply, post
        assert b'"good"' in ask(closed, request("/v1/healthz/", HOST))


def test_apache_is_a_proxy_to_nothing_else(closed: Machine) -> None:
    """Port 22 greets whoever reaches it; every test host has it."""
    asked = request("127.0.0.1:22", HOST, method="CONNECT")
    for sent in (asked, request("http://127.0.0.1:22/", HOST), request("/", "127.0.0.1:22")):
        assert b"SSH-" not in ask(closed, sent)


@pytest.mark.parametrize("place", ["/" + BELOW, WORKERS[1]])
def test_nobody_registers_a_worker_as_if_from_the_machine_itself(
    closed: Machine, place: str
) -> None:
    if closed.address == "127.0.0.1":
        return
    told = [f"{name}: 127.0.0.1" for name in ("X-Forwarded-For", "X_Forwarded_For", "X-Real-IP")]
    told += ["Forwarded: for=127.0.0.1", "X-Forwarded-For: 127.0.0.1,", "X-Forwarded-For: ::1"]
    form = ("Content-Type: application/x-www-form-urlencoded", "Content-Length: 13")
    for lines in [[line] for line in told] + [told, [told[0], "Connection: X-Forwarded-For"]]:
        post = request(
            f"{place}{INTERNAL}/workers/", HOST, *lines, *form, method="POST", body="name=intruder"
        )
        assert b"Auto registration is forbidden for" in ask(closed, post), lines


@pytest.mark.parametrize(("name", "prefix"), [(NAME, ""), (BELOW, f"/{BELOW}")])
def test_the_servers_themselves_show_no_more_past_apache(
    closed: Machine, name: str, prefix: str
) -> None:
    paths = [prefix + page for page in PRIVATE] + [f"/.lava/{name}{page}" for page in PRIVATE]
    starts = [prefix + start for start in OPEN] + [f"/.lava/{name}{start}" for start in OPEN]
    paths += detours(starts, [prefix + PAGE, "/etc/secrets.yaml"])
    sent = [request(path, f"lava-{name}") for path in paths]
    pages = [start + PAGE for start in (prefix, prefix + INTERNAL, f"/.lava/{name}{INTERNAL}")]
    sent += [
        request(page, f"lava-{name}", f"{header}: {value}")
        for page in pages
        for header, value in DISGUISES
    ]
    for path in ("web.sock", "publisher.sock"):
        replies = ask_socket(closed, name, path, sent)
        pairs = zip(sent, replies, strict=True)
        assert [pair for pair in pairs if not is_refused(pair[1])] == []


def test_the_web_server_itself_knows_its_host_names(closed: Machine) -> None:
    hosts = (ATTACKER, f"{BELOW}.localhost", "", None, f"{HOST}\r\nHost: {ATTACKER}")
    replies = ask_socket(closed, NAME, "web.sock", [request("/", host) for host in hosts])
    assert all(b" 400 " in reply.partition(b"\r\n")[0] for reply in replies)
