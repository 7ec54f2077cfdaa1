"""The model of a function or a command: writes it in the worker that trained it, loads it, and predicts.

The folder of a model has one of two forms:

- `files/`: what the user's `export` wrote, or what a final command left in its folder.
- a model in MLflow's own format, with its file `MLmodel`: the trained parts of a function without `export`.

Beside them `predict.pkl` is the user's function `predict`, if there is one.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import torch

from trainables.base.errors import InputError
from trainables.loops import LOG
from trainables.loops.errors import TrainingError
from trainables.loops.fingerprint import is_own
from trainables.loops.trial import Loop

#: The names in the folder of a model, and the column of the inputs.
FILES, PREDICT, MLMODEL, INPUT = "files", "predict.pkl", "MLmodel", "input"


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        loaded: the folder of the files, or the loaded part.
        function: the user's `predict`.
    """

    loaded: Any
    function: Callable[[Any, list[str]], Any] | None

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A row of predictions for each row of `frame`, which has the column `input`.

        Raises:
            InputError: there is no `predict`, or it returned no prediction for each input.
        """
        if self.function is None:
            raise InputError(
                "predict: the search was given no function `predict(model, inputs)`: search.run(predict=...)"
            )
        inputs = [str(one) for one in frame[INPUT]]
        answer = self.function(self.loaded, inputs)
        predictions = _frame_of(answer)
        if len(predictions) != len(inputs):
            raise InputError(
                f"predict: the function returned {len(predictions)} predictions for {len(inputs)} inputs: return one "
                "for each, as a list, an array, a dictionary of lists or a data frame"
            )
        return predictions


def inputs_frame(arguments: Sequence[str]) -> pd.DataFrame:
    """The inputs as the frame that `Model.predict` takes, indexed by the inputs."""
    return pd.DataFrame({INPUT: list(arguments)}, index=pd.Index(list(arguments)), dtype=str)


def export(learner: Loop, folder: Path) -> pd.DataFrame | None:
    """Writes the model of a finished training into an empty folder, which stays empty if there is nothing to write.

    Returns:
        The inputs that the user's `export` returned as an example; None without them.

    Raises:
        TrainingError: `export` returned something else than inputs.
    """
    code, trial = learner.code, learner.trial
    example = None
    if code.command is not None:
        if trial.folder is not None and code.command.final is not None:
            _copy(trial.folder, folder / FILES)
    elif "export" in code.others:
        (folder / FILES).mkdir()
        returned = cloudpickle.loads(code.others["export"].pickled)(trial, folder / FILES, **trial.parts)
        example = _example(returned) if "predict" in code.others else None
    else:
        _save_parts(trial.parts, learner.example, folder)
    if "predict" in code.others and any(folder.iterdir()):
        code.others["predict"].write(folder / PREDICT)
    return example


def _copy(source: Path, target: Path) -> None:
    """Copies the files that a command left in its folder, without its log; nothing if there are none."""
    if any(not path.name.startswith(LOG) for path in source.iterdir()):
        shutil.copytree(source, target, ignore=lambda folder, names: [name for name in names if name.startswith(LOG)])


def _example(returned: Any) -> pd.DataFrame | None:
    if returned is None:
        return None
    if isinstance(returned, str) or not all(isinstance(one, str | Path) for one in returned):
        raise TrainingError(
            "`export` returned something else than a list of texts: return nothing, or some inputs of `predict` as an "
            "example"
        )
    return inputs_frame([str(one) for one in returned])


@contextmanager
def first_call(parts: dict[str, Any], found: list[Any]) -> Iterator[None]:
    """Appends the input and the output of the first call of each module to `found`, if both are tensors.

    They become the signature of the registered model.
    """

    def note(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        if (
            not found
            and len(arguments) == 1
            and isinstance(arguments[0], torch.Tensor)
            and isinstance(output, torch.Tensor)
        ):
            found.extend(one.detach().cpu().numpy() for one in (arguments[0], output))

    hooks = [part.register_forward_hook(note) for part in parts.values() if isinstance(part, torch.nn.Module)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _save_parts(parts: dict[str, Any], example: Sequence[np.ndarray], folder: Path) -> None:
    """Saves the modules among the parts by `mlflow.transformers` or `mlflow.pytorch`; nothing if there is none.

    Several modules become one `torch.nn.ModuleDict`.
    """
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    if not modules:
        return
    module = next(iter(modules.values())) if len(modules) == 1 else torch.nn.ModuleDict(modules)
    if (pipeline := _pipeline_of(module, parts)) is not None:
        import mlflow.transformers

        mlflow.transformers.save_model(
            pipeline, folder, pip_requirements=_pinned("torch", "transformers"), model_card=None
        )
        return
    import mlflow.pytorch
    from mlflow.models import infer_signature

    module.eval()
    signature = infer_signature(*example) if len(example) == 2 else None
    with _packed(module):
        mlflow.pytorch.save_model(
            module, folder, signature=signature, serialization_format="pickle",
            pip_requirements=_pinned("torch", "cloudpickle", "numpy"),
        )  # fmt: skip


#: The task of a pipeline of transformers, by the end of the name of the model's class.
_TASKS = {
    "ForSequenceClassification": "text-classification", "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering", "ForMaskedLM": "fill-mask", "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
}  # fmt: skip


def _pipeline_of(module: torch.nn.Module, parts: dict[str, Any]) -> Any | None:
    """A pipeline of transformers, if the module is one of its models and a tokenizer is among the parts; else None."""
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(module, transformers.PreTrainedModel):
        return None
    tokenizers = [part for part in parts.values() if isinstance(part, transformers.PreTrainedTokenizerBase)]
    tasks = [task for end, task in _TASKS.items() if type(module).__name__.endswith(end)]
    if not tokenizers or not tasks:
        return None
    return transformers.pipeline(tasks[0], model=module, tokenizer=tokenizers[0], device="cpu")


@contextmanager
def _packed(module: torch.nn.Module) -> Iterator[None]:
    """Pickles the classes of the user's modules with the model, so that it loads where these modules are missing."""
    known = cloudpickle.list_registry_pickle_by_value()
    names = {type(part).__module__ for part in module.modules()} - {*known, "__main__"}
    own = [sys.modules[name] for name in names if name in sys.modules and is_own(sys.modules[name])]
    for one in own:
        cloudpickle.register_pickle_by_value(one)
    try:
        yield
    finally:
        for one in own:
            cloudpickle.unregister_pickle_by_value(one)


def _pinned(*packages: str) -> list[str]:
    return [f"{name}=={version(name).split('+')[0]}" for name in packages]


def load(folder: Path, function: Callable[[Any, list[str]], Any] | None) -> Model:
    """Loads what `export` wrote: a folder with `files/`, or a model in MLflow's own format.

    Args:
        function: the user's `predict`.
    """
    if not (folder / MLMODEL).exists():
        return Model(folder / FILES, function)
    import mlflow

    flavors = mlflow.models.Model.load(str(folder)).flavors
    if "transformers" in flavors:
        import mlflow.transformers

        return Model(mlflow.transformers.load_model(str(folder)), function)
    import mlflow.pytorch

    return Model(mlflow.pytorch.load_model(str(folder), map_location="cpu"), function)


def _frame_of(answer: Any) -> pd.DataFrame:
    """Predictions as a frame: of a frame, a dictionary of columns, a list of dictionaries, or an array or list."""
    if isinstance(answer, pd.DataFrame):
        return answer.reset_index(drop=True)
    if isinstance(answer, torch.Tensor):
        answer = answer.detach().cpu().numpy()
    if isinstance(answer, dict):
        return pd.DataFrame(answer)
    if isinstance(answer, np.ndarray) and answer.ndim == 2:
        return pd.DataFrame(answer, columns=[f"prediction_{column}" for column in range(answer.shape[1])])
    answer = list(answer)
    if answer and all(isinstance(one, dict) for one in answer):
        return pd.DataFrame(answer)
    return pd.DataFrame({"prediction": answer})
