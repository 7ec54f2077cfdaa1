import io
import json
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import SHARED
from trainables.base import hub
from trainables.base.errors import InputError
from trainables.windows import data

SETTINGS = {
    "size": 32, "val_fraction": 0.25, "test_fraction": 0.25, "split_seed": 0, "max_unpacked_gb": 0.01,
    "demo": {"train": 50, "test": 10, "seed": 0},
}  # fmt: skip


def quiet(done, total, what):
    pass


def prepare(source, tmp_path, **changes):
    return data.prepare({**SETTINGS, **changes}, source, tmp_path / "cache", quiet)


def picture(size=(40, 30), colour="red", mode="RGB") -> Image.Image:
    return Image.new("RGB", size, colour).convert(mode)


def folder(root: Path, splits=("train",), classes=("a", "b"), count=8) -> Path:
    for split in splits:
        for label in classes:
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                shade = (10 * number, 40 if label == "a" else 200, 30 + 60 * splits.index(split))
                picture(colour=shade).save(root / split / label / f"{number}.png")
    return root


def zipped(root: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, prefix + path.relative_to(root).as_posix())
    return target


def test_odd_sizes_modes_and_rotations_are_read(tmp_path):
    root = tmp_path / "data"
    for label in ("a", "b"):
        (root / "train" / label).mkdir(parents=True)
        there = root / "train" / label
        shades = iter(range(10 if label == "a" else 130, 255, 10))  # no two pictures are the same

        def tinted(*size, shades=shades, **kind):
            return picture(*size, colour=(next(shades),) * 3, **kind)

        tinted((1, 97)).save(there / "thin.png")
        tinted((311, 17)).save(there / "wide.jpg")
        tinted(mode="P").save(there / "palette.png")
        tinted(mode="L").save(there / "grey.jpg")
        tinted(mode="CMYK").save(there / "cmyk.jpg")
        tinted(mode="RGBA").save(there / "alpha.webp")
        tinted(mode="LA").save(there / "grey-alpha.png")
        tinted(mode="1").save(there / "bits.png")
        Image.fromarray(np.full((20, 20), 40000 + 5000 * (label == "b"), dtype=np.uint16)).save(there / "deep.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        tinted((60, 20)).save(there / "turned.JPEG", exif=exif)
    splits = prepare(root, tmp_path)
    assert splits.info.sizes == {"train": 12, "val": 4, "test": 4}
    assert splits.train.images.shape == (12, 3, 32, 32)
    assert splits.train.images.dtype == np.uint8


def decode(image: Image.Image, **save) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **save})
    return data.decode(buffer.getvalue(), 16)


def test_exif_rotation_is_applied():
    image = picture((32, 32), "black")
    image.paste((255, 255, 255), (0, 0, 32, 16))  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    turned = decode(image, format="JPEG", exif=exif, quality=95)
    assert turned[:, :6].mean() < 10
    assert turned[:, 10:].mean() > 245


def test_transparent_is_white_and_sixteen_bits_are_scaled():
    assert decode(Image.new("RGBA", (8, 8), (0, 0, 0, 0))).min() == 255
    palette = picture(mode="P")
    assert decode(palette, transparency=palette.getpixel((0, 0))).min() == 255
    deep = decode(Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16)))
    assert set(np.unique(deep)) == {128}


def test_unreadable_images_are_all_listed(tmp_path):
    root = folder(tmp_path / "data")
    (root / "train" / "a" / "0.png").write_bytes(b"no image")
    whole = (root / "train" / "b" / "3.png").read_bytes()
    (root / "train" / "b" / "3.png").write_bytes(whole[:50])
    with pytest.raises(InputError) as error:
        prepare(root, tmp_path)
    assert "2 of 16 images cannot be read" in str(error.value)
    assert "train/a/0.png: damaged, or not JPEG, PNG," in str(error.value)
    assert "object at 0x" not in str(error.value)
    assert "train/b/3.png" in str(error.value)


def empty_class(root):
    (root / "train" / "c").mkdir()


def strange_test_class(root):
    folder(root, ("test",), ("a", "z"))


def one_class(root):
    for path in (root / "train" / "b").iterdir():
        path.unlink()
    (root / "train" / "b").rmdir()


def too_few(root):
    for path in sorted((root / "train" / "b").iterdir())[1:]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty_class, "train/c: no JPEG, PNG or WebP image in it"),
        (strange_test_class, "test/ has classes that train/ lacks: z"),
        (one_class, "train/ holds one class (a); at least 2 are needed"),
        (too_few, "train/b: 1 image left to split; at least 2 are needed"),
    ],
)
def test_bad_folder_is_refused(tmp_path, spoil, message):
    root = folder(tmp_path / "data")
    spoil(root)
    with pytest.raises(InputError, match="data") as error:
        prepare(root, tmp_path)
    assert message in str(error.value)


def test_folders_of_classes_alone_are_split(tmp_path):
    split = folder(tmp_path / "split")
    given = prepare(split, tmp_path)
    flat = prepare(split / "train", tmp_path)
    assert (flat.info.sizes, flat.info.fingerprint) == (given.info.sizes, given.info.fingerprint)
    packed = prepare(zipped(split / "train", tmp_path / "flat.zip", "pictures/"), tmp_path)
    assert packed.info.fingerprint == given.info.fingerprint
    assert {name.split("/")[0] for name in flat.train.names} == {"a", "b"}  # as they are called on disk


@pytest.mark.parametrize("names", [("Train", "Valid", "Test"), ("training", "validation", "testing")])
def test_splits_may_have_their_other_usual_names(tmp_path, names):
    root = folder(tmp_path / "data", ("train", "val", "test"))
    given = prepare(root, tmp_path)
    for old, new in zip(("train", "val", "test"), names, strict=True):
        (root / old).rename(root / new)
    assert prepare(root, tmp_path).info.fingerprint == given.info.fingerprint


def test_missing_empty_and_foreign_sources_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        prepare(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no train/<class>/ folders"):
        prepare(tmp_path / "empty", tmp_path)
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(InputError, match="neither a folder, nor a zip file, nor a table"):
        prepare(tmp_path / "text.zip", tmp_path)


@pytest.mark.parametrize("name", ["/etc/train/a/x.png", "../train/a/x.png", "train/a/../../x.png", "C:/train/a/x.png"])
def test_zip_that_points_outside_is_refused(tmp_path, name):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(InputError, match=r"absolute names and '\.\.' are not allowed"):
        prepare(path, tmp_path)


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a/x.png", b"\0" * (12 * 2**20))
    with pytest.raises(InputError, match=r"larger unpacked than 0\.01 GiB; raise it with --set data\.max_unpacked_gb"):
        prepare(path, tmp_path)


def test_zip_gives_what_the_folder_gives(tmp_path):
    root = folder(tmp_path / "data", ("train", "test"))
    plain = prepare(root, tmp_path)
    for prefix in ("", "wrapper/"):
        again = prepare(zipped(root, tmp_path / f"{len(prefix)}.zip", prefix), tmp_path)
        assert again.info.fingerprint == plain.info.fingerprint
        assert np.array_equal(again.train.images, plain.train.images)
        assert np.array_equal(again.test.labels, plain.test.labels)


def listed_by(root: Path, form: str) -> Path:
    """The pictures of a folder of splits in one folder, named by a table in this form."""
    rows = []
    (root / "flat").mkdir()
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        split, label = path.parts[-3:-1]
        path.rename(root / "flat" / f"{number:03d}.png")
        rows.append({"file_name": f"{number:03d}.png", "label": label, "split": split})
    frame = pd.DataFrame(rows)
    if form == "metadata.csv":  # Hugging Face's imagefolder, a table beside the pictures
        frame.to_csv(root / "flat" / form, index=False)
    elif form == "a list":  # given alone; paths from its own folder
        frame.assign(file_name="flat/" + frame["file_name"]).to_json(root / "list.jsonl", orient="records", lines=True)
        return root / "list.jsonl"
    else:  # a table a split, with another name for the label
        for split, part in frame.groupby("split"):
            part[["label", "file_name"]].rename(columns={"label": "Kind"}).to_csv(
                root / f"{split}.tsv", index=False, sep="\t"
            )
        for path in (root / "flat").iterdir():
            path.rename(root / path.name)
    return root


@pytest.mark.parametrize("form", ["metadata.csv", "a list", "a table a split"])
def test_pictures_that_a_table_names_are_those_of_folders(tmp_path, form):
    plain = prepare(folder(tmp_path / "plain", ("train", "test")), tmp_path)
    again = prepare(listed_by(folder(tmp_path / "data", ("train", "test")), form), tmp_path)
    assert again.info.fingerprint == plain.info.fingerprint and again.info.classes == ("a", "b")
    assert np.array_equal(again.val.images, plain.val.images)


@pytest.mark.parametrize("form", ["saved", "as the hub has it", "of the hub"])
def test_prepare_hub_pictures_equal_folders(tmp_path, form, monkeypatch):
    root = folder(tmp_path / "data", ("train", "test"))
    plain = prepare(root, tmp_path)
    features = datasets.Features(
        image=datasets.Image(), size=datasets.Value("int64"), labels=datasets.ClassLabel(2, ["a", "b"])
    )
    made = {}
    for split in ("train", "test"):
        rows = [{"image": str(p), "size": 3, "labels": p.parts[-2]} for p in sorted((root / split).rglob("*.png"))]
        made[split] = datasets.Dataset.from_list(rows, features=features)
    if form == "saved":
        datasets.DatasetDict(made).save_to_disk(source := tmp_path / "saved")
    elif form == "of the hub":  # whose files lie in the local cache
        monkeypatch.setattr(hub, "_load", lambda uri, name: made)
        source = hub.fetch_dataset("hf:somebody/windows", tmp_path / "store")
    else:
        source = tmp_path / "hub"
        for split, part in made.items():
            hub.embedded_pictures(part).to_parquet(source / "data" / f"{split}-00000-of-00001.parquet")
    again = prepare(source, tmp_path)
    assert again.info.fingerprint == plain.info.fingerprint and again.info.classes == ("a", "b")
    assert np.array_equal(again.val.images, plain.val.images)


def test_column_of_labels_may_be_said(tmp_path):
    root = folder(tmp_path / "data")
    rows = [{"file": str(p.relative_to(root)), "mood": p.parts[-2], "size": 3} for p in sorted(root.rglob("*.png"))]
    pd.DataFrame(rows).to_csv(root / "test.csv", index=False)
    assert prepare(root / "test.csv", tmp_path, label="mood").info.classes == ("a", "b"), "a table alone is no split"
    with pytest.raises(InputError, match=r"test\.csv: data\.label: no column 'kind'; there are mood, size"):
        prepare(root, tmp_path, label="kind")


def test_whole_numbers_are_one_class_in_each_form(tmp_path):
    root = folder(tmp_path / "data")
    rows = [
        {"file": str(path.relative_to(root)), "label": (0, 1, 1.0)[number % 3]}
        for number, path in enumerate(sorted(root.rglob("*.png")))
    ]
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert prepare(root / "list.jsonl", tmp_path).info.classes == ("0", "1")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\na.png,x\nb.png,y\n", r"list\.csv: row 2: b\.png: no such picture"),
        ("path,label\na.png,\n", r"list\.csv: row 1: a\.png: no label"),
        (
            "path,mood,size\na.png,x,3\n",
            r"no column of labels is recognised among mood, size; name it with --set data.label=NAME",
        ),
        ("path,label,split\na.png,x,later\n", r"row 1: split 'later': allowed are train, val, test"),
        ("path,label\na.png,x\n./a.png,y\n", r"a\.png: labelled 'y' here and 'x' before"),
        ("path,label\nb.png,x\n", "no train/<class>/ folders"),
    ],
)
def test_table_that_names_no_pictures_is_refused_with_the_row(tmp_path, table, message):
    (tmp_path / "data").mkdir()
    picture().save(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "list.csv").write_text(table)
    for source in (tmp_path / "data", tmp_path / "data" / "list.csv"):
        with pytest.raises(InputError, match=message):
            prepare(source, tmp_path)


def test_what_is_missing_is_split_off_stratified_and_seeded(tmp_path):
    root = folder(tmp_path / "data")
    splits = prepare(root, tmp_path)
    for split in (splits.val, splits.test):
        assert np.bincount(split.labels).min() >= 1
    names = [set(s.names) for s in (splits.train, splits.val, splits.test)]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]
    assert len(set.union(*names)) == 16
    again = prepare(root, tmp_path)
    assert again.test.names == splits.test.names
    other = prepare(root, tmp_path, split_seed=1)
    assert other.test.names != splits.test.names
    assert other.info.test_fingerprint != splits.info.test_fingerprint
    assert other.info.fingerprint == splits.info.fingerprint


def test_change_of_one_picture_changes_the_fingerprint(tmp_path):
    root = folder(tmp_path / "data")
    before = prepare(root, tmp_path).info.fingerprint
    picture(colour="blue").save(root / "train" / "a" / "0.png")
    assert prepare(root, tmp_path).info.fingerprint != before


def test_prepare_copies_leave_train_then_val(tmp_path):
    root = folder(tmp_path / "data", ("train", "val", "test"))
    before = prepare(root, tmp_path)

    def copy(source: str, target: str) -> None:
        (root / target).write_bytes((root / source).read_bytes())

    copy("test/a/0.png", "train/a/0.png")
    Image.open(root / "val/a/1.png").save(root / "train/a/1.webp", lossless=True)  # the same picture in another file
    copy("test/b/0.png", "val/b/0.png")
    copy("test/b/1.png", "test/b/2.png")
    splits = prepare(root, tmp_path)
    assert splits.info.sizes == {"train": 15, "val": 15, "test": 16}
    assert "train/a/0.png" not in splits.train.names and "train/a/1.webp" not in splits.train.names
    assert "val/b/0.png" not in splits.val.names and splits.train.names[0] == "train/a/1.png"
    assert splits.info.notes == (
        "1 of 17 pictures of train is also in test and leaves train",
        "1 of 17 pictures of train is also in val and leaves train",
        "1 of 16 pictures of val is also in test and leaves val",
        "1 of 16 pictures of test repeats another one and counts each time",
    )
    assert splits.info.fingerprint != before.info.fingerprint
    assert splits.info.test_fingerprint != before.info.test_fingerprint


def test_picture_with_two_labels_is_named(tmp_path):
    root = folder(tmp_path / "data", ("train", "val", "test"))
    (root / "train/b/0.png").write_bytes((root / "train/a/0.png").read_bytes())
    (named,) = prepare(root, tmp_path).info.notes
    assert named == (
        "1 of 47 different pictures occurs with different labels, as train/a/0.png (a) and train/b/0.png (b): no model "
        "gets all of them right"
    )


def test_prepare_copies_in_one_folder(tmp_path):
    root = folder(tmp_path / "data", count=20)
    for path in sorted(root.rglob("*.png")):
        path.with_name(f"copy-{path.name}").write_bytes(path.read_bytes())
    splits = prepare(root, tmp_path)
    seen = [{image.tobytes() for image in part.images} for part in (splits.train, splits.val, splits.test)]
    assert not seen[0] & (seen[1] | seen[2]) and not seen[1] & seen[2]


def test_class_of_which_every_picture_is_tested_is_refused(tmp_path):
    root = folder(tmp_path / "data", ("train", "test"))
    for path in (root / "train" / "b").iterdir():
        (root / "test" / "b" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="train: every picture of class b is in val or test too"):
        prepare(root, tmp_path)


def test_half_written_cache_is_never_read(tmp_path, monkeypatch):
    root = folder(tmp_path / "data")

    def fail(file, array):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        prepare(root, tmp_path)
    monkeypatch.undo()
    assert not list((tmp_path / "cache").glob("*"))
    assert prepare(root, tmp_path).info.sizes["train"] > 0


def test_real_photographs(tmp_path):
    root = SHARED / "trashnet"
    if not root.is_dir():
        pytest.skip(f"{root} is not on this machine")
    splits = prepare(root, tmp_path)
    assert splits.info.classes == ("cardboard", "glass", "metal", "paper", "plastic")
    assert splits.info.sizes["test"] == 402
    assert splits.info.sizes["train"] + splits.info.sizes["val"] == 1986  # two pictures were there twice


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-500] + bytes([c[-500] ^ 128]) + c[-499:], lambda c: c[:200], lambda c: b""]
)
def test_damaged_cache_is_made_again(tmp_path, damage):
    def images():
        splits = prepare(root, tmp_path)
        return np.concatenate([splits.train.images, splits.val.images, splits.test.images])

    root = folder(tmp_path / "data")
    whole = images()
    (cached,) = (tmp_path / "cache").glob("*.npy")
    cached.write_bytes(damage(cached.read_bytes()))
    assert (images() == whole).all()
