"""Hashes the code that a function runs: the function itself, and the parts of the user's modules that it refers to."""

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

#: The prefix of a part that is a module, and of a module that is imported inside a function (when the function runs).
MODULE, LATE = "module ", "import "
#: An import statement: the number of dots, the module, and the imported names.
Imported = tuple[int, str, tuple[str, ...]]
#: The attributes in which static and class methods, properties and cached properties hold their functions.
_WRAPPED = ("__func__", "fget", "fset", "fdel", "func")


def parts_of(function: Any) -> dict[str, str]:
    """The parts of a function by name (`train`, `scale`, `module helpers`), each with a hash.

    1. In the function's own module, each function, class and value that it refers to, directly or through others, is a
       part. Other lines of the module do not count: a script may change the number of trials.
    2. Each other module of the user is one part.
    3. Comments, layout and installed packages do not count.
    """
    walk = _walk(function)
    return walk.parts | {
        f"{LATE if name in walk.late else MODULE}{name}": digest for name, digest in walk.modules.items()
    }


def own_modules(function: Any) -> list[types.ModuleType]:
    """The user's modules that a function refers to, its own module included unless that is `__main__`."""
    walk = _walk(function)
    modules = (sys.modules.get(name) for name in sorted({*walk.modules, walk.home}) if name != "__main__")
    return [module for module in modules if module is not None and is_own(module)]


def changed_modules(parts: Mapping[str, str], folder: Path) -> list[Path]:
    """The changed files in `folder` of modules that a function imports when it runs.

    All other code is pickled with the function, and so cannot change.
    """
    changed = []
    for part, digest in parts.items():
        if not part.startswith(LATE):
            continue
        path = folder.joinpath(*part.removeprefix(LATE).split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file() and _Walk.read(file)[0] != digest:
                changed.append(file)
    return changed


def _walk(function: Any) -> _Walk:
    walk = _Walk(_module_of(function) or "")
    walk.visit(getattr(function, "__name__", type(function).__name__), function)
    return walk


def is_own(module: types.ModuleType) -> bool:
    """Whether a module is the user's: neither installed nor a part of this project."""
    return _is_own_file(getattr(module, "__file__", None))


def _is_own_file(file: str | None) -> bool:
    installed = [Path(folder) for folder in sysconfig.get_paths().values()]
    ours = [Path(__file__).parents[2] / package for package in ("search", "trainables")]
    return file is not None and not any(Path(file).is_relative_to(folder) for folder in [*installed, *ours])


def _module_of(value: Any) -> str | None:
    """The name of the module that defines a function, a class, or the class of an object."""
    while isinstance(value, functools.partial):
        value = value.func
    name = getattr(value, "__module__", None) or getattr(type(value), "__module__", None)
    return name if isinstance(name, str) else None


class _Walk:
    """Visits all code and values that a function refers to.

    Attributes:
        home: the function's own module.
        parts: hashes of functions, classes and values.
        modules: hashes of the user's other modules.
        late: the names of modules that are imported inside functions.
    """

    def __init__(self, home: str) -> None:
        self.home = home
        self.parts: dict[str, str] = {}
        self.modules: dict[str, str] = {}
        self.late: set[str] = set()
        #: Visited objects by id. The objects are stored too: the id of a freed object can be used again.
        self._seen: dict[int, Any] = {}

    def visit(self, name: str, value: Any) -> None:
        """Adds a value and all that it refers to.

        Args:
            name: the name of the value where it is used.
        """
        if isinstance(value, functools.partial):
            for key, part in (("func", value.func), ("args", value.args), ("keywords", value.keywords)):
                self.visit(f"{name}.{key}", part)
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
        elif inspect.isfunction(getattr(value, "__wrapped__", None)):  # such as the result of `functools.cache`
            self.visit(name, value.__wrapped__)
        else:
            self._value(name, value)

    def _is_new(self, value: Any) -> bool:
        new = id(value) not in self._seen
        self._seen[id(value)] = value
        return new

    def _defined(self, name: str, value: Any) -> None:
        """A function or class: a part of its own in the home module, else covered by the hash of its module."""
        module = value.__module__
        if module != self.home:
            self._module(module)
            if not is_own(sys.modules.get(module, sys)):
                self.parts[name] = array_digest([value.__qualname__.encode()])  # such as `relu` of a library
            self._closure(value)  # a helper may have made the function
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
        if tree:
            source = ast.dump(tree)
        else:
            source = "".join(text for function in functions for text in _code(function.__code__))
        # Several functions can have one name: a decorator's wrapper has the function's, and lambdas have `<lambda>`.
        others = self.parts.get(value.__qualname__, "")
        self.parts[value.__qualname__] = array_digest([others.encode(), source.encode()])
        for function in functions:
            self._function(function)

    def _function(self, function: Any) -> None:
        loaded, imported = _named(function.__code__)
        self._globals(function.__globals__, loaded)
        for statement in imported:
            self._import(statement, function.__globals__.get("__package__") or "", late=True)
        self._closure(function)
        for defaults in (function.__defaults__ or (), (function.__kwdefaults__ or {}).values()):
            for position, value in enumerate(defaults):
                self.visit(f"{function.__qualname__}: default {position}", value)

    def _closure(self, function: Any) -> None:
        """The variables of enclosing functions; a variable without a value is left out."""
        cells = getattr(function, "__closure__", None) or ()
        for name, cell in zip(function.__code__.co_freevars if cells else (), cells, strict=True):
            with suppress(ValueError):
                self.visit(f"{function.__qualname__}.{name}", cell.cell_contents)

    def _globals(self, namespace: dict[str, Any], names: set[str]) -> None:
        for name in sorted(names & namespace.keys()):
            self.visit(name, namespace[name])

    def _value(self, name: str, value: Any) -> None:
        """A constant or an object: its content if it can be hashed, else its items, or its class and attributes."""
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
            for key, item in items:
                self.visit(f"{name}[{key!r}]", item)
            return
        self._object(name, value)

    def _object(self, name: str, value: Any) -> None:
        """An object: the name of its class, and for classes of the user and namespaces also the attributes."""
        kind = type(value)
        module = sys.modules.get(kind.__module__)
        own = kind.__module__ == "__main__" or (module is not None and is_own(module))
        # The text of a library's object describes it (a pattern, a range, a layer) unless it holds an address.
        text = "" if own else getattr(value, "__qualname__", None) or repr(value)
        text = "" if " at 0x" in text else text
        self.parts[name] = array_digest([f"{kind.__module__}.{kind.__qualname__} {text}".encode()])
        if own:
            self.visit(kind.__qualname__, kind)
        elif not isinstance(value, argparse.Namespace | types.SimpleNamespace):
            return
        slots = [key for base in kind.__mro__ for key in vars(base) if inspect.ismemberdescriptor(vars(base)[key])]
        attributes = {key: getattr(value, key) for key in slots if hasattr(value, key)}
        attributes |= getattr(value, "__dict__", {})
        for key, attribute in attributes.items():
            self.visit(f"{name}.{key}", attribute)

    def _import(self, statement: Imported, package: str, late: bool) -> None:
        level, module, names = statement
        if level:
            base = package.rsplit(".", level - 1)[0] if level > 1 else package
            module = f"{base}.{module}" if module else base
        for name in (module, *(f"{module}.{name}" for name in names)):
            self._module(name, late)

    def _module(self, name: str, late: bool = False) -> None:
        """Another module of the user, and the modules that it imports. Installed modules are ignored."""
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
        """The hash and the syntax tree of a module's file. If it is no Python, the hash is that of its bytes."""
        content = file.read_bytes() if file.is_file() else b""
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):
            return array_digest([content]), ast.Module([], [])
        return array_digest([ast.dump(tree).encode()]), tree


def _file_of(name: str) -> Path | None:
    """The Python file of a module, imported or not; None if there is none."""
    module = sys.modules.get(name)
    try:
        spec = getattr(module, "__spec__", None) or importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        spec = None
    file = getattr(module, "__file__", None) or (spec.origin if spec is not None else None)
    return Path(file) if file is not None and file.endswith(".py") else None


def _tree_of(value: Any) -> ast.AST | None:
    """The syntax tree of a function's or class's source; None without source, and for a lambda, whose lines hold other
    code too."""
    if value.__name__ == "<lambda>":
        return None
    try:
        # `getsource` of a decorated function returns the decorated function's source; of its code, the wrapper's.
        return ast.parse(textwrap.dedent(inspect.getsource(getattr(value, "__code__", value))))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None


def _functions(member: Any) -> Iterator[Any]:
    """The functions of a member of a class: a method, a static or class method, a property."""
    for candidate in (member, *(getattr(member, attribute, None) for attribute in _WRAPPED)):
        if inspect.isfunction(candidate):
            yield candidate


def _named(code: types.CodeType) -> tuple[set[str], list[Imported]]:
    """The names of globals that code loads, and its imports; nested code included."""
    loaded: set[str] = set()
    imported: list[Imported] = []
    before: list[Any] = [None, None]  # the operands of an import: its level and its names
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
    """Code as text, without file and line numbers. Sets are sorted: their order differs from run to run."""
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} "
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        else:
            yield repr(sorted(constant, key=repr)) if isinstance(constant, frozenset) else repr(constant)
