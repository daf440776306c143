"""Reads what an admin wrote: instance.yaml, the environment. All faults are reported together."""

import dataclasses
import difflib
import json
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lava_deploy.configuration import CERTIFICATES, LOCATION, ROUTES, Configuration, Limits
from lava_deploy.errors import ConfigurationError, UsageError
from lava_deploy.model import LATEST, Host, Secret, Wanted

# RFC 1123: labels of letters, digits and inner hyphens; in all at most 253 characters.
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOSTNAME = re.compile(rf"(?=.{{1,253}}$){LABEL}(?:\.{LABEL})*")
MAIL_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
# django.contrib.auth.validators.UnicodeUsernameValidator, without letters beyond ASCII
USER_NAME = re.compile(r"[A-Za-z0-9@.+_-]{1,150}")
# One or more segments, which need no escape in a URL or a file of a web server.
PREFIX = re.compile(r"(/[a-z0-9][a-z0-9_-]*){1,4}")
# What LAVA itself, the workers and Apache have at the top of every host name.
TAKEN_PREFIXES = frozenset(
    "accounts admin api dashboard icons javascript me oidc results rpc2 scheduler server-status "
    "static tmp v1 ws".split()
)
# LAVA's own repository, unless LAVA_DEPLOY_GIT names another.
UPSTREAM = "https://gitlab.com/lava/lava.git"
# A URL, or what ssh(1) takes: user@host:path
REPOSITORY = re.compile(r"\w[\w+.-]*://.+|[\w.-]+@[\w.-]+:.+")
PASSWORD = re.compile(r"\w+://[^/@]*:[^/@]*@")
# A size in bytes, as systemd.resource-control(5) takes it.
SIZE = re.compile(r"([1-9][0-9]{0,8})([MGT])")
MEGABYTES = {"M": 1, "G": 1024, "T": 1024**2}
# Measured: at rest 350 MB and 21 processes and threads, with two web processes; less than this is
# a mistake, or no instance that could start.
LEAST_MEMORY = 256
LEAST_TASKS = 64
MOST_TASKS = 4 * 1024**2  # pid_max of 64-bit kernels
# What needs no quotes in YAML, but for a few words.
PLAIN = re.compile(r"[a-z/][a-z0-9./_-]*")
# Settings that lava-deploy itself has to know; the place where an admin changes them.
OWNED_SETTINGS = {
    "DATABASES": "database",
    "SECRET_KEY": "etc/secrets.yaml",
    "MEDIA_ROOT": "",
    "STATIC_ROOT": "",
    "STATIC_URL": "route",
    "MOUNT_POINT": "route",
    "DEVICES_PATH": "",
    "DEVICE_TYPES_PATHS": "",
    "HEALTH_CHECKS_PATH": "",
    "INTERNAL_EVENT_SOCKET": "",
    "INSTANCE_NAME": "",
}
NAMES_OF_TYPES = {str: "text", int: "a whole number", bool: "true or false", Secret: "text"}


def read(text: str, place: str = "instance.yaml") -> Configuration:
    """The configuration in a text of instance.yaml.

    Raises ConfigurationError with every fault and its place: `web.workers: should be a whole
    number, not 'many'`.
    """
    import yaml

    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{place} is no YAML: {error}") from error
    return build(values, place)


def build(values: Any, place: str) -> Configuration:
    """The configuration in nested mappings. Raises ConfigurationError with every fault."""
    configuration, faults = examine(values)
    if faults:
        raise ConfigurationError(
            f"{place} has faults:" + "".join(f"\n  - {fault}" for fault in faults),
            hint="Every setting is explained in the comments of the file.",
        )
    return configuration


def examine(values: Any) -> tuple[Configuration, list[str]]:
    """The configuration in nested mappings, and all its faults with their places.

    With faults, the configuration is one of defaults.
    """
    faults: list[str] = []
    configuration = _build(Configuration, values, "", faults)
    if not faults:
        faults = _senseless(configuration)
    return (Configuration() if faults else configuration), faults


def assign(values: dict[str, Any], assignment: str) -> None:
    """Put one `web.workers=4` of a command line into nested mappings; the value is read as YAML.

    Raises UsageError for a text without `=`, and for secrets, which a process listing would show.
    """
    import yaml

    place, equals, text = assignment.partition("=")
    *sections, key = place.split(".")
    if not equals or not all([*sections, key]):
        raise UsageError(f"should be SETTING=VALUE, as in web.workers=4: {assignment!r}")
    if place == "mail.password":
        raise UsageError(
            "a password does not belong on a command line, where every user can see it",
            hint="Write it into instance.yaml, then `lava-deploy apply`.",
        )
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{section} is no section: {assignment!r}")
        values = inner
    try:
        values[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"the value of {place} is no YAML: {error}") from error


def rewrite(text: str, changes: Mapping[str, str | bool | int]) -> str:
    """The text of instance.yaml with other values at places such as `route.kind`.

    All else of the text stays, comments among it; what is not there yet is added to its section.
    Raises ConfigurationError for a text that has no such section.
    """
    import yaml

    for place, value in changes.items():
        section, _, key = place.partition(".")
        try:
            parts = dict(_pairs(yaml.compose(text)))[section]
            inner = dict(_pairs(parts))
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"instance.yaml has no section {section}",
                hint=f"Write `{section}:` and below it `  {key}: {value}`, then `apply`.",
            ) from error
        node = inner.get(key)
        new = json.dumps(value)
        if node is None:
            start = end = parts.start_mark.index
            new = f"{key}: {new}\n{' ' * parts.start_mark.column}"
        else:
            start, end = node.start_mark.index, node.end_mark.index
            # `no` would be false
            if node.style is None and isinstance(value, str) and PLAIN.fullmatch(value):
                new = value if yaml.safe_load(value) == value else new
        text = text[:start] + new + text[end:]
    return text


def _pairs(mapping: Any) -> list[tuple[str, Any]]:
    """The keys of a YAML mapping in block style, with the nodes of their values."""
    if getattr(mapping, "flow_style", True) is not False:
        raise TypeError("no mapping of lines")
    return [(key.value, value) for key, value in mapping.value]


def host(root: str, environment: Mapping[str, str]) -> Host:
    """The host of an option `--root`, else of LAVA_ROOT, with LAVA_PREFIX for the instances.

    The names are those of lava-deployment-tool of 2012. Raises UsageError for a relative path.
    """
    chosen = {
        "--root": root or environment.get("LAVA_ROOT", ""),
        "LAVA_PREFIX": environment.get("LAVA_PREFIX", ""),
    }
    for name, path in chosen.items():
        if path and not Path(path).is_absolute():
            raise UsageError(f"{name} should be an absolute path, not {path!r}")
    prefix = chosen["LAVA_PREFIX"]
    return Host.below(Path(chosen["--root"] or Host.root), Path(prefix) if prefix else None)


def repository(environment: Mapping[str, str]) -> str:
    """The git repository that revisions come from. Raises UsageError for one with a password."""
    return _place(environment.get("LAVA_DEPLOY_GIT") or UPSTREAM)


def wanted(revision: str, source: str, environment: Mapping[str, str]) -> Wanted:
    """Which LAVA a REVISION and a `--source` mean.

    A source is the name of one, a URL of a git repository, or a path: with a REVISION that of a
    repository, else that of a working tree, as is a path for REVISION. LAVA_SERVER_BRANCH, of 2012,
    is a URL or path where no source is given, or else the REVISION where none is given. Raises
    UsageError.
    """
    branch = environment.get("LAVA_SERVER_BRANCH", "")
    if is_path(branch) or REPOSITORY.fullmatch(branch):
        if not source and not is_path(revision):
            source, revision = branch, revision or ("" if is_path(branch) else "HEAD")
    else:
        revision = revision or ("" if is_path(source) else branch)
    if is_path(revision):
        source, revision = revision, ""
    if is_path(source) and not revision:
        return Wanted("", "directory", _place(source))
    if is_path(source) or REPOSITORY.fullmatch(source):
        return Wanted(revision or LATEST, "git", _place(source))
    if source == "directory":
        raise UsageError("the directory has to be named", hint="Give its path: --source PATH.")
    return Wanted(revision or LATEST, source, repository(environment))


def is_path(text: str) -> bool:
    """Whether a text is a path and no name of a branch, which may have slashes, too."""
    return text in (".", "..") or text.startswith(("/", "./", "../"))


def _place(text: str) -> str:
    """A repository or directory as it is handed on, and kept."""
    if PASSWORD.match(text):
        raise UsageError(
            "the URL of a repository should not have a password, which every user could see",
            hint="Give it to git by a credential helper of root's: gitcredentials(7).",
        )
    return os.path.abspath(text) if is_path(text) else text


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The admin's environment with LAVA_PROXY, of 2012, put where every program looks."""
    proxy = environment.get("LAVA_PROXY", "")
    names = ("http_proxy", "https_proxy") if proxy else ()
    return {**dict.fromkeys(names, proxy), **environment}


def hostname_faults(hostname: str) -> list[str]:
    """Why a text cannot be a host name; empty when it can."""
    if HOSTNAME.fullmatch(hostname):
        return []
    return [
        f"{hostname!r} is no host name: lower-case letters, digits and inner hyphens, "
        "in labels of at most 63 characters, separated by dots"
    ]


def prefix_faults(prefix: str) -> list[str]:
    """Why a text cannot be the prefix of a location; empty when it can."""
    if not PREFIX.fullmatch(prefix):
        return [
            f"{prefix!r} is no prefix: it should be a path such as /demo, of lower-case letters, "
            "digits, hyphens and underscores"
        ]
    if prefix.split("/")[1] in TAKEN_PREFIXES:
        return [f"{prefix} would hide pages of instances that have a host name of their own"]
    return []


def _build(kind: Any, value: Any, place: str, faults: list[str]) -> Any:
    """A value of a type, out of what YAML gave; what does not fit is added to the faults."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_section(kind, value, place, faults)
    if typing.get_origin(kind) is tuple:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list):
            return _unfit(value, "a list", place, faults)
        return tuple(_build(typing.get_args(kind)[0], one, place, faults) for one in values)
    if typing.get_origin(kind) is Mapping:
        return value if isinstance(value, dict) else _unfit(value, "a mapping", place, faults)
    if kind is Secret:
        return Secret(value) if isinstance(value, str) else _unfit("***", "text", place, faults)
    if type(value) is not kind:  # True is an int, but no port
        return _unfit(value, NAMES_OF_TYPES[kind], place, faults)
    return value


def _build_section(kind: type, value: Any, place: str, faults: list[str]) -> Any:
    """A dataclass out of a mapping; keys that are not there have their defaults."""
    value = {} if value is None else value
    if not isinstance(value, dict):
        return _unfit(value, "a mapping", place, faults)
    types = typing.get_type_hints(kind)
    built = {}
    for key, inner in value.items():
        inner_place = f"{place}.{key}" if place else str(key)
        if key not in types:
            near = difflib.get_close_matches(str(key), types, n=1)
            known = f"; {near[0]} is meant?" if near else f": {', '.join(types)} are known"
            faults.append(f"{inner_place}: there is no such setting{known}")
        elif inner is not None:
            built[key] = _build(types[key], inner, inner_place, faults)
    return kind(**built)


def _unfit(value: Any, wanted: str, place: str, faults: list[str]) -> None:
    faults.append(f"{place or 'the file'}: should be {wanted}, not {value!r}")


def _senseless(configuration: Configuration) -> list[str]:
    """Faults of values that have the right type."""
    faults = []
    route, web, mail, database, limits = (
        configuration.route,
        configuration.web,
        configuration.mail,
        configuration.database,
        configuration.limits,
    )
    if route.kind not in ROUTES:
        faults.append(f"route.kind: should be one of {', '.join(ROUTES)}, not {route.kind!r}")
    if route.kind == LOCATION:
        faults += [f"route.prefix: {fault}" for fault in prefix_faults(route.prefix)]
    if route.certificate not in CERTIFICATES:
        faults.append(
            f"route.certificate: should be one of {', '.join(CERTIFICATES)}, "
            f"not {route.certificate!r}"
        )
    if route.hostname:
        faults += [f"route.hostname: {fault}" for fault in hostname_faults(route.hostname)]
    for place, number, least, most in (
        ("route.hsts", route.hsts, 0, 10**9),
        ("web.workers", web.workers, 1, 64),
        ("web.threads", web.threads, 1, 64),
        ("mail.port", mail.port, 1, 65535),
        ("database.port", database.port, 0, 65535),
        ("limits.cpu_weight", limits.cpu_weight, 0, 10000),
    ):
        if not least <= number <= most:
            faults.append(f"{place}: should be from {least} to {most}, not {number}")
    addresses = (*mail.admins, *filter(None, [mail.sender]))
    if addresses:
        from email.utils import parseaddr  # takes as long to load as all of this module
    for address in addresses:
        # `Ann <ann@example.com>` is an address with its owner's name
        if not MAIL_ADDRESS.fullmatch(parseaddr(address)[1]):
            faults.append(f"mail: {address!r} is no mail address")
    return faults + _too_little(limits) + _owned(configuration.settings)


def _too_little(limits: Limits) -> list[str]:
    """Faults of limits under which no instance could run."""
    faults = []
    size = SIZE.fullmatch(limits.memory)
    if limits.memory and not size:
        faults.append(f"limits.memory: should be a size such as 512M or 4G, not {limits.memory!r}")
    elif size and int(size[1]) * MEGABYTES[size[2]] < LEAST_MEMORY:
        faults.append(f"limits.memory: should be at least {LEAST_MEMORY}M, not {limits.memory}")
    if limits.tasks and not LEAST_TASKS <= limits.tasks <= MOST_TASKS:
        faults.append(
            f"limits.tasks: should be 0, or from {LEAST_TASKS} to {MOST_TASKS}, not {limits.tasks}"
        )
    return faults


def _owned(settings: Mapping[str, Any]) -> list[str]:
    """Faults of settings passed through that belong to lava-deploy."""
    faults = []
    for name in settings:
        if not str(name).isupper():
            faults.append(f"settings.{name}: names of LAVA's settings are upper case")
        elif name in OWNED_SETTINGS:
            place = OWNED_SETTINGS[name]
            other = f"; change {place} instead" if place else ""
            faults.append(f"settings.{name}: lava-deploy sets it itself{other}")
    return faults
