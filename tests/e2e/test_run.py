"""One real search of windows, and what a user finds afterwards: MLflow, the registry, predictions, the UI."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from search.cli.app import app
from search.core.store import Store
from search.reports.data import doubtful_labels
from tests.conftest import OWN_RAY, Command, outside
from tests.outcomes import results
from tests.serving import assert_served_and_reported, free_port, wait_for
from trainables.windows import demo

TINY = (
    "--set", "data.size=24", "--set", "data.demo.train=100", "--set", "data.demo.test=30",
    "--set", "width={choice: [4, 8]}", "--set", "image_size={choice: [16, 24]}",
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(module_command) -> tuple[Command, str]:
    small = ("--trials", "4", "--epochs", "4", *TINY)
    output = module_command.run("run", "windows", "--name", "first", *small, **OWN_RAY)
    return module_command, output


def test_run_output(searched):
    _, output = searched
    for part in (
        "search first: task windows, 4 trials of up to 4 epochs, tpe + asha, 1 CPU a trial",
        "data: demo (85 train, 15 val, 30 test), fingerprint ",
        "Ray dashboard: http://127.0.0.1:", "MLflow: sqlite:///", "python -m search ui",
        "trials: ", "best: trial ", "retrained on train+validation, ",
        "registry: windows version 1", "is the first champion", "python -m search retrain first --finalists 3",
    ):  # fmt: skip
        assert part in output
    for noise in ("Traceback", "Warning", "(raylet)", "INFO mlflow", "[I 20", "Created version"):
        assert noise not in output


def test_mlflow_runs(searched):
    command, _ = searched
    client, runs = command.runs("windows")
    by_role = {}
    for run in runs:
        by_role.setdefault(run.data.tags["role"], []).append(run)
    (parent,), (final,) = by_role["parent"], by_role["final"]
    assert len(by_role["trial"]) == 4
    for run in [*by_role["trial"], final]:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    for run in runs:
        assert run.info.status == "FINISHED"
        assert {"task", "search", "role", "outcome", "config", "data.fingerprint", "git.commit", "seed"} <= set(
            run.data.tags
        )
        assert run.data.tags["task"] == "windows"
    for run in by_role["trial"]:
        assert run.data.tags["device"] == "cpu"
        assert set(run.data.params) >= {"width", "depth", "lr", "optimizer", "image_size"}
        for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "epoch_seconds", "samples_per_second",
                    "peak_memory_mib", "learning_rate", "gradient_norm", "dead_relu_fraction"):  # fmt: skip
            steps = [m.step for m in client.get_metric_history(run.info.run_id, key)]
            assert steps == list(range(1, len(steps) + 1)), key
    assert parent.data.params["search.trials"] == "4"
    assert parent.data.params["space.lr"] == "loguniform [0.001, 0.01]"
    assert parent.inputs.dataset_inputs[0].dataset.digest == parent.data.tags["data.fingerprint"]
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} >= {"config.yaml", "rungs.json"}
    best = max(r.data.metrics["best_val_accuracy"] for r in by_role["trial"])
    assert parent.data.metrics["best_val_accuracy"] == best
    assert final.data.metrics["test_accuracy"] == parent.data.metrics["test_accuracy"]
    pictures = {a.path for a in client.list_artifacts(final.info.run_id)}
    assert pictures >= {
        "confusion_matrix.png",
        "confusion_matrix.csv",
        "per_class.csv",
        "per_class.png",
        "predictions.csv",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpus_without_gpu_refused(command):
    assert "--gpus 1: there is no GPU here; leave it out" in command.run("run", "windows", *TINY, "--gpus", "1", code=2)
    assert not list(command.folder.glob("mlruns/searches/*"))


def test_store_files(searched):
    import sqlite3

    command, _ = searched
    store = command.folder / "mlruns"
    with sqlite3.connect(store / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not [p for p in store.rglob("*") if p.name.endswith((".tmp", ".part")) or p.name.startswith(".learner")]
    kept = Counter(p.parent.name for p in (store / "searches/first/checkpoints").rglob("*.pt"))
    assert 1 <= len(kept) <= 3, "checkpoints of the best three trials at most"
    assert max(kept.values()) <= 2, "of each its best and its last"


def test_champion_predicts_as_in_final_test(searched, tmp_path):
    command, _ = searched
    client, runs = command.runs("windows")
    final = next(r for r in runs if r.data.tags["role"] == "final")
    table = client.download_artifacts(final.info.run_id, "predictions.csv", str(tmp_path))
    expected = pd.read_csv(table)

    labels = np.concatenate([np.arange(100) % 5, np.arange(30) % 5])  # the demo set, drawn again
    images = demo.draw_all(labels, 24, 0, lambda *_: None)[100:]
    from PIL import Image

    for index, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{index:02d}.png")
    # A Python that finds neither package: the model brings its own code.
    code = (
        "import sys, mlflow, pandas as pd, pathlib\n"
        "sys.meta_path.insert(0, type('Hide', (), {'find_spec': staticmethod(lambda name, path=None, target=None:"
        " (_ for _ in ()).throw(ImportError(name)) if name.split('.')[0] == 'search' else None)}))\n"
        "frame = pd.DataFrame({'image': [p.read_bytes() for p in sorted(pathlib.Path('.').glob('*.png'))]})\n"
        f"mlflow.set_tracking_uri('sqlite:///{command.folder}/mlruns/mlflow.db')\n"
        "model = mlflow.pyfunc.load_model('models:/windows@champion')\n"
        "import trainables; assert 'artifacts' in trainables.__file__, trainables.__file__\n"
        "model.predict(frame).to_json('out.json', orient='records')\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd=tmp_path, env=outside())
    predicted = json.loads((tmp_path / "out.json").read_text())
    assert [row["class"] for row in predicted] == list(expected["predicted"])
    assert [row["probability"] for row in predicted] == pytest.approx(list(expected["probability"]), abs=1e-5)

    printed = json.loads(command.call("predict", "windows", str(tmp_path / "00.png"), "--format", "json"))
    assert printed[0]["class"] == expected["predicted"][0]
    assert "bad.png" in command.call("predict", "windows", str(bad_picture(tmp_path)), code=2)


def test_model_card_and_its_code(searched, tmp_path):
    command, _ = searched
    client, runs = command.runs("windows")
    card = client.get_model_version("windows", "1").description
    search_folder = command.folder / "mlruns" / "searches" / "first"
    (kept,) = search_folder.glob("final/*/model_card.md")
    assert kept.read_text() == card
    final = next(r for r in runs if r.data.tags["role"] == "final")
    assert client.download_artifacts(final.info.run_id, "model_card.md", str(tmp_path))
    assert re.search(r"test_accuracy 0\.\d+ \[0\.\d+, [01](\.\d+)?; 95%\], on 30 test samples", card)
    for part in (
        "4 trials (",
        "fingerprint `",
        "| width |",
        "searched |",
        "Its worst class is ",
        f"runs:/{final.info.run_id}/model",
    ):
        assert part in card
    code = card.split("```python\n")[1].split("```")[0]
    model = kept.parent / "model"
    expected = pd.read_csv(kept.parent / "artifacts" / "predictions.csv")
    labels = np.concatenate([np.arange(100) % 5, np.arange(30) % 5])
    image = demo.draw_all(labels, 24, 0, lambda *_: None)[100]
    from PIL import Image

    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "photo.jpg", format="PNG")
    shutil.copy(model / "model.pt2", tmp_path)
    said = subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, cwd=tmp_path, env=outside(), capture_output=True, text=True
    )
    assert said.stdout.strip() == expected["predicted"][0]
    with_onnx = card.split("```python\n")[2].split("```")[0]
    shutil.copy(model / "model.onnx", tmp_path)
    said = subprocess.run(
        [sys.executable, "-I", "-c", with_onnx], check=True, cwd=tmp_path, env=outside(), capture_output=True, text=True
    )
    assert said.stdout.strip() == expected["predicted"][0]


def test_data_page_and_doubtful_labels(searched):
    command, _ = searched
    given = [part for part in TINY if part.startswith("data.")]
    output = command.call("data", "windows", *(word for part in given for word in ("--set", part)))
    page = Path(output.split("data: ")[-1].strip())
    assert page.parent == command.folder / "mlruns" / "data"
    text = page.read_text()
    for part in ("85 train, 15 val, 30 test", "<h2>Classes</h2>", "<h2>Examples</h2>", "data:image/png;base64,"):
        assert part in text
    (table,) = (command.folder / "mlruns/searches/first/final").glob("*/artifacts/predictions.csv")
    before = table.read_text()
    frame = pd.read_csv(table).assign(probability=0.9)
    frame["predicted"] = frame["class"]
    frame["of its label"] = 0.9
    frame.loc[7, ["predicted", "probability", "of its label"]] = [demo.CLASSES[1], 0.95, 0.01]
    frame.loc[8, ["predicted", "probability", "of its label"]] = [
        demo.CLASSES[1],
        0.5,
        0.4,
    ]  # not sure of it
    frame.loc[[7, 8], "class"] = demo.CLASSES[0]
    frame.to_csv(table, index=False)
    try:
        (found,) = doubtful_labels(Store(command.folder / "mlruns"), "windows", page.stem.partition("-")[2])
    finally:
        table.write_text(before)
    assert found.table["file"].tolist() == [frame.loc[7, "file"]]
    assert "Labels to look at again" in found.title


def bad_picture(folder):
    (folder / "bad.png").write_bytes(b"nothing")
    return folder / "bad.png"


@pytest.mark.nightly
def test_champion_alias_of_second_search(searched):
    command, _ = searched
    short = ("--trials", "1", "--epochs", "1", "--set", "search.grace_period=1", "--set", "resources.dashboard=false")
    output = command.run("run", "windows", "--name", "second", *short, *TINY)
    client, _runs = command.runs("windows")
    first, second = (client.get_model_version("windows", v) for v in ("1", "2"))
    champion = client.get_model_version_by_alias("windows", "champion").version
    better = float(second.tags["test_accuracy"]) > float(first.tags["test_accuracy"])
    assert str(champion) == ("2" if better else "1")
    assert ("is the new champion" if better else "does not beat the champion, version 1") in output
    assert first.tags["search"] == "first"
    assert first.tags["data.test_fingerprint"] == second.tags["data.test_fingerprint"]

    other = command.run("run", "windows", "--name", "other", *short, *TINY, "--set", "data.demo.seed=1")
    assert "tested on other data, so the two cannot be compared" in other


@pytest.mark.slow
def test_retrain_more_seeds(searched):
    command, _ = searched
    output = command.run("retrain", "first", "--seeds", "2")
    assert "over 2 seeds" in output
    _, runs = command.runs("windows")
    finals = [r for r in runs if r.data.tags["role"] == "final" and r.data.tags["search"] == "first"]
    assert sorted(r.data.tags["final.seed"] for r in finals) == ["0", "1"]
    assert {r.info.status for r in runs} == {"FINISHED"}


#: The name and the values of each line of the first figure on MLflow's page, as it drew them.
DRAWN = """
const figure = document.querySelector(".js-plotly-plot");
return (figure ? figure.data : []).map(line => [line.name, Array.from(line.y || [])]);
"""


@pytest.mark.slow
def test_mlflow_pages_in_browser(searched, tmp_path):
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("no chromium and chromedriver on this machine")
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    command, said = searched
    output = said.split("in MLflow, once")[1]  # the addresses that `run` ends with
    port = free_port()
    server = command.start("ui", "--port", str(port))
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    flags = [
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1600,1200",
        "no-first-run",
    ]
    flags += ["disable-background-networking", "disable-component-update", "disable-sync"]
    for flag in (*flags, f"user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(f"--{flag}")
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            page.get(re.search(r"http://127.0.0.1:\S+", output)[0].replace(":5000", f":{port}"))

            def text(_=None):
                return page.find_element(By.TAG_NAME, "body").text

            WebDriverWait(page, 60).until(lambda _: "first" in text().split())
            WebDriverWait(page, 30).until(lambda _: all(f"trial 00{n}" in text() for n in range(4)))
            assert {"outcome", "best_val_accuracy", "completed"} <= set(text().split())
            page.save_screenshot(str(tmp_path / "runs.png"))

            page.get("about:blank")
            page.get(re.findall(r"http://127.0.0.1:\S+", output)[1].replace(":5000", f":{port}"))
            curves: dict[str, list[float]] = {}
            for event in results(command.events("first")):
                curves.setdefault(f"trial 00{event['number']}", []).append(event["metrics"]["val_accuracy"])
            WebDriverWait(page, 60).until(lambda _: curves.keys() <= {name for name, _ in page.execute_script(DRAWN)})
            for name, line in page.execute_script(DRAWN):  # two lines a run: smoothed, and as measured behind it
                assert line == curves.get(name, line), "the page smooths the curves"

            experiment = re.search(r"#/experiments/\d+", output)[0]
            page.get("about:blank")
            page.get(f"http://127.0.0.1:{port}/{experiment}")  # without our link it opens on traces
            WebDriverWait(page, 60).until(lambda _: page.find_elements(By.LINK_TEXT, "first"))
            linked = page.find_element(By.LINK_TEXT, "first").get_attribute("href")
            assert linked == re.search(r"http://127.0.0.1:\S+", output)[0].replace(":5000", f":{port}")
        finally:
            page.quit()
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=30)


def test_bad_input_writes_nothing(command, monkeypatch, capfd):
    monkeypatch.chdir(command.folder)
    monkeypatch.delenv("SEARCH_STORE", raising=False)
    data = command.folder / "photos"
    (data / "train" / "a").mkdir(parents=True)
    (data / "train" / "b").mkdir()
    (data / "train" / "a" / "x.png").write_bytes(b"no image")
    cases = {
        ("run", "windows", "--data", str(data)): "train/b: no JPEG, PNG or WebP image in it",
        ("run", "window"): "did you mean 'windows'?",
        ("run", "windows", "--data", "nowhere"): "--data nowhere: no such file or folder",
        ("run", "windows", "--set", "lr={loguniform: [0, 1]}"): "the lower bound must be > 0",
        ("run", "windows", "--searcher", "grid"): "a grid needs values that can be counted",
        ("run", "windows", "--set", "model.backbone=./nothing"): "model.backbone: './nothing' cannot be loaded",
        ("run", "windows", "--name", "a/b"): "--name 'a/b': allowed are",
        ("resume", "nothing"): "nothing: no search of that name",
        ("predict", "windows", "nothing.png"): "nothing.png: no such file or folder",
    }
    for arguments, message in cases.items():
        with pytest.raises(SystemExit) as left:  # in this process: a new one would import torch for each
            app(list(arguments), prog_name="search")
        assert left.value.code == 2
        output = capfd.readouterr().err
        assert message in output
        assert output.startswith("error: ")
        assert len(output.strip().splitlines()) <= 2, output
    assert not (command.folder / "mlruns").exists()


def test_dry_run_starts_nothing(command):
    command.empty_store = None
    output = command.call("run", "windows", "--dry-run", "--trials", "7")
    assert "trials: 7" in output
    assert output.count("\nconfiguration ") == 5
    assert "1 CPU a trial, " in output
    assert not (command.folder / "mlruns").exists()


def test_list_of_tasks(command):
    output = command.call("list")
    for part in ("windows", "max accuracy on validation", "pictures drawn by code", "loguniform [0.001, 0.01]", "toy"):
        assert part in output


@pytest.mark.slow
def test_windows_champion_served_and_reported(searched):
    command, _ = searched
    assert_served_and_reported(
        command, "windows", "first", "Learning curves", "confusion matrix", "mistakes", "image_size"
    )
