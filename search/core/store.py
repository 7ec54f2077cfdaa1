"""The store: a folder with the MLflow database and the files of each search."""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.core.journal import Journal
from search.core.record import SearchRecord
from search.core.redaction import redacted, without_secrets
from search.core.state import FinalRun
from trainables import InputError
from trainables.base.files import replacing
from trainables.loops import LOG

#: The fields of a record that may hold an address with a secret.
ADDRESSES = ("data", "address", "imported")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Store:
    """A folder with `mlflow.db`, `artifacts/`, `searches/NAME/` and `cache/`.

    Whoever may write to the store can run code as the person who resumes a search: `search.json` names the module of a
    task, and training functions are pickles. Commands that only read a search run no code of the store.
    """

    root: Path

    @staticmethod
    def open(option: str | Path | None) -> Store:
        """The store in the folder `option`, else in the folder `SEARCH_STORE`, else in `mlruns` here."""
        return Store(Path(option or os.environ.get("SEARCH_STORE") or "mlruns").resolve())

    @property
    def tracking_uri(self) -> str:
        """The address of the tracking server: `MLFLOW_TRACKING_URI`, else the sqlite file of this folder."""
        if named := os.environ.get("MLFLOW_TRACKING_URI"):
            return named
        from sqlalchemy.engine import URL

        address = URL.create("sqlite", database=str(self.database)).render_as_string()
        if address == f"sqlite:///{self.database}":
            return address
        # MLflow would create a folder with the quoted name, unless the address names the driver.
        return address.replace("sqlite:", "sqlite+pysqlite:", 1)

    @property
    def shown(self) -> str:
        """The folder or the address of the server for messages, without credentials."""
        return str(self.root) if self.is_local else redacted(self.tracking_uri)

    @property
    def is_writable(self) -> bool:
        """Whether the existing folder can be written to; False on a read-only disk."""
        return os.access(self.root, os.W_OK)

    @property
    def database(self) -> Path:
        """The sqlite file of MLflow, used without a tracking server."""
        return self.root / "mlflow.db"

    @property
    def is_local(self) -> bool:
        """Whether MLflow's store is this folder rather than a server."""
        return not os.environ.get("MLFLOW_TRACKING_URI")

    @property
    def artifacts(self) -> Path:
        """The folder of MLflow's artifacts, used without a tracking server."""
        return self.root / "artifacts"

    @property
    def cache(self) -> Path:
        """The cache of decoded data and encoder features, named by their content. It may be deleted."""
        return self.root / "cache"

    def check(self) -> None:
        """Raises InputError if the folder can neither be written to nor created.

        It creates nothing, as the command may still end with another error.
        """
        existing = next(path for path in (self.root, *self.root.parents) if path.exists())
        reason = "is no folder" if not existing.is_dir() else "" if os.access(existing, os.W_OK) else "is not writable"
        if reason:
            raise InputError(
                f"{self.root}: results cannot be kept there ({existing} {reason}); choose another folder with "
                "--store DIR or SEARCH_STORE"
            )

    def search(self, name: str) -> SearchFolder:
        """The folder of a search, which need not exist yet; raises InputError if the name is no plain file name."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(f"--name {name!r}: allowed are up to 100 letters, digits, '.', '_' and '-'")
        return SearchFolder(self.root / "searches" / name)

    def plan(self, key: str) -> Path:
        """The file of a forecast that `--plan` made; `key` is a hash of its configuration and data."""
        return self.root / "plans" / f"{key}.json"

    def names(self) -> list[str]:
        """The names of the searches in this store, in alphabetical order."""
        # A hidden folder is a search that is being deleted.
        return sorted(p.parent.name for p in self.root.glob("searches/[!.]*/search.json"))

    def records(self) -> Iterator[tuple[str, SearchRecord]]:
        """The name and the record of each search. A warning on stderr names each search that cannot be read."""
        for name in self.names():
            try:
                yield name, self.search(name).read(self)
            except InputError as error:
                pass_over(error)


@dataclass(frozen=True)
class SearchFolder:
    """The folder of one search: its record (`search.json`), its journal, its checkpoints and models."""

    path: Path

    @property
    def name(self) -> str:
        """The search's name."""
        return self.path.name

    @property
    def exists(self) -> bool:
        """Whether the search has begun."""
        return (self.path / "search.json").exists()

    def begin(self) -> Journal:
        """Reserves the name for a new search until the returned journal is closed.

        Other files of the search may be written only after this call.

        Raises:
            InputError: a search of this name exists, or another process is starting it.
        """
        self.check_free()
        journal = Journal(self.journal)
        if self.exists or journal.events:
            journal.close()
            self.check_free()
            raise self.without_record()
        return journal

    def without_record(self) -> InputError:
        """The error for a folder with a journal and no record."""
        return InputError(
            f"{self.path}: has a journal and no search.json, which an import that was killed may leave: delete the "
            "folder, or choose another name"
        )

    def check_free(self) -> None:
        """Raises InputError if a search of this name exists."""
        if self.exists:
            raise InputError(
                f"--name {self.name}: a search of that name exists; go on with `python -m search resume {self.name}` "
                "or choose another name"
            )

    def hold(self, store: Store) -> Journal:
        """Keeps other processes from running or changing this search until the returned journal is closed.

        Raises:
            InputError: there is no search of this name, or another process is running it.
        """
        self.read(store)
        return Journal(self.journal)

    @property
    def journal(self) -> Path:
        """The file of its events."""
        return self.path / "journal.jsonl"

    def log(self, trial: int) -> Path:
        """The file with the output of a trial; a function or a command writes it as soon as it prints."""
        return self.path / "trials" / f"{trial:04d}" / LOG

    def final(self, run: FinalRun) -> Path:
        """The folder with the model and the pictures of a final training."""
        return self.path / run.folder

    def samples(self, final: FinalRun | None) -> list[str]:
        """The lines that a task wrote with the final model, such as generated sentences; empty without a file."""
        path = self.samples_file(final) if final else None
        return path.read_text().splitlines() if path and path.exists() else []

    def samples_file(self, final: FinalRun) -> Path:
        """The file with the lines of `samples`."""
        return self.final(final) / "artifacts" / "samples.txt"

    @property
    def decision(self) -> Path:
        """A Markdown file: the comparison of the finalists."""
        return self.path / "final" / "finalists.md"

    @property
    def comparison(self) -> Path:
        """The folder with the comparison of the balanced values."""
        return self.path / "comparison"

    def errors(self, trial: int, seed: int) -> Path:
        """The Parquet file with the errors on the test samples of a repeated trial."""
        return self.path / "repeats" / f"{trial:04d}-seed-{seed}.parquet"

    def write(self, record: SearchRecord) -> None:
        """Writes `search.json` atomically and without the secrets of addresses.

        Only its owner may read the file: the command line of a task may contain a secret.
        """
        content = record.to_json()
        content |= {key: without_secrets(content[key]) for key in ADDRESSES if content[key]}
        with replacing(self.path / "search.json") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(json.dumps({**content, "crc": _checksum(content)}, indent=2).encode())

    def read(self, store: Store | None = None) -> SearchRecord:
        """Reads `search.json`; raises InputError if there is no search of this name, or if the file is damaged."""
        if not self.exists:
            store = store or Store(self.path.parent.parent)
            names = ", ".join(store.names()) or "none yet"
            raise InputError(f"{self.name}: no search of that name in {store.root} (there: {names})")
        path = self.path / "search.json"
        content = read_json(path, "put a copy of it back, or delete the folder of the search")
        crc = content.pop("crc", None)  # old files have no checksum
        if crc is not None and crc != _checksum(content):
            raise InputError(
                f"{path}: was changed since it was written; if you changed it, delete its line `crc`; else put a copy "
                "of it back"
            )
        return SearchRecord.from_json(content, path)


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file of the store.

    Args:
        remedy: the advice for a damaged file, as a part of a sentence.

    Raises:
        InputError: the file cannot be read, or holds no object.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is damaged ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged (it holds no object); {remedy}")
    return content


def pass_over(error: InputError) -> None:
    """Logs a warning, with the reason, that a command about many searches skips a search."""
    logging.getLogger(__name__).warning("passed over: %s", redacted(str(error)))


def _checksum(content: Mapping[str, Any]) -> str:
    """A checksum of the content. The order of the keys and the layout of the file do not matter."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
