"""The pages that this program writes."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

#: Characters that a page obeys instead of showing: control characters, marks of direction, separators of lines, and
#: halves of surrogate pairs, which cannot be encoded.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""A text from elsewhere with its control characters made visible, such as `\x1b`. New lines and tabs stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _shown(given: Any) -> Any:
    """What stands in place of each expression of a template, before it is escaped; HTML stays as it is."""
    return visible(given) if type(given) is str else given


_TEMPLATES = Environment(
    loader=PackageLoader("search.analysis", "."), autoescape=True, undefined=StrictUndefined, finalize=_shown
)


def render(template: str, **values: Any) -> str:
    """The HTML of a template of this folder; raises jinja2.UndefinedError where it names what is not given."""
    return _TEMPLATES.get_template(template).render(values)
