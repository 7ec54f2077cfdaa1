import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.rnn.test_data import SETTINGS
from trainables.base.errors import InputError
from trainables.base.files import Allowance
from trainables.rnn import data
from trainables.rnn.pickles import read_npy, read_npz, read_pickle


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_malicious_pickle_does_not_run_and_is_refused_by_name(tmp_path):
    marker = tmp_path / "ran"
    with pytest.raises(InputError, match=r"X\.pkl: the pickle asks for posix\.mkdir; only NumPy arrays and lists"):
        read_pickle(pickle.dumps([np.zeros(2), Malicious(marker)]), "X.pkl")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists()


def test_malicious_object_inside_a_npy_file_is_refused(tmp_path):
    array = np.empty(1, dtype=object)
    array[0] = Malicious(tmp_path / "ran")
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    with pytest.raises(InputError, match=r"posix\.mkdir"):
        read_npy(buffer.getvalue(), "X.npy")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "numpy.load", "numpy.fromfile", "os.system"])
def test_other_functions_are_refused_even_numpys_own(name):
    module, function = name.split(".")
    content = b"c" + module.encode() + b"\n" + function.encode() + b"\n(S'x'\ntR."
    with pytest.raises(InputError, match=rf"asks for {module}\.{function}"):
        read_pickle(content, "x.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_kind_come_back_whole(protocol):
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.arange(6.0).reshape(3, 2), np.ones((1, 2), dtype=np.float32)]
    value = {"X": ragged, "y": np.array([1, 2]), "scalar": np.float64(3.5), "list": [np.zeros((2, 2), order="F")]}
    back = read_pickle(pickle.dumps(value, protocol=protocol), "x.pkl")
    assert np.array_equal(back["X"][0], ragged[0]) and back["X"][1].dtype == np.float32
    assert np.array_equal(back["y"], value["y"]) and back["scalar"] == 3.5
    assert np.array_equal(back["list"][0], value["list"][0])


@given(st.binary(max_size=200))
def test_no_bytes_make_a_traceback(content):
    for read in (read_pickle, read_npy):
        for prefix in (b"", b"\x80\x04", b"\x93NUMPY\x01\x00"):
            try:
                read(prefix + content, "x")
            except InputError as error:
                assert str(error).startswith("x: ")


class Reduced:
    """An object whose pickle calls a function with arguments."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


RECONSTRUCT = np.zeros(1).__reduce__()[0]


def array_pickle(kind, shape, content, protocol=2) -> bytes:
    return pickle.dumps(Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, kind, False, content)), protocol)


def dtype_pickle(code, *state):
    return Reduced(np.dtype, (code, False, True), state)


POINTER = dtype_pickle("V8", 3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
DEEP = b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000
HOSTILE = {
    "a pointer in the bytes of an array": array_pickle(POINTER, (1,), b"AAAAAAAA"),
    "a pointer in a part of a part": array_pickle(
        dtype_pickle("V8", 3, "|", None, ("b",), {"b": (POINTER, 0)}, 8, 1, 0), (1,), b"AAAAAAAA"
    ),
    "bytes in an array of objects": array_pickle(np.dtype("O"), (1,), b"AAAAAAAA"),
    "parts beyond the end of the type": array_pickle(
        dtype_pickle("V8", 3, "|", None, ("a",), {"a": (np.dtype("f8"), 1 << 40)}, 8, 1, 0), (1,), b"AAAAAAAA"
    ),
    "more numbers than bytes": array_pickle(np.dtype("f8"), (1 << 40,), b"AAAAAAAA"),
    "a negative shape": array_pickle(np.dtype("f8"), (-1, -1), b"AAAAAAAA"),
    "a character that does not exist": array_pickle(np.dtype("<U1"), (1,), b"\xff\xff\xff\xff"),
    "a memo of four thousand million entries": b"\x80\x02Nr\xff\xff\xff\xff0.",
    "a terabyte that is not there": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "a key that is nested deeply": b"\x80\x02}" + DEEP[2:] + b"Ns.",
    "a tuple that is nested deeply": DEEP + b".",
    "a list that holds itself": b"\x80\x02]q\x00h\x00a.",
    "an array that holds itself": b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87"
    b"Rq\x01(K\x01K\x01\x85cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R\x89]h\x01atb.",
    "ten to the sixteenth numbers by reference": b"\x80\x02](" + b"K\x01" * 10 + b"eq\x00"
    + b"".join(b"](" + b"h%c" % (i - 1) * 10 + b"eq%c" % i for i in range(1, 16)) + b".",
    "a hundred gigabytes by copies of one text": b"\x80\x02X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)
    + b"q\x00cnumpy._core.numeric\n_frombuffer\nq\x01cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85Rq\x02]("
    + b"h\x01(h\x00h\x02J\x00\x00\x10\x00X\x01\x00\x00\x00CtR" * 100_000 + b"e.",
}  # fmt: skip
_CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
from trainables.base.errors import InputError
from trainables.base.files import Allowance
from trainables.rnn.pickles import read_pickle
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        print("read", path.name, str(read_pickle(path.read_bytes(), path.name, Allowance(0.5)))[:100], flush=True)
    except InputError as error:
        print("refused", error, flush=True)
"""


def test_hostile_pickles_are_refused_and_end_no_process(tmp_path):
    for case, content in HOSTILE.items():
        (tmp_path / case).write_bytes(content)
    ran = subprocess.run([sys.executable, "-c", _CHILD, tmp_path], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [line.replace("--data ", "").split(":")[0] for line in ran.stdout.splitlines()]
    assert lines == [f"refused {case}" for case in sorted(HOSTILE)]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.arange(4, dtype="<f2"),
        np.array(["one", "zwölf"]),
        np.array([b"ab", b"c"]),
        np.array([True, False]),
        np.array(["2020-01-01", "2021-02-03"], dtype="M8[D]"),
        np.array([3, 4], dtype="m8[10ms]"),
        np.zeros((2, 0, 3)),
        np.array(5.0),
        np.array([(1, [2.5, 1.0]), (3, [4.5, 2.0])], dtype=[("a", "<i2"), ("b", ">f8", (2,))]),
        np.array([1 + 2j]),
        np.arange(3, dtype=np.longdouble),
    ],
    ids=lambda array: f"{array.dtype}"[:12],
)
def test_array_of_each_type_comes_back_with_its_type_and_values(array, protocol):
    back = read_pickle(pickle.dumps(array, protocol), "x.pkl")
    assert back.dtype == array.dtype and back.shape == array.shape and np.array_equal(back, array)


def test_pickle_of_an_older_numpy_is_read():
    content = pickle.dumps([np.arange(3.0), np.float32(2.5)], 2).replace(b"numpy._core", b"numpy.core")
    assert np.array_equal(read_pickle(content, "x.pkl")[0], np.arange(3.0))


def test_array_that_stands_in_a_list_several_times_is_one_object():
    array = np.arange(3.0)
    first, second = read_pickle(pickle.dumps([array, array]), "x.pkl")
    assert first is second and np.array_equal(first, array)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-5,), }",
        b"{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': " + b"(" * 400 + b")" * 400 + b", }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': " + b"-" * 9000 + b"1, }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (2L, }",
        b"{'descr': '''<f8\",",
        b"\xff" * 60,
        b"[" * 9000,
    ],
    ids=lambda header: header[-24:].decode("latin1"),
)
def test_npy_with_a_broken_header_is_refused_in_a_line(header):
    for version, size in ((b"\x01\x00", "<H"), (b"\x02\x00", "<I"), (b"\x09\x00", "<H")):
        content = b"\x93NUMPY" + version + struct.pack(size, len(header) + 1) + header + b"\n" + bytes(8)
        with pytest.raises(InputError, match=r"X\.npy: not a \.npy file") as refused:
            read_npy(content, "X.npy")
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_read_npz_larger_than_allowance():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, X=np.zeros((4, 2**18)), y=np.zeros(4))
    with pytest.raises(InputError, match=r"X\.npz: larger unpacked than 0\.004 GiB; .*max_unpacked_gb"):
        read_npz(buffer.getvalue(), "X.npz", Allowance(0.004))
    assert read_npz(buffer.getvalue(), "X.npz", Allowance(0.01))["X"].shape == (4, 2**18)


def test_zip_of_npz_files_counts_what_they_hold(tmp_path):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for split in ("train", "test"):
            buffer = io.BytesIO()
            padded = np.concatenate([np.zeros((9, 2**15, 1)), rng.normal(size=(9, 1, 1))], 1)
            np.savez_compressed(buffer, X=padded, y=rng.normal(size=9))
            archive.writestr(f"{split}.npz", buffer.getvalue())
    with pytest.raises(InputError, match=r"larger unpacked than 0\.003 GiB"):  # each file is smaller
        data.prepare(SETTINGS | {"max_unpacked_gb": 0.003}, tmp_path / "all.zip")
    assert data.prepare(SETTINGS | {"max_unpacked_gb": 0.01}, tmp_path / "all.zip").info.sizes["test"] == 9


def _real_files() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    ragged = np.empty(6, dtype=object)
    ragged[:] = [rng.normal(size=(2 + i % 3, 2)) for i in range(6)]
    value = {"X": list(ragged), "y": rng.normal(size=6), "engine": np.array(list("aabbcc"))}
    made = [(f"p{protocol}.pkl", pickle.dumps(value, protocol)) for protocol in range(6)]
    whole, parts = io.BytesIO(), io.BytesIO()
    np.save(whole, ragged, allow_pickle=True)
    np.savez_compressed(parts, X=rng.normal(size=(6, 3, 2)), y=value["y"], engine=value["engine"])
    return [*made, ("X.npy", whole.getvalue()), ("a.npz", parts.getvalue())]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from(_real_files()),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["flip", "cut", "drop", "double"]), st.integers(0, 255)),
             min_size=1, max_size=4),
)  # fmt: skip
def test_damaged_file_is_read_or_refused_in_a_line(tmp_path_factory, file, changes):
    name, content = file
    for place, kind, byte in changes:
        at = int(place * max(0, len(content) - 1))
        after = {"flip": bytes([byte]) + content[at + 1 :], "cut": b"", "drop": content[at + 1 :],
                 "double": content[at:] + content[at:]}[kind]  # fmt: skip
        content = content[:at] + after
    path = tmp_path_factory.getbasetemp() / "damaged" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    try:
        splits = data.prepare(SETTINGS, path)
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 1000
    else:
        assert all(np.isfinite(part.values).all() for part in (splits.train, splits.val, splits.test))
    finally:
        path.unlink()


@pytest.mark.parametrize("kind", ["<U0", "|S0", "|V0"])
def test_array_of_items_without_content_is_refused(kind):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': (1000000000,), }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    with pytest.raises(InputError, match="items without content"):  # a thousand million of them took 4 GB
        read_npy(content, "X.npy")
