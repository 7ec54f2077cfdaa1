"""Relations between hyperparameters: the expressions of `when` and `constraints`.

An expression is a comparison such as `layers > 1`, `embedding % heads == 0` or `optimizer in [adam, adamw]`, or several
with `and`, `or` and `not`. A word is the value of the hyperparameter of this name; any other word is a text, such as
`sgd`. `null` is the value of a hyperparameter that does not exist. Python's parser reads the text. Nothing of it is run
as Python: each node that is allowed becomes a function here, and each other node is an error.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from trainables import InputError, Params
from trainables.base.errors import one_line
from trainables.base.values import Plain, suggestion

ALLOWED = (
    "allowed are names of hyperparameters, numbers, texts, + - * / // %, comparisons, `in [...]`, and, or, not and "
    "parentheses"
)
#: Most characters of an expression. Python's parser takes 10 MB and more for long ones.
LONGEST = 1000
#: The words of YAML and of Python for values that are no texts.
_WORDS = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}
_CALCULATIONS: dict[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add), ast.Sub: ("-", operator.sub), ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv), ast.FloorDiv: ("//", operator.floordiv), ast.Mod: ("%", operator.mod),
}  # fmt: skip
_COMPARISONS: dict[type[ast.AST], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("==", operator.eq), ast.NotEq: ("!=", operator.ne), ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le), ast.Gt: (">", operator.gt), ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda one, several: one in several), ast.NotIn: ("not in", lambda one, several: one not in several),
}  # fmt: skip
#: The comparisons that need no numbers.
_OF_TEXTS = ("==", "!=", "in", "not in")
_FUNCTIONS = dict([*_CALCULATIONS.values(), *_COMPARISONS.values()])

#: A part of an expression: its kind and its parts. A `word` becomes a `name` or a `value` when the hyperparameters are
#: known.
#:
#: ("word", TEXT) | ("name", NAME) | ("value", VALUE) | ("list", NODES) | (SIGN, LEFT, RIGHT) of a calculation |
#: ("compare", ((SIGN, LEFT, RIGHT), ...)) | ("and" | "or", NODES) | ("not", NODE)
Node = tuple[Any, ...]


class _NoNumber(Exception):
    """A calculation, or a comparison of sizes, has a value that is no number."""


@dataclass(frozen=True)
class Relation:
    """A condition between hyperparameters.

    Attributes:
        text: the condition in words, as messages show it.
        names: the hyperparameters that it names.
        compared: by hyperparameter the plain values that it is compared with.
    """

    text: str
    node: Node
    names: tuple[str, ...] = ()
    compared: tuple[tuple[str, tuple[Plain, ...]], ...] = field(default=(), repr=False)

    @classmethod
    def among(cls, name: str, values: tuple[Plain, ...]) -> Relation:
        """The relation that a hyperparameter has one of these values."""
        node = ("compare", (("in", ("name", name), ("list", tuple(("value", value) for value in values))),))
        return cls(f"{name} = {' or '.join(map(str, values))}", node, (name,), ((name, values),))

    @classmethod
    def parse(cls, text: Any, where: str) -> Relation:
        """Reads an expression. `resolved` then tells names from texts.

        Raises:
            InputError: the text is no expression, or has a part that is not allowed.
        """
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: {text!r}: expected an expression, such as `layers > 1`")
        shown = one_line(text.strip())
        if len(text) > LONGEST:
            raise InputError(f"{where}: {shown[:60]}...: {len(text)} characters; at most {LONGEST} are allowed")
        try:
            tree = ast.parse(text.strip().replace("\n", " "), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            # ValueError: a zero byte, or a number with more digits than Python reads
            raise InputError(f"{where}: `{shown}`: is no expression; {ALLOWED}") from error
        return cls(shown, _Reader(f"{where}: `{shown}`").test(tree))

    def resolved(self, values: Mapping[str, Collection[Plain] | None], where: str) -> Relation:
        """The relation among these hyperparameters.

        Args:
            values: the values of each hyperparameter; None for a range of numbers.

        Raises:
            InputError: a word is no hyperparameter and no text to compare one with, or a text is used as a number.
        """
        if self.names:
            return self
        resolver = _Resolver(values, f"{where}: `{self.text}`")
        node = resolver.test(self.node)
        names = tuple(dict.fromkeys(resolver.names))
        if not names:
            raise InputError(f"{where}: `{self.text}`: names no hyperparameter; there are {', '.join(values)}")
        return Relation(self.text, node, names, tuple(resolver.compared))

    def holds(self, params: Params) -> bool | None:
        """Whether the relation holds; None if that depends on a calculation, or on a comparison of sizes, with a value
        that is no number. A hyperparameter that `params` lacks is null."""
        result: bool | None = _function(self.node)(params)
        return result


class _Reader:
    """Makes nodes of Python's syntax tree; raises InputError for a part that is not allowed."""

    def __init__(self, where: str) -> None:
        self._where = where

    def test(self, tree: ast.AST) -> Node:
        """A node that holds or does not hold."""
        match tree:
            case ast.BoolOp(op, values):
                return ("and" if isinstance(op, ast.And) else "or", tuple(map(self.test, values)))
            case ast.UnaryOp(ast.Not(), value):
                return ("not", self.test(value))
            case ast.Compare(left, signs, rights):
                lefts = [left, *rights[:-1]]
                return ("compare", tuple(map(self._compared, signs, lefts, rights)))
        if (word := _word(tree)) is not None or isinstance(tree, ast.Constant):
            return self.value(tree) if word is None else ("word", word)
        raise self._wrong(tree, "expected a comparison, such as `layers > 1`")

    def _compared(self, sign: ast.cmpop, left: ast.expr, right: ast.expr) -> Node:
        if type(sign) not in _COMPARISONS:
            raise self._wrong(sign, f"`is` is not allowed; {ALLOWED}")
        name = _COMPARISONS[type(sign)][0]
        if name not in ("in", "not in"):
            return (name, self.value(left), self.value(right))
        if not isinstance(right, ast.List | ast.Tuple) or not right.elts:
            raise self._wrong(right, f"expected a list after `{name}`, such as [adam, adamw]")
        return (name, self.value(left), ("list", tuple(map(self.value, right.elts))))

    def value(self, tree: ast.AST) -> Node:
        """A node that has a value."""
        if (word := _word(tree)) is not None:
            return ("value", _WORDS[word]) if word in _WORDS else ("word", word)
        match tree:
            case ast.Constant(value) if value is None or isinstance(value, str | bool | int | float):
                if isinstance(value, float) and not math.isfinite(value):
                    raise self._wrong(tree, "expected a finite number")
                return ("value", value)
            case ast.UnaryOp(ast.USub(), value):
                return ("-", ("value", 0), self.value(value))
            case ast.BinOp(left, sign, right) if type(sign) in _CALCULATIONS:
                return (_CALCULATIONS[type(sign)][0], self.value(left), self.value(right))
        raise self._wrong(tree, ALLOWED)

    def _wrong(self, tree: ast.AST, expected: str) -> InputError:
        part = ast.unparse(tree) if isinstance(tree, ast.expr) else ""
        return InputError(f"{self._where}: {one_line(part) + ': ' if part else ''}{expected}")


def _word(tree: ast.AST) -> str | None:
    """The word of a node, with its dots: `model.backbone`; None for another node."""
    if isinstance(tree, ast.Name):
        return tree.id
    if isinstance(tree, ast.Attribute) and (outer := _word(tree.value)) is not None:
        return f"{outer}.{tree.attr}"
    return None


class _Resolver:
    """Tells the hyperparameters among the words from the texts, and checks which are used as numbers."""

    def __init__(self, values: Mapping[str, Collection[Plain] | None], where: str) -> None:
        self._values, self._where = values, where
        self.names: list[str] = []
        self.compared: list[tuple[str, tuple[Plain, ...]]] = []

    def test(self, node: Node) -> Node:
        kind, *parts = node
        if kind in ("and", "or"):
            return (kind, tuple(map(self.test, parts[0])))
        if kind == "not":
            return (kind, self.test(parts[0]))
        if kind == "compare":
            return (kind, tuple(self._compared(*link) for link in parts[0]))
        return self._switch(node)

    def _switch(self, node: Node) -> Node:
        """A word that stands where a comparison could: a hyperparameter that is true or false."""
        word = node[1] if node[0] == "word" else None
        if word in _WORDS or word is None:
            raise InputError(f"{self._where}: {node[1]!r}: expected a comparison, such as `layers > 1`")
        name = self._name(word)
        values = self._values[word]
        if values is None or not all(value is None or isinstance(value, bool) for value in values):
            raise InputError(f"{self._where}: {word}: is not true or false; expected a comparison, such as {word} == 1")
        return ("compare", (("==", name, ("value", True)),))

    def _compared(self, sign: str, left: Node, right: Node) -> Node:
        if sign not in _OF_TEXTS:
            return (sign, self._number(left), self._number(right))
        several = right[1] if right[0] == "list" else (right,)
        nodes = [self._value(node) for node in (left, *several)]
        self._note(nodes)
        first, *others = nodes
        return (sign, first, ("list", tuple(others)) if right[0] == "list" else others[0])

    def _note(self, nodes: list[Node]) -> None:
        """Keeps the plain values that a hyperparameter is compared with; the texts among them need one."""
        names = [node[1] for node in nodes if node[0] == "name"]
        plain = tuple(node[1] for node in nodes if node[0] == "value")
        texts = [value for value in plain if isinstance(value, str)]
        if texts and not names:
            raise self._unknown(texts[0])
        self.compared += [(name, plain) for name in names if plain]

    def _value(self, node: Node) -> Node:
        if node[0] == "word":
            return self._name(node[1]) if node[1] in self._values else ("value", node[1])
        return node if node[0] == "value" else self._number(node)

    def _number(self, node: Node) -> Node:
        kind, *parts = node
        if kind == "word":
            return self._name(node[1], number=True)
        if kind == "value":
            if isinstance(parts[0], bool) or not isinstance(parts[0], int | float):
                raise InputError(f"{self._where}: {parts[0]!r}: expected a number or a hyperparameter with numbers")
            return node
        return (kind, *map(self._number, parts))

    def _name(self, word: str, number: bool = False) -> Node:
        if word not in self._values:
            raise self._unknown(word)
        values = self._values[word]
        if number and values is not None and not any(value is None or _is_number(value) for value in values):
            raise InputError(f"{self._where}: {word}: has no numbers, which a calculation and `<` need")
        self.names.append(word)
        return ("name", word)

    def _unknown(self, word: str) -> InputError:
        near = suggestion(word, self._values) or ";"
        return InputError(f"{self._where}: {word}: no such hyperparameter{near} there are {', '.join(self._values)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def _function(node: Node) -> Callable[[Params], Any]:
    """The function that computes a node from a configuration."""
    kind, *parts = node
    match kind:
        case "name":
            name = parts[0]
            return lambda params: params.get(name)
        case "value":
            value = parts[0]
            return lambda params: value
        case "list":
            members = [_function(part) for part in parts[0]]
            return lambda params: [member(params) for member in members]
        case "and" | "or":
            return _several([_function(part) for part in parts[0]], decisive=kind == "or")
        case "not":
            test = _function(parts[0])
            return lambda params: None if (result := test(params)) is None else not result
        case "compare":
            return _several([_comparison(*link) for link in parts[0]], decisive=False)
    compute, (first, second) = _FUNCTIONS[kind], map(_function, parts)
    return lambda params: compute(_number(first(params)), _number(second(params)))


def _several(tests: list[Callable[[Params], Any]], decisive: bool) -> Callable[[Params], bool | None]:
    """The result `decisive` if a test has it; else None if a test has the result None; else the other result."""

    def combined(params: Params) -> bool | None:
        results = [test(params) for test in tests]
        return decisive if decisive in results else None if None in results else not decisive

    return combined


def _comparison(sign: str, left: Node, right: Node) -> Callable[[Params], bool | None]:
    compute, first, second = _FUNCTIONS[sign], _function(left), _function(right)
    convert = (lambda value: value) if sign in _OF_TEXTS else _number

    def compared(params: Params) -> bool | None:
        try:
            return bool(compute(convert(first(params)), convert(second(params))))
        except _NoNumber:
            return None
        except (ZeroDivisionError, OverflowError):
            return False

    return compared


def _number(value: Any) -> Any:
    if not _is_number(value):
        raise _NoNumber
    return value
