"""TensorBoard and W&B get each value of a search once, also after a kill and a resume."""

import multiprocessing
import os
import struct

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

import search
from search.callbacks.weights_and_biases import WeightsAndBiases
from search.core.registry import WRITERS
from tests.search.runtime.test_search import result, search_in
from trainables import InputError


def scalars(folder) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The values that TensorBoard shows, by run and metric."""
    found = {}
    for path in sorted(folder.iterdir()):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        found[path.name] = {
            tag: [(e.step, round(e.value, 6)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
        }
    return found


def report(made, number: int, *epochs: int) -> None:
    for epoch in epochs:
        made.report([result(number, epoch, number + epoch / 10)], "cpu")


def begun(folder):
    made = search_in(folder, "search.scheduler=none")
    made.listeners.append(search.callbacks.TensorBoard(folder / "tb"))
    made.record({"event": "session"})
    made.propose()
    made.propose()
    return made


def final(made) -> None:
    about = {"trial": 1, "seed": 0, "epochs": 2}
    made.record({"event": "final_started", "params": made.state.trials[1].params, **about})
    made.record({"event": "final_result", "epoch": 1, "metrics": {"train_loss": 0.5}, **about})
    made.record({
        "event": "final_finished", "test": {"accuracy": 0.75}, "baselines": {}, "device": "cpu", "chosen": True,
        "spent": 8, **about,
    })  # fmt: skip


def test_tensorboard_has_each_epoch_of_each_trial_and_the_test_figures(tmp_path):
    made = begun(tmp_path)
    report(made, 0, 1, 2, 3, 4)
    report(made, 1, 1, 2, 3, 4)
    final(made)
    made.end("finished")
    found = scalars(tmp_path / "tb")
    assert list(found) == ["final-0001-0", "trial-0000", "trial-0001"]
    assert found["trial-0001"]["val_accuracy"] == [(1, 1.1), (2, 1.2), (3, 1.3), (4, 1.4)]
    assert found["trial-0001"]["best_val_accuracy"][0][1] == pytest.approx(1.4)
    assert found["final-0001-0"] == {"train_loss": [(1, 0.5)], "test_accuracy": [(2, 0.75)]}


def killed(folder) -> None:
    """A driver that dies after its journal has an event that its writer lacks."""
    made = begun(folder)
    report(made, 0, 1, 2)
    made.listeners.clear()
    report(made, 0, 3)
    report(made, 1, 1)
    os._exit(0)


def test_search_that_was_killed_and_resumed_doubles_and_loses_nothing_in_tensorboard(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=killed, args=(tmp_path,))
    process.start()
    process.join()
    made = search_in(tmp_path, "search.scheduler=none")
    made.listeners.append(search.callbacks.TensorBoard(tmp_path / "tb"))
    made.record({"event": "session"})
    report(made, 0, 3)  # trained again, as its checkpoint was lost
    report(made, 0, 4)
    report(made, 1, 2)
    made.end("interrupted")
    found = scalars(tmp_path / "tb")
    assert [step for step, _ in found["trial-0000"]["val_accuracy"]] == [1, 2, 3, 4]
    assert [step for step, _ in found["trial-0001"]["val_accuracy"]] == [1, 2]


def test_folder_of_another_search_is_refused_and_left_alone(tmp_path):
    made = begun(tmp_path)
    report(made, 0, 1)
    made.end("interrupted")
    before = scalars(tmp_path / "tb")
    other = search_in(tmp_path / "other")
    board = search.callbacks.TensorBoard(tmp_path / "tb")
    with pytest.raises(InputError, match=r"tb: has trial-0000 of another search; give each search its own folder"):
        board({"event": "session"}, other.state)
    assert scalars(tmp_path / "tb") == before


def test_search_with_log_to_tensorboard_is_resumed(here):
    run = ["run", "toy", "--name", "s", "--trials", "2", "--epochs", "2", "--no-retrain", "--log-to", "tensorboard"]
    here.call(*run)
    folder = here.folder / "mlruns" / "searches" / "s" / "tensorboard"
    first = scalars(folder)
    assert len(first["trial-0000"]["val_score"]) == 2
    here.call("resume", "s", "--trials", "+1")
    found = scalars(folder)
    assert {name: found[name] for name in first} == first and len(found["trial-0002"]["val_score"]) == 2


def test_unknown_writer_and_missing_package_are_named(here, monkeypatch):
    assert "allowed are tensorboard, wandb" in here.call("run", "toy", "--log-to", "mlflow", code=2)
    monkeypatch.setitem(WRITERS.own, "wandb", "no_such_package:X")
    output = here.call("run", "toy", "--name", "s", "--log-to", "wandb", code=2)
    assert (
        "search.writers: wandb: No module named 'no_such_package'; install it: pip install 'trial-search[wandb]'"
        in output
    )
    assert not (here.folder / "mlruns" / "searches").exists()


def records(data: bytes):
    """The records of a file of W&B: in blocks of 32 KiB, each record with checksum, length and type."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def offline(folder) -> dict[str, list[tuple[int, float]]]:
    """The epochs with their values that W&B keeps offline, by run."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.rglob("offline-run-*/*.wandb")):
        name = ""
        for record in records(path.read_bytes()):
            if record.WhichOneof("record_type") == "run":
                name = record.run.run_id
            elif record.WhichOneof("record_type") == "history":
                row = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
                found.setdefault(name, []).append((int(row["_step"]), round(float(row["val_accuracy"]), 6)))
    return found


def test_wandb_offline_gets_a_run_for_each_trial_and_a_resume_doubles_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    made = search_in(tmp_path, "search.scheduler=none")
    made.listeners.append(WeightsAndBiases.of_search(tmp_path / "wandb", "s", "windows", "0123456789abcdef"))
    made.record({"event": "session"})
    made.propose()
    made.propose()
    report(made, 0, 1, 2, 3, 4)
    report(made, 1, 1, 2)
    made.end("interrupted")
    made.listeners[:] = [WeightsAndBiases.of_search(tmp_path / "wandb", "s", "windows", "0123456789abcdef")]
    made.journal = type(made.journal)(made.folder.journal)
    made.record({"event": "session"})
    report(made, 1, 2, 3)  # epoch 2 is trained again, as its checkpoint was lost
    made.end("finished")
    found = offline(tmp_path / "wandb")
    assert found == {
        "0123456789ab-0": [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)],
        "0123456789ab-1": [(1, 1.1), (2, 1.2), (3, 1.3)],
    }
