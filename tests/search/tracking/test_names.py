"""Names of metrics, hyperparameters and tags in MLflow, and back."""

import itertools

import pytest
from mlflow.utils.validation import _validate_metric, _validate_model_name, _validate_param, _validate_tag

from search.tracking.names import experiment_name, model_name, original, storable_text, translated

NAMES = [
    "", "@", "acc@1", "lr[0]", "recall@10/macro", "/", "//", "a//b", "/a", "a/", "..", "../a", "...", "./a", "a/./b",
    "a/../b", "a\nb", "a\n", "a\0b", "a\ud800b", "π", "🙂", "_@_", "__@__", "__at__", "a__at__1", "__at@", "@at@",
    "__u40__", "__empty__", "__cut__", "_", "__", "___at___", "50%", "x=1, y=2", "a" * 300, "a" * 299 + "@",
    "@" * 100,
]  # fmt: skip


@pytest.mark.parametrize("name", ["val_accuracy", "comparison/a b/test", "a:b.c-d", "été", ".a", "A/b"])
def test_name_that_mlflow_takes_stays_as_it_is(name):
    assert translated(name) == original(name) == name


@pytest.mark.parametrize("name", NAMES)
def test_translated_name_is_taken_and_told_back(name):
    shown = translated(name)
    _validate_metric(shown, 0.5, 0, 1)
    _validate_param(shown, "value")
    _validate_tag(shown, "value")
    _validate_model_name(model_name(name))
    assert original(shown) == name or "__cut__" in shown
    assert translated(original(shown)) == shown or "__cut__" in shown


def test_translated_names_are_readable():
    assert translated("acc@1") == "acc__at__1"
    assert translated("lr[0]") == "lr__open__0__close__"
    assert translated("a//b") == "a/__slash__b"


def test_no_two_names_have_the_same_translation():
    parts = ("_", "__", "@", "at", "__at__", "u40", "/", ".", "underscore", "a")
    every = {"".join(some) for length in range(5) for some in itertools.product(parts, repeat=length)}
    shown = {translated(name): name for name in every}
    assert len(shown) == len(every)
    assert all(original(key) == name for key, name in shown.items())
    assert translated("a" * 300) != translated("a" * 301)


def test_name_of_an_experiment_and_texts_hold_nothing_that_a_database_refuses():
    assert experiment_name("étude 1") == "étude 1"
    assert len(experiment_name("x" * 300)) <= 256
    assert storable_text("a\0b\ud800c") == "a\\x00b\\ud800c"
    assert storable_text("x" * 10, 4) == "xxxx"
