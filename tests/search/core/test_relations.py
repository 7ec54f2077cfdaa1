"""Relations between hyperparameters: `when` with expressions, and `constraints`."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import search
from search.core.config import load_config
from search.core.decision import TrialResult
from search.core.overrides import argument
from search.core.program_config import loop_config
from search.core.relations import Relation
from search.core.requests import AddTrials, Configuration, settle
from search.core.searchers import make_searcher
from search.core.space import Space, parse_space
from search.core.study import Study
from trainables import InputError, Objective

SPACE = {
    "embedding": {"int": [192, 384]}, "heads": {"choice": [2, 4, 6]}, "low": {"uniform": [0, 1]},
    "high": {"uniform": [0, 1]}, "optimizer": {"choice": ["sgd", "adam"]}, "layers": {"int": [1, 4]},
    "momentum": {"uniform": [0, 1], "when": "optimizer == sgd"},
    "skip": {"uniform": [0, 1], "when": ["layers > 1", {"optimizer": "adam"}]},
    "constraints": ["embedding % heads == 0", "low < high", "optimizer != sgd or momentum > 0.5"],
}  # fmt: skip
VALUES = {"x": None, "n": [1, 2, 3], "kind": ["a", "none", None], "model.on": [True, False], "low": None, "high": None}
SEARCHERS = ["random", "ranks", "tpe", "gp", "nsga2", "grid"]


def relation(text: str) -> Relation:
    return Relation.parse(text, "here").resolved(VALUES, "here")


def study(space: dict, searcher: str = "random", events: tuple = (), **search: object) -> Study:
    flags = {"search.trials": 12, "search.epochs": 1, "search.searcher": searcher, "search.startup_trials": 3}
    flags |= {f"search.{key}": value for key, value in search.items()}
    config = loop_config("t", space, "loss min", flags, (), "here", argument)
    return Study(config, Objective("loss", "min"), events=events)


def events_of(search: Study, until: int) -> list:
    """The events of the next trials. Each ends before the next is proposed."""
    events = []
    while len(search.state.trials) < until and (event := search.propose()):
        search.apply(event)
        value = sum(v for v in event["params"].values() if isinstance(v, int | float)) % 7
        results, _ = search.report([TrialResult(event["number"], 1, {"loss": value, "val_loss": value})])
        for result in results:
            search.apply(result)
        events += [event, *results]
    return events


def params_of(events: list) -> list[dict]:
    return [event["params"] for event in events if event["event"] == "trial"]


def keeps_to(space: Space, params: dict) -> bool:
    return space.holds(params) and not space.violated(params)


@pytest.mark.parametrize(("text", "params", "holds"), [
    ("n > 1", {"n": 2}, True),
    ("1 < n <= 2", {"n": 3}, False),
    ("n % 2 == 0", {"n": 3}, False),
    ("(n + 1) * 2 // 3 - 1 < -n", {"n": 2}, False),
    ("kind == none", {"kind": "none"}, True),
    ("kind == null", {"kind": None}, True),
    ("kind in [a, 'none']", {"kind": "a"}, True),
    ("kind not in (a, none)", {"kind": "a"}, False),
    ("model.on and not n == 1", {"model.on": True, "n": 2}, True),
    ("x > 1 or kind == a", {"kind": "a"}, True),
    ("x > 1 or kind == a", {"kind": "none"}, None),
    ("x / n > 1", {"x": 1.0, "n": 0}, False),
])  # fmt: skip
def test_expression_holds(text, params, holds):
    assert relation(text).holds(params) is holds


@pytest.mark.parametrize(("text", "said"), [
    ("n >", "is no expression; allowed are"), ("(" * 400 + "n", "is no expression; allowed are"),
    ("n.__class__ == 1", "n.__class__: no such hyperparameter"), ("nn > 1", "nn: no such hyperparameter"),
    ("n + a > 1", "a: no such hyperparameter"), ("n == 1 or zzz == yyy", "zzz: no such hyperparameter"),
    ("print(n) > 1", "print(n): allowed are"), ("n ** 2 > 1", "n ** 2: allowed are"),
    ("n[0] > 1", "n[0]: allowed are"), ("(lambda: 1) == n", "lambda: 1: allowed are"),
    ("n is 1", "`is` is not allowed"), ("n == 1 if n else 2", "expected a comparison"),
    ("n", "n: is not true or false"), ("1 < 2", "names no hyperparameter"), ("model.on < 2", "has no numbers"),
    ("'a' * 99 == kind", "'a': expected a number"), ("n in kind", "expected a list"),
    ("n > 1" + " or n > 1" * 500, "at most 1000"), (3, "3: expected an expression"), ("", "expected an expression"),
])  # fmt: skip
def test_anything_else_is_one_clear_error(text, said):
    with pytest.raises(InputError, match=f"^here: .*{re.escape(said)}"):
        relation(text)


def test_value_that_a_hyperparameter_never_has_is_an_error():
    with pytest.raises(InputError, match="'sdg' is not a value of optimizer"):
        parse_space({**SPACE, "constraints": ["optimizer != sdg"]}, "here")


def test_conditions_and_constraints_are_described():
    space = parse_space(SPACE, "here")
    assert space.by_name["skip"].describe() == "uniform [0, 1] when layers > 1, optimizer = adam"
    assert [relation.text for relation in space.constraints] == SPACE["constraints"]


@pytest.mark.parametrize("constraints", [
    ["embedding * heads == 7"], ["low > high + 1"], ["low < high", "high < low"],
    ["optimizer == sgd", "optimizer == adam"],
])  # fmt: skip
def test_space_without_a_configuration_is_an_error_that_names_the_constraint(constraints):
    with pytest.raises(InputError) as error:
        study({**SPACE, "constraints": constraints})
    assert all(f"`{text}`" in str(error.value) for text in constraints)


def test_hyperparameter_may_still_have_the_name_constraints():
    assert parse_space({"constraints": {"int": [1, 2]}}, "here").parameters[0].name == "constraints"


@pytest.mark.parametrize("searcher", [name for name in SEARCHERS if name != "grid"])
@pytest.mark.parametrize("until", [2, 7])
def test_resumed_search_with_constraints_proposes_the_same(searcher, until):
    space, count = parse_space(SPACE, "here"), 6 if searcher == "gp" else 12
    whole = events_of(study(SPACE, searcher), count)
    assert all(keeps_to(space, params) for params in params_of(whole))
    begun = [event for event in whole if event["number"] < until]
    assert params_of(begun) + params_of(events_of(study(SPACE, searcher, begun), count)) == params_of(whole)


def test_grid_has_the_points_that_satisfy_the_constraints():
    space = {"a": {"int": [1, 4]}, "b": {"int": [1, 4]}, "constraints": ["a * b == 4"]}
    found = params_of(events_of(study(space, "grid"), 12))
    assert sorted((p["a"], p["b"]) for p in found) == [(1, 4), (2, 2), (4, 1)]


def test_random_draws_fill_the_allowed_region():
    space = {"low": {"uniform": [0, 1]}, "high": {"uniform": [0, 1]}, "constraints": ["low < high"]}
    found = params_of(events_of(study(space, "random", trials=60), 60))
    assert sum(p["high"] - p["low"] > 0.2 for p in found) > 25, "not at the border"


def test_starting_configuration_keeps_its_values_and_an_impossible_one_is_an_error():
    (first,) = params_of(events_of(study(SPACE, first=[{"embedding": 196, "low": 0.9}]), 1))
    assert (first["embedding"], first["low"]) == (196, 0.9) and keeps_to(parse_space(SPACE, "here"), first)
    with pytest.raises(InputError, match=r"start\[0\]: `embedding % heads == 0`: no configuration .* embedding=195"):
        study(SPACE, first=[{"embedding": 195}])


def test_added_configuration_keeps_its_values_and_an_impossible_one_is_an_error():
    search = study(SPACE)
    with pytest.raises(InputError, match=r"add: `low < high`: .*low=0\.9, high=0\.1"):
        settle(AddTrials((Configuration({"low": 0.9, "high": 0.1}),)), search.config, search.state)
    content = settle(AddTrials((Configuration({"low": 0.9}),)), search.config, search.state)
    search.apply({"event": "request", "id": "1", "kind": "add", "content": content, "time": 0.0})
    (added,) = params_of(events_of(search, 1))
    assert added["low"] == 0.9 < added["high"]


def test_earlier_trials_that_violate_a_constraint_inform_the_model_and_are_not_proposed():
    space = {"low": {"uniform": [0, 1]}, "high": {"uniform": [0, 1]}, "constraints": ["low < high"]}
    wrong = {"low": 0.9, "high": 0.1}
    search = study(space, "ranks")
    search.apply({
        "event": "warm_start", "from": "s", "first": [wrong],
        "trials": [{"params": wrong, "outcome": "completed", "values": {"1": 0.1}}],
    })  # fmt: skip
    assert all(p["low"] < p["high"] for p in params_of(events_of(search, 12)))


@st.composite
def spaces(draw: st.DrawFn) -> dict:
    """Spaces with conditions and constraints, most of which can be satisfied."""
    space: dict = {
        "a": draw(st.sampled_from([{"int": [1, 12]}, {"uniform": [0, 9]}, {"loguniform": [0.1, 10], "prior": 2}])),
        "b": draw(st.sampled_from([{"int": [2, 400]}, {"choice": [1, 2, 4, 8]}, 3, {"uniform": [0, 4], "step": 0.25}])),
        "kind": draw(st.sampled_from([{"choice": ["x", "y", "none"]}, {"choice": ["x", None]}, "x"])),
    }
    wheres = ["kind == x", "a > 2", "kind != x or b >= 2", ["a < 8", {"kind": "x"}], "b in [2, 4]"]
    for name in draw(st.sets(st.sampled_from("cde"))):
        body = draw(st.sampled_from([{"int": [0, 9]}, {"uniform": [0, 9]}, {"choice": [1, 3, 9]}]))
        space[name] = {**body, **({"when": draw(st.sampled_from(wheres))} if draw(st.booleans()) else {})}
    names = [name for name in space if name != "kind"]
    one = st.builds(
        "{} {} {}".format, st.sampled_from(names), st.sampled_from(["<", ">=", "!="]), st.sampled_from(names)
    )
    other = st.builds("{} * {} <= {}".format, st.sampled_from(names), st.sampled_from(names), st.integers(3, 90))
    either = st.builds("kind != x or {}".format, one | other)
    return {**space, "constraints": draw(st.lists(one | other | either, min_size=1, max_size=3))}


def check_proposals(space: dict, searcher: str) -> None:
    try:
        search = study(space, searcher, trials=8)
    except InputError as error:
        assert "configuration" in str(error) or "a grid needs" in str(error) or "grid has more" in str(error)
        return
    for params in params_of(events_of(search, 5 if searcher == "gp" else 8)):
        assert keeps_to(search.config.space, params)


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=40, **QUIET)
@given(spaces(), st.sampled_from(SEARCHERS))
def test_each_proposal_satisfies_all_relations(space, searcher):
    check_proposals(space, searcher)


@pytest.mark.nightly
@settings(max_examples=1000, **QUIET)
@given(spaces(), st.sampled_from(SEARCHERS))
def test_each_proposal_satisfies_all_relations_in_many_spaces(space, searcher):
    check_proposals(space, searcher)


def test_space_in_python_and_set_take_expressions():
    space = {
        "layers": search.integer(1, 3), "heads": search.choice([1, 2, 4]), "width": search.integer(4, 16, step=2),
        "dropout": search.uniform(0, 0.5, when="layers > 1"), "constraints": ["width % heads == 0"],
    }  # fmt: skip
    config = loop_config("mine", space, "loss min", {}, (), "here")
    drawn = [proposed(config, number) for number in range(30)]
    assert all(params["width"] % params["heads"] == 0 for params in drawn)
    assert all((params["dropout"] is None) == (params["layers"] == 1) for params in drawn)
    assert len({params["layers"] for params in drawn}) == 3
    changed = loop_config("mine", space, "loss min", {}, ["space.constraints=[width >= 4 * heads]"], "here")
    assert [relation.text for relation in changed.space.constraints] == ["width >= 4 * heads"]
    assert not loop_config("mine", space, "loss min", {}, ["space.constraints=[]"], "here").space.constraints
    wikitext = load_config("wikitext", ["space.constraints=[]"])
    assert load_config("wikitext").space.constraints and not wikitext.space.constraints


def proposed(config, number):
    searcher, _ = make_searcher(config, Objective("loss", "min"))
    return searcher.ask(number)
