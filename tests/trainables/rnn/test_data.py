import io
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from tests.conftest import ROOT, SHARED
from trainables.base.errors import InputError
from trainables.rnn import data, demo
from trainables.rnn.task import TASK

SETTINGS = OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / "rnn.yaml"))["data"]


def sequences(count=10, width=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(int(rng.integers(2, 9)), width)) for _ in range(count)], rng.normal(size=count)


def objects(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_prepare_array_layouts_are_equal(tmp_path):
    x, y = sequences()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "X.pkl").write_bytes(pickle.dumps(objects(x)))
    (tmp_path / "two" / "y.pkl").write_bytes(pickle.dumps(y))
    (tmp_path / "pair.pkl").write_bytes(pickle.dumps((x, y)))
    (tmp_path / "dict.pickle").write_bytes(pickle.dumps({"X": x, "y": list(y)}))
    np.savez(tmp_path / "arrays.npz", X=objects(x), y=y)
    with zipfile.ZipFile(tmp_path / "arrays.zip", "w") as archive:
        archive.writestr("inner/X.npy", npy(objects(x)))
        archive.writestr("inner/y.npy", npy(y))
    rows = [
        {"sequence_id": f"s{i}", "t": t, **{f"x{k}": v for k, v in enumerate(step)}, "y": y[i]}
        for i, sequence in enumerate(x)
        for t, step in enumerate(sequence)
    ]
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "long.csv", index=False)
    table.to_csv(tmp_path / "semicolons.csv", index=False, sep=";")
    table.to_csv(tmp_path / "tabs.csv.gz", index=False, sep="\t")
    table.to_json(tmp_path / "long.jsonl", orient="records", lines=True, double_precision=15)
    table.to_feather(tmp_path / "long.arrow", compression="uncompressed")
    table.sample(frac=1, random_state=0).sort_values("sequence_id", kind="stable").to_parquet(tmp_path / "long.parquet")
    prints = {
        name: data.prepare(SETTINGS, tmp_path / name).info.fingerprint
        for name in (
            "two",
            "pair.pkl",
            "dict.pickle",
            "arrays.npz",
            "arrays.zip",
            "long.csv",
            "long.parquet",
            "semicolons.csv",
            "tabs.csv.gz",
            "long.jsonl",
            "long.arrow",
        )
    }
    assert len(set(prints.values())) == 1, prints


def spoilt(change):
    x, y = sequences()
    return change(x, list(y))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y[:-1]), "10 sequences in X but 9 targets"),
        (lambda x, y: ([*x[:3], np.empty((0, 3)), *x[4:]], y), "X[3]: the sequence is empty"),
        (lambda x, y: ([*x[:3], np.ones((4, 2)), *x[4:]], y), "X[3]: 2 features, but X[0] has 3"),
        (lambda x, y: ([*x[:3], np.full((4, 3), np.nan), *x[4:]], y), "X[3]: nan at step 0, feature 0"),
        (lambda x, y: ([*x[:3], np.full((4, 3), np.inf), *x[4:]], y), "X[3]: inf at step 0, feature 0"),
        (lambda x, y: ([*x[:3], np.ones(4), *x[4:]], y), "X[3]: shape (4,); expected (length, features)"),
        (lambda x, y: ([*x[:3], [["a", "b", "c"]], *x[4:]], y), "X[3]: not an array of numbers"),
        (lambda x, y: (x, [*y[:5], float("nan"), *y[6:]]), "y[5]: nan; targets must be finite"),
        (lambda x, y: (x, [[1.0, 2.0]] * 10), "2 values a sequence; expected one"),
        (lambda x, y: ([], []), "no sequence in X"),
        (lambda x, y: (3, y), "X, the targets and the groups must be lists or arrays"),
    ],
)
def test_wrong_data_is_refused_with_the_index(tmp_path, change, message):
    x, y = spoilt(change)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"X": x, "y": y}))
    with pytest.raises(InputError) as error:
        data.prepare(SETTINGS, tmp_path / "bad.pkl")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"sequence_id": [1], "t": [0], "y": [1.0]}, "no feature column beside sequence_id, t, y"),
        ({"t": [1], "x0": [0.0], "y": [1.0]}, "no column that names the sequence is recognised among t, x0, y"),
        ({"id": [1], "t": [1], "x0": [0.0]}, "no column is called target, y, label; there are id, t, x0"),
        ({"id": [1, None], "t": [0, 1], "x0": [0.0, 1.0], "y": [1.0, 1.0]}, "row 2: no id"),
        ({"id": [1, 1], "day": [0, 0], "date": ["1 May 2020", "soon"], "y": [1, 1]}, "row 2: date = 'soon': neither"),
        ({"sequence_id": [1, 1], "t": [0, 0], "x0": [0.0, 1.0], "y": [1.0, 1.0]}, "sequence 1: t = 0 occurs twice"),
        ({"sequence_id": [1, 1], "t": [0, 1], "x0": [0.0, 1.0], "y": [1.0, 2.0]}, "sequence 1: y must be one value"),
        ({"sequence_id": [1], "t": [0], "x0": ["a"], "y": [1.0]}, "column 'x0' holds"),
    ],
)
def test_wrong_table_is_refused(tmp_path, frame, message):
    pd.DataFrame(frame).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError) as error:
        data.prepare(SETTINGS, tmp_path / "t.csv")
    assert message in str(error.value)


def dated(folder, *files):
    """Writes tables of steps, each with the days of a sequence; x0 is the position in the list."""
    folder.mkdir()
    for number, days in enumerate(files):
        steps = {"id": number, "date": days, "x0": range(len(days)), "y": number}
        pd.DataFrame(steps).sample(frac=1, random_state=0).to_csv(folder / f"s{number}.csv", index=False)
    return folder


@pytest.mark.parametrize(
    "files",
    [
        [["01/01/2020", "02/01/2020", "03/01/2020", "13/01/2020", "14/01/2020", "01/02/2020"]],
        [["01-01-2020", "02-01-2020", "13-01-2020", "01-02-2020"]],
        [["1.1.2020", "2.1.2020", "13.1.2020", "1.2.2020"]],
        [["01.01.20", "02.01.20", "13.01.20", "01.02.20"]],
        [["31.12.99", "02.01.00", "01.02.00"]],
        [["02/01/2020 10:00", "02/01/2020 11:00 PM", "13/01/2020 10:00", "01/02/2020 09:00"]],
        [["10:00 02/01/2020", "10:00 13/01/2020", "10:00 01/02/2020"]],
        [["Thu 02/01/2020", "Mon, 13/01/2020", "Sat 01/02/2020"]],
        [["2020-01-01", "02/01/2020", "13/01/2020", "01/02/2020"]],
        [["01/02/2020", "01/13/2020", "02/01/2020"]],
        [["02/01/2020", "01/02/2020"], ["13/01/2020", "14/01/2020"]],
    ],
)
def test_read_dates_one_order_for_a_column(tmp_path, files):
    split, _, _ = data._read(SETTINGS, dated(tmp_path / "days", *files), [])
    assert [split["train"].sequence(i).ravel().tolist() for i in range(len(files))] == [
        list(range(len(days))) for days in files
    ]


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (["02/01/2020", "03/01/2020", "01/02/2020"], r"s0.csv: date = '0\d/0\d/2020': month-first or day-first\?"),
        (["20/01/02", "20/01/13", "20/02/01"], "date = '20/0./..': day-first or year-first"),
        (["01/02/2020", "01/13/2020", "13/01/2020"], "date: no order of day, month and year reads both"),
        (["01/02/2020", "31/04/2020"], r"row \d: date = '31/04/2020': neither a number nor a date"),
    ],
)
def test_dates_without_a_clear_order_are_refused(tmp_path, days, message):
    with pytest.raises(InputError, match=message):
        data._read(SETTINGS, dated(tmp_path / "days", days), [])


def test_two_readings_of_dates_with_one_order_give_a_note(tmp_path):
    notes = []
    split, _, _ = data._read(SETTINGS, dated(tmp_path / "days", ["01/02/2020", "02/03/2020", "03/04/2020"]), notes)
    assert split["train"].sequence(0).ravel().tolist() == [0, 1, 2]
    assert [note for note in notes if "is read month-first; day-first gives the steps the same order" in note]


def test_sequences_of_one_group_stay_on_one_side(tmp_path):
    x, y = sequences(40)
    groups = np.repeat(np.arange(8), 5)
    np.savez(tmp_path / "a.npz", X=objects(x), y=y, engine=groups)
    splits = data.prepare({**SETTINGS, "group": "engine"}, tmp_path / "a.npz")
    sides = [set(part.groups) for part in (splits.train, splits.val, splits.test)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    with pytest.raises(InputError, match=r"data\.group: no array named 'ship'; there are X, y, engine"):
        data.prepare({**SETTINGS, "group": "ship"}, tmp_path / "a.npz")
    long_table(x, y).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match=r"a\.csv: no column 'ship'; there are sequence_id, t, x0"):
        data.prepare({**SETTINGS, "group": "ship"}, tmp_path / "a.csv")


def test_groups_are_found_by_their_name_where_they_repeat(tmp_path):
    x, y = sequences(40)
    groups = np.repeat(np.arange(8), 5)
    np.savez(tmp_path / "a.npz", X=objects(x), y=y, engine=groups, batch=groups)
    found = data.prepare(SETTINGS, tmp_path / "a.npz")
    assert found.info.chosen == {"group": "engine", "target": "y"}, "which a resume keeps to"
    assert "sequences of one engine stay in one split (data.group=engine, found by its name)" in found.info.notes
    assert "train: the array batch is not used" in found.info.notes
    assert found.info.fingerprint == data.prepare({**SETTINGS, "group": "engine"}, tmp_path / "a.npz").info.fingerprint
    np.savez(tmp_path / "b.npz", X=objects(x), y=y, unit=np.arange(40))
    notes = data.prepare(SETTINGS, tmp_path / "b.npz").info.notes
    assert notes[0] == "train: the array unit is not used", "each has one of its own"


def test_group_column_of_a_long_table_is_no_feature(tmp_path):
    rows = [f"{s},{t},{s // 2},{s * t},{s}" for s in range(8) for t in range(3)]
    (tmp_path / "a.csv").write_text("\n".join(["sequence_id,t,patient,x0,y", *rows]))
    splits = data.prepare(SETTINGS, tmp_path / "a.csv")
    assert splits.info.chosen["group"] == "patient" and splits.train.values.shape[1] == 1
    rows = [f"{s},{t},{t},{s * t},{s}" for s in range(8) for t in range(3)]
    (tmp_path / "b.csv").write_text("\n".join(["sequence_id,t,unit,x0,y", *rows]))
    assert data.prepare(SETTINGS, tmp_path / "b.csv").train.values.shape[1] == 2, "one that varies within a sequence is"


def long_table(x, y, names=("sequence_id", "t", "y")):
    sequence, time, target = names
    return pd.DataFrame(
        {sequence: i, time: t, **{f"x{k}": v for k, v in enumerate(step)}, target: y[i]}
        for i, steps in enumerate(x)
        for t, step in enumerate(steps)
    )


def test_columns_of_a_table_are_found_by_their_names(tmp_path):
    x, y = sequences(20)
    long_table(x, y).to_csv(tmp_path / "plain.csv", index=False)
    expected = data.prepare(SETTINGS, tmp_path / "plain.csv")
    assert not any("sequences by" in note for note in expected.info.notes), "as the documentation has them"
    other = long_table(x, y, ("ID", "Date", "label"))
    other["Date"] = (pd.Timestamp("2020-01-01") + pd.to_timedelta(other["Date"], unit="D")).dt.strftime("%d %b %Y")
    other.to_csv(tmp_path / "other.csv")  # with the numbers of rows
    found = data.prepare(SETTINGS, tmp_path / "other.csv")
    assert found.info.fingerprint == expected.info.fingerprint
    assert "other.csv: sequences by ID, steps by Date, the target is label" in found.info.notes
    other.drop(columns="Date").rename(columns={"ID": "engine"}).to_csv(tmp_path / "untimed.csv", index=False)
    found = data.prepare(SETTINGS, tmp_path / "untimed.csv")
    assert found.info.fingerprint == expected.info.fingerprint
    assert any("untimed.csv: sequences by engine, steps in the order of the rows" in note for note in found.info.notes)


@pytest.mark.parametrize("form", ["a table a sequence", "targets in a table"])
def test_targets_may_stand_in_a_table_of_their_own(tmp_path, form):
    x, y = sequences(20)
    long_table(x, y).to_csv(tmp_path / "plain.csv", index=False)
    expected = data.prepare(SETTINGS, tmp_path / "plain.csv").info.fingerprint
    (root := tmp_path / "data").mkdir()
    table = long_table(x, y).drop(columns="y")
    about = pd.DataFrame({"sequence_id": range(20), "y": y})
    if form == "targets in a table":
        table.to_csv(root / "steps.csv", index=False)
    else:
        for name, rows in table.groupby("sequence_id"):
            rows.drop(columns="sequence_id").to_csv(root / f"{name:03d}.csv", index=False)
        about = about.rename(columns={"sequence_id": "file"}).assign(file=[f"{n:03d}.csv" for n in range(20)])
    about.sample(frac=1, random_state=0).to_csv(root / "values.csv", index=False)
    assert data.prepare(SETTINGS, root).info.fingerprint == expected
    if form == "a table a sequence":
        (root / "test").mkdir()
        for number in range(15, 20):
            (root / f"{number:03d}.csv").rename(root / "test" / f"{number:03d}.csv")
        split = data.prepare(SETTINGS, root)
        assert split.info.sizes["test"] == 5 and np.allclose(split.test.targets, y[15:])
        assert "000.csv: sequences by file, steps by t, the target is y" in split.info.notes
    about.iloc[1:].to_csv(root / "values.csv", index=False)
    with pytest.raises(InputError, match=r"values\.csv: no row for sequence 0"):
        data.prepare(SETTINGS, root)
    pd.concat([about, about[:1]]).to_csv(root / "values.csv", index=False)
    with pytest.raises(InputError, match=r"values\.csv: row 21: sequence 0 occurs twice"):
        data.prepare(SETTINGS, root)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "parquet, a column a feature"])
def test_a_row_may_be_a_sequence_of_lists(tmp_path, form):
    x, y = sequences(20)
    long_table(x, y).assign(patient=lambda table: table["sequence_id"] // 2).to_csv(tmp_path / "plain.csv", index=False)
    expected = data.prepare(SETTINGS, tmp_path / "plain.csv").info
    table = pd.DataFrame({"id": range(20), "patient": np.arange(20) // 2, "target": y})
    if "feature" in form:
        table = table.assign(**{f"x{k}": [one[:, k] for one in x] for k in range(3)})
    else:
        table["steps"] = [one.tolist() for one in x]
    if form == "jsonl":
        table.to_json(tmp_path / "rows.jsonl", orient="records", lines=True, double_precision=15)
    else:
        table.to_parquet(tmp_path / "rows.parquet")
    found = data.prepare(SETTINGS, tmp_path / f"rows.{form[:7]}".rstrip(",")).info
    assert found.fingerprint == expected.fingerprint and found.chosen["group"] == "patient"
    assert any("a row is a sequence, the lists in" in note for note in found.notes)
    (tmp_path / "bad.json").write_text('[{"y": 1, "a": [1, 2], "b": [1, 2]}, {"y": 1, "a": [1], "b": [1, 2]}]')
    with pytest.raises(InputError, match=r"bad\.json: row 2: a, b: lists of numbers, of one length, are needed"):
        data.prepare(SETTINGS, tmp_path / "bad.json")


def test_a_row_may_be_a_sequence_with_a_column_a_step(tmp_path):
    x, y = sequences(20, width=1)
    long_table(x, y).to_csv(tmp_path / "plain.csv", index=False)
    steps = pd.DataFrame([one[:, 0] for one in x]).add_prefix("step ")
    steps.assign(y=y, id=range(20)).to_csv(tmp_path / "rows.csv", index=False)  # empty where a sequence has ended
    found = data.prepare(SETTINGS, tmp_path / "rows.csv").info
    assert found.fingerprint == data.prepare(SETTINGS, tmp_path / "plain.csv").info.fingerprint
    assert "rows.csv: a row is a sequence of up to 8 steps; the target is y" in found.notes
    steps.assign(y=y, name="one").to_csv(tmp_path / "words.csv", index=False)
    with pytest.raises(InputError, match=r"words\.csv: column 'name' holds str; numbers are needed"):
        data.prepare(SETTINGS, tmp_path / "words.csv")


@pytest.mark.parametrize("form", ["npz", "csv"])
def test_all_files_of_a_split_are_read(tmp_path, form):
    x, y = sequences(30)
    for number, at in enumerate((slice(0, 10), slice(10, 30))):
        if form == "npz":
            np.savez(tmp_path / f"train_{number}.npz", X=objects(x[at]), y=y[at])
        else:
            long_table(x[at], y[at]).to_csv(tmp_path / f"train_{number}.csv", index=False)
    np.savez(tmp_path / "test.npz", X=objects([one + 1 for one in x[:5]]), y=y[:5])
    splits = data.prepare(SETTINGS, tmp_path)
    assert splits.info.sizes == {"train": 24, "val": 6, "test": 5}
    targets = np.concatenate([splits.train.targets, splits.val.targets])
    assert np.allclose(np.sort(targets), np.sort(y.astype(np.float32)))
    with pytest.raises(InputError, match="train: files of sequences with 2 and 3 features"):
        np.savez(tmp_path / "train_2.npz", X=objects([one[:, :2] for one in x]), y=y)
        data.prepare(SETTINGS, tmp_path)


def test_prepare_sequence_copies_leave_train(tmp_path):
    x, y = sequences(30)
    for split, at in (("train", [*range(20)]), ("val", [0, 20, 21]), ("test", [1, 20, 22, 22])):
        np.savez(tmp_path / f"{split}.npz", X=objects([x[i] for i in at]), y=y[at])
    splits = data.prepare(SETTINGS, tmp_path)
    assert np.array_equal(splits.train.targets, y[2:20].astype(np.float32))
    assert np.array_equal(splits.val.targets, y[[0, 21]].astype(np.float32)) and len(splits.test) == 4
    assert splits.info.notes[:4] == (
        "1 of 20 sequences of train is also in test and leaves train",
        "1 of 20 sequences of train is also in val and leaves train",
        "1 of 3 sequences of val is also in test and leaves val",
        "1 of 4 sequences of test repeats another one and counts each time",
    )


def test_equal_sequences_with_different_targets_are_named(tmp_path):
    x, y = sequences(30)
    np.savez(tmp_path / "train.npz", X=objects(x[:20]), y=y[:20])
    np.savez(tmp_path / "test.npz", X=objects(x[18:]), y=y[18:] + 1)
    notes = data.prepare(SETTINGS, tmp_path).info.notes
    assert sum("is also in test and leaves train" in one or "are also in test" in one for one in notes) == 1
    (named,) = [one for one in notes if "different targets" in one]
    assert named.startswith("2 of 30 different sequences occur") and "of train" in named and "of test" in named


def test_train_of_which_every_sequence_is_tested_is_refused(tmp_path):
    x, y = sequences(12)
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", X=objects(x), y=y)
    with pytest.raises(InputError, match=r"train: all \d+ sequences are in val or test too; leave one of the copies"):
        data.prepare(SETTINGS, tmp_path)


def test_demo_noise_floor():
    settings = {**SETTINGS["demo"], "train": 1, "test": 4000}
    noisy, floor = demo.make(**settings)
    exact, _ = demo.make(**{**settings, "noise": 0.0})
    assert np.array_equal(noisy["test"][0][0], exact["test"][0][0])
    assert np.mean((noisy["test"][1] - exact["test"][1]) ** 2) == pytest.approx(floor, rel=0.1)


def test_demo_depends_on_order_and_on_what_truncation_drops():
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(500, 30, demo.FEATURES)), np.full(500, 30)
    drive = rng.normal(0, demo.DRIVE / 6**0.5, (demo.FEATURES, demo.STATE))
    drive[-demo.DISTRACTORS :] = 0
    y = demo.respond(x, lengths, 0.95, drive)
    shortest = SETTINGS["demo"]["shortest"]
    late = x.copy()
    late[:, :-shortest] = 0
    early = x.copy()
    early[:, shortest:] = 0

    def lost(changed):
        return np.mean((demo.respond(changed, lengths, 0.95, drive) - y) ** 2) / np.var(y)

    assert lost(x[:, ::-1]) > 0.5, "order matters"
    assert 0.05 < lost(late) < 0.5, "the last steps matter most, but not alone"
    assert lost(early) > 0.9, "the first steps say next to nothing"


def test_real_engines_are_read_from_the_folder_as_it_lies():
    root = SHARED / "cmapss"
    if not root.is_dir():
        pytest.skip(f"{root} is not on this machine")
    splits = data.prepare({**SETTINGS, "group": "engine"}, root)
    assert splits.info.sizes["train"] + splits.info.sizes["val"] == 1000
    assert splits.info.sizes["test"] == 100
    assert not set(splits.train.groups) & set(splits.val.groups)
    assert (splits.test.lengths.min(), splits.test.lengths.max()) == (31, 303)
    assert splits.test.targets.max() == 125


@pytest.mark.parametrize("name", ["x.csv", "no_y.csv", "x.npz", "x.npy", "pair.pkl", "folder", "x.zip", "lists.jsonl"])
def test_inputs_of_predict_are_read_as_training_data(tmp_path, name):
    x, y = sequences(5)
    table = long_table(x, y)
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "x.csv", index=False)
    table.drop(columns="y").to_csv(tmp_path / "no_y.csv", index=False)
    np.savez(tmp_path / "x.npz", X=objects(x), y=y)
    np.save(tmp_path / "x.npy", objects(x), allow_pickle=True)
    (tmp_path / "pair.pkl").write_bytes(pickle.dumps((x, y)))
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "X.npy", objects(x), allow_pickle=True)
    np.save(tmp_path / "folder" / "y.npy", y)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("X.npy", npy(objects(x)))
        archive.writestr("y.npy", npy(y))
    rows = [{f"x{k}": s[:, k].tolist() for k in range(3)} for s in x]
    pd.DataFrame(rows).to_json(tmp_path / "lists.jsonl", orient="records", lines=True, double_precision=15)
    frame = TASK.inputs([str(tmp_path / name)])
    assert len(frame) == 5 and len(set(frame.index)) == 5
    for label, sequence in frame["sequence"].items():
        number = str(label).rpartition(":")[2]
        assert np.allclose(sequence, x[int(number) - (name == "lists.jsonl")]), "rows are counted from 1, arrays from 0"


def test_input_of_predict_may_be_one_sequence(tmp_path):
    x, _ = sequences(1)
    pd.DataFrame(x[0]).to_csv(tmp_path / "plain.csv", index=False)
    pd.DataFrame(x[0], columns=["a", "b", "c"]).assign(t=range(len(x[0])))[::-1].to_csv(tmp_path / "t.csv", index=False)
    np.save(tmp_path / "one.npy", x[0])
    paths = [str(tmp_path / name) for name in ("plain.csv", "t.csv", "one.npy")]
    frame = TASK.inputs(paths)
    assert list(frame.index) == paths
    for sequence in frame["sequence"]:
        assert np.allclose(sequence, x[0])


def test_wrong_inputs_of_predict_are_refused(tmp_path):
    (tmp_path / "words.csv").write_text("t,x\n0,a\n")
    (tmp_path / "gap.csv").write_text("t,x\n0,1\n1,\n")
    (tmp_path / "twice.csv").write_text("t,x\n0,1\n0,2\n")
    for name, message in {
        "words.csv": "column 'x' holds", "gap.csv": "nan at step 1, feature 0", "twice.csv": "t = 0 occurs twice",
        "none": "no such file or folder",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=message):
            TASK.inputs([str(tmp_path / name)])
