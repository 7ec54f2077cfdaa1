"""Predicts with the champion: the registered model of a task that carries the alias `champion`."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from search.core.store import Store
from search.tracking.client import mlflow_client, quick_and_quiet
from search.tracking.model_registry import MODEL_DIGEST, model_digest
from search.tracking.names import model_name
from trainables import Exported, InputError, get_task
from trainables.base.errors import first_line
from trainables.base.files import replacing

#: Number of inputs that are predicted and written together.
BATCH = 1000
#: The function that writes the rows, by the suffix of the file.
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".json": lambda frame, path: frame.to_json(path, orient="records", indent=2),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
}


def predict_inputs(store: Store, name: str, inputs: list[str]) -> pd.DataFrame:
    """Predicts inputs with the champion of a task: a row for each input, indexed by the input.

    Raises:
        InputError: an input cannot be read, there is no champion, or its files differ from the registered files.
    """
    frame = _read_inputs(store, name, inputs)
    predictions = load_champion(store, name).predict(frame)
    predictions.index = frame.index
    return pd.DataFrame(predictions)


def predict_to_file(store: Store, name: str, inputs: list[str], output: Path) -> int:
    """Predicts inputs in batches and writes the rows to a file; returns their number.

    The same command continues after its last batch if it was killed.

    Raises:
        InputError: as `predict_inputs`, or the file cannot be written.
    """
    if output.suffix.lower() not in WRITERS:
        raise InputError(f"--output {output}: allowed are {', '.join(WRITERS)} files")
    frame = _read_inputs(store, name, inputs)
    return write_predictions(load_champion(store, name), frame, output)


def _read_inputs(store: Store, name: str, inputs: list[str]) -> pd.DataFrame:
    """The frame of the inputs that the task's model takes."""
    task = get_task(name)
    if not isinstance(task, Exported):
        raise InputError(f"{name}: a task without `export` has no registered model to predict with")
    frame = task.inputs(inputs)
    if store.is_local and not store.database.exists():
        raise InputError(
            f"{store.root}: no MLflow store there; run `python -m search run {name}` first or give --store"
        )
    return frame


def load_champion(store: Store, name: str) -> Any:
    """The registered champion of a task, as an MLflow `PyFuncModel`.

    Raises:
        InputError: there is no champion, or its files differ from the registered files.
    """
    with quick_and_quiet():
        client = mlflow_client(store)
        try:
            version = client.get_model_version_by_alias(model_name(name), "champion")
        except MlflowException as error:
            reason = first_line(error)
            raise InputError(f"{name}: no registered champion in {store.shown} ({reason})") from error
        # `models:/` would be looked up at the address that the whole process uses.
        source = client.get_model_version_download_uri(version.name, version.version)
        folder = mlflow.artifacts.download_artifacts(
            source, tracking_uri=client.tracking_uri, registry_uri=client.tracking_uri
        )
        wrapped = Path(folder) / "artifacts" / "model"
        files = wrapped if wrapped.exists() else Path(folder)  # a model in MLflow's own format has no wrapper
        if model_digest(files) != version.tags.get(MODEL_DIGEST):
            raise InputError(
                f"{name} version {version.version}: the files of its model changed since it was registered ({source}); "
                f"register it again with `python -m search retrain {version.tags.get('search', 'NAME')}`, or choose "
                f"another version with `python -m search promote {name} VERSION`"
            )
        return mlflow.pyfunc.load_model(folder) if files == wrapped else _Loaded(name, files, version.run_id)


class _Loaded:
    """A model in MLflow's own format with the user's `predict`, in the form of an MLflow `PyFuncModel`."""

    def __init__(self, task: str, folder: Path, run_id: str) -> None:
        self._task = cast(Exported, get_task(task))
        self._model = self._task.load(folder)
        self.metadata = SimpleNamespace(run_id=run_id)

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(self._task.predict(self._model, frame))


def write_predictions(model: Any, frame: pd.DataFrame, output: Path) -> int:
    """Predicts the rows of a frame in batches and writes them; returns their number.

    Until all rows are predicted, `OUTPUT.part` holds the finished rows, below a line with a digest of the model and the
    inputs. The output is written whole or not at all.
    """
    digest = hashlib.blake2b(f"{model.metadata.run_id}".encode(), digest_size=12)
    digest.update(pd.util.hash_pandas_object(frame.astype(str)).to_numpy().tobytes())
    first, part = digest.hexdigest().encode(), output.with_name(f"{output.name}.part")
    try:
        rows, size = _finished_rows(part, first)
        with part.open("r+b" if size else "wb") as file:
            file.seek(size)
            file.truncate()
            if not size:
                file.write(first + b"\n")
            for start in range(len(rows), len(frame), BATCH):
                batch = frame.iloc[start : start + BATCH]
                predictions = model.predict(batch)
                predictions.insert(0, "input", list(batch.index))
                new_rows = predictions.to_json(orient="records", lines=True).encode().splitlines()
                file.write(b"".join(b"%08x %s\n" % (zlib.crc32(row), row) for row in new_rows))
                file.flush()
                rows += new_rows
        with replacing(output) as file:
            WRITERS[output.suffix.lower()](pd.DataFrame([json.loads(row) for row in rows]), Path(file.name))
        part.unlink()
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror})") from error
    return len(rows)


def _finished_rows(part: Path, first: bytes) -> tuple[list[bytes], int]:
    """The rows in the file of a killed command, up to the first damaged row, and the number of bytes up to there.

    No rows and 0 bytes if the first line of the file is not `first`. Each line is a checksum and a row.
    """
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
