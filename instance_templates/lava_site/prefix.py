"""The job prefix of an instance, in the configuration of its dispatchers."""

import yaml


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
