"""The model registry: one version for each search; the alias `champion` marks the version that `predict` uses."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import warnings
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema

import trainables
from search.core.readable import figure
from search.tracking import names
from search.tracking.client import every_page
from trainables import InputError, Objective, registered_address

#: Most characters of the description of a version in MLflow's database.
_CARD = 5000
#: The tag of a version with `model_digest` of its files.
MODEL_DIGEST = "model.digest"
#: The files that registering a model in MLflow's own format changes or adds.
_REGISTERED = ("MLmodel", "registered_model_meta")
#: Packages that a registered model needs in addition to the code of the task, which is logged with it.
_NEEDS = ("torch", "transformers", "datasets", "numpy", "pandas", "pillow", "scikit-learn", "matplotlib")


def register(
    client: MlflowClient, task: str, objective: Objective, run_id: str, folder: Path, test: dict[str, float],
    test_fingerprint: str, tags: dict[str, str], card: str,
) -> str:  # fmt: skip
    """Logs and registers the model of a final run once, and decides whether it becomes the champion.

    The first version becomes the champion. A later version does if it was tested on the same data and its test
    objective is strictly better.

    Args:
        card: the description of the version, in Markdown.

    Returns:
        A sentence for the user: the decision and its reason.
    """
    metric, name = objective.metric, names.model_name(task)
    figures = {f"test_{metric}": repr(float(test[metric]))} if test else {}
    version = _registered(client, name, run_id) or log_model(client, task, run_id, folder)
    for key, value in {
        **tags,
        MODEL_DIGEST: model_digest(folder / "model"),
        "data.test_fingerprint": test_fingerprint,
        **figures,
    }.items():
        client.set_model_version_tag(name, version, names.translated(key), names.storable_text(value))

    client.update_model_version(name, version, _cut_card(names.storable_text(card)))
    champion = _champion(client, name)
    mine = f"{task} version {version} ({f'{objective.test_key} {figure(test[metric])}' if test else 'not tested'})"
    if champion is None:
        client.set_registered_model_alias(name, "champion", version)
        return f"{mine} is the first champion"
    if str(champion.version) == version:
        return f"{mine} is the champion"
    theirs = champion.tags.get(names.translated(f"test_{metric}"))
    if not test or theirs is None:
        untested = "it is" if not test else f"version {champion.version} is"
        return (
            f"{mine} is registered; the champion stays version {champion.version}, as {untested} not tested "
            "(`promote` decides by hand)"
        )
    if champion.tags.get("data.test_fingerprint") != test_fingerprint:
        return (
            f"{mine} is registered; the champion stays version {champion.version}, as that was tested on "
            "other data, so the two cannot be compared (`promote` decides by hand)"
        )
    theirs = float(theirs)
    if objective.better(test[metric], theirs):
        client.set_registered_model_alias(name, "champion", version)
        return f"{mine} is the new champion, ahead of version {champion.version} ({figure(theirs)})"
    return f"{mine} does not beat the champion, version {champion.version} ({figure(theirs)}), which stays champion"


def model_digest(folder: Path) -> str:
    """A digest of the names and the content of all files of an exported model; 0.4 s for 100 MB."""
    whole = hashlib.blake2b(digest_size=20)
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    for path in sorted(path for path in files if path.relative_to(folder).as_posix() not in _REGISTERED):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, hashlib.blake2b).hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return f"blake2b:{whole.hexdigest()}"


def _cut_card(card: str) -> str:
    """The card, cut at the end of a line to at most `_CARD` characters."""
    if len(card) <= _CARD:
        return card
    return card[: card.rindex("\n", 0, _CARD - 100)] + "\n\nThe rest is in `model_card.md`, an artifact of its run.\n"


def promote_version(client: MlflowClient, task: str, version: int) -> str:
    """Makes a version the champion; raises InputError where there is no such version."""
    name = names.model_name(task)
    versions = {int(v.version): v for v in _versions(client, name)}
    if version not in versions:
        existing = ", ".join(map(str, sorted(versions))) or "none yet"
        raise InputError(f"{task} version {version}: not registered; there are {existing}")
    before = _champion(client, name)
    client.set_registered_model_alias(name, "champion", str(version))
    tested = ", ".join(
        f"{names.original(k)} {figure(float(v))}" for k, v in versions[version].tags.items() if k.startswith("test_")
    )
    old = f"version {before.version}" if before else "none"
    return f"{task} version {version} ({tested}) is the champion by hand; before it was {old}"


def log_model(client: MlflowClient, task: str, run_id: str, folder: Path) -> str:
    """Logs an exported model and the code of its task to the final run, registers it, and returns the version.

    A kill may come between any two steps: the next attempt finds the logged model by its run and continues with it.
    `mlflow.pyfunc.load_model` uses the logged code, so that it works where this project is not installed.
    """
    name, run = names.model_name(task), client.get_run(run_id)
    model = _logged(client, run.info.experiment_id, run_id)
    if model is None:
        model = client.create_logged_model(run.info.experiment_id, "model", run_id, params=run.data.params)
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory() as made:
            _save(Path(made), task, run_id, model, folder)
            client.log_model_artifacts(model.model_id, str(Path(made) / "model"))
        model = client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    with contextlib.suppress(MlflowException):  # from the second search on it exists
        client.create_registered_model(name)
    # MLflow would look `models:/` up at the address of the process, which belongs to the user.
    on_server = client.tracking_uri.startswith("http")
    source = model.model_uri if on_server else model.artifact_location
    return str(
        client.create_model_version(name, source, run_id, model_id=model.model_id, await_creation_for=None).version
    )


def _logged(client: MlflowClient, experiment: str, run_id: str) -> LoggedModel | None:
    """The model that an earlier attempt logged for a run."""
    models = every_page(client.search_logged_models, [experiment], "name = 'model'")
    return next((model for model in models if model.source_run_id == run_id), None)


def _save(target: Path, task: str, run_id: str, model: LoggedModel, folder: Path) -> None:
    """Writes the model in MLflow's format to `target/model`. A model that has this format already is copied."""
    about: dict[str, Any] = {"model_uuid": model.model_id, "run_id": run_id, "model_id": model.model_id}
    if (folder / "model" / "MLmodel").exists():
        shutil.copytree(folder / "model", target / "model")
        described = Model.load(str(folder / "model"))
        described.artifact_path = model.artifact_location
        for key, value in about.items():
            setattr(described, key, value)
        described.save(target / "model" / "MLmodel")
        return
    example, signature = None, ModelSignature(Schema([ColSpec(DataType.string, "input")]))
    if (folder / "example.parquet").exists():
        example = pd.read_parquet(folder / "example.parquet")
        signature = infer_signature(example, pd.read_parquet(folder / "predictions.parquet"))
    # models-from-code: MLflow copies the file and runs it when the model is loaded; nothing is pickled.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*input example was not provided")  # a program may know none
        _save_pyfunc(target, task, folder, example, signature, Model(artifact_path=model.artifact_location, **about))
    for compiled in (target / "model").rglob("__pycache__"):
        shutil.rmtree(compiled)


def _save_pyfunc(
    target: Path, task: str, folder: Path, example: pd.DataFrame | None, signature: ModelSignature, model: Model
) -> None:
    mlflow.pyfunc.save_model(
        target / "model",
        python_model=str(Path(__file__).with_name("pyfunc.py")),
        artifacts={"model": str(folder / "model")},
        model_config={"task": task, "address": registered_address(task)},
        code_paths=[_code_copy(target / "code")],
        signature=signature,
        input_example=example,
        pip_requirements=[f"{name}=={installed(name).split('+')[0]}" for name in _NEEDS],
        mlflow_model=model,
    )  # fmt: skip


def _code_copy(target: Path) -> str:
    package = Path(str(trainables.__file__)).parent
    shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    return str(target / package.name)


def _versions(client: MlflowClient, name: str) -> list[Any]:
    return list(client.search_model_versions(f"name = '{name}'"))


def _registered(client: MlflowClient, name: str, run_id: str) -> str | None:
    """The registered version of a run; None where it has none."""
    return next((str(version.version) for version in _versions(client, name) if version.run_id == run_id), None)


def _champion(client: MlflowClient, name: str) -> Any | None:
    try:
        return client.get_model_version_by_alias(name, "champion")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
