"""The settings of an instance's LAVA, and the package `lava_site` that reads them."""

from __future__ import annotations

import re
import secrets
from email.utils import parseaddr
from typing import TYPE_CHECKING, Any

import yaml

from lava_deploy import templates
from lava_deploy.configuration import LOCATION
from lava_deploy.model import POSTGRES_SOCKETS, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lava_deploy.configuration import Configuration, Database, Mail
    from lava_deploy.model import Instance
    from lava_deploy.system import System

HEADER = "# Written by lava-deploy out of instance.yaml: change that, then `lava-deploy apply`.\n"
SITE = (
    "__init__.py",
    "batch.py",
    "files.py",
    "gunicorn.conf.py",
    "health.py",
    "prefix.py",
    "publisher.py",
    "restored.py",
    "settings.py",
    "sockets.py",
    "wsgi.py",
)
SECRET_KEY_BYTES = 50
PASSWORD_BYTES = 24
TELLING = re.compile(r"password|passwd|secret|token|key", re.IGNORECASE)


def texts(instance: Instance, configuration: Configuration, database: Database) -> dict[Path, str]:
    """All files but that of the generated secrets; those with a secret in them are Secret.

    LAVA reads settings.d in the order of names; `database` has its port.
    """
    plain, secret = _parted(configuration.settings)
    ours = {**_own(instance, configuration, database), **_mail(configuration.mail)}
    files: dict[Path, str] = {
        instance.settings / "00-instance.yaml": _yaml(ours),
        routing(instance): _yaml(_routing(instance, configuration)),
        instance.settings / "20-admin.yaml": _yaml(plain),
        instance.settings / "30-admin-secrets.yaml": Secret(
            _yaml({**_mail_password(configuration.mail), **secret})
        ),
        instance.etc / "gunicorn.yaml": _yaml(
            {"workers": configuration.web.workers, "threads": configuration.web.threads}
        ),
    }
    site = {_site(instance) / name: templates.source(f"lava_site/{name}") for name in SITE}
    return {**files, **site}


def routing(instance: Instance) -> Path:
    """The file with the settings that depend on the route."""
    return instance.settings / "10-routing.yaml"


def stale(system: System, instance: Instance) -> bool:
    """Whether the package `lava_site` that an instance has is of another lava-deploy."""
    ours = {_site(instance) / name: templates.source(f"lava_site/{name}") for name in SITE}
    return system.texts(ours) != ours


def exists(system: System, instance: Instance) -> bool:
    return system.exists(instance.settings / "00-instance.yaml")


def make(
    system: System, instance: Instance, configuration: Configuration, database: Database
) -> None:
    """Write all files, readable to root and the instance's user alone."""
    change(system, instance, texts(instance, configuration, database))


def change(system: System, instance: Instance, wanted: Mapping[Path, str | None]) -> None:
    """Give files these texts; those with None are removed."""
    system.make_directory(_site(instance), 0o750, "root", instance.user)
    for path, text in wanted.items():
        if text is None:
            system.remove(path)
        else:
            whole = text.reveal() if isinstance(text, Secret) else text
            system.write(path, whole, mode=0o640, group=instance.user)


def remove(system: System, instance: Instance) -> None:
    """Remove the files that `make` and `make_secrets` wrote."""
    system.remove_tree(_site(instance))
    for name in system.names(instance.settings):
        system.remove(instance.settings / name)
    for path in (instance.etc / "gunicorn.yaml", instance.secrets):
        system.remove(path)


def make_secrets(system: System, instance: Instance) -> None:
    """Write a new SECRET_KEY and database password, unless there are some."""
    if system.exists(instance.secrets):
        return
    values = {
        "SECRET_KEY": secrets.token_urlsafe(SECRET_KEY_BYTES),
        "DATABASE_PASSWORD": secrets.token_urlsafe(PASSWORD_BYTES),
    }
    system.write(instance.secrets, templates.dump(values), mode=0o640, group=instance.user)


def take_key(system: System, instance: Instance, theirs: Path, etc: Path) -> None:
    """Write secrets into another etc/: the key out of their file, if there is one, own access."""
    values = yaml.safe_load(system.read(instance.secrets))
    if system.exists(theirs):
        values["SECRET_KEY"] = yaml.safe_load(system.read(theirs))["SECRET_KEY"]
    path = etc / instance.secrets.name
    system.write(path, templates.dump(values), mode=0o640, group=instance.user)


def database_password(system: System, instance: Instance) -> Secret:
    """The password that LAVA logs in to Postgres with. Raises FileNotFoundError."""
    return Secret(yaml.safe_load(system.read(instance.secrets))["DATABASE_PASSWORD"])


def _own(instance: Instance, configuration: Configuration, database: Database) -> dict[str, Any]:
    """What makes this LAVA this instance's; DATABASES gets its password from the secrets."""
    return {
        "INSTANCE_NAME": instance.name,
        "LAVA_SITE_JOB_PREFIX": instance.job_prefix,
        "LAVA_SITE_WORKER_LOCATION": instance.worker_location,
        "DATABASES": {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": instance.database,
                "USER": instance.user,
                "HOST": database.host or POSTGRES_SOCKETS,
                "PORT": str(database.port),
                "CONN_MAX_AGE": 60,
                "CONN_HEALTH_CHECKS": True,
            }
        },
        "MEDIA_ROOT": f"{instance.media}/",
        "DEVICES_PATH": str(instance.etc / "devices"),
        "HEALTH_CHECKS_PATH": str(instance.etc / "health-checks"),
        # releases before 2026 take workers from anywhere near
        "WORKER_AUTO_REGISTER": False,
        "EVENT_NOTIFICATION": True,
        "INTERNAL_EVENT_SOCKET": f"ipc://{instance.internal_events}",
        "EVENT_SOCKET": f"ipc://{instance.events}",
        "SESSION_COOKIE_NAME": f"sessionid_{instance.name}",
        "CSRF_COOKIE_NAME": f"csrftoken_{instance.name}",
        # names keep instances apart; with paths, a toggle would log everybody out
        "CSRF_COOKIE_PATH": "/",
    }


def _routing(instance: Instance, configuration: Configuration) -> dict[str, Any]:
    """What depends on the address that browsers use.

    A location is reached by every name and address of the host, which come and go; a vhost's names
    are known.
    """
    route = configuration.route
    names = [route.hostname, instance.canonical_host, "localhost", "127.0.0.1", "[::1]"]
    return {
        "ALLOWED_HOSTS": ["*"] if route.kind == LOCATION else [*filter(None, names)],
        "MOUNT_POINT": route.mount.strip("/"),
        "LAVA_SITE_PREFIX": route.prefix,
        "STATIC_URL": f"{route.mount}/static/",
        "LOGIN_REDIRECT_URL": f"{route.mount}/",
        "SESSION_COOKIE_SECURE": route.secure,
        "CSRF_COOKIE_SECURE": route.secure,
        "HTTPS_XML_RPC": route.secure,
        **({"CSRF_TRUSTED_ORIGINS": [route.origin]} if route.secure else {}),
    }


def _mail(mail: Mail) -> dict[str, Any]:
    """Where notifications go; without a server, nowhere."""
    if not mail.server:
        return {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    admins = [[name or address, address] for name, address in map(parseaddr, mail.admins)]
    sender = {"SERVER_EMAIL": mail.sender, "DEFAULT_FROM_EMAIL": mail.sender}
    return {
        "EMAIL_HOST": mail.server,
        "EMAIL_PORT": mail.port,
        "EMAIL_USE_TLS": mail.tls,
        **({"EMAIL_HOST_USER": mail.user} if mail.user else {}),
        **(sender if mail.sender else {}),
        **({"ADMINS": admins, "MANAGERS": admins} if admins else {}),
    }


def _mail_password(mail: Mail) -> dict[str, Any]:
    return {"EMAIL_HOST_PASSWORD": mail.password.reveal()} if mail.password else {}


def _parted(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An admin's settings, without and with what looks like a secret."""
    secret = {k: v for k, v in settings.items() if TELLING.search(templates.dump({k: v}))}
    return {k: v for k, v in settings.items() if k not in secret}, secret


def _yaml(values: Mapping[str, Any]) -> str:
    return HEADER + (templates.dump(dict(values)) if values else "{}\n")


def _site(instance: Instance) -> Path:
    return instance.site / "lava_site"
