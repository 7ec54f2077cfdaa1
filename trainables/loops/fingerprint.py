"""What a function runs, by name, with a hash of each part: itself, and what it refers to in the user's own modules."""

from __future__ import annotations

import argparse
import ast
import dis
import functools
import importlib.util
import inspect
import sys
import sysconfig
import textwrap
import types
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from trainables.base.task import array_digest, content_digest

#: What the name of a part begins with that is a module; one that is imported inside a function, as it runs.
MODULE, LATE = "module ", "import "
#: An import statement: number of dots, the module, and the names from it.
Imported = tuple[int, str, tuple[str, ...]]
#: Where static and class methods, properties and cached properties keep their functions.
_WRAPPED = ("__func__", "fget", "fset", "fdel", "func")


def parts_of(function: Any) -> dict[str, str]:
    """The parts of a function by name (`train`, `scale`, `module helpers`), each with a hash.

    In the function's own module these are the functions, classes and values that it refers to, and those that they
    refer to: a script may say elsewhere how many trials it asks for. Of the user's other modules each is a part as a
    whole. Comments and layout do not count. Installed packages do not either.
    """
    walk = _walk(function)
    return walk.parts | {
        f"{LATE if name in walk.late else MODULE}{name}": digest for name, digest in walk.modules.items()
    }


def own_modules(function: Any) -> list[types.ModuleType]:
    """The user's own modules that a function refers to: the one at home, unless it is `__main__`, and others."""
    walk = _walk(function)
    found = (sys.modules.get(name) for name in sorted({*walk.modules, walk.home}) if name != "__main__")
    return [module for module in found if module is not None and is_own(module)]


def changed_modules(parts: Mapping[str, str], folder: Path) -> list[Path]:
    """The files in `folder` of modules that a function imports as it runs, and that are other than they were.

    All else that it refers to travels with it, as it was.
    """
    found = []
    for part, digest in parts.items():
        path = folder.joinpath(*part.removeprefix(LATE).split(".")) if part.startswith(LATE) else folder
        for file in (path.with_suffix(".py"), path / "__init__.py") if path != folder else ():
            if file.is_file() and _Walk.read(file)[0] != digest:
                found.append(file)
    return found


def _walk(function: Any) -> _Walk:
    walk = _Walk(_module_of(function) or "")
    walk.visit(getattr(function, "__name__", type(function).__name__), function)
    return walk


def is_own(module: types.ModuleType) -> bool:
    """Whether a module is the user's, and not installed."""
    return _is_own_file(getattr(module, "__file__", None))


def _is_own_file(file: str | None) -> bool:
    installed = [Path(place) for place in sysconfig.get_paths().values()]
    ours = [Path(__file__).parents[2] / package for package in ("search", "trainables")]
    return file is not None and not any(Path(file).is_relative_to(place) for place in [*installed, *ours])


def _module_of(value: Any) -> str | None:
    """The name of the module in which a function, a class or an object's class is defined."""
    while isinstance(value, functools.partial):
        value = value.func
    name = getattr(value, "__module__", None) or getattr(type(value), "__module__", None)
    return name if isinstance(name, str) else None


class _Walk:
    """Goes from a function to all that it refers to. `home` is the module whose parts count one by one."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.parts: dict[str, str] = {}
        self.modules: dict[str, str] = {}
        self.late: set[str] = set()
        #: By address the objects themselves: the address of one that is gone may be another's.
        self._seen: dict[int, Any] = {}

    def visit(self, name: str, value: Any) -> None:
        """Takes in a value that is called `name` where it is used."""
        if isinstance(value, functools.partial):
            for key, one in (("func", value.func), ("args", value.args), ("keywords", value.keywords)):
                self.visit(f"{name}.{key}", one)
        elif inspect.ismethod(value):
            self.visit(name, value.__func__)
            self.visit(f"{name}.self", value.__self__)
        elif inspect.ismodule(value):
            self._module(value.__name__)
            if not is_own(value):
                self.parts[name] = array_digest([value.__name__.encode()])
        elif inspect.isfunction(value) or inspect.isclass(value):
            if self._is_new(value):
                self._defined(name, value)
        elif inspect.isfunction(getattr(value, "__wrapped__", None)):  # of `functools.cache` and the like
            self.visit(name, value.__wrapped__)
        else:
            self._value(name, value)

    def _is_new(self, value: Any) -> bool:
        new = id(value) not in self._seen
        self._seen[id(value)] = value
        return new

    def _defined(self, name: str, value: Any) -> None:
        """A function or class: by itself in the module at home, else by its module as a whole."""
        module = value.__module__
        if module != self.home:
            self._module(module)
            if not is_own(sys.modules.get(module, sys)):
                self.parts[name] = array_digest([value.__qualname__.encode()])  # `relu` or `tanh` of a library
            self._around(value)  # a function that a helper made
            return
        if module != "__main__" and not is_own(sys.modules[module]):
            return
        tree = _tree_of(value)
        if inspect.isclass(value):
            named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} if tree else set()
            self._globals(vars(sys.modules[module]), named)
            for base in value.__bases__:
                self.visit(base.__qualname__, base)
        members = [value] if inspect.isfunction(value) else vars(value).values()
        functions = [function for member in members for function in _functions(member)]
        source = ast.dump(tree) if tree else "".join(text for one in functions for text in _code(one.__code__))
        # What decorates a function has the function's name, and every lambda is called `<lambda>`.
        others = self.parts.get(value.__qualname__, "")
        self.parts[value.__qualname__] = array_digest([others.encode(), source.encode()])
        for one in functions:
            self._function(one)

    def _function(self, function: Any) -> None:
        loaded, imported = _named(function.__code__)
        self._globals(function.__globals__, loaded)
        for statement in imported:
            self._import(statement, function.__globals__.get("__package__") or "", late=True)
        self._around(function)
        for given in (function.__defaults__ or (), (function.__kwdefaults__ or {}).values()):
            for position, value in enumerate(given):
                self.visit(f"{function.__qualname__}: default {position}", value)

    def _around(self, function: Any) -> None:
        """The variables that a function has from those around it; one that has no value yet is left out."""
        cells = getattr(function, "__closure__", None) or ()
        for name, cell in zip(function.__code__.co_freevars if cells else (), cells, strict=True):
            with suppress(ValueError):
                self.visit(f"{function.__qualname__}.{name}", cell.cell_contents)

    def _globals(self, there: dict[str, Any], names: set[str]) -> None:
        for name in sorted(names & there.keys()):
            self.visit(name, there[name])

    def _value(self, name: str, value: Any) -> None:
        """A constant, or an object: its content where that can be hashed, and its class where that is the user's."""
        if isinstance(value, PurePath):
            value = str(value)
        if isinstance(value, set | frozenset):
            value = sorted(value, key=repr)
        if isinstance(value, deque):
            value = list(value)
        try:
            self.parts[name] = content_digest(value)
            return
        except TypeError:
            if not self._is_new(value):
                return
        if isinstance(value, dict | list | tuple):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, one in items:
                self.visit(f"{name}[{key!r}]", one)
            return
        kind, settings = type(value), (argparse.Namespace, types.SimpleNamespace)
        own = sys.modules.get(kind.__module__)
        mine = kind.__module__ == "__main__" or (own is not None and is_own(own))
        # A text without an address says what a library's object is: a pattern, a range, a layer, a function in C.
        shown = "" if mine else getattr(value, "__qualname__", None) or repr(value)
        shown = "" if " at 0x" in shown else shown
        self.parts[name] = array_digest([f"{kind.__module__}.{kind.__qualname__} {shown}".encode()])
        if mine:
            self.visit(kind.__qualname__, kind)
        elif not isinstance(value, settings):
            return
        slots = [key for base in kind.__mro__ for key in vars(base) if inspect.ismemberdescriptor(vars(base)[key])]
        held = {key: getattr(value, key) for key in slots if hasattr(value, key)}
        for key, one in (held | getattr(value, "__dict__", {})).items():
            self.visit(f"{name}.{key}", one)

    def _import(self, statement: Imported, package: str, late: bool) -> None:
        level, module, names = statement
        if level:
            base = package.rsplit(".", level - 1)[0] if level > 1 else package
            module = f"{base}.{module}" if module else base
        for one in (module, *(f"{module}.{name}" for name in names)):
            self._module(one, late)

    def _module(self, name: str, late: bool = False) -> None:
        """One of the user's other modules as a whole, with those that it imports; others are passed over."""
        if name in ("__main__", self.home) or name in (self.late if late else self.modules):
            return
        file = _file_of(name)
        if file is None or not _is_own_file(str(file)):
            return
        self.modules[name], tree = self.read(file)
        if late:
            self.late.add(name)
        functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        inside = {id(node) for function in functions for node in ast.walk(function)}
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._module(alias.name, late or id(node) in inside)
            elif isinstance(node, ast.ImportFrom):
                names = tuple(alias.name for alias in node.names)
                self._import((node.level, node.module or "", names), package, late or id(node) in inside)

    @staticmethod
    def read(file: Path) -> tuple[str, ast.AST]:
        """The hash of a module's file, and its syntax tree; of one that is no Python the hash is of its bytes."""
        content = file.read_bytes() if file.is_file() else b""
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):
            return array_digest([content]), ast.Module([], [])
        return array_digest([ast.dump(tree).encode()]), tree


def _file_of(name: str) -> Path | None:
    """The Python file of a module, whether it is imported by now or not; None where it has none."""
    module = sys.modules.get(name)
    try:
        spec = getattr(module, "__spec__", None) or importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        spec = None
    file = getattr(module, "__file__", None) or (spec.origin if spec is not None else None)
    return Path(file) if file is not None and file.endswith(".py") else None


def _tree_of(value: Any) -> ast.AST | None:
    """The syntax tree of a function's or class's source; None of a lambda, whose lines hold more, and where none is."""
    if value.__name__ == "<lambda>":
        return None
    try:
        # Of a decorated function `getsource` returns the source of the function inside, but not of its code.
        return ast.parse(textwrap.dedent(inspect.getsource(getattr(value, "__code__", value))))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None


def _functions(member: Any) -> Iterator[Any]:
    """The functions of a member of a class: a method, a static or class method, a property."""
    for one in (member, *(getattr(member, f, None) for f in _WRAPPED)):
        if inspect.isfunction(one):
            yield one


def _named(code: types.CodeType) -> tuple[set[str], list[Imported]]:
    """The names of globals that code loads, and its imports; code inside it included."""
    loaded: set[str] = set()
    imported: list[Imported] = []
    before: list[Any] = [None, None]  # what an import takes from the stack: its level and its names
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            loaded.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME":
            level, names = before
            imported.append((level if isinstance(level, int) else 0, instruction.argval, names or ()))
        if instruction.opname.startswith("LOAD_"):
            before = [before[1], instruction.argval]
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more, others = _named(inner)
            loaded |= more
            imported += others
    return loaded, imported


def _code(code: types.CodeType) -> Iterator[str]:
    """Code as text, without where it stands; a set's order differs from run to run."""
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} "
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        else:
            yield repr(sorted(constant, key=repr)) if isinstance(constant, frozenset) else repr(constant)
