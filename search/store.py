"""Where things are kept: the MLflow store and the searches' own state, in one folder."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.redaction import redacted
from search.state import FinalRun
from trainables.files import replacing
from trainables.task import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Store:
    """A folder with `mlflow.db`, `artifacts/`, `searches/NAME/` and `cache/`."""

    root: Path

    @staticmethod
    def open(option: Path | None) -> Store:
        """The folder of `--store`, else of `SEARCH_STORE`, else `mlruns` here."""
        return Store(Path(option or os.environ.get("SEARCH_STORE") or "mlruns").resolve())

    @property
    def tracking_uri(self) -> str:
        """`MLFLOW_TRACKING_URI` where set, else this folder's sqlite file."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.database}"

    @property
    def shown(self) -> str:
        """Where results are, as people read it."""
        return str(self.root) if self.is_local else redacted(self.tracking_uri)

    @property
    def database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def is_local(self) -> bool:
        return not os.environ.get("MLFLOW_TRACKING_URI")

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def search(self, name: str) -> SearchFolder:
        """Raises: InputError, where the name is no plain file name."""
        if not _NAME.fullmatch(name):
            raise InputError(f"--name {name!r}: allowed are up to 100 letters, digits, '.', '_' and '-'")
        return SearchFolder(self.root / "searches" / name)

    def plan(self, key: str) -> Path:
        """The forecast of a search that has such a configuration and such data."""
        return self.root / "plans" / f"{key}.json"

    def names(self) -> list[str]:
        folder = self.root / "searches"
        return sorted(p.parent.name for p in folder.glob("*/search.json")) if folder.is_dir() else []


@dataclass(frozen=True)
class SearchFolder:
    """One search's own state: what it is (`search.json`), what happened (`journal.jsonl`), its checkpoints."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def exists(self) -> bool:
        return (self.path / "search.json").exists()

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def delivered(self) -> Path:
        """Holds how many events of the journal MLflow has."""
        return self.path / "delivered"

    def delivered_events(self) -> int:
        return int(self.delivered.read_text()) if self.delivered.exists() else 0

    def final(self, trial: int, seed: int) -> Path:
        return self.path / "final" / f"trial-{trial:04d}-seed-{seed}"

    def samples(self, final: FinalRun | None) -> list[str]:
        """What a final model says, as a task that has something to show wrote it."""
        path = self.final(final.trial, final.seed) / "artifacts" / "samples.txt" if final else None
        return path.read_text().splitlines() if path and path.exists() else []

    @property
    def decision(self) -> Path:
        """What came of comparing finalists, to read."""
        return self.path / "final" / "finalists.md"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison"

    def errors(self, trial: int, seed: int) -> Path:
        """The tested samples' errors of a trial trained again."""
        return self.path / "repeats" / f"{trial:04d}-seed-{seed}.parquet"

    def write(self, description: dict[str, Any]) -> None:
        with replacing(self.path / "search.json") as file:
            file.write(json.dumps(description, indent=2).encode())

    def read(self, store: Store) -> dict[str, Any]:
        """Raises: InputError, where there is no such search."""
        if not self.exists:
            there = ", ".join(store.names()) or "none yet"
            raise InputError(f"{self.name}: no search of that name in {store.root} (there: {there})")
        description: dict[str, Any] = json.loads((self.path / "search.json").read_text())
        return description
