"""Renders the files of instance_templates/: strictly, without clock or chance."""

from __future__ import annotations

import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

# What renders is imported when first needed: commands that only look need none of it.
if TYPE_CHECKING:
    import jinja2


@cache
def source(name: str) -> str:
    """The text of a file of instance_templates/ as it is."""
    from importlib.resources import files

    return files("lava_deploy.instance_templates").joinpath(name).read_text(encoding="utf-8")


def render(name: str, /, **values: Any) -> str:
    """A template of instance_templates/ filled in. Raises UndefinedError for a missing value."""
    return _environment().get_template(name).render(**values)


def dump(values: Any) -> str:
    """Values as a YAML text, in the order given."""
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quoted"] = lambda text: shlex.quote(str(text))
    return environment
