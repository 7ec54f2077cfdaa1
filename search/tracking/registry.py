"""The model registry: one version for each search, and the alias `champion`, which one rule moves."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.tracking import MlflowClient

import trainables
from search.record.readable import figure
from trainables import InputError, Objective

#: Most characters of a version's description in a database of MLflow's.
_CARD = 5000
#: Packages that a registered model needs beside the task code that is logged with it.
_NEEDS = ("torch", "transformers", "datasets", "numpy", "pandas", "pillow", "scikit-learn", "matplotlib")


def register(
    client: MlflowClient, task: str, objective: Objective, run_id: str, folder: Path, test: dict[str, float],
    test_fingerprint: str, tags: dict[str, str], card: str,
) -> str:  # fmt: skip
    """Logs and registers the model of a final run, once, and makes it champion if the rule says so.

    The rule: the first version becomes champion. A later one does if it was tested on the same data and its objective
    there is strictly better.

    Args:
        card: what MLflow shows of the version, in Markdown.

    Returns:
        A sentence for the user: what was done and why.
    """
    metric = objective.metric
    known = [v for v in client.search_model_versions(f"name = '{task}'") if v.run_id == run_id]
    version = str(known[0].version) if known else log_model(client, task, run_id, folder)
    for key, value in {
        **tags,
        "data.test_fingerprint": test_fingerprint,
        f"test_{metric}": repr(test[metric]),
    }.items():
        client.set_model_version_tag(task, version, key, value)

    client.update_model_version(task, version, _short(card))
    champion = _champion(client, task)
    mine = f"{task} version {version} (test {metric} {figure(test[metric])})"
    if champion is None:
        client.set_registered_model_alias(task, "champion", version)
        return f"{mine} is the first champion"
    if str(champion.version) == version:
        return f"{mine} is the champion"
    if champion.tags.get("data.test_fingerprint") != test_fingerprint:
        return (
            f"{mine} is registered; the champion stays version {champion.version}, as that was tested on "
            "other data, so the two cannot be compared (`promote` decides by hand)"
        )
    theirs = float(champion.tags[f"test_{metric}"])
    if objective.better(test[metric], theirs):
        client.set_registered_model_alias(task, "champion", version)
        return f"{mine} is the new champion, ahead of version {champion.version} ({figure(theirs)})"
    return f"{mine} does not beat the champion, version {champion.version} ({figure(theirs)}), which stays champion"


def _short(card: str) -> str:
    """The card, cut at a line so that it fits into the column that MLflow has for it."""
    if len(card) <= _CARD:
        return card
    return card[: card.rindex("\n", 0, _CARD - 100)] + "\n\nThe rest is in `model_card.md`, an artifact of its run.\n"


def promote(client: MlflowClient, task: str, version: int) -> str:
    """Makes a version the champion by hand; raises InputError where there is no such version."""
    known = {int(v.version): v for v in client.search_model_versions(f"name = '{task}'")}
    if version not in known:
        there = ", ".join(map(str, sorted(known))) or "none yet"
        raise InputError(f"{task} version {version}: not registered; there are {there}")
    before = _champion(client, task)
    client.set_registered_model_alias(task, "champion", str(version))
    tested = ", ".join(f"{k} {figure(float(v))}" for k, v in known[version].tags.items() if k.startswith("test_"))
    return f"{task} version {version} ({tested}) is the champion by hand; before it was {_named(before)}"


def _named(version: Any | None) -> str:
    return "none" if version is None else f"version {version.version}"


def log_model(client: MlflowClient, task: str, run_id: str, folder: Path) -> str:
    """Logs an exported model and the task's code to its final run, and registers it.

    With the code beside it, `mlflow.pyfunc.load_model` works in any folder, even where this project is not installed.

    Returns:
        The version.
    """
    example = pd.read_parquet(folder / "example.parquet")
    predictions = pd.read_parquet(folder / "predictions.parquet")
    with mlflow.start_run(run_id=run_id), tempfile.TemporaryDirectory() as code:
        # models-from-code: MLflow copies the file and runs it when the model is loaded; nothing is pickled.
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"model": str(folder / "model")},
            model_config={"task": task},
            code_paths=[_code_copy(Path(code))],
            signature=infer_signature(example, predictions),
            input_example=example,
            pip_requirements=[f"{name}=={installed(name).split('+')[0]}" for name in _NEEDS],
        )
    with contextlib.suppress(MlflowException):  # from the second search on it exists
        client.create_registered_model(task)
    return str(client.create_model_version(task, info.model_uri, run_id, model_id=info.model_id).version)


def _code_copy(target: Path) -> str:
    package = Path(str(trainables.__file__)).parent
    shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    return str(target / package.name)


def _champion(client: MlflowClient, task: str) -> Any | None:
    try:
        return client.get_model_version_by_alias(task, "champion")
    except MlflowException:
        return None
