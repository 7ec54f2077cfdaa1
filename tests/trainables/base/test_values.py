"""Values from outside become plain data, or are refused in one line."""

import enum
import io
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import search
from search.core.program_config import loop_config
from trainables import InputError, Numbers, check_params, plain
from trainables.base.values import refusal


class Kind(enum.Enum):
    A = "a"


class Size(enum.IntEnum):
    BIG = 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(2.5), 2.5),
        (torch.tensor(2.5), 2.5),
        (torch.tensor([1, 2]), [1, 2]),
        (Path("a/b"), "a/b"),
        (Kind.A, "a"),
        (Size.BIG, 3),
        (Fraction(1, 2), 0.5),
        (range(1, 4), [1, 2, 3]),
        ((1, "a", None), [1, "a", None]),
        ({3, 1, 2}, [1, 2, 3]),
        (np.array([[1.0, 2.0]]), [[1.0, 2.0]]),
        (pd.Series([1, 2]), [1, 2]),
        ({np.str_("x"): {"uniform": (np.float64(0), 1)}}, {"x": {"uniform": [0.0, 1]}}),
    ],
)
def test_value_of_a_library_becomes_plain(given, expected):
    made = plain(given, "here")
    assert made == expected and repr(made) == repr(expected)
    assert yaml.safe_load(yaml.safe_dump(made)) == expected == json.loads(json.dumps(made))


@pytest.mark.parametrize(
    "given", [torch.nn.ReLU, object(), 1j, lambda: 0, np.datetime64("2020-01-01"), [len], {"a": b""}]
)
def test_value_that_has_no_plain_form_is_refused_in_a_line(given):
    with pytest.raises(InputError, match=r"^space\.x(\.a)?: .*allowed are text, numbers") as error:
        plain(given, "space.x")
    assert "\n" not in str(error.value)


def test_space_of_numpy_values_is_searched_as_plain_numbers():
    rates = np.logspace(-4, -1, 4)
    space = {
        "lr": search.choice(rates), "width": search.integer(np.int64(8), np.int64(32), step=np.int64(8)),
        "decay": search.uniform(np.float64(0), np.float32(0.5), prior=np.float64(0.25)),
        "nesterov": search.choice(np.array([True, False])), "layers": search.choice(range(1, 4)),
        "beta": search.uniform(0, 1, when={"nesterov": np.bool_(True)}), "fixed": np.float64(3), "kind": Kind.A,
    }  # fmt: skip
    config = loop_config("mine", space, "loss min", {"search.trials": np.int64(4)}, (), "here")
    assert yaml.safe_load(yaml.safe_dump(config.raw)) == config.raw
    params = config.space.sample(lambda p: p.values()[0] if p.values() else p.low)
    assert {type(value) for value in params.values()} == {float, int, bool, str}
    assert params["lr"] == rates[0] and config.search.trials == 4
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=params["lr"])
    torch.save(optimizer.state_dict(), file := io.BytesIO())
    file.seek(0)
    assert torch.load(file, weights_only=True)["param_groups"][0]["lr"] == rates[0]


@pytest.mark.parametrize(
    ("value", "allowed", "why"),
    [
        (16, Numbers(1, whole=True), None),
        (16.5, Numbers(1, whole=True), "expected a whole number >= 1"),
        (True, Numbers(), "expected a number >= 0"),
        (None, Numbers(null=True), None),
        ("all", Numbers(whole=True, words=("all",)), None),
        ("al", Numbers(whole=True, words=("all",)), "expected a whole number >= 0, or all"),
        (None, Numbers(), "expected a number >= 0"),
        (math.nan, Numbers(), "expected a number >= 0"),
        (1.0, Numbers(0, 1, below=True), "expected a number >= 0 and < 1"),
        (0, Numbers(above=True), "expected a number > 0"),
        (1, (True, False), "allowed are true, false"),
        ("vannila", ("vanilla", "padded"), "allowed are vanilla, padded; did you mean 'vanilla'?"),
        ("padded", ("vanilla", "padded"), None),
    ],
)
def test_refusal_says_what_is_allowed(value, allowed, why):
    assert refusal(value, allowed) == why


def test_check_params_missing_and_misspelt():
    check_params({"cell": ("gru", "lstm")}, {"lr": 1})
    check_params({"cell": ("gru", "lstm")}, {"cell": None})
    with pytest.raises(InputError, match="cell: 'gruu': allowed are gru, lstm; did you mean 'gru'"):
        check_params({"cell": ("gru", "lstm")}, {"cell": "gruu"})
