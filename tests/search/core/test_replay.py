"""Searches of earlier versions."""

import pytest

from search.core.config import load_config
from search.core.record import SearchRecord
from search.core.replay import open_search
from search.core.store import Store
from trainables.base.errors import InputError


def saved_with(tmp_path, **search):
    config = load_config("rnn", ["search.seed=7"])
    raw = {**config.raw, "search": {k: v for k, v in config.raw["search"].items() if k != "model_trials"} | search}
    store = Store(tmp_path)
    store.search("old").write(SearchRecord("rnn", raw, "configs/rnn.yaml"))
    return store


def test_setting_that_is_newer_than_the_search_has_its_default(tmp_path):
    _, _, config = open_search(saved_with(tmp_path), "old")
    assert config.search.model_trials == load_config("rnn").search.model_trials
    assert config.search.seed == 7


def test_setting_that_is_no_longer_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"configs/rnn\.yaml: search\.retries: unknown key"):
        open_search(saved_with(tmp_path, retries=3), "old")
