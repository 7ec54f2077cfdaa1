"""Data sets of the Hugging Face hub: `--data hf:NAME`."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from trainables.base.errors import InputError, one_line
from trainables.base.task import array_digest

#: The splits that are taken, as they are called there.
SPLITS = ("train", "validation", "valid", "dev", "test")


def fetch_dataset(uri: str, cache: Path) -> Path:
    """Writes a data set into the cache as a folder with a Parquet file a split, unless it is there.

    Once it is there the hub is not asked again, so that a search goes on with the data that it began with. Without a
    connection the local Hugging Face cache is read.

    Args:
        uri: `hf:NAME` or `hf:ORGANISATION/NAME`, with `/CONFIG` where there are several.

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
        _embedded(data).to_parquet(part / f"{split}.parquet")  # which notes the names of class labels
    part.replace(folder)
    return folder


def _embedded(data: Any) -> Any:
    """With the pictures themselves, where it has the names of files in the local cache."""
    from datasets import Image
    from datasets.table import embed_table_storage

    if not any(isinstance(feature, Image) for feature in data.features.values()):
        return data
    return data.with_format("arrow").map(embed_table_storage, batched=True)


def _load(uri: str, name: str) -> Any:
    from datasets import load_dataset

    parts = name.split("/")
    # Of two parts the first may be an organisation, or the second a configuration.
    ways: list[tuple[str, str | None]] = [(name, None)] if len(parts) < 3 else []
    ways += [("/".join(parts[:-1]), parts[-1])] if len(parts) > 1 else []
    reasons = []
    for path, config in ways:
        try:
            return load_dataset(path, config)
        except Exception as error:  # each kind of data set has a builder with errors of its own
            reasons.append(one_line(error) or type(error).__name__)
    raise InputError(f"--data {uri}: {'; '.join(reasons)}")
