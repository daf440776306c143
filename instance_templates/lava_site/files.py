"""Moves LAVA's files from /etc/lava-server into the instance, and keeps job directories apart."""

import yaml
from django.conf import settings
from lava_server.files import File

ELSEWHERE = "/etc/lava-server"


def keep_below_the_instance():
    """Change lava_server.files.File, which has these paths built in."""
    for kind in ("dispatcher", "env", "env-dut"):
        paths = [
            path.replace(ELSEWHERE, str(settings.LAVA_SITE_ETC), 1) for path in File.KINDS[kind]
        ]
        File.KINDS[kind] = paths
    original = File.read

    def read(self, raising=True):
        if self.kind != "dispatcher":
            return original(self, raising)
        return with_prefix(original(self, raising=False), settings.LAVA_SITE_JOB_PREFIX)

    File.read = read


def with_prefix(text, prefix):
    """A dispatcher's configuration whose job prefix begins with the instance's.

    lava-run empties /var/lib/lava/dispatcher/tmp/PREFIX+ID at its start: without a prefix of its
    own, an instance destroys the files of another's job with the same id. An administrator's own
    prefix stays, behind ours. A text that is no mapping is left for LAVA to complain about.
    """
    try:
        configuration = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return text
    if not isinstance(configuration, dict):
        return text
    own = str(configuration.get("prefix") or "")
    if own.startswith(prefix):
        return text
    return yaml.safe_dump({**configuration, "prefix": prefix + own})
