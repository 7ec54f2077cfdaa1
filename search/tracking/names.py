"""Translates names and values to those that MLflow accepts, and back.

A name of a metric, a parameter or a tag may have letters, digits, spaces and `_ - . : /`, and must be a normal path:
`a//b` and `../a` are refused. An accepted name stays as it is. In other names each refused character becomes a word
between two pairs of underscores: `acc@1` is `acc__at__1`, `lr[0]` is `lr__open__0__close__`.
"""

from __future__ import annotations

import hashlib
import re

#: The longest name, and the longest values of a parameter and of a tag, in characters (`mlflow.utils.validation`).
LONGEST, PARAM, TAG = 250, 6000, 8000
#: The longest name of a run, and of an experiment, in the databases that count characters.
RUN_NAME, EXPERIMENT = 250, 256
#: The tag of the parent run with the number of events of the journal that MLflow has.
DELIVERED = "search.delivered"
#: The tag that MLflow's page shows as the description of a run.
NOTE = "mlflow.note.content"
#: Prefix of the tags that hold the whole of a name that was cut.
NAME_TAG = "search.name."
_WORDS = {
    "@": "at", "[": "open", "]": "close", "(": "open_round", ")": "close_round", "{": "open_curly",
    "}": "close_curly", "%": "percent", "+": "plus", "=": "is", "<": "below", ">": "above", "&": "and", "|": "or",
    "*": "times", "#": "number", "!": "not", "?": "query", "^": "power", "~": "about", "$": "dollar", ",": "comma",
    ";": "semicolon", "'": "quote", '"': "quotes", "`": "backtick", "\\": "backslash", "/": "slash", ".": "dot",
    ":": "colon", "_": "underscore", "\n": "newline", "\t": "tab",
}  # fmt: skip
_CHARACTERS = {word: character for character, word in _WORDS.items()}
#: A word between two pairs of underscores; `u` and hexadecimal digits are the number of a character.
_ESCAPE = re.compile(f"__({'|'.join(_WORDS.values())}" + r"|u(?:[0-9a-f]{1,5}|10[0-9a-f]{4})|cut|empty)__")
#: What MLflow refuses: other characters, and the slashes and dots of a path that is not normal.
_REFUSED = re.compile(r"[^\w.\- :/]|\A/|(?<=/)/|/\Z|(?:\A|(?<=/))\.(?=\.?(?:/|\Z))|\A\.(?=\.)")
#: The same in the name of a registered model, which may hold no `/` and no `:`.
_REFUSED_MODEL = re.compile(rf"[/:]|{_REFUSED.pattern}")
#: Number of characters that are kept of a name that is too long, and bytes of the digest that follows them.
_KEPT, _DIGEST = 200, 12


def translated(name: str) -> str:
    """The name of a metric, a parameter or a tag in MLflow: the name itself if MLflow accepts it.

    The result depends only on the name, and different names have different results.

    >>> translated("val_acc@1"), translated("val_acc")
    ('val_acc__at__1', 'val_acc')
    """
    return _translated(name, _REFUSED, LONGEST)


def original(name: str) -> str:
    """The inverse of `translated`. A cut name stays cut; the tag `search.name.DIGEST` of the run has the whole.

    >>> original("val_acc__at__1")
    'val_acc@1'
    """
    if name == "__empty__":
        return ""
    return _ESCAPE.sub(_character, name)


def experiment_name(task: str) -> str:
    """The name of the experiment of a task. MLflow accepts every character there, and at most `EXPERIMENT` of them."""
    return storable_text(task) if len(task) <= EXPERIMENT else _cut(task, storable_text(task), EXPERIMENT)


def model_name(task: str) -> str:
    """The name of a task's registered model."""
    return _translated(task, _REFUSED_MODEL, LONGEST)


def storable_text(text: str, longest: int | None = None) -> str:
    r"""The text without characters that a database or a request refuses, cut at `longest` characters.

    >>> storable_text("a\x00b")
    'a\\x00b'
    """
    return text.replace("\0", r"\x00").encode(errors="backslashreplace").decode()[:longest]


def _translated(name: str, refused: re.Pattern[str], longest: int) -> str:
    if not name:
        return "__empty__"
    whole = name
    if refused.search(name) or _ESCAPE.search(name):
        # `original` would take two underscores for the beginning of a word.
        marked = re.compile(rf"{refused.pattern}|_(?=_)|(?<=_)_")
        whole = marked.sub(lambda found: _escape(found[0]), name)
    return whole if len(whole) <= longest else _cut(name, whole, longest)


def _escape(character: str) -> str:
    return f"__{_WORDS.get(character) or f'u{ord(character):x}'}__"


def _character(found: re.Match[str]) -> str:
    word = found[1]
    if word in ("cut", "empty"):
        return found[0]
    return _CHARACTERS[word] if word in _CHARACTERS else chr(int(word[1:], 16))


def _cut(name: str, whole: str, longest: int) -> str:
    """The beginning of a name that is too long, and a digest of the whole name."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=_DIGEST).hexdigest()
    kept = whole[: min(_KEPT, longest - 2 * _DIGEST - 8)].rstrip("/. _")
    return f"{kept}__cut__{digest}"
