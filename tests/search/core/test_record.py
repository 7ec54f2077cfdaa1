"""The record of a search: its fields, their defaults, and the files that it refuses."""

from pathlib import Path

import pytest

from search.core.record import SearchRecord
from trainables import InputError

PATH = Path("store/searches/s/search.json")
OLD = {"task": "rnn", "config": {"search": {}}, "place": "configs/rnn.yaml"}


def test_record_from_json_returns_what_to_json_gave():
    objective = {"metric": "loss", "mode": "min", "tuned": [], "named": "val_loss"}
    record = SearchRecord(**OLD, id="x", objective_stored=objective, alone=2, most_epochs=9, imported="study.db")
    content = record.to_json()
    assert content["objective"] == objective and content["version"] == 2
    assert SearchRecord.from_json(content, PATH) == record


def test_record_of_an_old_file_has_the_defaults():
    record = SearchRecord.from_json({**OLD, "from": "a key that no version knows"}, PATH)
    assert record == SearchRecord(**OLD)
    assert (record.retrain, record.alone, record.most_epochs, record.imported) == (True, 1.0, None, None)
    assert (record.objective.metric, record.metric) == ("mse", "val_mse")


def test_choices_of_numbers_of_an_old_file_have_no_order():
    space = {"batch_size": {"choice": [16, 32]}, "model": {"heads": {"choice": [2, 4]}}, "kind": {"choice": ["a", 1]}}
    config = {"search": {}, "space": space}
    record = SearchRecord.from_json({**OLD, "config": config}, PATH)
    assert record.config["space"] == {
        "batch_size": {"choice": [16, 32], "ordered": False}, "kind": {"choice": ["a", 1]},
        "model": {"heads": {"choice": [2, 4], "ordered": False}},
    }  # fmt: skip
    assert SearchRecord.from_json({**OLD, "config": config, "version": 2}, PATH).config == config


def test_record_of_an_old_training_function_finds_its_objective_in_its_address():
    offered = "trainables.loops.task:LoopTask?metric=val_loss&mode=max"
    record = SearchRecord.from_json({**OLD, "task": "mine", "offered": offered}, PATH)
    assert (record.objective.metric, record.objective.mode, record.metric) == ("loss", "max", "val_loss")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": 1}, "is damaged: task: 1"),
        ({"created": "today"}, "is damaged: created: 'today'"),
        ({"alone": "twice"}, "is damaged: alone: 'twice'"),
        ({"objective": []}, r"is damaged: objective: \[\]"),
        ({"objective": {"metric": "loss", "mode": "less", "tuned": [], "named": "loss"}}, "is damaged: objective: "),
        ({"version": 3}, "version 3: this program reads versions up to 2"),
    ],
)
def test_record_with_a_wrong_value_is_refused(changed, message):
    with pytest.raises(InputError, match=rf"^store/searches/s/search\.json: {message}"):
        SearchRecord.from_json(OLD | changed, PATH)


def test_record_without_a_required_key_is_refused():
    with pytest.raises(InputError, match=r"search\.json: is damaged: config: 'missing'"):
        SearchRecord.from_json({"task": "rnn", "place": ""}, PATH)
