"""Reads arrays from files of unknown origin. No code of a file is run, and the module `pickle` is not used.

A pickle is a program for a stack machine. This module executes the operations that make lists, tuples, dicts, numbers,
texts and NumPy arrays, and refuses all others. `pickle` with a list of allowed classes is not safe enough, for two
reasons. `numpy.dtype.__setstate__` accepts any state: a state can make NumPy read the bytes of an array as a pointer to
an object. The memo of the C implementation allocates as many entries as the file requests.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib import format as npy

from trainables import InputError
from trainables.base.errors import one_line
from trainables.base.files import UNLIMITED, Allowance, broken

#: The functions that pickles call. NumPy's functions rebuild arrays; they have other names since NumPy 2. `_codecs` and
#: `__builtin__` rebuild bytes in the protocols 0 to 2.
_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),
    ("__builtin__", "bytes"),
}
#: Plain types: booleans, numbers, complex numbers, texts, bytes, raw data, dates and durations.
_PLAIN = re.compile(r"[<>=|]?[?biufcSUVMm]\d{0,10}")
#: Lists deeper than this are refused. NumPy's arrays have at most 64 dimensions.
DEEPEST = 64
_SCALARS = (bool, int, float, str, bytes, np.generic, type(None))
#: Operations that push their own argument.
_CONSTANTS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "FLOAT", "BINFLOAT",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Global:
    """A name that the pickle refers to. It is not imported."""

    name: str


@dataclass(eq=False)
class _Type:
    """A NumPy type, as described so far."""

    value: np.dtype[Any]


@dataclass(eq=False)
class _Array:
    """A NumPy array: its numbers, or a list of objects with a shape. Both are None until the pickle describes them."""

    value: np.ndarray | None = None
    objects: list[Any] = field(default_factory=list)
    shape: tuple[int, ...] | None = None
    order: str = "C"


def read_pickle(content: bytes, place: str, allowance: Allowance = UNLIMITED) -> Any:
    """The object in a pickle of arrays, lists, tuples, dicts, texts and numbers.

    Args:
        allowance: the bytes that the object may take beyond the size of the file: a file can refer to one list often.

    Raises:
        InputError: the pickle is damaged, or holds another operation or name, which the message gives.
    """
    with broken(place, "damaged pickle"):
        machine = _Machine(place, len(content), allowance)
        for operation, argument, _ in pickletools.genops(content):
            machine.run(operation.name, argument)
        value, size = _Resolver().resolve(machine.stack.pop())
    allowance.take(max(0, size - len(content), machine.made - len(content)), place)
    return value


class _Machine:
    """Executes the operations of a pickle one at a time. After the last one, the object is the top of `stack`."""

    def __init__(self, place: str, size: int, allowance: Allowance) -> None:
        self.place, self.size, self.allowance = place, size, allowance
        self.made = 0  # bytes of all arrays
        self.encoded: dict[str, bytes] = {}  # the bytes of a text; many arrays can refer to one text
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stack below each mark
        self.memo: dict[int, Any] = {}
        self.operations: Mapping[str, Callable[[Any], object]] = {
            **dict.fromkeys(_CONSTANTS, self.push),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self.put),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda key: self.push(self.memo[key])),
            **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda _: None),
            "NONE": lambda _: self.push(None),
            "NEWTRUE": lambda _: self.push(True),
            "NEWFALSE": lambda _: self.push(False),
            "EMPTY_LIST": lambda _: self.push([]),
            "EMPTY_TUPLE": lambda _: self.push(()),
            "EMPTY_DICT": lambda _: self.push({}),
            "MEMOIZE": lambda _: self.put(len(self.memo)),
            "MARK": self.mark,
            "POP": self.pop,
            "POP_MARK": lambda _: self.marked(),
            "DUP": lambda _: self.push(self.stack[-1]),
            "TUPLE": lambda _: self.push(tuple(self.marked())),
            "TUPLE1": lambda _: self.push(tuple(self.last(1))),
            "TUPLE2": lambda _: self.push(tuple(self.last(2))),
            "TUPLE3": lambda _: self.push(tuple(self.last(3))),
            "LIST": lambda _: self.push(self.marked()),
            "DICT": lambda _: self.push(_pairs(self.marked())),
            "APPEND": lambda _: self.extend(self.last(1)),
            "APPENDS": lambda _: self.extend(self.marked()),
            "SETITEM": lambda _: self.update(self.last(2)),
            "SETITEMS": lambda _: self.update(self.marked()),
            "GLOBAL": lambda name: self.ask(*name.split(" ", 1)),
            "INST": lambda name: self.ask(*name.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self.ask(*self.last(2)),
            "REDUCE": lambda _: self.push(self.call(*self.last(2))),
            "BUILD": self.build,
        }

    def run(self, name: str, argument: Any) -> None:
        if (operation := self.operations.get(name)) is None:
            raise InputError(f"{self.place}: the pickle holds {name}; only NumPy arrays, lists and dicts are read")
        operation(argument)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """Removes and returns the values above the last mark."""
        above, self.stack = self.stack, self.below.pop()
        return above

    def last(self, count: int) -> list[Any]:
        """Removes and returns the last values of the stack."""
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("items of something that is no list")
        target.extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise ValueError("items of something that is no dict")
        target.update(_pairs(items))

    def ask(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        if (module, name) not in _ADMITTED:
            asked = one_line(f"{module}.{name}", 80)
            raise InputError(f"{self.place}: the pickle asks for {asked}; only NumPy arrays and lists are read")
        self.push(_Global(name))

    def build(self, _: Any) -> None:
        (state,), target = self.last(1), self.stack[-1]
        if isinstance(target, _Type):
            target.value = _type_of(target.value, state)
        elif isinstance(target, _Array):
            _, shape, kind, fortran, data = state
            self.fill(target, kind, shape, "F" if fortran else "C", data)
        else:
            raise ValueError("a state of something that is no array")

    def call(self, function: Any, arguments: Any) -> Any:
        """The result of a function, for the calls that pickles of NumPy make."""
        name = function.name if isinstance(function, _Global) else ""
        if name == "encode" and arguments[1] == "latin1" and isinstance(arguments[0], str):
            return self.latin1(arguments[0])
        if name == "bytes" and arguments == ():
            return b""
        if name == "dtype" and isinstance(arguments[0], str):
            return _Type(_plain_type(arguments[0]))
        if name == "_reconstruct" and isinstance(arguments[0], _Global) and arguments[0].name == "ndarray":
            return _Array()
        if name == "_frombuffer":
            buffer, kind, shape, order = arguments
            array = _Array()
            self.fill(array, kind, shape, order, buffer)
            return array
        if name == "scalar":
            array = _Array()
            self.fill(array, arguments[0], (), "C", arguments[1])
            if array.value is not None:
                return array.value[()]
        raise ValueError(f"a call of {name or 'something that is no function'}")

    def fill(self, array: _Array, kind: Any, shape: Any, order: Any, data: Any) -> None:
        """Gives an array its content, once."""
        if array.value is not None or array.shape is not None or not isinstance(kind, _Type) or order not in ("C", "F"):
            raise ValueError("an array that is no array")
        if kind.value.hasobject:
            if type(data) is not list:
                raise ValueError("objects that are no list")
            array.objects, array.shape, array.order = data, _shape(shape), order
            return
        raw = self.latin1(data) if isinstance(data, str) else data
        if not isinstance(raw, bytes | bytearray):
            raise ValueError("an array without bytes")
        self.made += len(raw)
        self.allowance.check(self.made - self.size, self.place)
        array.value = _array(kind.value, _shape(shape), order, raw)

    def latin1(self, text: str) -> bytes:
        """The bytes that a pickle of protocols 0 to 2, or of Python 2, holds as a text."""
        if text not in self.encoded:
            self.encoded[text] = text.encode("latin1")
        return self.encoded[text]


def _pairs(items: list[Any]) -> dict[Any, Any]:
    keys, values = items[::2], items[1::2]
    if len(keys) != len(values) or not all(isinstance(key, _SCALARS) or _is_flat(key) for key in keys):
        raise ValueError("a dict whose keys are no texts or numbers")
    return dict(zip(keys, values, strict=True))


def _is_flat(key: Any) -> bool:
    """Whether it is a tuple of texts and numbers. The hash of a deeply nested tuple would crash the process."""
    return type(key) is tuple and all(isinstance(part, _SCALARS) for part in key)


def _plain_type(code: str) -> np.dtype[Any]:
    if re.fullmatch(r"[|<>=]?O\d?", code):
        return np.dtype(object)
    if not _PLAIN.fullmatch(code):
        raise ValueError(f"type {code!r:.40}")
    return np.dtype(code)


def _type_of(plain: np.dtype[Any], state: Any) -> np.dtype[Any]:
    """The type that a state describes. NumPy's constructor makes it: no state is given to NumPy."""
    _, order, base, names, fields, size, _, _, *more = state
    if order not in ("<", ">", "|", "="):
        raise ValueError(f"byte order {order!r:.40}")
    if plain.hasobject:
        return plain
    if base is not None:
        inner, shape = base
        return np.dtype((_without_objects(inner), _shape(shape)))
    if names is not None:
        parts = [fields[name] for name in names]
        return np.dtype({
            "names": list(names), "formats": [_without_objects(part[0]) for part in parts],
            "offsets": [int(part[1]) for part in parts], "itemsize": int(size),
        })  # fmt: skip
    if plain.kind in "Mm" and more:
        unit, count, *_ = more[0][1]
        plain = np.dtype(f"{plain.kind}8[{int(count)}{unit.decode('ascii')}]")
    return plain.newbyteorder(order)


def _without_objects(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _Type) or kind.value.hasobject:
        raise ValueError("a type of several parts, one of which is no plain type")
    return kind.value


def _shape(given: Any) -> tuple[int, ...]:
    shape = (given,) if type(given) is int else given
    if type(shape) is not tuple or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"shape {given!r:.40}")
    return shape


def _array(kind: np.dtype[Any], shape: tuple[int, ...], order: Any, raw: bytes | bytearray) -> np.ndarray:
    """The array in `raw`; raises ValueError unless the length of `raw` fits type and shape."""
    items = math.prod(shape)
    if not kind.itemsize and items:  # the number of items would be unlimited
        raise ValueError(f"items without content, of type {kind!s:.40}")
    if items * kind.itemsize != len(raw):
        raise ValueError(f"{len(raw)} bytes for shape {shape!r:.60} of {kind!s:.40}")
    array: np.ndarray = np.ndarray(shape, kind, raw, order=order)
    if kind.kind == "U" and array.size:
        points = array.astype(kind.newbyteorder("="), order="C").reshape(-1).view(np.uint32)
        if points.max() > 0x10FFFF:  # no Unicode character
            raise ValueError("a text with characters that do not exist")
    return array


class _Resolver:
    """Replaces `_Array` objects by arrays, and adds up the bytes of an object.

    An object with several references is resolved once, and counted for each reference.
    """

    def __init__(self) -> None:
        #: By the id of a container: the resolved container and its bytes; None while its items are being resolved.
        self.resolved: dict[int, tuple[Any, int] | None] = {}

    def resolve(self, value: Any, depth: int = 0) -> tuple[Any, int]:
        """The object and its bytes, without the overhead of Python's objects."""
        if isinstance(value, str | bytes | bytearray):
            return value, len(value)
        if isinstance(value, _SCALARS):
            return value, 1
        if isinstance(value, _Array) and value.value is not None:
            return value.value, value.value.nbytes
        if id(value) not in self.resolved:
            if depth > DEEPEST:
                raise ValueError(f"lists in lists, deeper than {DEEPEST}")
            self.resolved[id(value)] = None
            self.resolved[id(value)] = self._container(value, depth + 1)
        resolved = self.resolved[id(value)]
        if resolved is None:
            raise ValueError("a list that holds itself")
        return resolved

    def _container(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, list | tuple):
            items, size = self._all(value, depth)
            return type(value)(items), size
        if isinstance(value, dict):
            items, size = self._all(value.values(), depth)
            return dict(zip(value, items, strict=True)), size + len(value)
        if not isinstance(value, _Array) or value.shape is None:
            raise ValueError("something that is no array")
        items, size = self._all(value.objects, depth)
        if math.prod(value.shape) != len(items):
            raise ValueError(f"{len(items)} objects for shape {value.shape!r:.60}")
        array = np.empty(len(items), dtype=object)
        for index, item in enumerate(items):  # `array[:] = items` would unpack items of equal shape
            array[index] = item
        return array.reshape(value.shape, order="F" if value.order == "F" else "C"), size

    def _all(self, values: Any, depth: int) -> tuple[list[Any], int]:
        pairs = [self.resolve(value, depth) for value in values]
        return [value for value, _ in pairs], sum(size for _, size in pairs)


def read_npy(content: bytes, place: str, allowance: Allowance = UNLIMITED) -> np.ndarray:
    """An array from `.npy` content; one of objects through `read_pickle`.

    Raises:
        InputError: it is damaged, or shorter than its header says.
    """
    file = io.BytesIO(content)
    with broken(place, "not a .npy file"):
        if (version := npy.read_magic(file)) not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version}")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        shape, start = _shape(shape), file.tell()
        if not dtype.hasobject:
            end = start + math.prod(shape) * dtype.itemsize
            return _array(dtype, shape, "F" if fortran else "C", content[start:end])
        if dtype.fields or dtype.subdtype:
            raise ValueError("a type of several parts, one of which is an object")
    inner = read_pickle(content[start:], place, allowance)
    if not isinstance(inner, np.ndarray) or inner.size != math.prod(shape):
        raise InputError(f"{place}: damaged .npy file: its header says {shape!r:.60}")
    with broken(place, "not a .npy file"):
        return inner.reshape(shape)


def read_npz(content: bytes, place: str, allowance: Allowance = UNLIMITED) -> dict[str, np.ndarray]:
    """The arrays of `.npz` content by name; raises InputError as `read_npy`, and if `allowance` is exceeded."""
    with broken(place, "not a .npz file"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            allowance.take(member.file_size, place)
        members = {name: archive.read(name) for name in archive.namelist()}
    return {name.removesuffix(".npy"): read_npy(data, f"{place}: {name}", allowance) for name, data in members.items()}
