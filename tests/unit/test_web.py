"""The door to web servers, tried on small servers of this process."""

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher

import pytest

from lava_deploy import certificates
from lava_deploy.errors import CommandFailed, Unreachable
from lava_deploy.model import Secret
from lava_deploy.web import Web


class Answering(BaseHTTPRequestHandler):
    """Tells what it was asked; a few paths have answers of their own."""

    def do_GET(self) -> None:
        statuses = {"/moved": 302, "/broken": 500}
        self.send_response(statuses.get(self.path, 200))
        self.send_header("Location", "http://elsewhere.invalid/")
        self.end_headers()
        asked = {"host": self.headers["Host"], "token": self.headers["Authorization"]}
        self.wfile.write(json.dumps(asked).encode())

    def do_POST(self) -> None:
        methods = SimpleXMLRPCDispatcher()
        methods.register_function(lambda: "RUNNING", "supervisor.getState")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(methods._marshaled_dispatch(body))  # type: ignore[arg-type]

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "client"


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with socketserver.UnixStreamServer(str(tmp_path / "s"), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "s"
        server.shutdown()


def test_a_redirection_is_an_answer_and_is_not_followed(url: str) -> None:
    assert Web().status(f"{url}/moved") == 302


def test_a_proxy_is_not_asked_for_addresses_of_this_machine(url: str) -> None:
    assert Web({"http_proxy": "http://nowhere.invalid:1"}).status(url) == 200


def test_host_and_token_are_sent(url: str) -> None:
    said = Web().json(url, token=Secret("abc"))
    assert said["token"] == "Token abc"


def test_another_status_than_200_is_no_text(url: str) -> None:
    with pytest.raises(Unreachable, match="status 500"):
        Web().text(f"{url}/broken")


def test_waiting_ends_with_the_last_fault(url: str) -> None:
    with pytest.raises(Unreachable, match="status 500"):
        Web().wait(f"{url}/broken", 0.2)


def test_a_port_where_nobody_listens_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        Web().status("http://127.0.0.1:9/")


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server with a certificate for lab.example.org, and the file of who issued it."""
    now = datetime.now(UTC)
    authority = certificates.make_authority("an authority", now)
    pair = certificates.issue(authority, "lab.example.org", ["127.0.0.1"], now)
    (tmp_path / "ca.pem").write_text(authority.certificate)
    (tmp_path / "server.pem").write_text(pair.certificate + pair.key.reveal())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}", tmp_path / "ca.pem"
        server.shutdown()


def test_the_hosts_own_authority_is_trusted_and_no_other(secure: tuple[str, Path]) -> None:
    url, authority = secure
    assert Web(authority=authority).json(url)["host"] == url.removeprefix("https://")
    with pytest.raises(Unreachable, match="self-signed certificate"):
        Web(authority=authority.with_name("none.pem")).json(url)


def test_a_server_of_this_machine_is_probed_for_a_host_name(secure: tuple[str, Path]) -> None:
    url, _ = secure
    assert Web().status(f"{url}/broken", "lab.example.org") == 500
    with pytest.raises(Unreachable, match="does not answer for lab"):
        Web().status("https://127.0.0.1:9/", "lab.example.org")


def test_the_supervisor_is_asked_over_its_socket(path: Path) -> None:
    daemon = Web().supervisor(path)
    assert daemon.ask("getState") == "RUNNING"
    with pytest.raises(CommandFailed):
        daemon.ask("unheardOf")
    assert daemon.ask("unheardOf", harmless=(1,)) is None
    with pytest.raises(Unreachable):
        Web().supervisor(path.with_name("none")).ask("getState")
