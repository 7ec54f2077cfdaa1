"""Encoders of each family: features, training of blocks, LoRA, and models that load without this project."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from search.core.config import load_config
from tests.trainables.text import families
from trainables.base import training
from trainables.base.batches import rows_on
from trainables.base.device import Device
from trainables.base.errors import InputError
from trainables.text import blocks, encoders, lora, portable
from trainables.text.batches import batch, similar_rows
from trainables.text.encoders import Frozen
from trainables.text.models import TextNet
from trainables.text.ragged import Ragged
from trainables.text.task import _probabilities
from trainables.tweets.task import TASK

CPU = Device(torch.device("cpu"))
FAMILIES = list(families.FAMILIES)
CUT = [family for family in FAMILIES if family not in families.WHOLE]
#: Texts of several lengths, for one batch with padding; the last is longer than the limit of 32 tokens.
TEXTS = ["the train is late", "my head hurts so much, off to the doctor", "ok", "fever " * 60]
MOST = 24


def quiet(done, total, what):
    pass


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: families.save(family, folder / family.replace(" ", "-")) for family in FAMILIES}


@pytest.fixture(scope="module")
def splits(checkpoints, tmp_path_factory):
    """By family the demo tweets with the features of every number of opened blocks."""
    cache, made = tmp_path_factory.mktemp("cache"), {}

    def of(family):
        if family not in made:
            opened = "[0, 1, all]" if family in CUT else "[0, all]"
            sets = [f"data.encoder={checkpoints[family]}", "data.demo.size=100", f"data.max_length={MOST}"]
            sets += [f"model.unfreeze={{choice: {opened}}}", "model.pooling={choice: [cls, mean]}"]
            sets += ["model.mask_padding={choice: [true, false]}"]
            config = load_config("tweets", [*sets, "model.head={choice: [classifier, tokens, cnn]}"], {})
            prepared = TASK.prepare(config.data, None, cache, quiet)
            made[family] = TASK.precompute(prepared, config.space.choices(), CPU, cache, quiet)
        return made[family]

    return of


def params(**changes):
    config = load_config("tweets", ["weighting=none", "lr=0.01", "dropout=0.1"], {})
    own = {"model.filters": 4, "tfidf_lr": 0.01, "encoder_lr": 1e-3, "encoder_lr_decay": 0.5, "model.tfidf": True}
    return config.space.grid("")[0] | own | changes


def train(splits, settings, epochs=1, seed=0):
    training.seed_everything(seed)
    learner = TASK.build(settings, splits, epochs, CPU)
    return learner, [training.run_epoch(TASK, learner, splits.train, splits.val) for _ in range(epochs)]


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_transformers(checkpoints, family):
    encoders.check(checkpoints[family])
    encoder = encoders.load(checkpoints[family])
    assert encoder.most == 32
    assert encoder.cut == (family in CUT)
    theirs = AutoModel.from_pretrained(checkpoints[family]).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoints[family])
    batch = tokenizer(TEXTS, truncation=True, max_length=MOST, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = theirs(**{name: batch[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
    mask = batch["attention_mask"].bool()

    ids = encoders.tokenize(encoder.tokenizer(), TEXTS, MOST)
    assert ids.lengths.tolist() == mask.sum(1).tolist()
    assert ids.flat.tolist() == batch["input_ids"][mask].tolist()
    ours = encoders.encode(encoder.model(), ids, Frozen(3, "tokens"), CPU, quiet)
    assert np.allclose(ours, states[mask].numpy(), atol=1e-4)
    mean = torch.stack([own[present].mean(0) for own, present in zip(states, mask, strict=True)])
    assert np.allclose(encoders.encode(encoder.model(), ids, Frozen(3, "mean"), CPU, quiet), mean.numpy(), atol=1e-4)
    filled = encoders.encode(encoder.model(), ids, Frozen(3, "mean", fill=MOST), CPU, quiet)
    assert not np.allclose(filled, mean.numpy(), atol=1e-2), "padding is read as text"


@pytest.mark.parametrize("family", CUT)
def test_two_parts_of_an_encoder_are_the_whole(checkpoints, family):
    encoder = encoders.load(checkpoints[family])
    ids = encoders.tokenize(encoder.tokenizer(), TEXTS, MOST)
    full = encoders.encode(encoder.model(), ids, Frozen(3, "tokens"), CPU, quiet)
    for opened in (1, 2, 3):
        lower = Ragged(encoders.encode(encoder.model(), ids, Frozen(3 - opened, "tokens"), CPU, quiet), ids.starts)
        states, mask = (torch.from_numpy(a) for a in lower.padded(np.arange(len(TEXTS))))
        with torch.no_grad():
            upper = blocks.Opened(encoder.model(), opened).eval()(states, mask)
        assert np.allclose(upper[mask].numpy(), full, atol=1e-4), opened


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opened", [0, 1, "all"])
def test_interrupted_training_goes_on_exactly(splits, tmp_path, family, opened):
    if opened == 1 and family not in CUT:
        pytest.skip("its blocks cannot train alone")
    data, settings = splits(family), params(**{"model.unfreeze": opened})
    learner, (_, expected) = train(data, settings, 2)
    training.seed_everything(0)
    first = TASK.build(settings, data, 2, CPU)
    training.run_epoch(TASK, first, data.train, data.val)
    training.save(first, tmp_path / "c.pt")
    training.seed_everything(99)
    second = TASK.build(settings, data, 2, CPU)
    training.load(second, tmp_path / "c.pt")
    resumed = training.run_epoch(TASK, second, data.train, data.val)
    for key in ("train_loss", "gradient_norm", "val_loss", "val_macro_f1"):
        assert resumed[key] == expected[key], key
    before, after = data.train.encoder.model(), data.train.encoder.model()
    learner.model.write_encoder(after)
    changed = {
        name for name, tensor in after.state_dict().items() if not torch.equal(tensor, before.state_dict()[name])
    }
    names = {name for name, _ in before.named_parameters()}
    if opened == "all":
        assert not {name for name in changed if "word_emb" in name or "tok_emb" in name}, "words keep their embeddings"
        assert len(changed) > 0.8 * len(names)
    elif opened == 1:
        assert changed
        assert all(".2." in name for name in changed), "only the last block"
    else:
        assert not changed


@pytest.mark.parametrize("family", CUT)
def test_features_of_frozen_blocks_train_as_the_whole_network(splits, family):
    """Without dropout, a training on cached states is the training of the whole network with frozen lower blocks."""
    data, settings = splits(family), params(**{"model.unfreeze": 1, "model.tfidf": False, "dropout": 0.0})
    training.seed_everything(0)
    learner = TASK.build(settings, data, 1, CPU)
    learner.model.eval()
    whole = data.train.encoder.model()
    rows = np.arange(8)
    ids, mask = (torch.from_numpy(a) for a in data.train.ids.padded(rows))
    ids = ids.masked_fill(~mask, data.train.encoder.pad)
    for block in (blocks.blocks_of(whole))[2:]:
        block.load_state_dict({name: tensor.clone() for name, tensor in block.state_dict().items()}, assign=True)
        block.requires_grad_(True)
    states = whole(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    expected = learner.model.head(encoders.mean_of(states, mask))
    ours = learner.model(batch(learner, data.train, rows_on(torch.device("cpu"), [rows])[0]))
    assert torch.allclose(ours, expected, atol=1e-4)
    expected.square().sum().backward()
    theirs = [p.grad.clone() for p in blocks.blocks_of(whole)[2].parameters()]
    learner.model.zero_grad()
    ours.square().sum().backward()
    for own, other in zip(learner.model.trained_blocks[0].parameters(), theirs, strict=True):
        assert torch.allclose(own.grad, other, rtol=1e-3, atol=1e-4 * float(other.abs().max() + 1))


#: Kinds of models that are exported, beside a model of each family.
KINDS = {
    "frozen": ("bert", {}),
    "pieces": ("bert", {"model.characters": True}),
    "cls": ("roberta", {"model.pooling": "cls", "model.tfidf": False}),
    "tokens": ("roberta", {"model.head": "tokens"}),
    "tokens with padding": ("bert", {"model.head": "tokens", "model.mask_padding": False}),
    "tokens with padding, all": (
        "roberta",
        {"model.head": "tokens", "model.mask_padding": False, "model.unfreeze": "all"},
    ),
    "cnn": ("modernbert", {"model.head": "cnn"}),
    "blocks of distilbert": ("distilbert", {"model.unfreeze": 1}),
    "lora": ("deberta-v2", {"model.unfreeze": 1, "model.lora": 2}),
    "lora of distilbert": ("distilbert", {"model.unfreeze": 1, "model.lora": 2}),
    "lora, all": ("xlm-roberta", {"model.unfreeze": "all", "model.lora": 2}),
} | {family: (family, {"model.unfreeze": "all"}) for family in FAMILIES}
#: Loads each model with the files of its folder alone.
ALONE = """
import json, runpy, sys
from pathlib import Path

found = {}
for name in json.loads(sys.argv[1]):
    found[name] = runpy.run_path(str(Path(name) / "usage.py"))["classify"](json.loads(sys.argv[2])).tolist()
assert not {"trainables", "search", "peft"} & set(sys.modules), "loaded without this project"
print("result", json.dumps(found))
"""


@pytest.fixture(scope="module")
def exported(splits, tmp_path_factory):
    """By kind the folder of its exported model, and the probabilities before the export."""
    made = {}
    for number, (kind, (family, changes)) in enumerate(KINDS.items()):
        folder = tmp_path_factory.mktemp("model") / str(number)
        folder.mkdir()
        data = splits(family)
        learner, curve = train(data, params(**changes))
        learner.params["threshold"] = curve[0]["val_threshold"]
        made[kind] = folder, _probabilities(learner, data.test)
        TASK.export(learner, data.info, folder)
    return made


@pytest.fixture(scope="module")
def alone(exported, splits):
    """By kind the probabilities of `usage.py` in a process that does not know this project."""
    texts = splits("bert").test.texts.tolist()
    folders = [str(folder) for folder, _ in exported.values()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", ALONE, json.dumps(folders), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folders[0])
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("result "))
    return dict(zip(exported, json.loads(line.removeprefix("result ")).values(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_exported_model_says_what_the_trained_one_says(exported, splits, kind):
    folder, expected = exported[kind]
    data = splits(KINDS[kind][0])
    loaded = TASK.load(folder)
    frame = TASK.predict(loaded, TASK.example(data.test, data.info))
    assert np.allclose(frame[["medical", "other"]].to_numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_exported_model_works_without_this_project(exported, alone, kind):
    assert np.allclose(np.array(alone[kind]), exported[kind][1], atol=1e-5)


def test_model_that_cannot_travel_says_so(splits, tmp_path, monkeypatch):
    learner, _ = train(splits("bert"), params())
    monkeypatch.setattr(portable, "TOLERANCE", -1.0)
    TASK.export(learner, splits("bert").info, tmp_path)
    assert not (tmp_path / "head.pt2").exists()
    assert (
        "this model needs the project that trained it: its probabilities differ" in (tmp_path / "usage.py").read_text()
    )


@pytest.mark.parametrize("family", ["distilbert", "deberta-v2"])
@pytest.mark.parametrize("opened", [1, "all"])
def test_lora_trains_little_and_resumes(splits, tmp_path, family, opened):
    data, settings = splits(family), params(**{"model.unfreeze": opened, "model.lora": 2, "model.tfidf": False})
    learner, (_, expected) = train(data, settings, 2)
    trained = {name for name, p in learner.model.named_parameters() if p.requires_grad and not name.startswith("head")}
    assert trained
    assert all("lora_" in name for name in trained)
    training.seed_everything(0)
    first = TASK.build(settings, data, 2, CPU)
    training.run_epoch(TASK, first, data.train, data.val)
    training.save(first, tmp_path / "c.pt")
    training.seed_everything(5)
    second = TASK.build(settings, data, 2, CPU)
    training.load(second, tmp_path / "c.pt")
    assert training.run_epoch(TASK, second, data.train, data.val)["val_loss"] == expected["val_loss"]


def test_lora_without_its_library_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"model.lora: needs the library peft: pip install 'trial-search\[lora\]'"):
        lora.check()


@pytest.mark.parametrize("family", sorted(families.WHOLE))
def test_family_that_cannot_be_cut_is_named(splits, tmp_path, family):
    space = load_config("tweets", ["model.unfreeze=1"], {}).space
    kind = family
    with pytest.raises(InputError, match=f"unfreeze: 1: blocks of {kind} encoders .* allowed are 0 and all"):
        TASK.precompute(splits(family), space.choices(), CPU, tmp_path, quiet)


def test_learning_rates_fall_from_the_head_to_the_embeddings(splits):
    learner, _ = train(splits("modernbert"), params(**{"model.unfreeze": "all"}))
    rates = [group["initial_lr"] for group in learner.optimizer.param_groups]
    assert rates == pytest.approx([0.01, 0.01, 1e-3, 5e-4, 2.5e-4, 1.25e-4]), "head, TF-IDF, 3 blocks, embeddings"
    grouped = sum(len(group["params"]) for group in learner.optimizer.param_groups)
    assert grouped == len([p for p in learner.model.parameters() if p.requires_grad])


def test_opened_blocks_need_a_rate(splits):
    with pytest.raises(InputError, match=r"encoder_lr: no value with model.unfreeze=1"):
        TASK.build(params(**{"model.unfreeze": 1, "encoder_lr": None}), splits("bert"), 1, CPU)


def test_batches_of_similar_length_hold_every_text_once():
    lengths = np.random.default_rng(0).integers(3, 50, 1000)
    torch.manual_seed(0)
    batches = similar_rows(lengths, 8, torch.device("cpu"))
    assert sorted(np.concatenate([rows.here for rows in batches]).tolist()) == list(range(1000))
    spread = np.mean([np.ptp(lengths[rows.here]) for rows in batches])
    assert spread < 10
    means = [lengths[rows.here].mean() for rows in batches]
    assert abs(np.corrcoef(range(len(means)), means)[0, 1]) < 0.3, "in random order"


def test_code_of_a_checkpoint_is_not_run(checkpoints, tmp_path):
    for file in Path(checkpoints["roberta"]).iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())

    class Code:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"embeddings.word_embeddings.weight": Code()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        encoders.load(str(tmp_path))
    assert not (tmp_path / "ran").exists()
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    with pytest.raises(InputError, match="cannot be loaded"):
        encoders.check(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_encoder_travels_to_workers(checkpoints):
    for family in ("modernbert", "bertweet"):
        encoder = encoders.load(checkpoints[family])
        travelled = pickle.loads(pickle.dumps(encoder))
        ids = encoders.tokenize(travelled.tokenizer(), TEXTS, MOST)
        assert ids.flat.tolist() == encoders.tokenize(encoder.tokenizer(), TEXTS, MOST).flat.tolist()
        one, other = (encoders.encode(e.model(), ids, Frozen(3, "mean"), CPU, quiet) for e in (encoder, travelled))
        assert np.array_equal(one, other)
        assert not any(tensor.is_meta for tensor in (*travelled.model().parameters(), *travelled.model().buffers()))


def test_network_of_a_frozen_encoder_holds_none_of_it(splits):
    data = splits("roberta")
    net = TextNet(data.train.encoder, params(), 2, MOST, 0)
    assert all(name.startswith("head.") for name in net.state_dict())
