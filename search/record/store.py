"""Where results are kept: one folder holds the MLflow store and each search's own files."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.record.redaction import redacted, without_secrets
from search.record.state import FinalRun
from trainables import InputError
from trainables.base.files import replacing

#: What of a search's description may be an address.
ADDRESSES = ("data", "address", "imported")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Store:
    """A folder with `mlflow.db`, `artifacts/`, `searches/NAME/` and `cache/`."""

    root: Path

    @staticmethod
    def open(option: Path | None) -> Store:
        """The store in the folder of `--store`, else of `SEARCH_STORE`, else in `mlruns` here."""
        return Store(Path(option or os.environ.get("SEARCH_STORE") or "mlruns").resolve())

    @property
    def tracking_uri(self) -> str:
        """The tracking server: `MLFLOW_TRACKING_URI` if it is set, else this folder's sqlite file."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.database}"

    @property
    def shown(self) -> str:
        """The place of the results as people read it, without credentials."""
        return str(self.root) if self.is_local else redacted(self.tracking_uri)

    @property
    def database(self) -> Path:
        """MLflow's sqlite file, where no server is named."""
        return self.root / "mlflow.db"

    @property
    def is_local(self) -> bool:
        """Whether MLflow's store is this folder rather than a server."""
        return not os.environ.get("MLFLOW_TRACKING_URI")

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts, where no server is named."""
        return self.root / "artifacts"

    @property
    def cache(self) -> Path:
        """Decoded data and encoder features, by content; it may be deleted."""
        return self.root / "cache"

    def check(self) -> None:
        """Checks that the folder is there, or can be made, and can be written to; makes nothing, as the command may
        end with another mistake. Raises InputError with the reason."""
        there = next(path for path in (self.root, *self.root.parents) if path.exists())
        reason = "is no folder" if not there.is_dir() else "" if os.access(there, os.W_OK) else "is not writable"
        if reason:
            raise InputError(
                f"{self.root}: results cannot be kept there ({there} {reason}); choose another folder with --store DIR "
                "or SEARCH_STORE"
            )

    def search(self, name: str) -> SearchFolder:
        """The folder of a search, which need not exist yet; raises InputError where the name is no plain file name."""
        if not _NAME.fullmatch(name):
            raise InputError(f"--name {name!r}: allowed are up to 100 letters, digits, '.', '_' and '-'")
        return SearchFolder(self.root / "searches" / name)

    def plan(self, key: str) -> Path:
        """The file of a forecast by `--plan`; `key` is a hash of its configuration and data."""
        return self.root / "plans" / f"{key}.json"

    def names(self) -> list[str]:
        """The searches in this store, in alphabetical order."""
        folder = self.root / "searches"
        return sorted(p.parent.name for p in folder.glob("*/search.json")) if folder.is_dir() else []


@dataclass(frozen=True)
class SearchFolder:
    """The folder of one search: its description (`search.json`), its journal, its checkpoints and models."""

    path: Path

    @property
    def name(self) -> str:
        """The search's name."""
        return self.path.name

    @property
    def exists(self) -> bool:
        """Whether the search has begun."""
        return (self.path / "search.json").exists()

    @property
    def journal(self) -> Path:
        """The file of its events."""
        return self.path / "journal.jsonl"

    @property
    def delivered(self) -> Path:
        """A file with the number of events that MLflow has."""
        return self.path / "delivered"

    def delivered_events(self) -> int:
        """The number of events that MLflow has."""
        return int(self.delivered.read_text()) if self.delivered.exists() else 0

    def final(self, trial: int, seed: int) -> Path:
        """Where a final training's model and pictures are."""
        return self.path / final_name(trial, seed)

    def samples(self, final: FinalRun | None) -> list[str]:
        """The lines that the task wrote of the final model (generated sentences, say); none where it wrote nothing."""
        path = self.final(final.trial, final.seed) / "artifacts" / "samples.txt" if final else None
        return path.read_text().splitlines() if path and path.exists() else []

    @property
    def decision(self) -> Path:
        """A Markdown file: the comparison of the finalists."""
        return self.path / "final" / "finalists.md"

    @property
    def comparison(self) -> Path:
        """The folder with the comparison of the balanced values."""
        return self.path / "comparison"

    def errors(self, trial: int, seed: int) -> Path:
        """A Parquet file with the errors on the test samples of a trial that was trained again."""
        return self.path / "repeats" / f"{trial:04d}-seed-{seed}.parquet"

    def write(self, description: dict[str, Any]) -> None:
        """Writes `search.json`, whole or not at all, without the secrets of addresses. Only its owner may read it, as a
        command may hold a secret that it needs."""
        shown = {key: without_secrets(description[key]) for key in ADDRESSES if description.get(key)}
        with replacing(self.path / "search.json") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(json.dumps({**description, **shown}, indent=2).encode())

    def read(self, store: Store) -> dict[str, Any]:
        """Reads `search.json`; raises InputError where there is no such search."""
        if not self.exists:
            there = ", ".join(store.names()) or "none yet"
            raise InputError(f"{self.name}: no search of that name in {store.root} (there: {there})")
        description: dict[str, Any] = json.loads((self.path / "search.json").read_text())
        return description


def final_name(trial: int, seed: int) -> str:
    """The folder that a final training ends in, below its search's."""
    return f"final/trial-{trial:04d}-seed-{seed}"


def final_progress(run: FinalRun) -> str:
    """The file, below the search's folder, of a final training's state until it is done."""
    return f"{final_name(run.trial, run.seed)}-epochs-{run.epochs}.pt"
