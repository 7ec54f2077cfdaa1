"""Every command of the README runs as it stands there, on files of the names that it uses, shortened by options."""

import os
import re
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
from tests.serving import free_port, wait_for

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
#: What stands for something else, and what it stands for here.
WORDS = {"NAME": "first", "TASK": "rnn", "VERSION": "1", "TRIAL": "0", "URL": "sqlite:///out.db", "YOURS": "engines/"}
SHORT = ["--trials", "2", "--epochs", "1", "--set", "search.compare_seeds=0", "--set", "search.grace_period=1"]
#: Sequences, or pictures, of a demo.
FEW = ["--set", "data.demo.train=200", "--set", "data.demo.test=60"]
#: What a command is shortened by, in the order in which they run.
COMMANDS = {
    "list": [],
    "run windows": [*SHORT, *FEW, "--set", "data.size=32", "--set", "image_size=32"],
    "run rnn": [*SHORT, *FEW],
    "run TASK": [*SHORT, *FEW, "--name", "first", "--set", "search.balance=null"],
    "run TASK --dry-run": [],
    "run TASK --plan": [*SHORT, *FEW, "--set", "search.balance=null"],
    "run TASK --from NAME": [*SHORT, *FEW, "--set", "search.balance=null", "--no-retrain"],
    "resume NAME": [],
    "resume NAME --trials +20": [],
    "resume NAME --audit-stopping 5": [],
    "retrain NAME --finalists 3": ["--seeds", "2"],
    "compare TASK": [],
    "report NAME --open": [],
    "simulate NAME --scheduler none": [],
    "why NAME TRIAL": [],
    "export NAME --optuna URL": [],
    "promote TASK VERSION": [],
    "predict TASK INPUT...": [],
    "ui": [],
    "run windows --data photos/": SHORT,
    "run windows --data photos/ --time-budget 15m": SHORT,
    "data TASK --data YOURS": [],
    "run rnn --data engines/ --time-budget 15m": SHORT,
    "run tweets --data tweets.csv": SHORT,
    "run lyrics --data songs/ --set 'model.unfreeze={choice: [0, 2]}'": SHORT,
    'predict tweets "three days of fever now"': [],
    "run wikitext --data wikitext-2/ --time-budget 1h": SHORT,
    'predict wikitext "the history of"': [],
}  # fmt: skip


@pytest.fixture(scope="module")
def newcomer(module_here):
    """A command in a folder with the files that the README calls so."""
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


def in_the_readme() -> list[str]:
    typed = re.findall(r"python -m search ([^`\n]+)", README)
    tables = README.partition("## Commands")[2].partition("`search`, a script")[0]
    listed = re.findall(r"^\| `([^`]+)`", tables, re.MULTILINE)
    return [one.split("  ")[0].strip() for one in typed + listed]


def test_all_commands_are_tested():
    elsewhere = {
        "doctor",  # test_install.py
        "run --command 'python train.py --lr {lr}' --space FILE --objective 'val_loss min'",  # test_loops.py
        "import optuna URL",  # tests/search/exchange
        "new NAME",  # tests/search/test_new.py
        "run TASK --data YOURS --time-budget 15m",  # as with engines/ above
    }
    assert set(in_the_readme()) == {*COMMANDS, *elsewhere}


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
    if arguments[0] == "run" and not {"--dry-run", "--plan"} & set(arguments):
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

    assert "search --install-completion" in README
    bash("search --install-completion; true")  # it looks which shell has started it
    expected = {"search ret": "retrain", "search run wi": "windows wikitext", "search resume f": "first"}
    for words, completed in expected.items():
        last = len(words.split()) - 1
        ask = f"COMP_WORDS=({words}); COMP_CWORD={last}; _search_completion search; echo ${{COMPREPLY[*]}}"
        assert bash(f". ~/.bashrc; {ask}").strip() == completed
