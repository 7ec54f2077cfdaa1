"""Repositories of the Hugging Face hub: which can be read now, and data sets for `--data hf:NAME`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainables.base.errors import InputError, one_line
from trainables.base.task import array_digest

#: Seconds that `place_of` waits for the hub.
PATIENCE = 4.0
#: The splits that are used, by their names on the hub.
SPLITS = ("train", "validation", "valid", "dev", "test")


def place_of(repository: str, files: Iterable[str], kind: str) -> str | None:
    """Where a repository can be read: `the local Hugging Face cache` or `the Hugging Face hub`; None: at neither place.

    Args:
        files: the files that the cache must hold.
        kind: `model` or `dataset`.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # the class of the hub's HTTP client

    if all(isinstance(try_to_load_from_cache(repository, file, repo_type=kind), str) for file in files):
        return "the local Hugging Face cache"
    try:
        HfApi().repo_info(repository, repo_type=kind, timeout=PATIENCE)
    except (HTTPError, OfflineModeIsEnabled, OSError):
        return None
    return "the Hugging Face hub"


def fetch_dataset(uri: str, cache: Path) -> Path:
    """Writes a data set into the cache as a folder with one Parquet file for each split.

    If the folder exists, the hub is not asked again: a search resumes with the data that it started with. Without a
    connection the local Hugging Face cache is read.

    Args:
        uri: `hf:NAME` or `hf:ORGANISATION/NAME`, followed by `/CONFIG` if the data set has several configurations.

    Raises:
        InputError: there is no such data set, or it has no train split.
    """
    name = uri.removeprefix("hf:").strip("/")
    folder = cache / "hub" / f"{name.replace('/', '-')}-{array_digest([name.encode()])[:8]}"
    if folder.exists():
        return folder
    splits = _load(uri, name)
    taken = {split: data for split, data in splits.items() if split in SPLITS}
    if "train" not in taken:
        raise InputError(f"--data {uri}: no train split; there are {', '.join(map(str, splits))}")
    part = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:12]}")
    part.mkdir(parents=True)
    for split, data in taken.items():
        embedded_pictures(data).to_parquet(part / f"{split}.parquet")  # its metadata holds the names of class labels
    part.replace(folder)
    return folder


def embedded_pictures(data: Any) -> Any:
    """The data set with the bytes of its pictures instead of paths into the local cache."""
    from datasets import Image
    from datasets.table import embed_table_storage

    if not any(isinstance(feature, Image) for feature in data.features.values()):
        return data
    return data.with_format("arrow").map(embed_table_storage, batched=True)


def _load(uri: str, name: str) -> Any:
    from datasets import load_dataset

    parts = name.split("/")
    # `A/B` is the data set B of the organisation A, or the configuration B of the data set A.
    candidates: list[tuple[str, str | None]] = [(name, None)] if len(parts) < 3 else []
    if len(parts) > 1:
        candidates.append(("/".join(parts[:-1]), parts[-1]))
    reasons = []
    for path, config in candidates:
        try:
            return load_dataset(path, config)
        except Exception as error:  # each builder of `datasets` raises its own classes
            reasons.append(one_line(error) or type(error).__name__)
    raise InputError(f"--data {uri}: {'; '.join(reasons)}")
