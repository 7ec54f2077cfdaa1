"""Splits a command line into words, and fills the values of a trial into them."""

from __future__ import annotations

import re
import shlex
import shutil
import string
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from trainables.base.errors import InputError
from trainables.loops.errors import TrainingError

#: The format of a flag without a value: `{amp:flag}`.
FLAG = "flag"
#: Values of each type that a hyperparameter may have.
_SAMPLES = (1, 0.5, "text", True)
#: Parts of a word that no shell would change: in quotes, after a backslash, or the name of a hyperparameter in braces.
_PLAIN = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|\{[^{}]*\}""", re.DOTALL)
#: Syntax of a shell in a word: operators, substitutions and the home folder. A `&` inside a word belongs to an address.
_SHELL = re.compile(r"[|<>;`]|&&|&$|\$[A-Za-z_{(]|^~(?:/|$)")
#: A variable before the program, and the built-in commands of a shell (as the first word).
_VARIABLE = re.compile(r"[A-Za-z_]\w*=")
_BUILTINS = {"cd", "export", "source", "set", "."}
#: In a line that a shell reads: a part in quotes or backquotes; a comment; a word, which a blank or an operator ends.
_QUOTES = r"""'[^']*'|"(?>\\.|\$\([^()]*\)|[^"\\])*"|`[^`]*`"""
_COMMENT = r"(?<![^\s;&|()])\#[^\n]*"
_WORD = rf"""(?:{_QUOTES}|\\.|\{{[^{{}}\s]*\}}|[^\s;&|()<>'"`\\])+"""
_TOKEN = re.compile(rf"(?P<comment>{_COMMENT})|(?P<word>{_WORD})", re.DOTALL)
_IN_QUOTES = re.compile(rf"\\.|({_QUOTES})", re.DOTALL)

#: A part of a word as `string.Formatter.parse` gives it: text, and the name, format and conversion of a value.
Part = tuple[str, str | None, str, str | None]


class Line:
    """A command line with the names of values in braces.

    Attributes:
        words: the words. Those of a line for a shell have their quotes and escapes.
    """

    def __init__(self, text: str, shell: bool = False) -> None:
        """
        Args:
            shell: whether a shell reads the line.

        Raises:
            InputError: braces or quotes are not closed, a format is wrong, the line is empty, a line without a shell
                has the syntax of a shell, or a line for a shell has a name in quotes.
        """
        self.text, self.shell = text, shell
        #: The text before each word: blanks, operators and comments of a shell; and the text after the last word.
        self._between: list[str] = []
        if shell:
            self.words = self._split_for_shell()
        else:
            try:
                self.words = shlex.split(text)
            except ValueError as error:
                raise InputError(f"command: {text}: {str(error).lower()}") from error
        if not self.words:
            raise InputError("command: it is empty")
        self._parts = [_parts(word) for word in self.words]
        for name, spec, word in self.fields():
            if spec == FLAG and len(word.split()) > 1:
                raise InputError(
                    f"command: {{{name}:{FLAG}}} cannot be left out of {word!r}: make it a separate word, with --shell "
                    "instead of `sh -c`"
                )
        if shell:
            for word in self.words:
                _check_quotes(word)
        else:
            self._check_needs_no_shell()

    @property
    def plain_words(self) -> list[str]:
        """The words without quotes, also those of a line for a shell."""
        return [plain for word in self.words for plain in shlex.split(word)] if self.shell else self.words

    def fields(self) -> Iterator[tuple[str, str, str]]:
        """The name and the format of each value, and its word."""
        for word, parts in zip(self.words, self._parts, strict=True):
            yield from ((name, spec, word) for _, name, spec, _ in parts if name is not None)

    def filled(self, values: Mapping[str, Any], own: Collection[str]) -> list[str]:
        """The words of a process with the values of a trial.

        Args:
            values: the value of each name.
            own: the names of hyperparameters. A word that is one of them is left out if its value is an empty text.

        Raises:
            TrainingError: a value does not fit its format, or has no value in a word that cannot be left out.
        """
        filled: list[str | None] = []
        follows_flag = False
        for number, (word, parts) in enumerate(zip(self.words, self._parts, strict=True)):
            follows_flag = follows_flag and (not self.shell or not self._between[number].strip())
            names = [name for _, name, _, _ in parts if name is not None]
            whole = len(parts) == 1 and not parts[0][0] and names[0] in own  # the word is one `{name}`
            missing = [name for name in names if values[name] is None]
            if missing and len(word.split()) > 1:
                raise TrainingError(f"command: {no_value(missing[0], word)}")
            if missing or (whole and values[names[0]] == "") or _flag_is_off(parts, values):
                if missing and whole and follows_flag:
                    filled[-1] = None
                filled.append(None)
                follows_flag = False
                continue
            filled.append(_filled(parts, values, word, shlex.quote if self.shell else str))
            follows_flag = not names and word.startswith("-")
        if not self.shell:
            return [word for word in filled if word is not None]
        ends = [*(word or "" for word in filled), ""]
        return [*_shell(), "".join(between + word for between, word in zip(self._between, ends, strict=True))]

    def _split_for_shell(self) -> list[str]:
        words, before, end = [], "", 0
        for token in [*_TOKEN.finditer(self.text), None]:
            between = self.text[end : token.start() if token else None]
            if any(mark in between for mark in "'\"`\\"):
                raise InputError(f"command: {self.text}: no closing quotation")
            if "<<" in between.replace("<<<", ""):
                raise InputError(f"command: {self.text}: a here-document cannot be used: put its text into a file")
            before += between
            if token and token["word"] is None:
                before += token[0]
            else:
                self._between.append(before)
                before = ""
                words += [token[0]] if token else []
            end = token.end() if token else end
        return words

    def _check_needs_no_shell(self) -> None:
        """Raises InputError if a word has a meaning for a shell, which no shell reads here."""
        masked = _PLAIN.sub(lambda plain: "0" * len(plain.group()), self.text)
        shell = "add --shell (in Python: shell=True)"
        for number, word in enumerate(re.finditer(r"\S+", masked)):
            text = self.text[word.start() : word.end()]
            if number == 0 and (variable := _VARIABLE.match(word.group())):
                text = f"{variable.group()}..."  # the value may be secret
                raise InputError(f"command: {text!r} needs a shell: {shell}, or write `env {text}`")
            if _SHELL.search(word.group()):
                raise InputError(f"command: {text!r} needs a shell: {shell}; if it is plain text, put it in quotes")
        if self.words[0] in _BUILTINS:
            raise InputError(f"command: {self.words[0]!r} needs a shell: {shell}")


def _shell() -> list[str]:
    """The shell of a line. In bash a pipeline fails if any of its programs fails; in `sh`, if its last one fails."""
    bash = shutil.which("bash")
    return [bash, "-o", "pipefail", "-c"] if bash else ["sh", "-c"]


def _check_quotes(word: str) -> None:
    """Raises InputError if a word for a shell has a name in quotes, where a value would need other quotes."""
    for match in _IN_QUOTES.finditer(word):
        names = [name for _, name, _, _ in _parts(match[1] or "") if name is not None]
        if names:
            raise InputError(
                f"command: {match[1]}: write {{{names[0]}}} outside of the quotes: the search puts values in quotes "
                "where they need them"
            )


def _parts(word: str) -> list[Part]:
    """The parts of a word; raises InputError if the braces are not balanced, or hold no name, or a wrong format."""
    try:
        fields = string.Formatter().parse(word)
        parts = [(text, name, spec or "", conversion) for text, name, spec, conversion in fields]
    except ValueError as error:
        raise InputError(f"command: {word}: {error}; literal braces are doubled: {{{{ }}}}") from error
    if any(name == "" for _, name, _, _ in parts):
        raise InputError(f"command: {word}: {{}} has no name; literal braces are doubled: {{{{ }}}}")
    for _, name, spec, conversion in parts:
        if name is not None:
            _check_format(name, spec, conversion)
    return parts


def _check_format(name: str, spec: str, conversion: str | None) -> None:
    """Raises InputError if `{name!conversion:spec}` fails for values of each type."""
    field = f"{{{name}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"
    mistake = f"no value has the format {spec!r}"
    if "{" in spec:
        mistake = "a format cannot hold braces"
    elif conversion not in (None, "r", "s", "a"):
        mistake = "expected one of !r, !s and !a"
    elif spec == FLAG:
        if conversion is None:
            return
        mistake = "a flag has no conversion"
    else:
        for value in _SAMPLES:
            with suppress(ValueError, TypeError):
                format(string.Formatter().convert_field(value, conversion), spec)
                return
    raise InputError(f"command: {field}: {mistake}; literal braces are doubled: {{{{ }}}}")


def _flag_is_off(parts: list[Part], values: Mapping[str, Any]) -> bool:
    return any(spec == FLAG and values[name] is False for _, name, spec, _ in parts if name is not None)


def _filled(parts: list[Part], values: Mapping[str, Any], word: str, quoted: Callable[[str], str]) -> str:
    formatter, filled = string.Formatter(), ""
    for text, name, spec, conversion in parts:
        filled += text
        if name is None:
            continue
        if spec == FLAG:
            if values[name] is not True:
                raise TrainingError(f"command: {word}: {name} is {values[name]!r}: a flag is true or false")
            filled += f"--{name}" if len(parts) == 1 and not text else ""
            continue
        try:
            filled += quoted(formatter.format_field(formatter.convert_field(values[name], conversion), spec))
        except (TypeError, ValueError) as error:
            raise TrainingError(f"command: {word}: {name} is {values[name]!r}: {error}") from error
    return filled


def no_value(name: str, word: str) -> str:
    """The mistake of a hyperparameter that may have no value, in a word that cannot be left out."""
    return (
        f"{{{name}}} has no value if its `when` does not hold, and cannot be left out of {word!r}: make it a separate "
        "word, with --shell instead of `sh -c`, or read SEARCH_PARAMS"
    )
