"""What a worker reports and saves, and when."""

from collections.abc import Sequence

import pytest
import torch

from tests.trainables.rnn.test_model import PARAMS
from trainables.base.checkpoints import Storage
from trainables.base.digests import digest
from trainables.base.errors import Damaged
from trainables.base.trainable import TaskTrainable
from trainables.rnn.task import TASK


@pytest.fixture
def begin(sequences, tmp_path):
    """`begin(gather, decisions, checkpoints)`: a worker with one trial of six epochs, as Tune would set it up."""

    def begun(gather: float, decisions: list[int], checkpoints: Sequence[tuple[str, str | None]] = ()) -> TaskTrainable:
        (tmp_path / "journal.jsonl").write_bytes(b"mark")
        trial = {
            "number": 7, "params": {**PARAMS, "variant": "vanilla", "lr": 0.05}, "seed": 1, "micro_batches": 1,
            "decisions": decisions, "resume_from": checkpoints, "carried": {},
        }  # fmt: skip
        worker = TaskTrainable.__new__(TaskTrainable)
        resources = {"cpus": 1, "gpus": 0, "precision": "fp32"}
        worker.setup(
            {"trials": [trial]}, task="rnn", splits=sequences, epochs=6, gather=gather, resources=resources,
            storage=Storage(tmp_path, b"mark"),
            board="nobody",
        )  # fmt: skip
        return worker

    return begun


def curve(*steps: dict) -> dict[int, float]:
    return {trial["epoch"]: trial["metrics"]["val_mse"] for step in steps for trial in step["trials"]}


def test_step_gathers_short_epochs(begin):
    together = begin(gather=60, decisions=[2])
    steps = [together.step(), together.step()]
    assert [[trial["epoch"] for trial in step["trials"]] for step in steps] == [[1, 2], [3, 4, 5, 6]]
    one_by_one = begin(gather=0, decisions=[2])
    alone = [one_by_one.step() for _ in range(6)]
    assert [len(step["trials"]) for step in alone] == [1] * 6
    assert curve(*steps) == curve(*alone)


def test_step_saves_last_and_best_epoch(begin, monkeypatch, tmp_path):
    scores = iter([0.5, 0.3, 0.4, 0.1, 0.2, 0.6])
    evaluate = TASK.evaluate
    monkeypatch.setattr(type(TASK), "evaluate", lambda self, *given: {**evaluate(*given), "mse": next(scores)})
    worker = begin(gather=60, decisions=[])
    step = worker.step()
    saved = {trial["epoch"]: trial["checkpoint"] for trial in step["trials"] if trial["checkpoint"]}
    assert list(saved) == [4, 6]
    assert len(list((tmp_path / "checkpoints").rglob("*"))) == 3, "their folder and they"
    for epoch, checkpoint in saved.items():
        assert torch.load(tmp_path / checkpoint["name"], weights_only=True)["epoch"] == epoch
        assert (tmp_path / checkpoint["name"]).stat().st_size == checkpoint["bytes"]
    monkeypatch.undo()
    again = begin(60, [], [(saved[4]["name"], saved[4]["digest"])]).step()
    uninterrupted = begin(60, []).step()
    assert curve(again) == {epoch: mse for epoch, mse in curve(uninterrupted).items() if epoch > 4}


def test_step_reports_epochs_before_error(begin, monkeypatch):
    train_epoch = TASK.train_epoch

    def breaks(self, learner, split):
        if learner.epoch == 3:
            raise RuntimeError("in epoch 3")
        return train_epoch(learner, split)

    monkeypatch.setattr(type(TASK), "train_epoch", breaks)
    worker = begin(gather=60, decisions=[])
    step = worker.step()
    assert [trial["epoch"] for trial in step["trials"]] == [1, 2]
    saved = [trial["checkpoint"] for trial in step["trials"] if trial["checkpoint"]]
    assert len(saved) == 1, "the best; of the last the state is gone"
    assert "RuntimeError: in epoch 3" in worker.step()["failed"]


def flip(path, at: float) -> None:
    """Flips a bit at this share of a file."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("known", [True, False], ids=["digest", "old journal"])
def test_restore_flipped_bit_uses_older_checkpoint(begin, tmp_path, known):
    worker = begin(gather=0, decisions=[])
    steps = [worker.step() for _ in range(6)]
    saved = [step["trials"][0]["checkpoint"] for step in steps]
    states = [(one["name"], one["digest"] if known else None) for one in (saved[3], saved[1])]
    flip(tmp_path / saved[3]["name"], 0.5)
    again = begin(gather=60, decisions=[3], checkpoints=states)
    first, second = again.step(), again.step()
    assert curve(first, second) == {epoch: mse for epoch, mse in curve(*steps).items() if epoch > 2}
    assert [one["file"] for one in first["damaged"]] == [saved[3]["name"]]
    assert second["damaged"] == []


@pytest.mark.parametrize("uri", [None, "local://"], ids=["folder", "uri"])
@pytest.mark.parametrize("known", [True, False], ids=["digest", "old journal"])
def test_checkpoint_cut_anywhere_leads_to_the_beginning(begin, tmp_path, known, uri):
    worker = begin(gather=60, decisions=[])
    whole = worker.step()
    saved = whole["trials"][-1]["checkpoint"]
    content = (tmp_path / saved["name"]).read_bytes()
    state = saved["name"], saved["digest"] if known else None
    storage = Storage(tmp_path, b"mark", uri and f"{uri}{tmp_path}")
    for cut in [*range(0, len(content), len(content) // 50), len(content) - 1]:
        (tmp_path / saved["name"]).write_bytes(content[:cut])
        with pytest.raises(Damaged, match="is damaged"):
            storage.open_checked(*state)
    (tmp_path / saved["name"]).write_bytes(bytes(4096))
    again = begin(gather=60, decisions=[], checkpoints=[state]).step()
    assert curve(again) == curve(whole)
    assert again["damaged"][0]["file"] == saved["name"]


def test_sound_checkpoint_of_another_model_is_no_damage(begin, tmp_path):
    saved = begin(gather=60, decisions=[]).step()["trials"][-1]["checkpoint"]
    state = torch.load(tmp_path / saved["name"], weights_only=True)
    state["model"].popitem()
    torch.save(state, tmp_path / saved["name"])
    with (tmp_path / saved["name"]).open("rb") as file:
        known = digest(file)
    told = begin(gather=60, decisions=[], checkpoints=[(saved["name"], known)]).step()
    assert "Missing key" in told["failed"], "the code changed: to begin anew without a word would hide it"
