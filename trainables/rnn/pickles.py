"""Arrays from files of unknown origin: pickles are read without running anything in them."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy

from trainables import InputError

#: What a pickled array is rebuilt with, under NumPy's names before and since version 2.
_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


def _latin1(text: str, encoding: str) -> bytes:
    """`_codecs.encode` as old pickle protocols store bytes with it, and no other codec."""
    if encoding != "latin1":
        raise ValueError(f"codec {encoding!r}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Admits the reconstruction of NumPy arrays and nothing else."""

    def __init__(self, file: io.BytesIO, place: str) -> None:
        super().__init__(file)
        self.place = place

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) not in _ADMITTED:
            raise InputError(f"{self.place}: the pickle asks for {module}.{name}; only NumPy arrays and lists are read")
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        raise InputError(
            f"{self.place}: the pickle refers to {pid!r} outside of it; only NumPy arrays and lists are read"
        )


def read_pickle(content: bytes, place: str) -> Any:
    """The object in a pickle of arrays, lists, tuples, dicts and numbers.

    Raises:
        InputError: the pickle holds anything else, which is named and not run, or is damaged.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(content), place).load()
    except InputError:
        raise
    # What a damaged pickle raises is not bounded by pickle's documentation; each means the same to the user.
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError,
            OverflowError, MemoryError, ImportError, UnicodeDecodeError, AssertionError) as error:  # fmt: skip
        raise InputError(f"{place}: damaged pickle ({error or type(error).__name__})") from error


def read_npy(content: bytes, place: str) -> np.ndarray:
    """An array from `.npy` content; one of objects through `read_pickle`."""
    file = io.BytesIO(content)
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if not dtype.hasobject:
            return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{place}: not a .npy file ({error})") from error
    inner = read_pickle(content[file.tell() :], place)
    if not isinstance(inner, np.ndarray) or inner.size != int(np.prod(shape)):
        raise InputError(f"{place}: damaged .npy file: its header says {shape}")
    return inner.reshape(shape)


def read_npz(content: bytes, place: str) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{place}: not a .npz file ({error})") from error
    return {name.removesuffix(".npy"): read_npy(data, f"{place}: {name}") for name, data in members.items()}
