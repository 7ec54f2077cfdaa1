"""The page of a data set says what was looked for, and not only what was found."""

import numpy as np

from search.core.config import load_config
from search.core.store import Store
from search.reports.data import write_data_page
from tests.conftest import ROOT
from trainables import DataInfo, Splits, get_task


def shown(tmp_path, task: str, splits: Splits) -> tuple[str, str]:
    """What is printed, and the page."""
    page = write_data_page(Store(tmp_path), load_config(task), splits)
    return "\n".join(page.lines), page.path.read_text()


def sequences(values: list[np.ndarray]):
    from trainables.rnn.data import pack

    return pack(values, np.zeros(len(values)))


def splits_of(train, test) -> Splits:
    own = [np.random.default_rng(9).normal(size=(20, 3))]
    return Splits(sequences(train), sequences(own), sequences(test), DataInfo("d", "f", "t", {"train": len(train)}))


def test_nothing_shared_is_said(tmp_path):
    rng = np.random.default_rng(0)
    train, test = ([rng.normal(size=(20, 3)) for _ in range(6)] for _ in range(2))
    printed, page = shown(tmp_path, "rnn", splits_of(train, test))
    assert "looked for copies across splits: none\n" in printed
    assert "<p>Looked for copies across splits: none.</p>" in page


def test_copies_that_were_found_are_named(tmp_path):
    train = [np.random.default_rng(seed).normal(size=(20, 3)) for seed in range(6)]
    printed, page = shown(tmp_path, "rnn", splits_of(train, train[:2]))
    assert "looked for copies across splits: Parts of train in test\n" in printed
    assert "Looked for copies across splits: Parts of train in test." in page


def test_data_that_cannot_be_compared_are_not_said_to_share_nothing(tmp_path):
    rng = np.random.default_rng(0)
    train, test = ([rng.integers(0, 2, (40, 1)).astype(float) for _ in range(9)] for _ in range(2))
    own = sequences([rng.integers(0, 2, (40, 1)).astype(float)])
    splits = Splits(sequences(train), own, sequences(test), DataInfo("d", "f", "t", {"train": 9}))
    printed, _ = shown(tmp_path, "rnn", splits)
    assert "looked for copies across splits: Parts of train cannot be recognised\n" in printed


def test_task_that_does_not_look_says_so(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests" / "toy")
    monkeypatch.setenv("SEARCH_TASKS", "toy=toy_task:TASK")
    config = load_config("toy")
    splits = get_task("toy").prepare(config.data, None, tmp_path / "cache", lambda *_: None)
    printed, page = shown(tmp_path, "toy", splits)
    assert "not looked for copies across splits: toy has no method `leaks`\n" in printed
    assert "Not looked for copies across splits" in page


def test_control_characters_in_notes_do_not_reach_the_terminal(tmp_path):
    train = [np.random.default_rng(seed).normal(size=(20, 3)) for seed in range(6)]
    splits = splits_of(train, train[:1])
    info = DataInfo("d", "f", "t", {"train": 6}, notes=("column \x1b[31mred",))
    printed, page = shown(tmp_path, "rnn", Splits(splits.train, splits.val, splits.test, info))
    assert "note: column \\x1b[31mred\n" in printed
    assert "\x1b" not in page
