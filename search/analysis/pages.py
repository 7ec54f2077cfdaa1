"""The pages that this program writes."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_TEMPLATES = Environment(loader=PackageLoader("search.analysis", "."), autoescape=True, undefined=StrictUndefined)


def render(template: str, **values: Any) -> str:
    """The HTML of a template of this folder; raises jinja2.UndefinedError where it names what is not given."""
    return _TEMPLATES.get_template(template).render(values)
