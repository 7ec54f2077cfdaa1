"""A function as it travels: what belongs to it, where it runs, what it prints, how it ends."""

import functools
import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cloudpickle
import pytest
import torch

from trainables import get_task, register_task
from trainables.base import training
from trainables.base.device import Device
from trainables.base.errors import InputError
from trainables.base.files import file_safe
from trainables.base.task import DataInfo, Splits
from trainables.loops.command import Command
from trainables.loops.task import Code, LoopTask
from trainables.loops.trial import TrainingError

TASK = LoopTask("mine", "val_loss", "min")
CPU = Device(torch.device("cpu"))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes modules into a folder of the user's, and imports the first of them anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**modules):
        for name, code in modules.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        for name in [name for name, module in sys.modules.items() if _in(module, tmp_path)]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module(next(iter(modules)))

    yield write
    for name in [name for name, module in sys.modules.items() if _in(module, tmp_path)]:
        del sys.modules[name]


def _in(module, folder):
    return str(getattr(module, "__file__", None) or "").startswith(str(folder))


MAIN = """
    import helpers
    from helpers import Net, double

    RATE = 3
    TRIALS = 5

    def scale(x):
        return RATE * x

    class Model:
        def out(self):
            return scale(double(1))

    def unused():
        return 1

    def train(trial):
        model = Model()
        for epoch in trial.epochs():
            yield {"val_loss": model.out() + helpers.offset()}
"""
HELPERS = """
    class Net: ...

    def double(x):
        return 2 * x

    def offset():
        from deep import OFFSET

        return OFFSET
"""
DEEP = "OFFSET = 0.5\n"


def changed(program, **other):
    before = Code.of(program(main=MAIN, helpers=HELPERS, deep=DEEP).train)
    modules = {"main": MAIN, "helpers": HELPERS, "deep": DEEP} | other
    return Code.of(program(**modules).train).changed(before)


@pytest.mark.parametrize(
    ("module", "old", "new", "parts"),
    [
        ("main", "return RATE * x", "return RATE * x + 1", ["scale"]),
        ("main", "RATE = 3", "RATE = 4", ["RATE"]),
        ("main", "model.out() +", "model.out() -", ["train"]),
        ("main", "scale(double(1))", "scale(double(2))", ["Model"]),
        ("helpers", "return 2 * x", "return 3 * x", ["module helpers"]),
        ("deep", "0.5", "0.25", ["import deep"]),
        ("main", "TRIALS = 5", "TRIALS = 50", []),
        ("main", "def unused():\n        return 1", "def unused():\n        return 2", []),
        ("main", "return RATE * x", "return RATE * x  # in units", []),
        ("main", "    RATE = 3", "\n\n    RATE = 3", []),
    ],
)
def test_parts_of_changed_code(program, module, old, new, parts):
    text = {"main": MAIN, "helpers": HELPERS, "deep": DEEP}[module]
    assert old in text
    assert changed(program, **{module: text.replace(old, new)}) == parts


KEPT = """
    import functools
    import re
    from collections import deque
    from dataclasses import dataclass

    import torch
    from torch import relu as activation
    from torch.nn import ReLU as Layer

    PATTERN, STEPS, LOSS = re.compile("a+"), range(3), torch.nn.L1Loss()

    def doubled(inner):
        @functools.wraps(inner)
        def outer():
            return 2 * inner()
        return outer

    @doubled
    def decorated():
        return 3

    @functools.cache
    def remembered():
        return 4

    @dataclass(frozen=True, slots=True)
    class Settings:
        rate: float = 5.0

    SETTINGS, LAST = Settings(6.0), deque([7.0])
    first, second = lambda: 8.0, lambda: 9.0

    def train(trial):
        yield decorated() + remembered() + SETTINGS.rate + LAST[0] + first() + second()
        yield activation, Layer, PATTERN, STEPS, LOSS
"""


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("2 * inner()", "20 * inner()", "decorated"),
        ("return 3", "return 30", "decorated"),
        ("return 4", "return 40", "remembered"),
        ("Settings(6.0)", "Settings(60.0)", "SETTINGS.rate"),
        ("deque([7.0])", "deque([70.0])", "LAST"),
        ("8.0", "80.0", "<lambda>"),
        ("9.0", "90.0", "<lambda>"),
        ("import relu", "import tanh", "activation"),
        ("import ReLU", "import Tanh", "Layer"),
        ('"a+"', '"a*"', "PATTERN"),
        ("range(3)", "range(4)", "STEPS"),
        ("torch.nn.L1Loss()", "torch.nn.MSELoss()", "LOSS"),
    ],
)
def test_parts_of_decorated_and_library_values(program, old, new, part):
    before = Code.of(program(main=KEPT).train)
    assert Code.of(program(main=KEPT).train).changed(before) == []
    assert Code.of(program(main=KEPT.replace(old, new)).train).changed(before) == [part]


def test_digest_of_a_function_is_the_same_in_another_process(program):
    names = "names = {'a', 'b', 'c', 'd'}\nfind = lambda x: x in {'p', 'q', 'r', 's'}\n\n"
    module = program(main=names + "def train(trial):\n    yield float(find('p') and 'a' in names)\n")
    code = f"import sys; sys.path.insert(0, {str(Path(module.__file__).parent)!r}); import main\n"
    code += "from trainables.loops.task import Code; print(Code.of(main.train).digest)"
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == Code.of(module.train).digest


def test_what_a_function_is_made_with_belongs_to_it(program):
    text = """
        import functools

        def made(rate):
            def train(trial, more=1):
                yield {"val_loss": rate + more}
            return train

        one, other = made(1), made(2)
        half = functools.partial(one, more=2)
        third = functools.partial(one, more=3)
    """
    module = program(main=text)
    assert Code.of(module.other).changed(Code.of(module.one)) == ["made.<locals>.train.rate"]
    assert Code.of(module.third).changed(Code.of(module.half))
    assert Code.of(functools.partial(module.one, more=2)).digest == Code.of(module.half).digest
    assert Code.of(module.half).name == "train"


def settled(code, tmp_path, **data):
    """The code as `prepare` hands it to workers."""
    code.write(tmp_path / "store" / "functions" / "s" / f"{code.name}.pkl")
    settings = {"function": f"functions/s/{code.name}.pkl", "folder": str(tmp_path), **data}
    return TASK.prepare(settings, None, tmp_path / "store" / "cache" / "mine", lambda *_: None)


def values(splits, folder=None, epochs=1):
    learner = TASK.build({}, splits, epochs, CPU)
    TASK.place(learner, 0, folder)
    return [training.run_epoch(TASK, learner, None, None)["val_loss"] for _ in range(epochs)]


def test_code_packed_at_start_or_replaced(program, tmp_path):
    begun = Code.of(program(main=MAIN, helpers=HELPERS, deep=DEEP).train)
    (tmp_path / "helpers.py").write_text(textwrap.dedent(HELPERS).replace("2 * x", "20 * x"))
    for name in ("helpers", "main"):
        del sys.modules[name]
    assert values(settled(begun, tmp_path)) == [6.5], "a worker that starts later runs what the others run"
    mended = Code.of(program(main=MAIN, helpers=HELPERS.replace("2 * x", "3 * x"), deep=DEEP.replace("0.5", "0")).train)
    sys.modules["deep"].OFFSET = 0.5  # as a worker that is used again has it
    assert values(settled(mended, tmp_path)) == [9.0]


def test_code_late_import_changed(program, tmp_path):
    code = Code.of(program(main=MAIN, helpers=HELPERS, deep=DEEP).train)
    settled(code, tmp_path)
    (tmp_path / "deep.py").write_text("OFFSET = 7\n")
    with pytest.raises(
        InputError, match=r"deep\.py changed since the search began; .*resume\(train, changed_code=True\)"
    ):
        settled(code, tmp_path)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("_train", "train"), ("entraîner", "entrainer"), ("étude 3", "etude-3"), ("<lambda>", "lambda"), ("日本", ""),
        ("..", ""), ("a/b\\c", "a-b-c"), ("x" * 200, "x" * 60),
    ],
)  # fmt: skip
def test_any_text_becomes_a_name_for_a_file(text, name):
    assert file_safe(text) == name


def test_programs_of_one_name_have_places_of_their_own(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "main.py").write_text("")
    one, other = (Code.of(Command("python main.py --lr {lr}", folder=str(tmp_path / folder))) for folder in ("a", "b"))
    again = Code.of(Command("python main.py --lr {lr} --wd {wd}", folder=str(tmp_path / "a")))
    assert one.name == other.name == "main" and one.origin != other.origin and again.origin == one.origin
    modules = [Code.of(Command(f"python -m {name} --lr {{lr}}", folder=str(tmp_path))) for name in ("x.fit", "y.fit")]
    assert modules[0].origin != modules[1].origin


@pytest.mark.parametrize("metric", ["a+b", "a&b=c?d", "100%", "loss, mean", "acc@1", "é #x"])
def test_task_is_found_again_whatever_its_objective_is_called(metric, monkeypatch):
    from search.core.program_config import loop_config

    monkeypatch.setenv("SEARCH_TASKS", "")
    loop_config("odd", {"x": 1}, f"{metric} max", {}, (), "here")
    register_task("other", "trainables.loops.task:LoopTask?metric=loss&mode=min")
    task = get_task("odd")
    assert (task.metric, task.objective.mode) == (metric, "max")
    assert get_task("other").metric == "loss"


def function_of(text):
    there = {}
    exec(textwrap.dedent(text), there)
    return cloudpickle.dumps(there["train"])


def run(text, tmp_path, epochs=1, **more):
    code = Code(function_of(text), "", "train", **more)
    splits = Splits(code, None, None, DataInfo("", "", "", {}))
    return values(splits, tmp_path / "trials" / "0000", epochs)


def test_function_runs_where_the_search_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "data.csv").write_text("4")
    text = "def train(trial):\n    yield float(open('data.csv').read())\n"
    assert run(text, tmp_path, here=str(tmp_path)) == [4.0]
    monkeypatch.chdir(tmp_path)
    assert run(text, tmp_path, here="/on/another/machine") == [4.0], "where it is then"


def test_what_a_function_logs_goes_to_the_store_of_its_search(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    text = "def train(trial):\n    import os\n    yield {'val_loss': float(len(os.environ['MLFLOW_TRACKING_URI']))}\n"
    assert run(text, tmp_path, tracking=uri) == [len(uri)]


def test_output_of_a_function_is_in_its_trials_folder(tmp_path, capsys):
    text = """
        def train(trial):
            import logging, sys
            logging.basicConfig(force=True)
            for epoch in trial.epochs():
                print("epoch", epoch)
                print("progress", file=sys.stderr)
                logging.getLogger("x").warning("careful")
                yield 1.0
    """
    run(text, tmp_path, epochs=2)
    log = (tmp_path / "trials" / "0000" / "output.log").read_text()
    assert log.count("progress") == 2 and "epoch 1\n" in log and "epoch 2\n" in log and log.count("careful") == 2
    assert "epoch" not in capsys.readouterr().out


def test_function_that_prints_nothing_leaves_no_file(tmp_path):
    run("def train(trial):\n    yield 1.0\n", tmp_path)
    file = tmp_path / "trials" / "0000" / "output.log"
    # A process with children, as the tests' server of forks is, keeps an empty file: they may still print.
    assert not file.exists() or file.read_text() == ""


def test_failure_names_the_file_with_the_output_in_its_last_line(tmp_path):
    with pytest.raises(ValueError, match="no such column") as error:
        run("def train(trial):\n    print('reading')\n    raise ValueError('no such column')\n", tmp_path)
    assert error.value.__notes__ == [f"ValueError: no such column (its output is in {tmp_path}/trials/0000/output.log)"]


EXITS = {
    "generator": "def train(trial):\n    {}\n    yield 1.0\n",
    "reporting": "def train(trial):\n    {}\n    trial.report(1.0)\n",
    "returning": "def train(trial):\n    {}\n    return 1.0\n",
}


@pytest.mark.parametrize("form", EXITS)
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("import sys; sys.exit(3)", "the function called sys.exit with code 3"),
        ("import sys; sys.exit('no data')", "the function called sys.exit: no data"),
        (
            "import argparse; argparse.ArgumentParser().parse_args(['--lr', '1'])",
            r"^the function called sys.exit with code 2; its last line: .*unrecognized arguments: --lr 1 \(its .*\)$",
        ),
    ],
)
def test_loop_sys_exit_is_training_error(form, call, said, tmp_path):
    with pytest.raises(TrainingError, match=said):
        run(EXITS[form].format(call), tmp_path)


def test_exit_with_code_0_ends_a_function_as_return_does(tmp_path):
    text = "def train(trial):\n    yield 1.0\n    raise SystemExit(0)\n"
    assert run(text, tmp_path) == [1.0]
    with pytest.raises(TrainingError, match="the function ended"):
        run("def train(trial):\n    raise SystemExit(0)\n    yield 1.0\n", tmp_path)


def test_loop_task_source_names_kind(tmp_path, program):
    command = Command("python train.py --lr {lr}", folder=str(tmp_path))
    function = program(main=MAIN, helpers=HELPERS, deep=DEEP).train
    for own, source in ((command, "command train"), (function, "function train")):
        task = LoopTask("mine", "loss", "min", own)
        assert task.prepare({}, None, tmp_path, lambda *_: None).info.source == source


#: The last lines of a child of `os.fork`, the child's exit code, and a part of the output.
FORKS = {
    "sys.exit(0)": (0, ""),
    "sys.exit(3)": (3, ""),
    "sys.exit('no data')": (1, "no data"),
    "raise ValueError('no such column')": (1, "ValueError: no such column"),
    "return": (0, ""),
    "pass": (1, "has to end by itself"),
}


@pytest.mark.timeout(100)
@pytest.mark.parametrize("report", ["yield {}", "trial.report({})"])
def test_loop_forked_child_ends(report, tmp_path):
    texts = [
        f"""
        def train(trial):
            import os, sys
            for epoch in trial.epochs():
                child = os.fork()
                if child == 0:
                    {end}
                {report.format("float(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) if child else 9.0")}
        """
        for end in FORKS
    ]
    program = tmp_path / "run.py"
    program.write_text(
        "from pathlib import Path\nfrom tests.trainables.loops.test_code import run\n"
        f"for number, text in enumerate({texts!r}):\n"
        f"    print(run(text, Path({str(tmp_path)!r}) / str(number), epochs=2), flush=True)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=90, check=False)
    codes = [code for code, _ in FORKS.values()]
    assert done.stdout.splitlines() == [f"[{code}.0, {code}.0]" for code in codes], done.stderr
    for number, (_, said) in enumerate(FORKS.values()):
        log = tmp_path / str(number) / "trials" / "0000" / "output.log"
        assert said in (log.read_text() if log.exists() else "")


def test_output_is_a_stream_of_text_on_bytes(tmp_path):
    text = """
        def train(trial):
            import io, os, sys
            print(sys.stdout.encoding, sys.stdout.errors, sys.stdout.isatty(), sys.stdout.mode, flush=True)
            for stream in (sys.stdout, sys.stderr):
                stream.buffer.write(b"bytes \\xff\\n")
                stream.buffer.flush()
                stream.buffer.raw.write(b"raw\\n")
                stream.reconfigure(line_buffering=False, encoding="latin-1")
                print("caf\\xe9", file=stream, flush=True)
                os.write(stream.fileno(), b"number\\n")
                io.TextIOWrapper(stream.buffer, "utf-8").write("wrapped\\n")  # closes the buffer at its end
                io.TextIOWrapper(stream.detach(), "utf-8").write("detached\\n")
                stream.close()
                print("closed", file=stream, end=" ")
                stream.writelines(["at last", "\\n"])
                stream.flush()
            yield 1.0
    """
    for number in ("0", "1"):
        run(text, tmp_path / number)
        written = (tmp_path / number / "trials" / "0000" / "output.log").read_bytes()
        lines = b"bytes \xff\nraw\ncaf\xe9\nnumber\nwrapped\ndetached\nclosed at last\n"
        assert written == b"utf-8 replace False w\n" + 2 * lines


def test_output_beyond_its_limit_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("trainables.loops.output.MAX_BYTES", 100)
    run("def train(trial):\n    for i in range(50):\n        print(i, 'x' * 10)\n    yield 1.0\n", tmp_path)
    log = (tmp_path / "trials" / "0000" / "output.log").read_text()
    assert log.startswith("0 xxxxxxxxxx\n") and log.endswith("\n... 100 bytes; further output is left out\n")
    assert len(log) < 200


def test_output_of_processes_that_a_function_starts(tmp_path, capfd):
    text = """
        def train(trial):
            import os, subprocess
            for epoch in trial.epochs():
                print("before", flush=True)
                subprocess.run("echo hello; echo careful >&2", shell=True)
                os.write(2, b"by its number\\n")
                print("after")
                if epoch == 2:
                    background = subprocess.Popen("sleep 0.5; echo in the background", shell=True)
                if epoch == 3:
                    background.wait()
                yield 1.0
    """
    os.write(1, b"worker\n")
    run(text, tmp_path, epochs=3)
    os.write(2, b"worker\n")
    log = (tmp_path / "trials" / "0000" / "output.log").read_text()
    epoch = "before\nhello\ncareful\nby its number\nafter\n"
    assert log.replace("in the background\n", "") == 3 * epoch and log.count("in the background\n") == 1
    assert capfd.readouterr() == ("worker\n", "worker\n")


def test_output_descriptors_given_back(tmp_path, capfd):
    with pytest.raises(ValueError, match="no such column"):
        run("def train(trial):\n    raise ValueError('no such column')\n", tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(3):
        run("def train(trial):\n    yield from [1.0, 1.0]\n", tmp_path / str(number), epochs=2)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.write(1, b"worker\n")
    assert capfd.readouterr().out == "worker\n"


def test_output_of_processes_beyond_its_limit_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("trainables.loops.output.MAX_BYTES", 100)
    text = """
        def train(trial):
            import subprocess
            for epoch in trial.epochs():
                subprocess.run(f"echo epoch {epoch}; seq 100", shell=True)
                yield 1.0
    """
    run(text, tmp_path, epochs=3)
    log = (tmp_path / "trials" / "0000" / "output.log").read_text()
    assert "epoch 1" in log and "epoch 2" not in log
