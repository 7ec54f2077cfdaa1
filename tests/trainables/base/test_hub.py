"""A hub that refuses connections, and a hub that accepts them and never answers, for each caller.

The cases run in another process: huggingface_hub reads HF_ENDPOINT when it is imported.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import CODE, outside
from trainables.base import hub

#: Reads the data of a task as `run` does, each case in a fork, and prints the seconds since its begin.
BEGIN = """
import json, os, sys, time
from pathlib import Path
import transformers, datasets, pandas, torch  # their imports are no part of the wait
from search.core.config import load_config
from search.core.store import Store
from search.observer import Observer
from search.preparation import read_data, supported_task
from trainables import InputError

class Lines(Observer):
    def say(self, line):
        print(f"{time.monotonic() - began:.2f} {line}", flush=True)

folder, cases = sys.argv[1], json.loads(sys.argv[2])
for number, (name, data, *sets) in enumerate(cases):
    print(f"case {number}", flush=True)
    if os.fork():
        os.wait()
        continue
    config = load_config(name, sets, {}, "demo" if data == "-" else "data")
    began = time.monotonic()
    try:
        task = supported_task(config)
        splits = read_data(Lines(), Store(Path(folder)), config, task, None if data == "-" else data)
        print("\\n".join(splits.info.notes), flush=True)
    except InputError as error:
        Lines().say(f"error: {error}")
    os._exit(0)
"""
#: Seconds after which the run must have said what it uses, or why it ends.
SECONDS = 10.0
TEXTS = ("data.demo.size=300", "data.max_length=8")
#: Substitutes by case.
AUTO = {
    ("tweets", "-", "data.encoder=auto", *TEXTS): "data.encoder=packaged",
    ("lyrics", "-", "data.encoder=auto", *TEXTS): "data.encoder=packaged",
    ("wikitext", "-"): "data.corpus=demo",
}
#: Errors by case.
NAMED = {
    ("tweets", "-", "data.encoder=someone/encoder", *TEXTS): "'someone/encoder' cannot be loaded",
    ("windows", "hf:someone/pictures"): "--data hf:someone/pictures: ",
    ("lyrics", "hf:someone/lines"): "--data hf:someone/lines: ",
    ("rnn", "hf:someone/tables"): "--data hf:someone/tables: ",
    ("wikitext", "hf:someone/text"): "--data hf:someone/text: ",
    ("wikitext", "-", "data.corpus=hub"): "Salesforce/wikitext cannot be loaded",
    ("windows", "-", "model.backbone=someone/vit"): "model.backbone: 'someone/vit' cannot be loaded",
    ("wikitext", "-", "model.pretrained=someone/gpt"): "model.pretrained: 'someone/gpt' cannot be loaded",
}


def begun(endpoint, folder, *cases, **env):
    """The lines that the begin of a run prints, by case."""
    env = {**outside(), "PYTHONPATH": CODE, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), **env}
    command = [sys.executable, "-c", BEGIN, str(folder / "store"), json.dumps(cases)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert "Retry" not in done.stderr, done.stderr
    parts = re.split(r"^case \d+\n", done.stdout, flags=re.M)[1:]
    return {case: part.splitlines() for case, part in zip(cases, parts, strict=True)}


@pytest.fixture(scope="module", params=["refuses", "hangs"])
def hub_away(request, tmp_path_factory):
    """The address of a hub that no request reaches, and the lines of each case."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if request.param == "hangs":
            server.listen(100)
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield endpoint, begun(endpoint, tmp_path_factory.mktemp("hub"), *AUTO, *NAMED)


def said(lines, pattern):
    """The seconds after which a line with this pattern came."""
    (line,) = [line for line in lines if re.search(pattern, line)]
    return float(line.split()[0])


@pytest.mark.parametrize("case", AUTO, ids=" ".join)
def test_substitute_is_said_within_seconds(hub_away, case):
    endpoint, lines = hub_away[0], hub_away[1][case]
    assert said(lines, rf"hub cannot be reached \({endpoint}: .*\): the local cache is used, or a subst") < SECONDS
    assert said(lines, f"without the hub: {AUTO[case]}") > 0
    assert any(re.search("encoder: packaged|corpus: the prose", line) for line in lines)


@pytest.mark.parametrize("case", NAMED, ids=" ".join)
def test_named_repository_ends_the_run_with_one_error(hub_away, case):
    lines = hub_away[1][case]
    assert NAMED[case] in lines[-1] and all("hub cannot be reached" in line for line in lines[:-1]), lines
    assert said(lines, "error: ") < SECONDS


def test_offline_switch_of_the_user_is_respected(tmp_path):
    case = next(iter(AUTO))
    lines = begun("http://127.0.0.1:9", tmp_path, case, HF_HUB_OFFLINE="1")[case]
    assert any("encoder: packaged" in line for line in lines)


def test_longer_patience(monkeypatch):
    assert hub.patience() == hub.PATIENCE
    for given, seconds in (("30", 30.0), ("1", hub.PATIENCE), ("soon", hub.PATIENCE)):
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", given)
        assert hub.patience() == seconds


def test_call_that_takes_too_long():
    assert hub._within(5, lambda: 3) == (3, None)
    began = time.monotonic()
    answer, error = hub._within(0.2, lambda: time.sleep(3))
    assert answer is None and isinstance(error, TimeoutError) and time.monotonic() - began < 2
    wrong = ValueError("no")
    assert hub._within(5, lambda: (_ for _ in ()).throw(wrong)) == (None, wrong)


ANSWERS = """
import http.server, os, sys, threading
status = int(sys.argv[1])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(status); self.send_header("Content-Length", "0"); self.end_headers()
    do_GET = do_HEAD
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
from trainables.base import hub
print(hub.place_of("someone/model", ["config.json"], "model"), hub.unreachable())
from huggingface_hub import constants
print(constants.HF_HUB_OFFLINE)
"""


@pytest.mark.parametrize(("status", "offline"), [(404, False), (503, True)])
def test_answers_of_the_hub(tmp_path, status, offline):
    """An unknown repository leaves the process online. A broken hub is as good as none."""
    env = {**os.environ, "PYTHONPATH": CODE, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", ANSWERS, str(status)]
    lines = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("None ") and ("HTTP status 503" in lines[0]) is offline
    assert lines[1] == str(offline)
