"""Predicts with the registered champion."""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from search.core.readable import visible
from search.core.store import Store
from search.tracking.client import mlflow_client, quick_and_quiet
from search.tracking.names import model_name
from trainables import Exported, InputError, get_task
from trainables.base.files import replacing

#: Inputs that are predicted, and written, at a time.
BATCH = 1000
#: How the rows are written, by the suffix of the file.
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".json": lambda frame, path: frame.to_json(path, orient="records", indent=2),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
}


def predict(store: Store, name: str, inputs: list[str], form: str, output: Path | None = None) -> None:
    """Prints a row for each input: as a table the prediction and its first figure, as csv or json everything.

    Args:
        output: a file to write everything to instead; a command that was cut off goes on where it was.

    Raises:
        InputError: an input cannot be read, there is no champion, or the file cannot be written.
    """
    if output is not None and output.suffix.lower() not in WRITERS:
        raise InputError(f"--output {output}: allowed are {', '.join(WRITERS)} files")
    task = get_task(name)
    if not isinstance(task, Exported):
        raise InputError(f"{name}: a task without `export` has no registered model to predict with")
    frame = task.inputs(inputs)
    if store.is_local and not store.database.exists():
        raise InputError(
            f"{store.root}: no MLflow store there; run `python -m search run {name}` first or give --store"
        )
    model = _champion(store, name)
    if output is not None:
        _write(model, frame, output)
        return
    predictions = model.predict(frame)
    predictions.index = frame.index
    if form == "json":
        sys.stdout.write(predictions.reset_index(names="input").to_json(orient="records", indent=2) + "\n")
    elif form == "csv":
        predictions.to_csv(sys.stdout, index_label="input")
    else:
        sys.stdout.write(visible(predictions.iloc[:, :2].to_string()) + "\n")


def _champion(store: Store, name: str) -> Any:
    with quick_and_quiet():
        client = mlflow_client(store)
        try:
            version = client.get_model_version_by_alias(model_name(name), "champion")
        except MlflowException as error:
            said = str(error).splitlines()[0]
            raise InputError(f"{name}: no registered champion in {store.shown} ({said})") from error
        # `models:/` would be looked up at the address that the whole process uses.
        there = client.get_model_version_download_uri(version.name, version.version)
        return mlflow.pyfunc.load_model(
            mlflow.artifacts.download_artifacts(
                there, tracking_uri=client.tracking_uri, registry_uri=client.tracking_uri
            )
        )


def _write(model: Any, frame: pd.DataFrame, output: Path) -> None:
    """Predicts in batches. Until all are there they are kept beside the output, under a line that says of what. The
    output is written whole or not at all."""
    about = hashlib.blake2b(f"{model.metadata.run_id}".encode(), digest_size=12)
    about.update(pd.util.hash_pandas_object(frame.astype(str)).to_numpy().tobytes())
    first, part = about.hexdigest().encode(), output.with_name(f"{output.name}.part")
    try:
        rows, whole = _kept(part, first)
        with part.open("r+b" if whole else "wb") as file:
            file.seek(whole)
            file.truncate()
            if not whole:
                file.write(first + b"\n")
            for start in range(len(rows), len(frame), BATCH):
                batch = frame.iloc[start : start + BATCH]
                predictions = model.predict(batch)
                predictions.insert(0, "input", list(batch.index))
                made = predictions.to_json(orient="records", lines=True).encode().splitlines()
                file.write(b"".join(b"%08x %s\n" % (zlib.crc32(row), row) for row in made))
                file.flush()
                rows += made
        with replacing(output) as file:
            WRITERS[output.suffix.lower()](pd.DataFrame([json.loads(row) for row in rows]), Path(file.name))
        part.unlink()
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror})") from error
    print(f"{len(rows)} predictions in {output}")


def _kept(part: Path, first: bytes) -> tuple[list[bytes], int]:
    """The rows that an unfinished command left, up to the first damaged one, and the bytes that they take; none if the
    first line is another. Each row stands behind its checksum."""
    lines = part.read_bytes().split(b"\n")[:-1] if part.exists() else []  # a line that is cut off has no end
    if lines[:1] != [first]:
        return [], 0
    rows: list[bytes] = []
    for line in lines[1:]:
        checksum, _, row = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(row):
            break
        rows.append(row)
    return rows, sum(len(line) + 1 for line in lines[: len(rows) + 1])
