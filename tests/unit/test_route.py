"""Which routes clash with what Apache already serves, by its files."""

from pathlib import Path

import pytest

from lava_deploy import config
from lava_deploy.configuration import LOCATION, VHOST, Route
from lava_deploy.model import Host
from lava_deploy.parts import route

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
