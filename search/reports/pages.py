"""Renders the HTML pages of this package from their templates."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from search.core.readable import visible


def _visible_text(given: Any) -> Any:
    """The value of an expression of a template, before it is escaped; HTML stays as it is."""
    return visible(given) if type(given) is str else given


_TEMPLATES = Environment(
    loader=PackageLoader("search.reports", "."), autoescape=True, undefined=StrictUndefined, finalize=_visible_text
)


def to_json(given: Any) -> str:
    """Plain data as JSON. Numbers that JSON does not have, such as infinity, become null."""
    try:
        return json.dumps(given, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(json.loads(json.dumps(given), parse_constant=lambda _: None), separators=(",", ":"))


def _json_in_script(given: Any) -> Markup:
    """Plain data as JSON that may stand inside of a script."""
    text = to_json(given)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no character is left that could end the script


_TEMPLATES.filters["json"] = _json_in_script


def render(template: str, **values: Any) -> str:
    """The HTML of a template of this folder; raises jinja2.UndefinedError where a value is missing."""
    return _TEMPLATES.get_template(template).render(values)
