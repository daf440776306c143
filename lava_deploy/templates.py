"""Renders the files of instance_templates/: strictly, without clock or chance."""

import shlex
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import yaml


@cache
def source(name: str) -> str:
    """The text of a file of instance_templates/ as it is."""
    return files("lava_deploy.instance_templates").joinpath(name).read_text(encoding="utf-8")


def render(name: str, /, **values: Any) -> str:
    """A template of instance_templates/ filled in. Raises UndefinedError for a missing value."""
    return _environment().get_template(name).render(**values)


def dump(values: Any) -> str:
    """Values as a YAML text, in the order given."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quoted"] = lambda text: shlex.quote(str(text))
    return environment
