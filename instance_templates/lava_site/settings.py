# ruff: noqa: F403, F405
"""Settings of one instance: LAVA's defaults, then etc/settings.d, then etc/secrets.yaml.

LAVA's own `lava_server.settings.prod` would read /etc/lava-server, which is another LAVA's.

With LAVA_SITE_DATABASE in the environment, another database of the same server and role is used, to
be prepared before it takes the instance's place: then no mails, notifications, events or reports of
errors leave the process, whatever the settings say.
"""

import logging
import os
import sys
import sysconfig
from pathlib import Path

import yaml
from lava_server.settings.common import *
from lava_server.settings.common import INSTALLED_APPS, update

LAVA_SITE_ETC = Path(os.environ["LAVA_SITE_ETC"])

# Django switches to the zone of TIME_ZONE: without it, nobody can tell which time is meant.
logging.Formatter.default_time_format = "%Y-%m-%d %H:%M:%S%z"

LOGGING = None
_files = sorted((LAVA_SITE_ETC / "settings.d").glob("*.yaml"))
for _file in [*_files, LAVA_SITE_ETC / "secrets.yaml"]:
    globals().update(yaml.safe_load(_file.read_text(encoding="utf-8")) or {})

_database_beside = os.environ.get("LAVA_SITE_DATABASE")
if _database_beside:
    DATABASES["default"]["NAME"] = _database_beside
    EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
    EVENT_NOTIFICATION = False
    LOGGING, SENTRY_DSN = None, ""
    # LAVA notifies by a task: nobody takes it from a queue in memory.
    CELERY_TASK_ALWAYS_EAGER, CELERY_BROKER_URL = False, "memory://localhost"
_logs_are_ours = LOGGING is None

# A name of ours, so that the password stands in no other file.
DATABASES["default"]["PASSWORD"] = DATABASE_PASSWORD

# The virtualenv lies in the release, beside the release's static files.
STATIC_ROOT = str(Path(sys.prefix).parent / "static")
_site_packages = Path(sysconfig.get_path("purelib"))
DEVICE_TYPES_PATHS = [
    str(LAVA_SITE_ETC / "device-types"),
    str(_site_packages / "usr/share/lava-server/device-types"),
]

INSTALLED_APPS = [*INSTALLED_APPS, "lava_site.LavaSite"]
globals().update(update(globals()))
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH  # LAVA makes it the mount point

if _logs_are_ours:
    # Standard error reaches the journal, or the supervisor's rotated files.
    LOGGING["handlers"]["logfile"] = {"class": "logging.StreamHandler", "formatter": "lava"}
