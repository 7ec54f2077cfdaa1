import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.base.errors import InputError
from trainables.rnn.pickles import read_npy, read_pickle


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
