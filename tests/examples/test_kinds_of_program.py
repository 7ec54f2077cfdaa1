"""The table of docs/howto/five-minutes.md: each kind of program, searched by the options of its row."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from search.cli.app import _program, app
from search.core.searchers import make_searcher
from search.core.store import Store
from search.observer import Observer
from tests.conftest import ROOT
from tests.outcomes import assert_logged_once, outcome_of, results
from trainables import seed_everything
from trainables.base import training
from trainables.base.device import Device
from trainables.loops.task import Code, LoopTask
from trainables.loops.trial import Loop, Trial

PAGE = (ROOT / "docs" / "howto" / "five-minutes.md").read_text()
#: The head of a program with flags.
FLAGS = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--epochs", type=int)
args = parser.parse_args()
"""
SPACE = "lr: {loguniform: [1.0e-4, 1.0e-1]}\n"
EPOCHS = 3
#: The files of a program of each kind. A line that a search needs ends with `# search`.
PROGRAMS = {
    "flags, a line for each epoch": {
        "train.py": FLAGS
        + """
for epoch in range(args.epochs):
    print(f"epoch {epoch} val_loss {args.lr / (epoch + 1):.4e}, 12 s")
"""
    },
    "a progress bar with the figure": {
        "train.py": FLAGS
        + """
from tqdm import tqdm
for epoch in range(1, args.epochs + 1):
    with tqdm(total=30, desc=f"epoch {epoch}") as bar:
        for step in range(30):
            bar.update()
            bar.set_postfix(loss=1 / (step + 1))
        bar.set_postfix(val_loss=args.lr / epoch)
"""
    },
    "several lines for each epoch": {
        "train.py": FLAGS
        + """
for epoch in range(1, args.epochs + 1):
    print(f"[train] epoch {epoch} loss {2 * args.lr / epoch}")
    print(f"[valid] loss {args.lr / epoch}")
    print("[valid] accuracy 98.0%")
"""
    },
    "a config file": {
        "config.yaml": "# a chat template: {{ message }}\nmodel: {width: 8}\noptimizer:\n  lr: {{lr}}\n"
        "epochs: {{epochs}}\n",
        "train.py": """
import argparse, yaml
parser = argparse.ArgumentParser()
parser.add_argument("--config")
config = yaml.safe_load(open(parser.parse_args().config))
for epoch in range(1, config["epochs"] + 1):
    print(f"epoch {epoch} val_loss {config['optimizer']['lr'] / epoch}")
""",
    },
    "a shell pipeline": {
        "space.yaml": SPACE + "size: {int: [10, 20]}\n",
        "code/data.py": "import sys\nprint(*range(int(sys.argv[1])))\n",
        "code/train.py": """
import sys
lr, numbers = float(sys.argv[2]), sys.stdin.read().split()
assert len(numbers) >= 10
for epoch in range(1, 4):
    print("val_loss", lr / epoch)
""",
    },
    "several processes: `torchrun`": {
        "train.py": FLAGS
        + """
import torch.distributed as dist, torch
dist.init_process_group("gloo")
for epoch in range(args.epochs):
    loss = torch.tensor([args.lr / (epoch + 1)], dtype=torch.float64)
    dist.all_reduce(loss)
    if dist.get_rank() == 0:
        print(f"epoch {epoch} val_loss {loss.item() / dist.get_world_size()}")
dist.destroy_process_group()
"""
    },
    "a compiled program": {
        "train.c": """
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words) {
    for (int epoch = 1; epoch <= atoi(words[2]); epoch++)
        printf("epoch %d val_loss %g\\n", epoch, atof(words[1]) / epoch);
}
"""
    },
    "a script with `transformers.Trainer`": {
        "train.py": """
import torch, transformers
parser = transformers.HfArgumentParser(transformers.TrainingArguments)
(args,) = parser.parse_args_into_dataclasses()
config = transformers.DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
data = [{"input_ids": torch.arange(1, 9), "labels": torch.tensor(i % 2)} for i in range(8)]
model = transformers.DistilBertForSequenceClassification(config)
transformers.Trainer(model, args, train_dataset=data, eval_dataset=data).train()
"""
    },
    "a script with Lightning": {
        "train.py": FLAGS
        + """
import lightning, torch
from torch.utils.data import DataLoader, TensorDataset
class Module(lightning.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.model, self.lr = torch.nn.Linear(2, 1), lr
    def training_step(self, batch):
        return self.model(batch[0]).square().mean()
    def validation_step(self, batch):
        self.log("val_loss", self.model(batch[0]).square().mean())
    def on_validation_end(self):  # search
        print(f"step {self.global_step} val_loss {self.trainer.callback_metrics['val_loss']:.6f}")  # search
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)
data = DataLoader(TensorDataset(torch.randn(16, 2)), batch_size=8)
options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
lightning.Trainer(max_epochs=args.epochs, log_every_n_steps=1, **options).fit(Module(args.lr), data, data)
"""
    },
    "boosting rounds of scikit-learn, LightGBM, XGBoost": {
        "train.py": """
import argparse
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", type=float)
parser.add_argument("--rounds", type=int)
args = parser.parse_args()
x = np.random.default_rng(0).normal(size=(300, 3))
y = x[:, 0] * x[:, 1]
model = HistGradientBoostingRegressor(learning_rate=args.learning_rate, warm_start=True)
for done in range(1, args.rounds + 1):
    model.set_params(max_iter=done).fit(x[:200], y[:200])
    error = np.sqrt(np.mean((model.predict(x[200:]) - y[200:]) ** 2))
    print(f"[{done}]\\tvalid_0's rmse: {error:.6f}")
"""
    },
    "a notebook as a script, one figure at its end": {
        "notebook.py": """
# In[1]:
import json, os  # search
LR = json.loads(os.environ.get("SEARCH_PARAMS", '{"lr": 0.1}'))["lr"]  # search
# In[2]:
import math
# In[3]:
print("accuracy:", 1 / (1 + abs(math.log10(LR) + 2)))
""",
    },
}
#: Kinds whose program imports torch: seconds of a core.
HEAVY = [kind for kind, files in PROGRAMS.items() if "torch" in "".join(files.values())]


def rows():
    """The kind, the number of changed lines and the options of each row."""
    table = PAGE.split("<!-- kinds -->")[1].split("<!-- /kinds -->")[0]
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in table.splitlines() if line.startswith("| ")]
    return {kind: (int(lines), shlex.split(code.strip("`").replace("\\|", "|"))) for kind, lines, code in cells[1:]}


ROWS = rows()
PARAMETERS = [pytest.param(kind, marks=[pytest.mark.slow] if kind in HEAVY else []) for kind in PROGRAMS]


def write(kind, folder):
    """Writes the program of a kind with its space, and compiles it; returns the arguments of `run`."""
    for name, text in ({"space.yaml": SPACE} | PROGRAMS[kind]).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    if kind == "a compiled program":
        if not (shutil.which("cc") and shutil.which("stdbuf")):
            pytest.skip("needs a C compiler and stdbuf")
        subprocess.run(["cc", "-o", folder / "train", folder / "train.c"], check=True)
    options = ROWS[kind][1]
    objective = [] if "--objective" in options else ["--objective", "val_loss min"]
    epochs = [] if "--epochs" in options else ["--epochs", str(EPOCHS)]
    return [*options, "--space", "space.yaml", *objective, *epochs, "--trials", "2", "--set", "search.grace_period=1"]


def path():
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_table_has_the_kinds_and_their_changed_lines():
    assert list(ROWS) == list(PROGRAMS) and len(ROWS) >= 10
    for kind, (lines, _) in ROWS.items():
        assert lines == "".join(PROGRAMS[kind].values()).count("# search\n"), kind
    shown = [line.strip() for line in PAGE.splitlines()]
    for files in PROGRAMS.values():
        for line in re.findall(r"^(.*)  # search$", "".join(files.values()), re.MULTILINE):
            assert line.strip() in shown


@pytest.mark.parametrize("kind", PARAMETERS)
def test_program_of_a_kind(tmp_path, monkeypatch, kind):
    """One trial of the search that the row starts, in this process: all epochs, and the end of the program."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path())
    monkeypatch.setenv("HOME", str(tmp_path))
    given = typer.main.get_command(app).commands["run"].make_context("run", write(kind, tmp_path)).params
    fields = {name: given[name] or None for name in ("pattern", "report_at", "template")} | {"shell": given["shell"]}
    flags = {"search.epochs": given["epochs"], "search.trials": 2}
    program = _program(None, given["command_"], given["space"], given["objective"], fields, None, False, flags, [])
    config = program.configure(Store(tmp_path / "store"), Code.of(program.train), Observer())
    metric, mode = given["objective"].split()
    task = LoopTask("mine", metric, mode)
    params = make_searcher(config, task.objective)[0].ask(1)
    seed_everything(0)
    trial = Trial(params, 0, config.search.epochs, torch.device("cpu"))
    trial.folder = tmp_path / "trial"
    trial.folder.mkdir()
    learner = Loop(program.train, trial, Device(torch.device("cpu")), metric)
    values = [training.run_epoch(task, learner, None, None)[metric] for _ in range(trial.of)]
    with pytest.raises(training.Ended):
        training.run_epoch(task, learner, None, None)
    assert learner.messages == []
    if "args.lr / epoch" in "".join(PROGRAMS[kind].values()):
        assert values == pytest.approx([params["lr"] / epoch for epoch in (1, 2, 3)], rel=1e-2)


@pytest.mark.nightly  # each change kills a command in test_loops.py
@pytest.mark.parametrize("kind", ["a config file", "a shell pipeline"])
def test_search_over_a_program_killed_and_resumed(command, kind):
    """The whole search: the driver is killed, and the resumed search equals an uninterrupted one."""
    wait = "import time; time.sleep(0.3)\n    print("
    whole, cut = (replace(command, folder=command.folder / name) for name in ("whole", "cut"))
    for one in (whole, cut):
        one.folder.mkdir()
        one.env = {**command.env, "PATH": path()}
        # The processes of a worker have the home of the cluster.
        arguments = [word.replace("$HOME", "{folder}") for word in write(kind, one.folder)]
        arguments = ["run", *arguments, "--trials", "3", "--concurrency", "1", "--name", "s"]
        for script in one.folder.rglob("train.py"):
            script.write_text(script.read_text().replace("print(", wait))
    whole.run(*arguments)
    cut.kill_when("s", lambda events: len(results(events)) >= 2, *arguments)
    cut.run("resume", "s")
    assert outcome_of(cut, "s") == outcome_of(whole, "s")
    assert_logged_once(cut, Store(cut.folder / "mlruns").search("s").read().task, "s")
    assert cut.run("logs", "s", "0")
