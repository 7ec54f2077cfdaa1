"""Predicts with the registered champion."""

from __future__ import annotations

import sys

import mlflow
from mlflow.exceptions import MlflowException

from search.record.store import Store
from search.tracking.client import mlflow_client
from trainables import Exported, InputError, get_task


def predict(store: Store, name: str, inputs: list[str], form: str) -> None:
    """Prints a row for each input: as a table the prediction and its first figure, as csv or json everything.

    Raises:
        InputError: an input cannot be read, or there is no champion.
    """
    task = get_task(name)
    if not isinstance(task, Exported):
        raise InputError(f"{name}: a task without `export` has no registered model to predict with")
    frame = task.inputs(inputs)
    if store.is_local and not store.database.exists():
        raise InputError(
            f"{store.root}: no MLflow store there; run `python -m search run {name}` first or give --store"
        )
    mlflow_client(store)
    try:
        model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    except MlflowException as error:
        raise InputError(f"{name}: no registered champion in {store.shown} ({str(error).splitlines()[0]})") from error
    predictions = model.predict(frame)
    predictions.index = frame.index
    if form == "json":
        sys.stdout.write(predictions.reset_index(names="input").to_json(orient="records", indent=2) + "\n")
    elif form == "csv":
        predictions.to_csv(sys.stdout, index_label="input")
    else:
        sys.stdout.write(predictions.iloc[:, :2].to_string() + "\n")
