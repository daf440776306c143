"""Which routes clash with what Apache already serves, by its files."""

from pathlib import Path

import pytest

from lava_deploy import config
from lava_deploy.cli import routes
from lava_deploy.configuration import LOCATION, VHOST, Route
from lava_deploy.model import Host
from lava_deploy.parts import route
from tests.fakes.stage import PLANS, Stage, of_toggle, with_demo

DEMO = Host().instance("demo")
FILES = {
    "sites-enabled/lab.conf": """
<VirtualHost *:80>
    ServerName lab.example.org
    ServerAlias LAB www.lab.example.org
    ProxyPass / http://127.0.0.1:8000/
</VirtualHost>
""",
    "sites-enabled/lava-demo.conf": "ServerName demo.example.org",
    "conf-enabled/javascript.conf": 'Alias "/javascript" /usr/share/javascript',
    "conf-enabled/wiki.conf": "<Location /wiki/pages>\nRequire all granted\n</Location>",
    "conf-enabled/lava-other.conf": "ProxyPass /other/ http://127.0.0.1:8001/other/ retry=0",
    "conf-enabled/moved.conf": "RedirectMatch 308 ^/moved(/.+)$ https://elsewhere.example.org$1",
}


class Enabled:
    """A machine with these files of Apache's."""

    def names(self, directory: Path) -> list[str]:
        return [name.partition("/")[2] for name in FILES if name.startswith(f"{directory.name}/")]

    def read(self, path: Path) -> str:
        return FILES[f"{path.parent.name}/{path.name}"]


@pytest.mark.parametrize(
    ("wanted", "by"),
    [
        (Route(VHOST, "lab.example.org"), "lab.conf"),
        (Route(VHOST, "lab"), "lab.conf"),
        (Route(VHOST, "demo.example.org"), ""),
        (Route(VHOST, "new.example.org"), ""),
        (Route(LOCATION, "lab.example.org", "/demo"), ""),
        (Route(LOCATION, "lab.example.org", "/other"), "lava-other.conf"),
        (Route(LOCATION, "lab.example.org", "/other/two"), "lava-other.conf"),
        (Route(LOCATION, "lab.example.org", "/others"), ""),
        (Route(LOCATION, "lab.example.org", "/wiki"), "wiki.conf"),
        (Route(LOCATION, "lab.example.org", "/moved"), "moved.conf"),
    ],
)
def test_a_name_or_path_that_apache_serves_already_is_refused(wanted: Route, by: str) -> None:
    found = route.faults(Enabled(), DEMO, wanted)
    assert [by] == [fault.partition("available/")[2].partition(":")[0] for fault in found] or not by
    assert bool(found) == bool(by)


@pytest.mark.parametrize("prefix", ["/demo", "/lab/one", "/a_b-c/2"])
def test_a_path_can_be_a_prefix(prefix: str) -> None:
    assert config.prefix_faults(prefix) == []


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "",
            "/",
            "//",
            "demo",
            "/demo/",
            "/Demo",
            "/d\u00e9mo",
            "/a b",
            "/../a",
            "/a//b",
            "/.lava",
        ),
        *("/static", "/scheduler/lab", "/api", "/rpc2", "/ws", "/a/b/c/d/e", "/%41"),
    ],
)
def test_other_texts_cannot(prefix: str) -> None:
    assert len(config.prefix_faults(prefix)) == 1


def test_a_location_needs_a_prefix_and_a_vhost_none() -> None:
    assert "route.prefix" in config.examine({"route": {"kind": "location"}})[1][0]
    assert config.examine({"route": {"kind": "vhost", "hostname": "a.example.org"}})[1] == []


def test_a_host_name_with_a_certificate_of_another_site_is_refused() -> None:
    class Tls(Only):
        def read(self, path: Path) -> str:
            return "<VirtualHost *:443>\nServerName lab.example.org\n"

    wanted = Route(LOCATION, "lab.example.org", "/demo", certificate="self-signed")
    assert len(route.faults(Tls("000-lab.conf"), DEMO, wanted)) == 1
    assert route.faults(Tls("lava-other.conf"), DEMO, wanted) == []


def test_a_location_that_sends_its_host_name_on_needs_that_as_well():
    sent_on = Route(LOCATION, "lab.example.org", "/demo", redirect=True)
    assert len(route.faults(Enabled(), DEMO, sent_on)) == 1
    sent_on = Route(VHOST, "new.example.org", "/wiki", redirect=True)
    assert len(route.faults(Enabled(), DEMO, sent_on)) == 1


class Only(Enabled):
    """A machine with one site."""

    def __init__(self, name: str) -> None:
        self.name = name

    def names(self, directory: Path) -> list[str]:
        return [self.name] if directory.name == "sites-enabled" else []

    def read(self, path: Path) -> str:
        return "<VirtualHost 10.0.0.1:80 *:80>\n"


@pytest.mark.parametrize(
    ("site", "wanted", "usurps"),
    [
        ("mine.conf", Route(VHOST, "demo.example.org"), True),
        ("000-default.conf", Route(VHOST, "demo.example.org"), False),
        ("lava-other.conf", Route(VHOST, "demo.example.org"), False),
        ("mine.conf", Route(LOCATION, "lab.example.org", "/demo"), False),
        ("mine.conf", Route(LOCATION, "lab.example.org", "/demo", certificate="own"), False),
        ("mine.conf", Route(LOCATION, "lab.example.org", "/demo", redirect=True), True),
    ],
)
def test_no_instance_becomes_the_default_site(site: str, wanted: Route, usurps: bool) -> None:
    assert bool(route.faults(Only(site), DEMO, wanted)) == usurps


def test_one_that_is_the_default_site_already_is_left_alone() -> None:
    assert route.faults(Only("lava-demo.conf"), DEMO, Route(VHOST, "demo.example.org")) == []


def test_what_others_are_about_to_get_counts_already():
    wanted = Route(LOCATION, "lab.example.org", "/other")
    other = Host().instance("other")
    leaving = dict.fromkeys(route.texts(other, Route(LOCATION, "", "/other")))
    assert route.faults(Enabled(), DEMO, wanted, leaving) == []
    coming = route.texts(Host().instance("new"), Route(LOCATION, "", "/other"))
    assert len(route.faults(Enabled(), DEMO, wanted, {**leaving, **coming})) == 1


@pytest.mark.parametrize("name", ["toggle, systemd", "toggle back, systemd"])
def test_a_toggle_renews_the_processes_it_concerns_and_no_others(name, tmp_path):
    keeper, prepare, plan = PLANS[name]
    stage = Stage(tmp_path, prepare(tmp_path, keeper).copy())
    stage.carry_out(plan(stage))
    touched = {unit for unit in stage.world.touched if not unit.endswith(".slice")}
    assert touched == {f"lava-deploy-{name}@demo.service" for name in ("web-a", "scheduler")}


@pytest.mark.parametrize("keeper", ["systemd", "supervisor"])
def test_a_stopped_instance_stays_stopped(tmp_path, keeper):
    stage = Stage(tmp_path, with_demo(tmp_path, keeper))
    stage.context.doors.keeper.stop_all(stage.demo)
    stage.world.touched.clear()
    stage.carry_out(of_toggle(stage))
    assert stage.world.touched == []
    assert "ProxyPass /demo/" in "".join(stage.world.served.values())


@pytest.mark.parametrize(
    ("now", "kind", "wanted", "hostname"),
    [
        (Route(VHOST, "demo.localhost"), LOCATION, {}, "localhost"),
        (Route(LOCATION, "localhost", "/demo"), VHOST, {}, "demo.localhost"),
        (Route(VHOST, "lab.example.org"), LOCATION, {}, ""),
        (Route(LOCATION, "lab.example.org", "/demo"), VHOST, {}, ""),
        (Route(VHOST, "demo.localhost"), LOCATION, {"route.redirect": True}, ""),
        (Route(VHOST, "demo.localhost"), LOCATION, {"route.hostname": "lab"}, "lab"),
    ],
)
def test_a_toggle_changes_the_host_name_only_where_nobody_chose_it(now, kind, wanted, hostname):
    changes = routes._changes(DEMO, now, kind, wanted)
    assert changes.get("route.hostname", "") == hostname
    assert (changes["route.kind"], changes["route.prefix"]) == (kind, "/demo")
