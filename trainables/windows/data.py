"""Reads photographs into uint8 arrays: from folders `<class>/*` or `train/<class>/*`, or from a table."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables import DataInfo, InputError, Progress, Splits, array_digest
from trainables.base.errors import one_line
from trainables.base.files import (
    SPLIT_WORDS,
    Allowance,
    broken,
    check_source,
    hidden,
    read_member,
    read_whole,
    split_of,
)
from trainables.base.leakage import without_copies
from trainables.base.splitting import SPLITS, Splitter
from trainables.base.storage import cached_array
from trainables.windows import demo, listed

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
#: The formats that Pillow may read. Its other formats are excluded: for EPS it starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@dataclass(frozen=True)
class ImageSplit:
    """Decoded pictures: `images` uint8 (n, 3, size, size), `labels` int64 (n,), `names` of their files.

    `features`: by backbone and image size the features of `windows.features`, float16 (2, n, width).
    `maps`: the output of the frozen blocks of a backbone, float16 (2, n, height, width, channels). The key is the
    backbone, the image size and the number of frozen blocks.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    features: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    maps: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> ImageSplit:
        """The pictures at these positions."""
        features = {key: values[:, index] for key, values in self.features.items()}
        maps = {key: values[:, index] for key, values in self.maps.items()}
        return ImageSplit(self.images[index], self.labels[index], tuple(self.names[i] for i in index), features, maps)


#: A path below the root, whether it is a folder, and a function that reads it.
_Member = tuple[str, bool, Callable[[], bytes]]


@dataclass(frozen=True)
class _File:
    split: str
    label: str
    name: str
    read: Callable[[], bytes]


def prepare(data: dict[str, Any], source: Path | None, cache: Path, progress: Progress) -> Splits:
    """Prepares the user's pictures, or the demo's; see `Task.prepare`."""
    if source is None:
        given, classes, fingerprint, notes = _demo(data, cache, progress)
        where = "demo"
    else:
        given, classes, fingerprint, notes = _read(data, source, cache, progress)
        where = str(source)
    whole = _complete(given, classes, data, where)
    progress(0, 1, "comparing the images of the splits")
    parts = _without_copies(whole, classes, where, notes)
    left = []
    for split in SPLITS:
        stay = set(parts[split].names)
        left += [f"{split}/{name}" for name in whole[split].names if name not in stay]
    if left:  # a search that trained on the copies must not resume without them
        fingerprint = array_digest([fingerprint.encode(), str(left).encode()])
    test = parts["test"]
    sizes = {split: len(part) for split, part in parts.items()}
    info = DataInfo(where, fingerprint, array_digest([test.images, test.labels]), sizes, classes, tuple(notes))
    return Splits(parts["train"], parts["val"], test, info)


def decode(content: bytes, size: int) -> np.ndarray:
    """One picture as uint8 (3, size, size): rotated by EXIF, transparency on white, scaled to a square.

    Raises:
        Exception: Pillow cannot read the picture; it raises many classes.
    """
    try:
        file = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:  # the message of Pillow names an object in memory
        raise ValueError(f"damaged, or not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from None
    if Image.MAX_IMAGE_PIXELS is not None and file.width * file.height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{file.width} x {file.height} pixels; at most {Image.MAX_IMAGE_PIXELS} are read")
    file.draft("RGB", (2 * size, 2 * size))  # JPEG only: decodes at 1/2, 1/4 or 1/8 of the size
    image: Image.Image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's conversion would clip at 255
        image = Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    # Pillow's documentation: with a gap of 3 the result is indistinguishable from resampling in one step.
    image = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def decode_all(
    names: Sequence[str], reads: Sequence[Callable[[], bytes]], size: int, progress: Progress, place: str
) -> np.ndarray:
    """Decodes in parallel threads (Pillow releases the GIL) to one uint8 array (n, 3, size, size).

    Raises:
        InputError: a picture cannot be read; the message names all of these.
    """
    images = np.empty((len(names), 3, size, size), dtype=np.uint8)
    errors: list[str] = []

    def decode_one(index: int) -> None:
        try:
            images[index] = decode(reads[index](), size)
        except Exception as error:  # each of Pillow's readers raises its own classes
            errors.append(f"{names[index]}: {one_line(error) or type(error).__name__}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(decode_one, range(len(names))), 1):
            progress(done, len(names), "decoding images")
    if errors:
        lines = "\n  ".join(sorted(errors))
        raise InputError(f"{place}: {len(errors)} of {len(names)} images cannot be read:\n  {lines}")
    return images


def _read(
    data: dict[str, Any], source: Path, cache: Path, progress: Progress
) -> tuple[dict[str, ImageSplit], tuple[str, ...], str, list[str]]:
    check_source(source)
    allowance = Allowance(data["max_unpacked_gb"])
    if source.is_dir():
        members, place = _folder_members(source), source
    elif zipfile.is_zipfile(source):
        members, place = _zip_members(source, allowance), source
    elif listed.is_table(source.name):
        members, place = listed.of_file(source, allowance), source.parent
    else:
        raise InputError(f"--data {source}: neither a folder, nor a zip file, nor a table of paths and labels")
    listing_of_tables = _list_rows(members, place, data.get("label"), allowance)
    files, folders, ignored = listing_of_tables or _list_members(members, place)
    classes = _check(files, folders, source)
    notes = [f"ignored {ignored} files that are not JPEG, PNG or WebP, or that no table names"] if ignored else []

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = []
        for content in pool.map(lambda f: array_digest([f.read()]), files):
            contents.append(content)
            progress(len(contents), len(files), "reading the files of images")
    listing = "\n".join(f"{f.split}/{f.label}/{c}" for f, c in zip(files, contents, strict=True))
    fingerprint = array_digest([listing.encode()])
    cached = cache / f"images-{array_digest([listing.encode(), str(data['size']).encode()])}.npy"
    names, readers = [f.name for f in files], [f.read for f in files]
    images = cached_array(cached, lambda: decode_all(names, readers, data["size"], progress, str(source)))
    labels = np.array([classes.index(f.label) for f in files], dtype=np.int64)
    pictures = ImageSplit(images, labels, tuple(names))
    splits = np.array([f.split for f in files])
    given = {name: pictures.take(np.flatnonzero(splits == name)) for name in SPLITS if name in splits}
    return given, classes, fingerprint, notes


def _folder_members(root: Path) -> list[_Member]:
    """Lists files and folders. Pipes, devices and broken links are left out."""
    paths = sorted(p for p in root.rglob("*") if not hidden(p.relative_to(root).parts))
    regular = [p for p in paths if p.is_file() or p.is_dir()]
    return [(p.relative_to(root).as_posix(), p.is_dir(), partial(read_whole, p)) for p in regular]


def _zip_members(path: Path, allowance: Allowance) -> list[_Member]:
    """Lists a zip's members, which are read without writing them to disk."""
    with broken(f"--data {path}", "not a zip file"):
        archive = zipfile.ZipFile(path)
    members: list[_Member] = []
    for info in sorted(archive.infolist(), key=lambda i: i.filename):
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in name.split("/")[0]:
            raise InputError(f"{path}: member {info.filename!r}: absolute names and '..' are not allowed")
        allowance.take(info.file_size, path)
        parts = PurePosixPath(name).parts
        if parts and not hidden(parts):
            members.append((PurePosixPath(name).as_posix(), info.is_dir(), partial(read_member, archive, info, path)))
    return members


def _list_members(members: list[_Member], place: Path) -> tuple[list[_File], set[tuple[str, str]], int]:
    """Sorts members `[wrapper/]split/class/.../file` by kind.

    Returns:
        The pictures, the folders as (split, class), and the number of other files.
    """
    paths = [(PurePosixPath(name).parts, is_dir, read) for name, is_dir, read in members]
    tops = {parts[0].lower() for parts, _, _ in paths}
    skip = 1 if len(tops) == 1 and not tops & set(SPLIT_WORDS) else 0  # an archive of one folder
    files, folders, ignored = [], set(), 0
    # Folders of classes without splits (`ImageFolder` of torchvision): validation and test are cut off later.
    flat = not any(parts[skip].lower() in SPLIT_WORDS for parts, _, _ in paths if len(parts) > skip)
    for parts, is_dir, read in paths:
        name = "/".join(parts[skip:])
        first, *below = ("train", *parts[skip:]) if flat else parts[skip:] or ("",)
        split = SPLIT_WORDS.get(first.lower())
        if split is None or not below:
            continue
        if is_dir or len(below) > 1:
            folders.add((split, below[0]))
        if not is_dir and len(below) > 1:
            if PurePosixPath(name).suffix.lower() in SUFFIXES:
                files.append(_File(split, below[0], name, read))
            else:
                ignored += 1
    if not any(split == "train" for split, _ in folders):
        raise InputError(
            f"{place}: no train/<class>/ folders; expected <class>/*, or train/<class>/* and optionally val/ and test/"
        )
    return files, folders, ignored


def _list_rows(
    members: list[_Member], place: Path, column: str | None, allowance: Allowance
) -> tuple[list[_File], set[tuple[str, str]], int] | None:
    """The pictures that tables name or hold, in the form of `_list_members`; None if no table has a picture."""
    pictures = {name: read for name, is_dir, read in members if PurePosixPath(name).suffix.lower() in SUFFIXES}
    files: dict[str, _File] = {}
    tables = [(name, read) for name, is_dir, read in members if not is_dir and listed.is_table(name)]
    for name, read in tables:
        where = f"{place}/{name}"
        for row in listed.read_list(read(), name, where, pictures.__contains__, SPLIT_WORDS, column, allowance) or ():
            table_split = split_of(PurePosixPath(name)) if len(tables) > 1 else "train"
            split = SPLIT_WORDS[row.split] if row.split else table_split
            read_picture = pictures[row.path] if row.content is None else partial(bytes, row.content)
            file = files.setdefault(row.path, _File(split, row.label, row.path, read_picture))
            if file.label != row.label:
                raise InputError(f"{place}/{name}: {row.path}: labelled {row.label!r} here and {file.label!r} before")
    if not files:
        return None
    # The order of folders of splits and classes.
    listing = sorted(files.values(), key=lambda file: (file.split, file.label, file.name))
    return listing, {(file.split, file.label) for file in listing}, len(pictures.keys() - files.keys())


def _check(files: list[_File], folders: set[tuple[str, str]], place: Path) -> tuple[str, ...]:
    counts = Counter((f.split, f.label) for f in files)
    for split, label in sorted(folders):
        if not counts[split, label]:
            raise InputError(f"{place}: {split}/{label}: no JPEG, PNG or WebP image in it")
    classes = tuple(sorted({f.label for f in files if f.split == "train"}))
    if len(classes) < 2:
        raise InputError(f"{place}: train/ holds one class ({classes[0]}); at least 2 are needed")
    for split in SPLITS[1:]:
        unknown = sorted({f.label for f in files if f.split == split} - set(classes))
        if unknown:
            raise InputError(f"{place}: {split}/ has classes that train/ lacks: {', '.join(unknown)}")
    return classes


def _without_copies(
    parts: dict[str, ImageSplit], classes: tuple[str, ...], place: str, notes: list[str]
) -> dict[str, ImageSplit]:
    """Removes pictures that several splits hold, as `leakage.without_copies`. Decoded pixels are compared.

    Raises:
        InputError: a split, or a class of train, would be empty.
    """
    digests = {split: [array_digest([image]) for image in part.images] for split, part in parts.items()}
    labels = {split: [classes[code] for code in part.labels] for split, part in parts.items()}
    names = {split: part.names for split, part in parts.items()}
    parts = without_copies(parts, digests, "pictures", place, notes, labels, names)
    if lacking := set(range(len(classes))) - {*parts["train"].labels.tolist()}:
        raise InputError(
            f"{place}: train: every picture of class {classes[min(lacking)]} is in val or test too; leave one of "
            "the copies out"
        )
    return parts


def _demo(
    data: dict[str, Any], cache: Path, progress: Progress
) -> tuple[dict[str, ImageSplit], tuple[str, ...], str, list[str]]:
    settings = data["demo"]
    counts = {"train": settings["train"], "test": settings["test"]}
    key = f"{demo.VERSION} {data['size']} {settings['seed']} {counts}".encode()
    cached = cache / f"demo-{array_digest([key])}.npy"
    labels = {name: np.arange(count) % len(demo.CLASSES) for name, count in counts.items()}
    drawn = np.concatenate(list(labels.values()))
    images = cached_array(cached, lambda: demo.draw_all(drawn, data["size"], settings["seed"], progress))
    splits = {}
    start = 0
    for name, ys in labels.items():
        names = tuple(f"{name}/{demo.CLASSES[y]}/{i}.png" for i, y in enumerate(ys))
        splits[name] = ImageSplit(np.asarray(images[start : start + len(ys)]), ys.astype(np.int64), names)
        start += len(ys)
    return splits, demo.CLASSES, array_digest([np.asarray(images)]), ["data: the demo set, drawn by code"]


def _complete(
    given: dict[str, ImageSplit], classes: tuple[str, ...], data: dict[str, Any], place: str
) -> dict[str, ImageSplit]:
    """Cuts the missing splits off train, stratified by class."""
    splitter = Splitter.of(data)

    def refuse(code: int, count: int) -> InputError:
        return InputError(f"{place}: train/{classes[code]}: {count} image left to split; at least 2 are needed")

    def cut(_: str, train: ImageSplit, fraction: float) -> tuple[ImageSplit, ImageSplit]:
        stay, leave = splitter.by_class(train.labels, fraction, refuse, len(classes))
        return train.take(stay), train.take(leave)

    parts = dict(given)
    splitter.complete(parts, cut)
    return {split: parts[split] for split in SPLITS}
