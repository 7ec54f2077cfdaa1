"""Deletes the runs and models of a search from MLflow, and renames its runs. Each function may be called again after a
kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from search.core.store import Store
from search.tracking import names
from search.tracking.client import every_page, find_runs, mlflow_client, quick_and_quiet
from search.tracking.views import TAG, relink_latest, view_key

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class Tracked:
    """The part of a search in MLflow.

    Attributes:
        runs: the number of its runs.
        bytes: the size of their artifacts and models in the store; 0 on a server.
        models: the registered versions that nothing else uses, such as `rnn version 3`.
        kept: the versions that have an alias, such as `rnn version 2 (champion)`. They stay with their runs.
    """

    runs: int = 0
    bytes: int = 0
    models: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def tracked(store: Store, task: str, search_id: str) -> Tracked:
    """The part of a search in MLflow that `delete_tracked` deletes.

    Raises:
        mlflow.exceptions.MlflowException: the server does not answer, or refuses.
    """
    with _part(store, task, search_id) as part:
        return part.about if part else Tracked()


def delete_tracked(store: Store, task: str, search_id: str) -> Tracked:
    """Deletes the runs of a search, and the versions of its models that have no alias.

    MLflow keeps the rows of a deleted run until `mlflow gc`. The artifacts in the store are deleted at once.

    Returns:
        The deleted part.

    Raises:
        mlflow.exceptions.MlflowException: as `tracked`.
    """
    with _part(store, task, search_id) as part:
        if part is None:
            return Tracked()
        for version in part.unused:
            part.client.delete_model_version(version.name, str(version.version))
        _delete_empty_model(part.client, names.model_name(task))
        for model in part.models:
            _delete_folder(store, model.artifact_location)
            part.client.delete_logged_model(model.model_id)
        for run in part.runs:
            _delete_folder(store, run.info.artifact_uri)  # a run that is deleted is not found again
            part.client.delete_run(run.info.run_id)
        for experiment in {run.info.experiment_id for run in part.runs}:
            relink_latest(part.client, experiment, view_key(search_id), None)
        return part.about


def _delete_empty_model(client: MlflowClient, name: str) -> None:
    """Deletes a registered model without versions."""
    if client.search_registered_models(f"name = '{name}'") and not client.search_model_versions(f"name = '{name}'"):
        client.delete_registered_model(name)


def rename_tracked(store: Store, search_id: str, old: str, new: str) -> None:
    """Gives the runs of a search, its view and its registered versions another name.

    Raises:
        mlflow.exceptions.MlflowException: as `tracked`.
    """
    from mlflow.entities import ViewType

    with _client(store) as client:
        if client is None:
            return
        for run in list(find_runs(client, f"tags.`search.id` = '{search_id}'", ViewType.ALL)):
            _rename_run(client, run, old, new)
        key = f"{TAG}{view_key(search_id)}"
        for experiment in every_page(client.search_experiments):
            if key in experiment.tags:
                state = json.loads(experiment.tags[key])
                state["searchFilter"] = f"tags.search = '{new}'"
                client.set_experiment_tag(experiment.experiment_id, key, json.dumps(state))
                relink_latest(client, experiment.experiment_id, view_key(search_id), new)


def _rename_run(client: MlflowClient, run: Run, old: str, new: str) -> None:
    run_id, tags = run.info.run_id, run.data.tags
    if run.info.lifecycle_stage == "deleted":  # MLflow changes no deleted run
        return
    if tags.get("search.run") == "parent":
        client.update_run(run_id, name=new)
        client.set_tag(run_id, "resume", f"python -m search resume {new}")
        client.set_tag(run_id, names.NOTE, tags.get(names.NOTE, "").replace(f"resume {old}`", f"resume {new}`"))
    for version in client.search_model_versions(f"run_id = '{run_id}'"):
        client.set_model_version_tag(version.name, str(version.version), "search", new)
    client.set_tag(run_id, "search", new)


@dataclass(frozen=True)
class _Part:
    client: MlflowClient
    runs: list[Run]
    models: list[Any]
    unused: list[Any]
    about: Tracked


@contextmanager
def _client(store: Store) -> Iterator[MlflowClient | None]:
    """The client of the store; None if the store has no database, which opening would create."""
    if store.is_local and not store.database.exists():
        yield None
        return
    with quick_and_quiet():
        yield mlflow_client(store)


@contextmanager
def _part(store: Store, task: str, search_id: str) -> Iterator[_Part | None]:
    with _client(store) as client:
        if client is None:
            yield None
            return
        runs = {run.info.run_id: run for run in find_runs(client, f"tags.`search.id` = '{search_id}'")}
        name = names.model_name(task)
        versions = [v for v in client.search_model_versions(f"name = '{name}'") if v.run_id in runs]
        aliases: dict[str, list[str]] = {}
        if versions:
            for alias, version in client.get_registered_model(name).aliases.items():
                aliases.setdefault(str(version), []).append(alias)
        unused = [v for v in versions if str(v.version) not in aliases]
        kept = [v for v in versions if str(v.version) in aliases]
        for version in kept:
            runs.pop(version.run_id)
        experiments = {run.info.experiment_id for run in runs.values()}
        logged = [m for e in experiments for m in every_page(client.search_logged_models, [e])]
        models = [model for model in logged if model.source_run_id in runs]
        places = [*(run.info.artifact_uri for run in runs.values()), *(model.artifact_location for model in models)]
        yield _Part(client, list(runs.values()), models, unused, Tracked(
            len(runs), sum(_bytes(store, place) for place in places),
            tuple(f"{task} version {v.version}" for v in unused),
            tuple(f"{task} version {v.version} ({', '.join(aliases[str(v.version)])})" for v in kept),
        ))  # fmt: skip


def _local(store: Store, uri: str) -> Path | None:
    """The folder of an artifact in the store; None for any other address."""
    parts = urlsplit(uri)
    path = Path(unquote(parts.path) if parts.scheme else uri)
    inside = parts.scheme in ("", "file") and path.is_relative_to(store.artifacts) and path != store.artifacts
    inside = inside and ".." not in path.parts
    return path if store.is_local and inside else None


def _bytes(store: Store, uri: str) -> int:
    path = _local(store, uri)
    return 0 if path is None else sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def _delete_folder(store: Store, uri: str) -> None:
    if (path := _local(store, uri)) is not None:
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
