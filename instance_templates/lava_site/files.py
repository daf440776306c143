"""Moves LAVA's files from /etc/lava-server into the instance, and keeps job directories apart."""

import shutil
import sys

from django.conf import settings
from lava_server.files import File
from lava_site.prefix import with_prefix, with_programs

ELSEWHERE = "/etc/lava-server"
ELSEWHERES_USER = "lavaserver"


def keep_below_the_instance():
    """Change lava_server.files.File, which has these paths built in."""
    for kind in ("dispatcher", "env", "env-dut"):
        paths = [
            path.replace(ELSEWHERE, str(settings.LAVA_SITE_ETC), 1) for path in File.KINDS[kind]
        ]
        File.KINDS[kind] = paths
    original = File.read

    def read(self, raising=True):
        if self.kind == "dispatcher":
            return with_prefix(original(self, raising=False), settings.LAVA_SITE_JOB_PREFIX)
        text = original(self, raising)
        return with_programs(text, f"{sys.prefix}/bin") if self.kind == "env" else text

    File.read = read


def leave_to_who_writes_them():
    """Give no file to a user that only Debian's LAVA has, as the command `jobs compress` would."""
    original = shutil.chown

    def chown(path, user=None, group=None, **options):
        if user != ELSEWHERES_USER:
            original(path, user, group, **options)

    shutil.chown = chown
