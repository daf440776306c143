"""HTTPS: refused with a reason, by the machine's own authority, by an admin's certificate, and off.

Seen from another machine, which trusts the one file that the admin hands on.
"""

import http.client
import socket
import ssl
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lava_deploy import certificates
from lava_deploy.certificates import Pair
from tests.e2e.machines import Admin, Machine, answer, files_at_rest
from tests.e2e.test_quickstart import NAME
from tests.e2e.ways import AUTHORITY, FORM_TOKEN, connections_to
from tests.hosts.manifest import difference
from tests.hosts.waiting import until

pytestmark = pytest.mark.e2e
HOST = f"{NAME}.localhost"
LOCATION = "sealed"
ETC = f"/srv/lava/instances/{NAME}/etc"
PLACE = "/tmp/tls"
NOW = datetime.now(UTC)
HOLD_443 = "import socket; s = socket.create_server(('', 443)); print(flush=True); s.accept()"


@pytest.fixture(scope="module")
def admin(machine: Machine) -> Admin:
    return Admin(machine)


@pytest.fixture(scope="module")
def own() -> Pair:
    """An authority that is not the machine's."""
    return certificates.make_authority("another authority", NOW)


@pytest.fixture(scope="module")
def before(machine: Machine) -> dict:
    """The machine before anything of it is served by HTTPS."""
    return at_rest(machine)


@pytest.fixture(scope="module")
def located(admin: Admin) -> Iterator[Admin]:
    admin("install", LOCATION, "-n", "--yes", "--route", "location", "--no-dispatcher")
    yield admin
    admin("remove", LOCATION, "--yes")


def at_rest(machine: Machine) -> dict:
    return files_at_rest(machine, NAME)


def put(machine: Machine, name: str, text: str) -> str:
    machine.run(f"mkdir -p {PLACE}; umask 077; cat >{PLACE}/{name}", input=text)
    return f"{PLACE}/{name}"


class Secure:
    """A browser's view of a machine, by names that only the machine knows."""

    def __init__(self, machine: Machine, trusted: str) -> None:
        self.machine = machine
        self.context = ssl.create_default_context(cadata=trusted)

    def connect(self, host: str) -> http.client.HTTPSConnection:
        opened = connections_to(self.machine.address, http.client.HTTPSConnection)
        connection = opened(host, timeout=60, context=self.context)
        connection.connect()
        return connection

    def get(self, host: str, path: str, **headers: str) -> http.client.HTTPResponse:
        connection = self.connect(host)
        connection.request("GET", path, headers={**headers, "Connection": "close"})
        return connection.getresponse()

    def certificate(self, host: str) -> certificates.Certificate:
        shown = self.connect(host).sock.getpeercert(binary_form=True)
        return certificates.read(ssl.DER_cert_to_PEM_cert(shown))


@pytest.fixture(scope="module")
def trusting(machine: Machine) -> Secure:
    return Secure(machine, machine.run(["cat", AUTHORITY]).stdout)


def test_what_cannot_be_served_is_refused_and_nothing_is_changed(
    admin: Admin, own: Pair, before: dict
) -> None:
    machine = admin.machine
    good = certificates.issue(own, HOST, [], NOW)
    other = certificates.issue(own, "other.example.org", [], NOW)
    past = NOW - timedelta(days=500)
    over = certificates.issue(certificates.make_authority("old", past), HOST, [], past)
    cert, key = (
        put(machine, "good.pem", good.certificate),
        put(machine, "good.key", good.key.reveal()),
    )
    strange = put(machine, "other.pem", other.certificate)
    old, old_key = (
        put(machine, "old.pem", over.certificate),
        put(machine, "old.key", over.key.reveal()),
    )
    for words, status, said in (
        ([], 2, "either --self-signed"),
        (["--self-signed", "--cert", cert, "--key", key], 2, "either --self-signed"),
        (["--cert", cert], 2, "either --self-signed"),
        (["--cert", "/no/such/file", "--key", PLACE], 4, "/no/such/file cannot be read"),
        (["--cert", key, "--key", cert], 4, "no usable certificate in PEM form"),
        (["--cert", strange, "--key", key], 4, f"does not name {HOST}"),
        (["--cert", strange, "--key", key], 4, "the key does not belong to the certificate"),
        (["--cert", old, "--key", old_key], 4, "the certificate expired on"),
    ):
        assert said in admin("tls", "set", NAME, *words, status=status).stderr
        assert difference(before, at_rest(machine)) == {}


def test_a_port_that_another_program_holds_is_named(admin: Admin, before: dict) -> None:
    holder = admin.machine.popen(["python3", "-c", HOLD_443])
    try:
        assert holder.stdout and holder.stdout.readline()
        refused = admin("tls", "set", NAME, "--self-signed", status=4)
        assert "port 443 is held by python3" in refused.stderr
    finally:
        admin.machine.run(["pkill", "-f", "create_server.*443"], check=False)
        holder.wait(30)
    assert answer(admin.machine, "/", HOST).status == 200
    assert difference(before, at_rest(admin.machine)) == {}


def test_it_is_served_by_a_certificate_that_one_file_vouches_for(
    admin: Admin, before: dict
) -> None:
    admin("tls", "set", NAME, "--self-signed")
    secure = Secure(admin.machine, admin.machine.run(["cat", AUTHORITY]).stdout)
    page = secure.get(HOST, "/")
    assert page.status == 200 and b"/scheduler/" in page.read()
    assert page.headers["Strict-Transport-Security"] is None
    assert secure.get(HOST, "/static/docs/assets/stylesheets/extra.css").status == 200
    assert secure.get(HOST, "/ws/v1/healthz").status == 200
    [shown] = admin.json("route", "show", NAME)["routes"]
    assert shown["url"] == f"https://{HOST}/" and shown["answers"] == 200
    expires = datetime.fromisoformat(shown["certificate"]["expires"])
    assert expires == secure.certificate(HOST).expires
    assert timedelta(days=390) < expires - NOW < timedelta(days=398)
    assert admin.json("status", NAME)["instances"][0]["certificate"] == shown["certificate"]


def test_who_comes_by_http_is_sent_on(machine: Machine) -> None:
    moved = answer(machine, "/scheduler/alljobs?search=x", HOST)
    assert moved.status == 308
    assert moved.headers["Location"] == f"https://{HOST}/scheduler/alljobs?search=x"


def test_keys_are_for_root_alone(machine: Machine) -> None:
    for path in (f"{ETC}/tls/key.pem", "/srv/lava/tls/ca-key.pem"):
        assert machine.run(["stat", "-c", "%a %U:%G", path]).stdout.strip() == "600 root:root"
    assert machine.run(["stat", "-c", "%a", AUTHORITY]).stdout.strip() == "644"


def test_a_login_is_kept_in_cookies_that_never_leave_https(
    machine: Machine, trusting: Secure
) -> None:
    password = machine.run(["cat", f"{ETC}/admin-password"]).stdout.strip()
    connection = trusting.connect(HOST)
    connection.request("GET", "/accounts/login/")
    page = connection.getresponse()
    text, cookie = page.read().decode(), page.headers["Set-Cookie"]
    assert "; Secure" in cookie
    token = FORM_TOKEN.findall(text)[0]
    form = {"csrfmiddlewaretoken": token, "username": "admin", "password": password}
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Cookie": cookie.partition(";")[0],
        "Origin": f"https://{HOST}",
        "Referer": f"https://{HOST}/accounts/login/",
    }
    statuses = {}
    for origin in (f"https://{HOST}", "https://elsewhere.example.org"):
        sent = {**headers, "Origin": origin, "Referer": f"{origin}/accounts/login/"}
        connection = trusting.connect(HOST)
        connection.request("POST", "/accounts/login/", urllib.parse.urlencode(form), sent)
        said = connection.getresponse()
        statuses[origin] = said.status
        if said.status == 302:
            assert all("; Secure" in one for one in said.headers.get_all("Set-Cookie"))
    assert [*statuses.values()] == [302, 403]


def test_a_job_passes_through_https(admin: Admin) -> None:
    """lavacli and REST trust the machine's own authority; the local worker stays where it was."""
    assert admin.json("smoke", NAME)["job"]["health"] == "Complete"


def test_workers_of_other_machines_are_sent_on_unless_asked(admin: Admin, trusting: Secure) -> None:
    if admin.machine.address == "127.0.0.1":
        pytest.skip("there is no other machine")
    path = f"/.lava/{NAME}/scheduler/internal/v1/workers/nobody/"
    moved = answer(admin.machine, path)
    assert (moved.status, moved.headers["Location"]) == (
        308,
        f"https://{admin.machine.address}{path}",
    )
    unknown = trusting.get(admin.machine.address, path)
    assert (unknown.status, unknown.read()) == (404, b'{"error": "Unknown worker \'nobody\'"}')
    admin("tls", "set", NAME, "--self-signed", "--plain-workers", "--hsts", "300")
    assert answer(admin.machine, path).status == 404
    assert trusting.get(HOST, "/").headers["Strict-Transport-Security"] == "max-age=300"


def test_a_location_is_served_under_every_name_of_the_machine(
    located: Admin, trusting: Secure
) -> None:
    located("tls", "set", LOCATION, "--self-signed")
    machine = located.machine
    moved = answer(machine, f"/{LOCATION}/scheduler/alljobs?a=b", "localhost")
    assert moved.headers["Location"] == f"https://localhost/{LOCATION}/scheduler/alljobs?a=b"
    for host in ("localhost", HOST, machine.run(["hostname"]).stdout.strip()):
        assert trusting.get(host, f"/{LOCATION}/").status == 200, host
    assert trusting.get(HOST, "/").status == 200


def test_a_toggle_keeps_https(admin: Admin, trusting: Secure, located: Admin) -> None:
    files = at_rest(admin.machine)
    admin("toggle", NAME, "location", "--hostname", "lab.example.org", "--redirect")
    assert trusting.get("localhost", f"/{NAME}/").status == 200
    sent_on = trusting.get("lab.example.org", "/scheduler/alljobs?a=b")
    url = f"https://lab.example.org/{NAME}/scheduler/alljobs?a=b"
    assert (sent_on.status, sent_on.headers["Location"]) == (308, url)
    assert trusting.get("lab.example.org", f"/{NAME}/").status == 200
    admin("toggle", NAME, "vhost", "--hostname", HOST, "--no-redirect")
    assert trusting.get(HOST, "/").status == 200
    changed = difference(files, at_rest(admin.machine))
    assert {Path(path).suffix for path in changed} <= {".pem", ".json"}, changed


def test_an_admins_own_certificate_is_served(admin: Admin, own: Pair) -> None:
    pair = certificates.issue(own, HOST, ["*.example.org"], NOW)
    cert = put(admin.machine, "own.pem", pair.certificate)
    key = put(admin.machine, "own.key", pair.key.reveal())
    said = admin("tls", "set", NAME, "--cert", cert, "--key", key)
    assert "PRIVATE KEY" not in said.stdout + said.stderr
    secure = Secure(admin.machine, own.certificate)
    assert secure.certificate(HOST).names == (HOST, "*.example.org")
    [shown] = admin.json("route", "show", NAME)["routes"]
    assert shown["certificate"]["issued_by"] == "CN=another authority"
    refused = admin("toggle", NAME, "vhost", "--hostname", "lab.example.com", status=4)
    assert f"does not name lab.example.com; it names {HOST}, *.example.org" in refused.stderr
    admin("toggle", NAME, "vhost", "--hostname", "lab.example.org")
    assert secure.get("lab.example.org", "/").status == 200
    admin("toggle", NAME, "vhost", "--hostname", HOST)


def test_all_is_as_before_once_it_is_off(admin: Admin, located: Admin, before: dict) -> None:
    machine = admin.machine
    admin("tls", "off", NAME)
    assert answer(machine, "/", HOST).status == 200
    located("tls", "off", LOCATION)
    assert answer(machine, f"/{LOCATION}/").status == 200

    def is_closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((machine.address, 443)) != 0

    until(is_closed, 30, lambda: TimeoutError("port 443 is still open"))
    changed = difference(before, at_rest(machine))
    assert {path for path in changed if LOCATION not in path} <= {
        *(f"/srv/lava/instances/{NAME}/{name}" for name in ("instance.yaml", "etc/installed.json")),
        *("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"),
    }
