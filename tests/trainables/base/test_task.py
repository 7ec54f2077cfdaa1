"""Tasks with wrong methods are refused when they are loaded."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from trainables import Objective, get_task, task_names
from trainables.base.task import check_task
from trainables.loops.task import LoopTask


class Minimal:
    name = "minimal"
    objective = Objective("loss", "min")

    def prepare(self, data, source, cache, progress): ...
    def build(self, params, splits, epochs, device): ...
    def train_epoch(self, learner, split): ...
    def evaluate(self, learner, split): ...


def test_check_task_accepts_all_tasks():
    for name in task_names():
        check_task(get_task(name))
    check_task(LoopTask("mine", "loss", "min"))
    check_task(Minimal())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate": None}, "has no evaluate"),
        ({"merge": lambda self, train, val: ...}, r"merge: missing a required argument: 'val'; .*merge\(splits\)"),
        ({"units": lambda self, learner, split: ...}, "has units but no objective_of; Bootstrapped needs both"),
        ({"build": lambda self, params, splits: ...}, r"expected build\(params, splits, epochs, device\)"),
    ],
)  # fmt: skip
def test_check_task_refuses(changes, message):
    members = {**vars(Minimal), **changes}
    kind = type("Wrong", (), {name: member for name, member in members.items() if member is not None})
    with pytest.raises(TypeError, match=message):
        check_task(kind())


def test_check_task_missing_name():
    with pytest.raises(TypeError, match="SimpleNamespace: has no name"):
        check_task(SimpleNamespace())


def test_task_module_imports_no_torch():
    code = "import sys, trainables.base.task; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
