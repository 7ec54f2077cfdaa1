"""Every command of the docs runs as it is written there, on files with the names that it uses, shortened by options."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import CODE, ROOT, outside
from tests.pages import commands
from tests.serving import free_port, wait_for

pytestmark = pytest.mark.slow

#: Placeholders of the docs, and what they are here.
WORDS = {"NAME": "first", "TASK": "rnn", "VERSION": "1", "TRIAL": "0", "URL": "sqlite:///out.db", "YOURS": "engines/"}
SHORT = ["--trials", "2", "--epochs", "1", "--set", "search.compare_seeds=0", "--set", "search.grace_period=1"]
#: Sequences, or pictures, of a demo.
FEW = ["--set", "data.demo.train=200", "--set", "data.demo.test=60"]
SETS = [*SHORT, *FEW, "--set", "search.balance=null"]
#: The commands in the order in which they run, each with options that shorten it.
COMMANDS = {
    "list": [],
    "run windows": [*SHORT, *FEW, "--set", "data.size=32", "--set", "image_size=32"],
    "run rnn": [*SHORT, *FEW],
    "run rnn --dry-run": [],
    "run TASK": [*SETS, "--name", "first"],
    "run TASK --dry-run": [],
    "run TASK --plan": SETS,
    "run TASK --from NAME": [*SETS, "--no-retrain"],
    "resume NAME": [],
    "resume NAME --trials +20": [],
    "resume NAME --trials 30": [],
    "resume NAME --epochs +10": [],
    "resume NAME --time-budget 30m": [],
    "resume NAME --audit-stopping 5": [],
    "retrain NAME": [],
    "retrain NAME --finalists 3": ["--seeds", "2"],
    "compare TASK": [],
    "report NAME --open": [],
    "simulate NAME --scheduler none": [],
    "simulate NAME --scheduler asha-promote": [],
    "why NAME TRIAL": [],
    "logs NAME TRIAL": [],
    "export NAME --optuna URL": [],
    "promote TASK VERSION": [],
    "predict TASK INPUT...": [],
    "ui": [],
    "ls": [],
    "du": [],
    "gc --dry-run": [],
    "data windows --data photos/": [],
    "run windows --data photos/": ["--dry-run"],  # it trains in the next one
    "run windows --data photos/ --time-budget 15m": SHORT,
    "data TASK --data YOURS": [],
    "run rnn --data engines/ --time-budget 15m": SHORT,
    "run windows --data photos/ --time-budget 8h --target 0.95": ["--dry-run"],
    "run rnn --data engines/ --set search.limits='{latency_ms: \"<= 5\", parameters: \"<= 2e6\"}'": ["--dry-run"],
    "run rnn --data engines/ --cost-budget 20 --set resources.price_gpu_hour=2.5": ["--dry-run"],
    "run tweets --data tweets.csv": SHORT,
    "run lyrics --data songs/": SHORT,
    'predict tweets "three days of fever now"': [],
    "run wikitext --data wikitext-2/ --time-budget 1h": SHORT,
    'predict wikitext "the history of"': [],
    # Long searches of the pages on tasks: their configuration is checked.
    "run rnn --trials 64 --set search.fuse=32 --set hidden=16 --set layers=1 --set optimizer=adam "
    "--set activation=tanh --set batch_size=64": ["--dry-run"],
    "run rnn --set 'search.first=[{lr: 0.003}, {lr: 0.001, hidden: 48}]'": ["--dry-run"],
    "run tweets --data tweets.csv --set data.encoder=vinai/bertweet-base": ["--dry-run"],
    "run lyrics --data songs/ --set data.max_length=128": ["--dry-run"],
    "run tweets --set model.pooling=cls --set model.tfidf=false": ["--dry-run"],
    "run tweets --set 'search.objective=[macro_f1 max, parameters min]'": ["--dry-run"],
    "run tweets --set 'search.objective=[macro_f1 max, parameters min]' "
    "--set 'search.preference={macro_f1: 2, parameters: 1}'": ["--dry-run"],
    "run lyrics --set model.mask_padding=false --set weighting=none --set search.balance=null": ["--dry-run"],
    "run wikitext --data wikitext-2/ --trials 1 --epochs 3 --scheduler none --set embedding=200 --set heads=2 "
    "--set hidden=200 --set layers=2 --set dropout=0.2 --set optimizer=sgd --set sgd_lr=5.0 --set weight_decay=0 "
    "--set schedule=step --set batch_size=20 --set bptt=35 --set parts=1 --set softmax=full --set tied=false "
    "--set norm_first=false --set positions=sinusoidal": ["--dry-run"],
}  # fmt: skip
#: Commands that other tests run.
ELSEWHERE = {
    "doctor": "test_install.py",
    **dict.fromkeys(("watch NAME", "run rnn --watch", "run TASK --watch"), "test_watch.py, tests/search/watch"),
    **dict.fromkeys(("report asked", "resume asked"), "tests/search/test_study.py"),
    "gc": "tests/search/housekeeping",
    "rename NAME NEW": "tests/search/housekeeping",
    "delete NAME": "tests/search/housekeeping",
    "run TASK --notify env:SLACK_WEBHOOK": "tests/search/callbacks",
    "run TASK --on-end 'mail -s \"$SEARCH_NAME $SEARCH_STATUS\" me@example.org'": "tests/search/callbacks",
    "run TASK --log-to tensorboard": "tests/search/callbacks",
    "run TASK --log-to wandb": "tests/search/callbacks",
    "resume NAME --notify URL": "tests/search/callbacks",
    "doctor --gpu": "tests/search/gpu, on a stand-in for a GPU",
    "doctor --gpu windows rnn": "tests/search/gpu",
    "run --command 'python train.py --lr {lr}' --space FILE --objective 'val_loss min'": "test_loops.py",
    "run --command 'python train.py --lr {lr} --epochs {epochs}' --space space.yaml "
    "--objective 'val_loss min'": "test_loops.py",
    "run --command 'python train.py --lr {lr}' --space mlruns/searches/digits/space.yaml --objective 'accuracy max' "
    "--from digits": "tests/search/exchange",
    r"run --command 'python train.py --lr {lr} --epochs {epochs}' --pattern 'epoch (?P<epoch>\d+) val_loss "
    r"(?P<val_loss>\S+)' --space space.yaml --objective 'val_loss min'": "tests/examples/test_kinds_of_program.py",
    "logs NAME 0 --follow": "tests/search/reports/test_logs.py",
    "run --command 'python train.py --lr {lr} --max-iters {steps}' --space space.yaml --objective 'val_loss min' "
    r"--steps 2000 --report-every 100 --pattern 'step (?P<step>\d+): .*val loss (?P<val_loss>\S+)'": "test_steps.py",
    "run --command 'python train.py --lr {lr} --epochs {epochs}' --final 'python train.py --lr {lr} --epochs {epochs} "
    "--train-on all --test' --space space.yaml --objective 'val_loss min'": "tests/search/test_own_final.py",
    "predict": "as with TASK INPUT... above",
    **dict.fromkeys((
        "stop NAME", "stop NAME 3 5", "stop NAME --no-retrain", "pause NAME", "pause NAME 3", "continue NAME",
        "continue NAME 3", "add NAME lr=1e-3 width=64", "add NAME --file more.csv", "add NAME --from-trial 7 lr=1e-4",
        "add NAME --from-trial 7 --from-checkpoint lr=1e-4", "set NAME time-budget=+1h trials=+20",
        "set NAME space.lr='{loguniform: [1e-4, 1e-2]}'", "set NAME target=0.97",
        "set NAME 'preference={macro_f1: 1, parameters: 1}'",
    ), "test_control.py, tests/search/core/test_requests.py"),
    "predict train INPUT": "tests/search/test_own_final.py",
    "import optuna URL": "tests/search/exchange",
    "import optuna sqlite:///study.db --study digits": "tests/search/exchange",
    "import ray FOLDER": "tests/search/exchange",
    "import ray ~/ray_results/digits --objective 'accuracy max'": "tests/search/exchange",
    "export NAME --optuna sqlite:///out.db": "as with URL above",
    "export NAME --optuna sqlite:///study.db": "as with URL above",
    "new NAME": "tests/search/test_new.py",
    "run wikitext --data wikitext-2/ --set model.pretrained=openai-community/gpt2 "
    "--time-budget 1h": "test_finetuning.py",
    "new engines": "tests/search/test_new.py",
    "new NAME --from-function train.py:train --space space.yaml --objective 'val_loss min'": "tests/search/test_new.py",
    "run TASK --data YOURS --time-budget 15m": "as with engines/ above",
    "run rnn --plan": "as with TASK above",
    "run rnn --searcher sobol --scheduler patience": "tests of examples/plugins",
    "run windows --address HOST:PORT": "tests/clusters",
    "resume NAME --address HOST:PORT": "tests/clusters",
    "resume NAME --data URI": "tests/clusters/test_storage.py",
    "resume digits": "tests/test_migrating.py",
    "predict windows photo.jpg more-photos/": "test_run.py",
    "predict rnn engine-1.csv engine-2.csv": "as predict rnn INPUT above",
    "resume second": "test_programs.py",
    "resume second --trials +10": "test_programs.py",
    "report tutorial --open": "test_programs.py",
    "why tutorial 9": "test_programs.py",
}  # fmt: skip


@pytest.fixture(scope="module")
def newcomer(module_here):
    """A command in a folder with the files that the docs name."""
    folder, rng = module_here.folder, np.random.default_rng(0)
    for kind in ("arched", "square"):
        (folder / "photos" / "train" / kind).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / "train" / kind / f"{number}.jpg")
    (folder / "engines").mkdir()
    rows = [
        {"sequence_id": s, "t": t, "engine": s // 2, "x0": rng.normal(), "x1": rng.normal(), "y": float(s)}
        for s in range(40)
        for t in range(5 + s % 4)
    ]
    pd.DataFrame(rows).to_csv(folder / "engines" / "table.csv", index=False)
    ill = [f"my {part} hurts since {n} days" for part in ("head", "knee", "throat") for n in range(2, 12)]
    well = [f"the {thing} was great in {n} places" for thing in ("match", "show", "soup") for n in range(2, 12)]
    tweets = {"text": ill + well, "label": ["medical"] * len(ill) + ["other"] * len(well)}
    pd.DataFrame(tweets).to_csv(folder / "tweets.csv", index=False)
    (folder / "songs").mkdir()
    for artist, word in (("ann", "river"), ("bob", "engine")):
        lines = [f"oh {word} number {n} take me {way}" for n in range(20) for way in ("home", "away")]
        (folder / "songs" / f"{artist}.txt").write_text("\n".join(lines))
    (folder / "wikitext-2").mkdir()
    for split, count in (("train", 4000), ("valid", 200), ("test", 200)):
        lines = [f" the history of town {n % 17} began when river {n % 5} moved ." for n in range(count)]
        (folder / "wikitext-2" / f"wiki.{split}.tokens").write_text("\n".join(lines))
    pd.DataFrame(rng.normal(size=(6, 10))).to_csv(folder / "sequence.csv", index=False)
    return module_here


def test_all_commands_are_tested():
    assert commands() == {*COMMANDS, *ELSEWHERE}


@pytest.mark.parametrize("text", COMMANDS)
def test_command(newcomer, text):
    arguments = [WORDS.get(word, word) for word in shlex.split(text)]
    arguments = [word for word in arguments if word != "INPUT..."] + (["sequence.csv"] if "INPUT" in text else [])
    if text == "ui":
        port = free_port()
        server = newcomer.start(*arguments, "--port", str(port))
        wait_for(f"http://127.0.0.1:{port}", server)
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=30)
        return
    run = newcomer.run if "--open" in arguments else newcomer.call
    output = run(*arguments, *COMMANDS[text], BROWSER="true")
    if arguments[0] == "run" and not {"--dry-run", "--plan"} & {*arguments, *COMMANDS[text]}:
        assert "trials: " in output and "best: trial " in output


def test_shell_completion(newcomer):
    home, scripts = newcomer.folder / "home", Path(sys.executable).parent
    home.mkdir()
    env = {
        **outside(), "HOME": str(home), "PYTHONPATH": CODE, "PATH": f"{scripts}:{os.environ['PATH']}",
        "SEARCH_STORE": str(newcomer.folder / "mlruns"),
    }  # fmt: skip

    def bash(script: str) -> str:
        return subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True).stdout

    assert "search --install-completion" in (ROOT / "docs" / "reference" / "commands.md").read_text()
    bash("search --install-completion; true")  # it looks which shell has started it
    expected = {"search ret": "retrain", "search run wi": "windows wikitext", "search resume f": "first"}
    for words, completed in expected.items():
        last = len(words.split()) - 1
        ask = f"COMP_WORDS=({words}); COMP_CWORD={last}; _search_completion search; echo ${{COMPREPLY[*]}}"
        assert bash(f". ~/.bashrc; {ask}").strip() == completed
