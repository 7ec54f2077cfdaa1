"""Final trainings and audits beside damaged files: they come to the same bits, and say which file was damaged."""

import pytest

from search.core.config import load_config
from search.core.record import SearchRecord
from search.core.state import final_name
from search.core.store import Store
from search.final import audit, retrain
from search.runtime.checkpoint_cleanup import sound_checkpoint
from search.runtime.search import Search
from search.tracking.tracker import Tracker
from trainables import DataInfo, get_task
from trainables.base.checkpoints import Storage
from trainables.base.digests import check_all
from trainables.base.errors import Damaged

CPU = {"cpus": 1, "gpus": 0, "precision": "fp32"}
PARAMS = {"lr": 0.05, "curve": "none", "index": 0}


@pytest.fixture
def trained(tmp_path):
    """`trained(epochs)`: what a final training of three epochs says until so many have ended."""
    (tmp_path / "journal.jsonl").write_bytes(b"mark")
    splits = get_task("toy").prepare({"size": 64, "pause": 0, "fault": "none", "once": ""}, None, tmp_path, None)

    def train(epochs: int = 3, states=(("final/progress.pt", None),)):
        messages = retrain.final_worker(
            "toy", splits, CPU, 0, PARAMS, 1, 7, 3, "final/done", list(states), Storage(tmp_path, b"mark")
        )
        said = []
        for message in messages:
            said.append(message)
            if message["event"] == "final_result" and message["epoch"] == epochs < 3:
                break
        return said

    return train


def figures(said):
    """Losses and the test, without how long they took."""
    return [one["test"] if "test" in one else one["metrics"]["train_loss"] for one in said if one["event"] != "damaged"]


@pytest.mark.parametrize("cut", [0, 1000, -1])
def test_torn_state_of_a_final_training_leads_to_the_same_bits(trained, tmp_path, cut):
    whole = trained()
    (tmp_path / "final/progress.pt").unlink()
    trained(2)
    state = tmp_path / "final/progress.pt"
    state.write_bytes(bytes(4096) if cut == 0 else state.read_bytes()[:cut])
    again = trained()
    assert again[0]["event"] == "damaged" and again[0]["file"] == "final/progress.pt"
    assert figures(again) == figures(whole)
    assert [one["event"] for one in again].count("damaged") == 1


def test_sound_state_of_a_final_training_is_gone_on_from(trained, tmp_path):
    whole = trained()
    (tmp_path / "final/progress.pt").unlink()
    begun = trained(2)
    again = trained()
    assert figures(again) == figures(whole)
    assert again[:2] == begun, "its epochs are told again, and not trained again"


def test_files_of_a_final_model_are_checked_by_their_digests(trained, tmp_path):
    said = trained()
    digests, folder = said[-1]["digests"], tmp_path / "final/done"
    assert {"checkpoint.pt", "model/weights.pt"} <= digests.keys()
    assert not any(name.startswith("artifacts") for name in digests)
    check_all(folder, digests)
    for name in digests:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(Damaged, match=name):
            check_all(folder, digests)
        (folder / name).unlink()
        with pytest.raises(Damaged, match=name):
            check_all(folder, digests)
        (folder / name).write_bytes(content)
    check_all(folder, digests)


def test_model_whose_checkpoint_is_damaged_is_not_taken_as_it_is(tmp_path):
    search = Search(load_config("toy"), Store(tmp_path).search("s"))
    heard = []
    search.listeners.append(lambda event, state: heard.append(event))
    search.record({"event": "session"})
    search.propose()
    saved = Storage(search.folder.path, b"", str(search.folder.path)).save(
        "checkpoints/one.pt", lambda f: f.write(b"a")
    )
    metrics = {"val_score": 1.0, "epoch_seconds": 1.0}
    search.report([{"number": 0, "epoch": 1, "metrics": metrics, "diverged": None, "checkpoint": saved}], "cpu")
    trial = search.state.trials[0]
    assert sound_checkpoint(search, trial, 1) == trial.checkpoints[0]
    (search.folder.path / "checkpoints/one.pt").write_bytes(b"b")
    assert sound_checkpoint(search, trial, 1) is None
    assert [one["file"] for one in heard if one["event"] == "damaged"] == ["checkpoints/one.pt"]
    search.end("interrupted")


def test_audit_passes_over_damaged_states(tmp_path):
    (tmp_path / "journal.jsonl").write_bytes(b"mark")
    splits = get_task("toy").prepare({"size": 64, "pause": 0, "fault": "none", "once": ""}, None, tmp_path, None)
    storage = Storage(tmp_path, b"mark")

    def audited():
        states = [("audit/0000.pt", None)]
        return list(audit.audit_worker("toy", splits, CPU, 0, PARAMS, 1, 7, 3, states, storage))

    whole = [one.get("metrics", {}).get("val_loss") for one in audited()]
    (tmp_path / "audit/0000.pt").write_bytes(bytes(4096))
    damaged, *again = audited()
    assert damaged["file"] == "audit/0000.pt"
    assert [one.get("metrics", {}).get("val_loss") for one in again] == whole


def test_damaged_final_model_is_not_registered_and_is_named(tmp_path, empty_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store = Store(tmp_path)
    store.database.write_bytes(empty_store.read_bytes())
    search = Search(load_config("toy"), store.search("s"))
    search.record({"event": "session"})
    params = search.propose().params
    model = search.folder.path / final_name(0, 0)
    (model / "artifacts").mkdir(parents=True)
    (model / "checkpoint.pt").write_bytes(b"not what was written")
    which = {"trial": 0, "seed": 0, "epochs": 3}
    search.record(
        {"event": "final_started", **which, "params": params},
        {"event": "final_finished", **which, "test": {"score": 1.0}, "baselines": {}, "device": "cpu", "chosen": True,
         "spent": 3, "digests": {"checkpoint.pt": "crc32:00000000"}},
    )  # fmt: skip
    said = []
    tracker = Tracker(store, search.folder, search.config, SearchRecord("", {}, "", id="1"),
                      DataInfo("demo", "f", "t", {}), search.objective, said.append)  # fmt: skip
    tracker.start(search.journal.events)
    assert tracker.close(60) == 0
    assert not said
    (told,) = tracker.registered
    assert "checkpoint.pt is damaged" in told and "python -m search retrain s" in told
    search.end("finished")
