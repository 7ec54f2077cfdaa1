"""Repositories of the Hugging Face hub: which can be read now, and data sets for `--data hf:NAME`.

Without a limit, `huggingface_hub` waits 24 s for each file if the hub refuses the connection, and minutes if the hub
accepts it and never answers. `limit_waiting` bounds the first request of a process, whoever makes it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakSet

from trainables.base.errors import InputError, one_line
from trainables.base.task import array_digest

#: Seconds that a process waits for the hub's first answer. A larger HF_HUB_ETAG_TIMEOUT in the environment wins.
PATIENCE = 4.0
#: The first HTTP status that says that the hub has a problem of its own. `huggingface_hub` would try again for 24 s.
BROKEN = 500
UNREACHABLE = "the Hugging Face hub cannot be reached"
#: The splits that are used, by their names on the hub.
SPLITS = ("train", "validation", "valid", "dev", "test")


def patience() -> float:
    """Seconds that a process waits for the hub's first answer."""
    given = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    return max(PATIENCE, float(given)) if given.isdecimal() else PATIENCE


def limit_waiting(say: Callable[[str], None] | None = None) -> None:
    """Bounds the first request of this process to the hub by `patience` seconds.

    If the hub does not answer it, the process is offline from then on: each later request fails at once, and all
    libraries read the local Hugging Face cache alone. After the first answer the hub's library waits as it likes.
    A second call changes `say` alone.

    Args:
        say: called with a line for the user, once for each process and as soon as it goes offline; None: as in the call
            before.
    """
    from huggingface_hub import constants, get_session

    global _say
    _say = say or _say
    _tell()
    client = get_session()
    if constants.is_offline_mode() or client in _limited:
        return
    send = client.send

    def first(request: Any, **how: Any) -> Any:
        answer, error = _within(patience(), lambda: send(request, **how))
        client.send = send  # type: ignore[method-assign]
        if error is None and answer.status_code >= BROKEN:
            error = OSError(f"HTTP status {answer.status_code}")
        if error is not None:
            _go_offline(f"{constants.ENDPOINT}: {one_line(error) or type(error).__name__}", error)
        return answer

    client.send = first  # type: ignore[method-assign]
    _limited.add(client)


def unreachable() -> str | None:
    """The reason why the hub cannot be reached, such as `https://huggingface.co: timed out`; None: it can be."""
    return _why


#: The clients whose first request is bounded.
_limited: WeakSet[Any] = WeakSet()
#: See `unreachable` and `limit_waiting`.
_why: str | None = None
_say: Callable[[str], None] | None = None
_told = False


def _tell() -> None:
    """Says once that the hub cannot be reached, if it cannot."""
    global _told
    if _why and _say and not _told:
        _told = True
        _say(f"{UNREACHABLE} ({_why}): the local cache is used, or a substitute that needs no hub")


def _within(seconds: float, call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """The result or the exception of `call`; TimeoutError if it takes longer.

    A thread is needed because no time limit of the HTTP client covers the look-up of the host's name.
    """
    results: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()

    def run() -> None:
        try:
            results.put((call(), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=run, daemon=True, name="first-request-to-the-hub").start()
    try:
        return results.get(timeout=seconds)
    except queue.Empty:
        return None, TimeoutError(f"no answer within {seconds:g} s")


def _go_offline(why: str, error: Exception) -> NoReturn:
    """Makes all libraries of this process read the local cache alone; raises OfflineModeIsEnabled."""
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    global _why
    _why = why
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:  # it copies the value when it is imported
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True
    _tell()
    raise OfflineModeIsEnabled(f"{UNREACHABLE} ({why})") from error


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
    limit_waiting()
    try:
        HfApi().repo_info(repository, repo_type=kind, timeout=patience())
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
    limit_waiting()
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
