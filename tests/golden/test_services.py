"""The settings, launchers, units, programs and routes of an instance, text by text."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lava_deploy.configuration import (
    LOCATION,
    Components,
    Configuration,
    Database,
    Gunicorn,
    Limits,
    Mail,
    Route,
)
from lava_deploy.model import Host, Release, Secret
from lava_deploy.parts import route, services, settings, supervisor, systemd
from lava_deploy.system import System

HERE = Path(__file__).parent
INSTANCE = Host().instance("demo")
LABEL = "2026-11-25T00-00-00Z-2026.07"
RELEASE = Release(LABEL, "2026.07", "debian", "2026.07-1", INSTANCE.releases / LABEL)
CONFIGURATION = Configuration(
    route=Route(hostname="demo.example.org"),
    mail=Mail(
        server="mail.example.org",
        port=587,
        user="lava",
        password=Secret("not to be shown"),
        tls=True,
        sender="lava@example.org",
        admins=("Ada <ada@example.org>",),
    ),
    web=Gunicorn(workers=3, threads=2),
    settings={"REQUIRE_LOGIN": True, "AUTH_LDAP_BIND_PASSWORD": "nor is this"},
)

ROUTE = Route(LOCATION, "lab.example.org", "/demo")
SECURE = {"certificate": "self-signed", "redirect": True}
ROUTES = {
    "vhost": CONFIGURATION.route,
    "location": ROUTE,
    "vhost-secure": replace(CONFIGURATION.route, prefix="/demo", hsts=31536000, **SECURE),
    "location-secure": replace(ROUTE, plain_workers=True, **SECURE),
}


def rendered() -> dict[str, str]:
    """All texts by the names of their golden files."""
    system = System()
    plain = settings.texts(INSTANCE, CONFIGURATION, Database(port=5432))
    texts = {
        f"settings/{path.name}": text for path, text in plain.items() if ".py" not in path.name
    }
    launchers = services.texts(INSTANCE, RELEASE, CONFIGURATION, "demo-worker")
    texts |= {f"launchers/{path.name}": text for path, text in launchers.items()}
    texts |= {f"systemd/{path.name}": text for path, text in systemd.texts(Host()).items()}
    limits = Limits(memory="4G", cpu_weight=200, tasks=1000)
    for path, text in systemd.slice_texts(INSTANCE, limits).items():
        texts[f"systemd/{path.relative_to(systemd.UNITS)}"] = text
    for name, chosen, former in (
        ("vhost-toggled", CONFIGURATION.route, ROUTE),
        ("location-toggled", ROUTE, CONFIGURATION.route),
    ):
        for path, text in route.texts(INSTANCE, chosen, former).items():
            if text is not None and "workers" not in path.name:
                texts[f"apache/{name}/{path.relative_to(route.APACHE)}"] = text
    for name, chosen in ROUTES.items():
        for path, text in route.texts(INSTANCE, chosen).items():
            if text is not None:
                texts[f"apache/{name}/{path.relative_to(route.APACHE)}"] = text
        configuration = replace(CONFIGURATION, route=chosen)
        routing = settings.texts(INSTANCE, configuration, Database(port=5432))
        path = settings.routing(INSTANCE)
        texts[f"settings/{name}/{path.name}"] = routing[path]
    everything = services.of(system, INSTANCE, CONFIGURATION)
    texts["supervisor/demo.conf"] = supervisor.text(INSTANCE, everything)
    return texts


TEXTS = rendered()


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_file_is_as_it_should_be(name: str, request: pytest.FixtureRequest) -> None:
    path = HERE / "services" / name
    if request.config.getoption("--write-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{TEXTS[name]}")
    assert f"{TEXTS[name]}" == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    files = (HERE / "services").rglob("*")
    assert {str(f.relative_to(HERE / "services")) for f in files if f.is_file()} == set(TEXTS)


def test_secrets_stand_only_in_texts_that_are_not_shown() -> None:
    shown = "".join(f"{text}" for text in TEXTS.values())
    assert "not to be shown" not in shown and "nor is this" not in shown
    secret = TEXTS["settings/30-admin-secrets.yaml"]
    assert isinstance(secret, Secret)
    assert "not to be shown" in secret.reveal() and "nor is this" in secret.reveal()


@pytest.mark.parametrize("name", sorted(name for name in TEXTS if name.startswith("launchers/")))
def test_a_launcher_is_a_script_for_the_shell(name: str) -> None:
    subprocess.run(["sh", "-n"], input=TEXTS[name], text=True, check=True)


def test_units_satisfy_systemd_and_servers_are_hardened(tmp_path: Path) -> None:
    """systemd-analyze names unknown settings only when told to look at errors of all kinds."""
    for name, text in TEXTS.items():
        if name.startswith("systemd/") and ".d/" not in name:
            # the launchers and sockets of an instance are not on this machine
            (tmp_path / Path(name).name).write_text(
                text.replace("/srv/lava/instances/%i/etc/services/", "/usr/bin/true ")
            )
    for unit in ("web-a", "web-b", "publisher", "scheduler", "dispatcher"):
        path = tmp_path / f"lava-deploy-{unit}@.service"
        limit = "80" if unit == "dispatcher" else "30"
        command = ["systemd-analyze", "security", "--offline=true", f"--threshold={limit}", path]
        assert subprocess.run(command, capture_output=True).returncode == 0, unit
    everything = sorted(tmp_path.iterdir())
    command = ["systemd-analyze", "verify", "--recursive-errors=yes", "--man=no", *everything]
    verified = subprocess.run(command, capture_output=True, text=True)
    assert verified.stderr == ""


def test_slices_of_any_names_lie_side_by_side() -> None:
    """A hyphen would put one below another."""
    [path, *services] = systemd.slice_texts(Host().instance("my-lab"), Limits()).items()
    assert path == (
        systemd.UNITS / r"lava\x2ddeploy-my\x2dlab.slice",
        "[Unit]\nDescription=LAVA instance my-lab, all its processes\n\n[Slice]\n",
    )
    for place, text in services:
        assert "@my-lab.service.d/" in str(place)
        assert text.endswith("[Service]\nSlice=lava\\x2ddeploy-my\\x2dlab.slice\n")


def test_components_that_are_off_have_no_service() -> None:
    configuration = Configuration(components=Components(dispatcher=False, publisher=False))
    names = [service.name for service in services.of(System(), INSTANCE, configuration)]
    assert names == ["web-a", "scheduler"]
