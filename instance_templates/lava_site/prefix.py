"""What an instance's dispatchers need in their configuration: a job prefix, the way to lava-run."""

import yaml

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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


def with_programs(text, programs):
    """An env.yaml in which jobs find the release's programs, lava-run above all.

    LAVA's stock env.yaml replaces PATH by one in which only a packaged LAVA is found. The directory
    is put first; a text that leaves the worker's own PATH alone stays as it is.
    """
    try:
        configuration = yaml.safe_load(text) or {}
        overrides = dict(configuration.get("overrides") or {})
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        return text
    if "PATH" not in overrides and not configuration.get("purge"):
        return text
    found = str(overrides.get("PATH") or DEFAULT_PATH).split(":")
    overrides["PATH"] = ":".join([programs, *(each for each in found if each != programs)])
    return yaml.safe_dump({**configuration, "overrides": overrides})
