#!/usr/bin/env python3
"""What clients of an instance meet while it is toggled; runs inside a host, the answer is JSON.

clients.py toggles redirect|no-redirect NAME TOGGLES   seconds of toggles that nobody disturbs
clients.py sticky|following NAME TOGGLES               what clients met meanwhile
clients.py rendered COUNT                              seconds of Apache's part for so many

With the Python of lava-deploy's virtualenv, for requests and aiohttp. Four clients are at it all
the time, each in a thread of its own: one reads pages, one logs in and out, one submits jobs over
XML-RPC and cancels them, one holds a websocket. What is sticky stays at the host name, and the
toggles are made with --redirect. What is following is told the new address after each toggle;
without redirection the old one is gone before that, which is counted apart.
"""

import asyncio
import base64
import hashlib
import json
import re
import subprocess
import sys
import threading
import time
import xmlrpc.client
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import requests

PROGRAM = "/root/lava-deploy/lava-deploy"
INSTANCES = Path("/srv/lava/instances")
REDIRECT = "redirect"
KINDS = ("location", "vhost")
USER, SUBMITTER = "admin", "lava-deploy"
SECONDS = 60  # until an answer; Apache and gunicorn may hold one while code is exchanged
SECONDS_OF_EVENTS = 10
BETWEEN_TOGGLES = 1.0
FAULTS_SHOWN = 12
# Apache's own page, at a host name that is nobody's any more
DEFAULT_PAGE = "Apache2 Debian Default Page"
STYLESHEET = re.compile(r'href="([^"]+\.css)"')
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
LOGIN = re.compile(r'method="post" action="([^"]*/login/)"')
LOGOUT = re.compile(r'action="([^"]*/logout/[^"]*)"')
# What has the job wait for ever: its device is in maintenance. Its events are these.
STATES = ("Submitted", "Finished")


class Gone(Exception):
    """The address is not that of the instance any more, as the admin wanted."""


@dataclass
class Tally:
    """What a client met. Seconds are those of the longest wait for an answer."""

    requests: int = 0
    failed: int = 0
    refused: int = 0
    gone: int = 0
    longest: float = 0.0
    faults: Counter = field(default_factory=Counter)

    def fail(self, fault: str) -> None:
        self.failed += 1
        self.faults[fault] += 1


class Place:
    """Where people reach the instance, as clients know it, and whether a toggle is under way."""

    def __init__(self, url: str, redirected: bool) -> None:
        self.url, self.redirected, self.ended = url, redirected, threading.Event()
        self.toggling, self.doing = False, "before"

    def may_be_gone(self, url: str) -> bool:
        """Whether an address that a client took a moment ago may lead nowhere."""
        return not self.redirected and (self.toggling or not url.startswith(self.url))


class Client:
    """Asks, and looks at what it is told; a round is what it does again and again."""

    def __init__(self, place: Place, name: str) -> None:
        self.place, self.name, self.tally = place, name, Tally()
        self.web = requests.Session()
        self.step = ""

    def live(self) -> None:
        while not self.place.ended.is_set():
            began = self.place.doing
            url = self.place.url
            try:
                self.round(url)
            except Gone:
                self.tally.gone += 1
                time.sleep(0.1)
            except requests.ConnectionError as error:
                self.tally.refused += 1
                self.tally.fail(f"{self.step}: {type(error).__name__} {error} [{began}]")
            except Exception as error:
                now = self.place.doing
                self.tally.fail(f"{self.step}: {type(error).__name__} {error} [{began}→{now}]")

    def round(self, url: str) -> None:
        raise NotImplementedError

    def ask(self, method: str, url: str, **more) -> requests.Response:
        """One answer of status 200, redirections followed. Raises AssertionError for another."""
        self.step, begun = f"{method} {url}", time.monotonic()
        self.tally.requests += 1
        try:
            answer = self.web.request(method, url, timeout=SECONDS, **more)
        finally:
            self.tally.longest = max(self.tally.longest, time.monotonic() - begun)
        gone = answer.status_code == 404 or DEFAULT_PAGE in answer.text
        if gone and self.place.may_be_gone(url):
            raise Gone
        assert answer.status_code == 200, f"{told(answer)}"
        return answer


class Pages(Client):
    """Reads pages, and of each the style that it names."""

    def __init__(self, place: Place, name: str) -> None:
        super().__init__(place, name)
        static = INSTANCES / name / "code/current/static"
        style = static / "lava_server/css/bootstrap-3.4.1.css"
        self.style, self.known = str(style.relative_to(static)), digest(style.read_bytes())

    def round(self, url: str) -> None:
        for path, words in (("", "<title>LAVA"), ("scheduler/alljobs", "/scheduler/job/")):
            page = self.ask("GET", url + path)
            assert words in page.text and page.text.rstrip().endswith("</html>"), told(page)
            named = next(one for one in STYLESHEET.findall(page.text) if "bootstrap" in one)
            self.is_style(self.ask("GET", urljoin(page.url, named)))
        self.is_style(self.ask("GET", f"{url}static/{self.style}"))
        health = self.ask("GET", f"{url}v1/healthz/")
        assert health.json() == {"health": "good"}, told(health)

    def is_style(self, answer: requests.Response) -> None:
        assert digest(answer.content) == self.known, told(answer)


class Logins(Client):
    """Logs in as the admin, in a new browser each time, and out again."""

    def round(self, url: str) -> None:
        self.web = requests.Session()
        form = self.ask("GET", f"{url}accounts/login/")
        words = {"username": USER, "password": secret(self.name, "admin-password"), "next": ""}
        words["csrfmiddlewaretoken"] = TOKEN.search(form.text)[1]
        page = self.ask("POST", urljoin(form.url, LOGIN.search(form.text)[1]), data=words)
        assert f"</span> {USER} <b" in page.text, f"not logged in: {told(page)}"
        leave = urljoin(page.url, LOGOUT.search(page.text)[1])
        words = {"csrfmiddlewaretoken": TOKEN.search(page.text)[1]}
        page = self.ask("POST", leave, data=words)
        assert f"</span> {USER} <b" not in page.text, f"not logged out: {told(page)}"


class Jobs(Client):
    """Submits a job, finds it as it was submitted, and cancels it."""

    def __init__(self, place: Place, name: str) -> None:
        super().__init__(place, name)
        self.web.auth = (SUBMITTER, secret(name, "client-token"))
        self.definition = str(self.call(place.url, "scheduler.jobs.definition", 1))
        self.submitted: set[int] = set()
        self.canceled: set[int] = set()
        self.number = 0

    def round(self, url: str) -> None:
        self.number += 1
        name = f"toggles {self.number}"
        text = self.definition.replace("job_name: lava-deploy smoke", f"job_name: {name}")
        job = self.call(url, "scheduler.jobs.submit", text)
        self.submitted.add(job)
        shown = self.call(url, "scheduler.jobs.show", job)
        assert (shown["id"], shown["description"]) == (job, name), shown
        assert self.call(url, "scheduler.jobs.cancel", job) is True
        self.canceled.add(job)

    def call(self, url: str, method: str, *words):
        headers = {"Content-Type": "text/xml"}
        text = xmlrpc.client.dumps(words, method, allow_none=True)
        answer = self.ask("POST", f"{url}RPC2", data=text, headers=headers)
        return xmlrpc.client.loads(answer.content)[0][0]


class Events(Client):
    """Holds a websocket, and keeps what it is told of jobs."""

    def __init__(self, place: Place, name: str) -> None:
        super().__init__(place, name)
        self.heard: set[tuple[int, str]] = set()
        self.cuts: list[str] = []
        self.connected = threading.Event()
        account = f"{SUBMITTER}:{secret(name, 'client-token')}".encode()
        self.headers = {"Authorization": f"Basic {base64.b64encode(account).decode()}"}

    def heard_all(self, expected: set[tuple[int, str]]) -> set[tuple[int, str]]:
        """What was heard, when it is all that is expected or nothing more is to come."""
        limit = time.monotonic() + SECONDS_OF_EVENTS
        while time.monotonic() < limit and not expected <= self.heard:
            time.sleep(0.1)
        return self.heard

    def live(self) -> None:
        asyncio.run(self.listen())

    async def listen(self) -> None:
        async with aiohttp.ClientSession(headers=self.headers) as session:
            while True:
                url = self.place.url
                self.tally.requests += 1
                try:
                    async with session.ws_connect(f"{url}ws/") as socket:
                        self.connected.set()
                        await self.hear(socket)
                except aiohttp.WSServerHandshakeError as error:
                    if error.status == 404 and self.place.may_be_gone(url):
                        self.tally.gone += 1
                        await asyncio.sleep(0.1)
                        continue
                    self.tally.fail(f"handshake {error.status} {error.message}")
                except aiohttp.ClientError as error:
                    self.tally.refused += 1
                    self.tally.fail(f"handshake {type(error).__name__} {error}")
                self.cuts.append(self.place.doing)

    async def hear(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            topic, _, _, _, text = json.loads(message.data)
            if topic.endswith(".testjob"):
                event = json.loads(text)
                self.heard.add((event["job"], event["state"]))


def sticky(name: str, count: str) -> dict:
    """Clients that stay at the host name, which sends them on."""
    return meet(Place(address(name), True), name, int(count))


def following(name: str, count: str) -> dict:
    """Clients that are told where to go."""
    return meet(Place(address(name), False), name, int(count))


def toggles(option: str, name: str, count: str) -> list[dict]:
    """The seconds of each toggle, and what the command says of its steps."""
    return toggle(Place(address(name), option == REDIRECT), name, int(count))


def rendered(count: str) -> dict:
    """The seconds of writing so many routes, and of loading them, from host names to locations.

    They are of instances that there are not, by the code of a toggle; gone afterwards.
    """
    from lava_deploy.configuration import LOCATION, VHOST, Route
    from lava_deploy.model import Instance
    from lava_deploy.parts import route
    from lava_deploy.system import System

    system = System()
    names = [f"more-{number}" for number in range(int(count))]
    spent: dict[str, list[float]] = {"write": [], "reload": []}
    # the first of these makes what the others change
    for kind in (VHOST, LOCATION, VHOST):
        for name in names:
            wanted = Route(kind, f"{name}.localhost", f"/{name}", redirect=True)
            texts = route.texts(Instance(name), wanted)
            spent["write"].append(seconds_of(lambda texts=texts: route.write(system, texts)))
        spent["reload"].append(seconds_of(lambda: route.reload(system)))
    spent["configtest"] = [seconds_of(lambda: system.run(["apache2ctl", "configtest"]))]
    for name in names:
        gone = dict.fromkeys(route.texts(Instance(name), wanted))
        route.write(system, gone)
    route.reload(system)
    return spent


def seconds_of(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def meet(place: Place, name: str, count: int) -> dict:
    """Toggle there and back under the clients; what they met, by their kind."""
    clients = [kind(place, name) for kind in (Pages, Logins, Jobs, Events)]
    threads = [threading.Thread(target=client.live, daemon=True) for client in clients]
    jobs, events = clients[2], clients[3]
    threads[3].start()
    assert events.connected.wait(SECONDS)
    for thread in threads[:3]:
        thread.start()
    spent = toggle(place, name, count)
    for thread in threads[:3]:
        thread.join(SECONDS)
    expected = {(job, STATES[0]) for job in jobs.submitted}
    expected |= {(job, STATES[1]) for job in jobs.canceled}
    return {
        "toggles": spent,
        "clients": {type(one).__name__.lower(): shown(one.tally) for one in clients},
        "cuts": events.cuts,
        "events": len(expected),
        "lost": sorted(expected - events.heard_all(expected)),
    }


def toggle(place: Place, name: str, count: int) -> list[dict]:
    """Toggle there and back; the place knows at each moment what is being done."""
    option = f"--{REDIRECT}" if place.redirected else f"--no-{REDIRECT}"
    spent = []
    for number in range(count):
        time.sleep(BETWEEN_TOGGLES)
        kind = KINDS[number % 2]
        place.toggling, place.doing = True, f"toggle {number + 1} to {kind}"
        begun = time.monotonic()
        said = run("toggle", name, kind, option).stderr
        spent.append({"kind": kind, "seconds": time.monotonic() - begun, "said": said})
        if not place.redirected:
            place.url = address(name)
        place.toggling, place.doing = False, f"after toggle {number + 1}"
    time.sleep(BETWEEN_TOGGLES)
    place.ended.set()
    return spent


def address(name: str) -> str:
    [route] = json.loads(run("route", "show", name, "--json").stdout)["routes"]
    return route["url"]


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=True)


def shown(tally: Tally) -> dict:
    return asdict(tally) | {"faults": tally.faults.most_common(FAULTS_SHOWN)}


def told(answer: requests.Response) -> str:
    """What an answer was, short, with the ways it went."""
    way = [f"{one.status_code} {one.url}" for one in (*answer.history, answer)]
    title = re.search(r"<title>([^<]*)", answer.text)
    server = answer.headers.get("Server", "")
    return f"{' > '.join(way)} by {server} {title[1].strip() if title else answer.text[:80]!r}"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def secret(name: str, file: str) -> str:
    return (INSTANCES / name / "etc" / file).read_text().strip()


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    verbs = (toggles, sticky, following, rendered)
    json.dump({one.__name__: one for one in verbs}[verb](*words), sys.stdout)
