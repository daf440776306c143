"""Walks through a LAVA in a real browser, as its administrator; runs inside a throw-away host.

Standard input: a JSON object with `url` (that of the instance, with a slash at its end), `user`,
`password`, `job` (the number of one that runs still) and `pictures`, a directory for screenshots.
Standard output: a JSON object with `visited` addresses, the `states` that the job's page has shown
of itself, `lines` of its log at first and at last, how LAVA's `bar` is placed, links to
`elsewhere`, and all that went wrong: `failed` requests,
`refused` ones with a status from 400 on, and `complaints` of the console.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, Request, sync_playwright

CHROMIUM = "/usr/bin/chromium"
SIZE = {"width": 1280, "height": 800}
JOBS_END = 90_000  # milliseconds
ARRIVAL = 60  # seconds
# The pages worth a picture, by the ends of their addresses.
PICTURES = {
    "scheduler/alldevices/active": "devices",
    "scheduler/alljobs": "jobs",
    "api/help/": "api",
    "docs/index.html": "help",
    "admin/": "admin",
}
BAR = "getComputedStyle(document.querySelector('nav')).position"
STATE = "document.querySelector('#jobstatus').innerText"
ICON = "document.querySelector('link[rel~=icon]')?.href"


class Visit:
    """One walk, and what there is to tell of it."""

    def __init__(self, order: dict[str, str], context: BrowserContext) -> None:
        self.order, self.page = order, context.new_page()
        self.told: dict[str, Any] = {"visited": [], "failed": [], "refused": [], "complaints": []}
        self.asked: set[Request] = set()
        self.icons: set[str] = set()
        context.on("request", self._begin)
        context.on("requestfinished", self._end)
        context.on("requestfailed", self._end)
        _listen(context, self.told)

    def open(self, address: str) -> Page:
        self.page.goto(address)
        return self.arrive()

    def arrive(self) -> Page:
        """Wait for all that is asked for in a page's name: who leaves earlier breaks it off.

        The browser asks for the icon that a page names a while after the page has loaded.
        """
        self.page.wait_for_load_state()
        icon, limit = self.page.evaluate(ICON), time.monotonic() + ARRIVAL
        while self.asked or (icon and icon not in self.icons):
            if time.monotonic() > limit:
                raise TimeoutError(f"{self.page.url}: {self.asked}, {icon}, {self.icons}")
            self.page.wait_for_timeout(20)
        self.told["visited"].append(self.page.url)
        return self.page

    def picture(self, name: str) -> None:
        self.page.screenshot(path=Path(self.order["pictures"]) / f"{name}.png")

    def log_in(self) -> None:
        page = self.open(f"{self.order['url']}accounts/login/?next={self._path('me/')}")
        page.fill("#id_username", self.order["user"])
        page.fill("#id_password", self.order["password"])
        self.picture("login")
        page.click("button:has-text('Login')")
        page.wait_for_url(f"{self.order['url']}me/")
        self.arrive()
        self.told |= {"bar": page.evaluate(BAR), "elsewhere": []}
        self.picture("profile")

    def watch_the_job(self) -> None:
        """Look at the page of a running job, and touch nothing until it says that the job is over.

        LAVA's page asks for news every five seconds; a reload would lose the mark.
        """
        page = self.open(f"{self.order['url']}scheduler/job/{self.order['job']}")
        page.evaluate("window.mark = true")
        states, lines = [page.evaluate(STATE)], [self._lines()]
        self.picture("job-running")
        while "Complete" not in states[-1]:
            page.wait_for_function(f"seen => {STATE} != seen", arg=states[-1], timeout=JOBS_END)
            states.append(page.evaluate(STATE))
        page.wait_for_selector("#log-messages", state="hidden")  # the log has come to its end, too
        lines.append(self._lines())
        page.evaluate("window.scrollTo(0, 0)")
        self.picture("job-complete")
        self.told |= {"states": states, "lines": lines, "reloaded": not page.evaluate("mark")}

    def follow_the_menu(self) -> None:
        """Every page that LAVA's own menu leads to."""
        links = "nodes => nodes.map(node => node.href)"
        for address in self.page.eval_on_selector_all("nav a[href]:not([href='#'])", links):
            if address.startswith(self.order["url"]):
                self.open(address)
                for end, name in PICTURES.items():
                    if address.endswith(end):
                        self.picture(name)
            else:
                self.told["elsewhere"].append(address)

    def log_out(self) -> None:
        page = self.open(self.order["url"])
        page.click("nav .navbar-right a.dropdown-toggle")
        page.click("text=Sign out")
        page.wait_for_selector("nav a:has-text('Sign In')")
        self.arrive()
        self.picture("home")

    def _path(self, rest: str) -> str:
        return "/" + f"{self.order['url']}{rest}".split("/", 3)[3]

    def _begin(self, request: Request) -> None:
        self.asked.add(request)
        if request.is_navigation_request():
            self.icons.clear()
        elif request.resource_type == "other":  # the same picture on the page itself is an "image"
            self.icons.add(request.url)

    def _end(self, request: Request) -> None:
        self.asked.discard(request)

    def _lines(self) -> int:
        return self.page.locator("#sectionlogs code").count()


def _listen(context: BrowserContext, told: dict[str, Any]) -> None:
    """Write down what goes wrong, on whichever page."""

    def when(event: str, kind: str, tell: Callable[[Any], str | None]) -> None:
        context.on(event, lambda what: told[kind].append(tell(what)) if tell(what) else None)

    when("requestfailed", "failed", lambda one: f"{one.method} {one.url}: {one.failure}")
    when("response", "refused", lambda one: one.status >= 400 and f"{one.status} {one.url}")
    when("weberror", "complaints", lambda one: str(one.error))
    when("console", "complaints", lambda one: one.type in ("error", "warning") and _said(one))


def _said(message: Any) -> str:
    return f"{message.type}: {message.text} ({message.location.get('url', '')})"


def main() -> None:
    order = json.load(sys.stdin)
    with sync_playwright() as playwright:
        # who is root gets no sandbox
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        visit = Visit(order, browser.new_context(viewport=SIZE))
        visit.log_in()
        visit.watch_the_job()
        visit.follow_the_menu()
        visit.log_out()
        browser.close()
    json.dump(visit.told, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
