"""Renders the HTML pages of this package from their templates."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from search.core.readable import visible


def _visible_text(given: Any) -> Any:
    """The value of an expression of a template, before it is escaped; HTML stays as it is."""
    return visible(given) if type(given) is str else given


_TEMPLATES = Environment(
    loader=PackageLoader("search.reports", "."), autoescape=True, undefined=StrictUndefined, finalize=_visible_text
)


def render(template: str, **values: Any) -> str:
    """The HTML of a template of this folder; raises jinja2.UndefinedError where a value is missing."""
    return _TEMPLATES.get_template(template).render(values)
