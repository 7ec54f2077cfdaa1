import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.core.searchers import priors
from search.core.searchers.encoding import Encoding
from search.core.space import parse_space
from trainables.base.errors import InputError
from trainables.base.values import plain

PLACE = "configs/x.yaml"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"loguniform": [0, 0.1]}, "space.lr: loguniform [0, 0.1]: the lower bound must be > 0"),
        ({"loguniform": [-1, 1]}, "the lower bound must be > 0"),
        ({"uniform": [1, 1]}, "space.lr: uniform [1, 1]: the range is empty"),
        ({"uniform": [2, 1]}, "the range is empty"),
        ({"uniform": [0, float("inf")]}, "both bounds must be finite"),
        ({"uniform": [0]}, "expected two numbers"),
        ({"uniform": ["a", 1]}, "expected two numbers"),
        ({"uniform": [True, 2]}, "expected two numbers"),
        ({"int": [1.5, 3]}, "expected two whole numbers"),
        ({"int": [1, 8], "step": 2}, "step 2: must divide the range 7"),
        ({"int": [1, 9], "step": 0}, "step 0: must be a whole number >= 1"),
        ({"choice": []}, "choice []: expected a list with at least one value"),
        ({"choice": [1, 1]}, "1 stands twice"),
        ({"choice": [[1, 2]]}, "expected a string, a finite number, true, false or null"),
        ({"choice": [1], "uniform": [0, 1]}, "uniform and choice given; exactly one is allowed"),
        ({"loguniform": [1, 2], "step": 1}, "unknown key 'step'"),
        ({"uniform": [0, 1], "step": 0.3}, "step 0.3: must divide the range 1 into 1 to 100,000 parts"),
        ({"uniform": [0, 1], "step": 1e-6}, "into 1 to 100,000 parts"),
        ({"uniform": [0, 1], "step": -0.5}, "step -0.5: must be a number > 0"),
        ({"uniform": [0, 1], "step": "a"}, "step 'a': must be a number > 0"),
        ({"int": [0, 8], "log": True}, "int [0, 8]: the lower bound must be > 0"),
        ({"int": [1, 8], "log": 1}, "log 1: expected true or false"),
        ({"int": [2, 8], "log": True, "step": 2}, "step 2 and log: one of them is allowed"),
        ({"choice": ["a", "b"], "ordered": "yes"}, "ordered 'yes': expected true or false"),
        ({"uniform": [0, 1], "when": {"nothing": 1}}, "when: nothing: no such parameter"),
        ({"uniform": [0, 1], "when": {"kind": "c"}}, "'c' is not a value of kind; allowed: ['a', 'b']"),
        ({"uniform": [0, 1], "when": 3}, "when 3: expected {parameter: value}"),
        ({"uniform": [0, 1], "when": {"lr": 1}}, "`when` goes round in a circle"),
        ({}, "space.lr: {}: expected one of uniform"),
        ([1, 2], "expected a string, a finite number"),
    ],
)
def test_wrong_entry_is_refused_with_key_value_and_what_is_allowed(spec, message):
    with pytest.raises(InputError) as error:
        parse_space({"kind": {"choice": ["a", "b"]}, "lr": spec}, PLACE)
    assert str(error.value).startswith(f"{PLACE}: space")
    assert message in str(error.value)


def test_condition_on_a_value_that_was_narrowed_away_never_holds():
    raw = {"opt": {"choice": ["adam", "adamw"]}, "momentum": {"uniform": [0, 1], "when": {"opt": "sgd"}}}
    space = parse_space(raw, PLACE, narrowed=True)
    assert space.grid(PLACE) == [{"opt": "adam", "momentum": None}, {"opt": "adamw", "momentum": None}]


def test_conditional_parameter_exists_only_under_its_value():
    space = parse_space(
        {"momentum": {"uniform": [0, 1], "when": {"opt": "sgd"}}, "opt": {"choice": ["sgd", "adam"]},
         "beta": {"value": 0.9, "when": {"opt": ["adam"]}}}, PLACE,
    )  # fmt: skip
    assert [p.name for p in space.parameters] == ["opt", "momentum", "beta"]
    answers = {"opt": "adam", "momentum": 0.5}
    assert space.sample(lambda p: answers[p.name]) == {"opt": "adam", "momentum": None, "beta": 0.9}
    answers["opt"] = "sgd"
    assert space.sample(lambda p: answers[p.name]) == {"opt": "sgd", "momentum": 0.5, "beta": None}


def test_groups_become_dotted_names():
    space = parse_space(
        {
            "model": {"depth": 3, "head": {"choice": ["a"]}},
            "x": {"value": 1, "when": {"model": {"depth": 3}}},
        },
        PLACE,
    )
    assert [p.name for p in space.parameters] == ["model.depth", "model.head", "x"]


def test_prior_is_a_value_of_the_range_with_how_sure_it_is():
    (lr,) = parse_space({"lr": {"loguniform": [1e-4, 1e-1], "prior": 1e-3, "confidence": "high"}}, PLACE).parameters
    assert (lr.prior, lr.has_prior, lr.confidence) == (1e-3, True, "high")
    assert lr.describe() == "loguniform [0.0001, 0.1], prior 0.001"
    (null,) = parse_space({"a": {"choice": [None, 1], "prior": None}}, PLACE).parameters
    assert null.has_prior and null.prior is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"loguniform": [1e-4, 1e-1], "prior": 1}, "space.a: prior 1: must be a value of loguniform [0.0001, 0.1]"),
        ({"int": [8, 64], "step": 8, "prior": 12}, "space.a: prior 12: must be a value of int [8, 64] step 8"),
        ({"choice": ["x", "y"], "prior": "z"}, "space.a: prior 'z': must be a value of {x, y}"),
        ({"uniform": [0, 1], "prior": True}, "space.a: prior True: must be a value of uniform [0, 1]"),
        ({"uniform": [0, 1], "prior": 0.5, "confidence": "sure"}, "'sure': allowed are low, medium, high"),
        ({"uniform": [0, 1], "confidence": "low"}, "confidence 'low': needs a prior, and there is none"),
        ({"value": 1, "prior": 1}, "space.a: value: unknown key 'prior'; beside it only when"),
    ],
)
def test_wrong_prior_is_refused(spec, message):
    with pytest.raises(InputError) as error:
        parse_space({"a": spec}, PLACE)
    assert message in str(error.value)


def test_grid_holds_every_point_once_and_no_dead_branches():
    space = parse_space(
        {"opt": {"choice": ["sgd", "adam"]}, "momentum": {"choice": [0.5, 0.9], "when": {"opt": "sgd"}},
         "width": {"int": [8, 16], "step": 8}}, PLACE,
    )  # fmt: skip
    points = space.grid(PLACE)
    assert len(points) == 6
    assert len({tuple(p.items()) for p in points}) == 6
    assert {"opt": "adam", "momentum": None, "width": 16} in points


def test_grid_refuses_a_continuous_range_and_says_so():
    with pytest.raises(InputError, match=r"space\.lr: uniform \[0, 1\]: a grid needs values that can be counted"):
        parse_space({"lr": {"uniform": [0, 1]}}, PLACE).grid(PLACE)


KEYS = st.sampled_from(["uniform", "loguniform", "int", "choice", "value", "when", "step", "prior", "confidence", "a"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.sampled_from(["sgd", "", "uniform"])
json_like = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), json_like, max_size=3))
def test_no_input_makes_a_traceback(raw):
    try:
        space = parse_space(raw, PLACE)
    except InputError as error:
        assert PLACE in str(error)
    else:
        space.sample(lambda p: (p.values() or (p.low,))[0])


def test_range_of_four_thousand_million_whole_numbers_takes_no_memory():
    space = parse_space({"seed": {"int": [0, 2**32 - 1], "prior": 42}, "x": 1}, "x.yaml")
    seed = space.parameters[0]
    assert seed.allows(2**32 - 1) and seed.allows(7.0)
    assert not any(seed.allows(value) for value in (2**32, -1, 0.5, True, "7", None))
    assert space.choices()["seed"] is None
    with pytest.raises(InputError, match=r"space: the grid has more than 100,000 points"):
        space.grid("x.yaml")


def test_condition_on_a_large_range_names_the_range():
    raw = {"n": {"int": [0, 10**9]}, "x": {"uniform": [0, 1], "when": {"n": -1}}}
    with pytest.raises(InputError, match=r"-1 is not a value of n; allowed: int \[0, 1e\+09\]"):
        parse_space(raw, "x.yaml")


@pytest.mark.parametrize(
    ("spec", "limit"),
    [
        ({"int": [0, 2**64]}, r"2\*\*63 - 1"),
        ({"int": [-(2**62), 2**62 + 1]}, r"2\*\*63 - 1"),
        ({"int": [0, 10**400]}, r"2\*\*63 - 1"),
        ({"uniform": [0, 10**400]}, r"1\.798e\+308"),
        ({"loguniform": [1, 10**400]}, r"1\.798e\+308"),
    ],
)
def test_bound_that_no_searcher_can_hold_is_refused(spec, limit):
    with pytest.raises(InputError, match=rf"x\.yaml: space\.seed: .*both bounds must be finite.* at most {limit}"):
        parse_space({"seed": spec}, "x.yaml")


def test_longest_range_of_whole_numbers_is_searched():
    space = parse_space({"seed": {"int": [0, 2**63 - 1]}}, "x.yaml")
    assert space.choices()["seed"] is None


def test_whole_number_beyond_every_float_is_refused_in_a_choice():
    with pytest.raises(
        InputError, match=r"space\.n: a whole number of 1329 bits: allowed are up to 1023, as in a float"
    ):
        parse_space({"n": {"choice": ["a", 10**400]}}, "x.yaml")
    assert parse_space({"n": {"choice": [2**64, -5]}}, "x.yaml").parameters[0].choices == (2**64, -5)


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        (
            {"a.b": 1, "a": {"b": 2}},
            r"space\.a\.b: given twice, as \{'a\.b': \.\.\.\} and as \{'a': \{'b': \.\.\.\}\};",
        ),
        (
            {"a": {"b.c": 1, "b": {"c": 2}}},
            r"space\.a\.b\.c: given twice, as \{'a': \{'b\.c': .* and as \{'a': \{'b': \{'c'",
        ),
        ({1: 1, "1": 2}, r"space\.1: given twice"),
    ],
)
def test_parameter_that_is_given_twice_is_refused_with_both_places(raw, written):
    with pytest.raises(InputError, match=rf"^x\.yaml: {written}"):
        parse_space(raw, "x.yaml")


def test_condition_that_is_given_twice_is_refused():
    when = {"a.b": 1, "a": {"b": 2}}
    raw = {"a": {"b": {"choice": [1, 2]}}, "x": {"uniform": [0, 1], "when": when}}
    with pytest.raises(InputError, match=r"space\.x: when\.a\.b: given twice, as \{'a\.b': "):
        parse_space(raw, "x.yaml")


def test_two_keys_of_one_text_are_refused():
    with pytest.raises(InputError, match=r"^space\.1: given twice"):
        plain({1: 0.1, "1": 0.2}, "space")


@pytest.mark.parametrize(
    ("other", "values", "wrong"),
    [
        ({"uniform": [0, 1]}, "a", r"uniform \[0, 1\] is continuous, so it never has the value 'a'"),
        ({"loguniform": [0.1, 1]}, 0.5, r"is continuous, so it never has the value 0\.5; a condition names a choice"),
        ({"choice": ["a", "b"]}, ["a", "c"], r"'c' is not a value of x; allowed: \['a', 'b'\]"),
        ({"int": [1, 5], "step": 2}, [1, 2], r"2 is not a value of x; allowed: int \[1, 5\] step 2"),
        ({"choice": ["a", "b"]}, None, r"None is not a value of x"),
    ],
)
def test_condition_on_a_value_that_never_comes_is_refused(other, values, wrong):
    raw = {"x": other, "lr": {"uniform": [0, 1], "when": {"x": values}}}
    with pytest.raises(InputError, match=rf"^x\.yaml: space\.lr: when: x: .*{wrong}"):
        parse_space(raw, "x.yaml")
    parse_space(raw, "x.yaml", narrowed=True)  # a journal of an older version opens


def test_condition_may_ask_for_the_absence_of_a_conditional_parameter():
    raw = {
        "opt": {"choice": ["sgd", "adam"]}, "momentum": {"uniform": [0, 1], "when": {"opt": "sgd"}},
        "beta": {"uniform": [0, 1], "when": {"momentum": None}}, "off": 1, "y": {"uniform": [0, 1], "when": {"off": 2}},
    }  # fmt: skip
    beta = parse_space(raw, PLACE).parameters[2]
    assert beta.exists({"momentum": None}) and not beta.exists({"momentum": 0.5})


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ({"uniform": [0, 0.5], "step": 0.1}, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"choice": [64, 16, 32]}, [16, 32, 64]),
        ({"choice": ["s", "m", "l"], "ordered": True}, ["s", "m", "l"]),
        ({"int": [2, 8], "step": 2}, [2, 4, 6, 8]),
    ],
)
def test_ordered_values_have_equal_shares_of_the_range(spec, values):
    parameter = parse_space({"x": spec}, PLACE).parameters[0]
    middles = [(index + 0.5) / len(values) for index in range(len(values))]
    assert [priors.from_unit(parameter, middle) for middle in middles] == values
    assert [priors.to_unit(parameter, value) for value in values] == middles
    assert all(parameter.allows(value) for value in values)


def test_choice_is_ordered_if_all_its_values_are_numbers_or_it_says_so():
    specs = {
        "a": {"choice": [1, 2.5]}, "b": {"choice": ["x", "y"]}, "c": {"choice": [1, "x"]},
        "d": {"choice": [True, False]},
        "e": {"choice": [1, 2], "ordered": False}, "f": {"choice": ["x", "y"], "ordered": True},
    }  # fmt: skip
    parameters = parse_space(specs, PLACE).parameters
    assert [p.name for p in parameters if p.has_order] == ["a", "f"]
    assert [p.describe() for p in parameters[-2:]] == ["{1, 2} without order", "{x < y}"]


def test_log_integer_draws_orders_of_magnitude_alike():
    parameter = parse_space({"x": {"int": [1, 1000], "log": True}}, PLACE).parameters[0]
    rng = np.random.default_rng(0)
    drawn = [priors.draw_uniform(parameter, rng) for _ in range(4000)]
    assert all(isinstance(value, int) and 1 <= value <= 1000 for value in drawn)
    shares = [np.mean([low <= value < 10 * low for value in drawn]) for low in (1, 10, 100)]
    assert np.ptp(shares) < 0.12
    assert parameter.describe() == "int [1, 1000] log"


SPECS = st.one_of(
    st.builds(lambda low, width: {"int": [low, low + width]}, st.integers(-50, 50), st.integers(1, 2**40)),
    st.builds(lambda low, width: {"int": [low, low + width], "log": True}, st.integers(1, 50), st.integers(1, 2**40)),
    st.builds(lambda low, n, step: {"uniform": [low, low + n * step], "step": step}, st.integers(-5, 5),
              st.integers(1, 40), st.sampled_from([0.1, 0.25, 2, 1e-3])),
    st.builds(lambda values: {"choice": values}, st.lists(st.integers(-99, 99), min_size=1, max_size=9, unique=True)),
    st.builds(lambda values: {"choice": values, "ordered": True},
              st.lists(st.text("abc", min_size=1), min_size=1, max_size=9, unique=True)),
)  # fmt: skip


@given(SPECS, st.floats(0, 1))
def test_position_of_a_value_leads_back_to_the_value(spec, unit):
    parameter = parse_space({"x": spec}, PLACE).parameters[0]
    value = priors.from_unit(parameter, unit)
    assert parameter.allows(value)
    assert priors.from_unit(parameter, priors.to_unit(parameter, value)) == value
    snapped = float(priors.snap(parameter, np.array([unit]))[0])
    assert priors.from_unit(parameter, snapped) == value
    encoding = Encoding(parse_space({"x": spec}, PLACE))
    assert encoding.params(encoding.row({"x": value})) == {"x": value}
