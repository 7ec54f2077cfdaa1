"""Fine-tuning of causal language models, with tiny checkpoints that the tests make: nothing is downloaded."""

import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from search.core.config import load_config
from tests.trainables.conftest import assert_is_timed, assert_units_add_up
from trainables.base import training
from trainables.base.device import Device
from trainables.base.errors import InputError
from trainables.wikitext import data as reading
from trainables.wikitext import pretrained
from trainables.wikitext.task import TASK
from trainables.wikitext.tokenizer import basic_english

CPU = Device(torch.device("cpu"))
FAMILIES = ("gpt2", "llama", "qwen2", "opt", "gpt_neox")
LINES = {
    "train": ["The cat sat on the mat ; it didn't move .", "", "= A Heading =", 'He said : "No , never !" (really)']
    * 30,
    "val": ["The dog sat on the mat .", 'It said : "Never , no !"'] * 12,
    "test": ["A cat moved ; the dog didn't .", "= Another Heading ="] * 12,
}
TINY = (
    "batch_size=4",
    "bptt=8",
    "model.unfreeze=all",
    "adam_lr=0.003",
    "weight_decay=0.01",
    "schedule=constant",
    "parts=1",
)


def save(family, folder):
    """Saves a tiny checkpoint of a family with a tokenizer, and returns the folder's name."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    if family in ("llama", "qwen2"):  # as SentencePiece has it: a sign for the blank, put before the text too
        tokenizer = Tokenizer(models.BPE(unk_token="<s>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.normalizer = normalizers.NFC()
        alphabet = []
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([line + "\n" for lines in LINES.values() for line in lines], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    size = {"vocab_size": len(fast), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = {
        "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32},
        "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
                  "num_key_value_heads": 1, "max_position_embeddings": 32},
        "qwen2": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
                  "num_key_value_heads": 1, "max_position_embeddings": 32, "tie_word_embeddings": True},
        "opt": {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
                "max_position_embeddings": 32, "word_embed_proj_dim": 16},
        "gpt_neox": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
                     "max_position_embeddings": 32},
    }[family]  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **size, **config))
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    made = {}

    def checkpoint(family):
        if family not in made:
            made[family] = save(family, tmp_path_factory.mktemp(family))
        return made[family]

    return checkpoint


def config_with(name, *sets):
    return load_config("wikitext", [f"model.pretrained={name}", "data.batch=2", "data.bptt=8", *TINY, *sets])


def prepared(config, tmp_path):
    """The splits of LINES as a search prepares them, and the configuration of a trial."""
    splits = reading.tokenized(LINES, config.data, "made up", [], {})
    splits = TASK.precompute(splits, config.space.choices(), CPU, tmp_path, lambda *_: None)
    return splits, config.space.sample(lambda parameter: pytest.fail(f"{parameter.name} is not fixed"))


def learner_of(name, tmp_path, *sets, epochs=4):
    splits, params = prepared(config_with(name, *sets), tmp_path)
    training.seed_everything(0)
    return splits, TASK.build(params, splits, epochs, CPU)


def plain_perplexity(model, tokenizer, lines, window):
    """exp(sum of the tokens' negative log-likelihoods / number of words), without the first token and word."""
    kept = [line for line in lines if basic_english(line)]
    ids = [i for line in kept for i in tokenizer(line + "\n", add_special_tokens=False)["input_ids"]]
    words = sum(len(basic_english(line)) for line in kept)
    total = 0.0
    for start in range(0, len(ids) - 1, window):
        part = torch.tensor([ids[start : start + window + 1]])
        with torch.no_grad():
            log_p = model(input_ids=part[:, :-1]).logits[0].log_softmax(-1)
        total -= log_p.gather(1, part[0, 1:, None]).sum().item()
    return math.exp(total / (words - 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_perplexity_per_word_is_that_of_a_plain_computation(checkpoints, tmp_path, family):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = checkpoints(family)
    splits, learner = learner_of(name, tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)
    for split in ("train", "val", "test"):
        metrics = TASK.evaluate(learner, getattr(splits, split))
        assert metrics["perplexity"] == pytest.approx(plain_perplexity(model, tokenizer, LINES[split], 8), rel=1e-4)
        assert metrics["loss"] == pytest.approx(math.log(metrics["perplexity"]))
        tokens, words = len(getattr(splits, split).encoded[name].ids), len(getattr(splits, split))
        assert math.log(metrics["token_perplexity"]) * (tokens - 1) == pytest.approx(metrics["loss"] * (words - 1))
    assert TASK.baselines(splits).keys() == {"2-gram", "5-gram"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sets", [(), ("model.unfreeze=1",), ("model.lora=2", "model.unfreeze=null")], ids=str)
def test_training_resumes_to_the_same_bits(checkpoints, tmp_path, family, sets):
    name = checkpoints(family)
    splits, whole = learner_of(name, tmp_path, "parts=2", *sets)
    if "model.unfreeze=1" in sets:
        _, blocks = pretrained._blocks(whole.model.net)
        opened = [any(p.requires_grad for p in block.parameters()) for block in blocks]
        assert opened == [False, False, True]
        assert not whole.model.net.get_input_embeddings().weight.requires_grad
    expected = [training.run_epoch(TASK, whole, splits.train, splits.val) for _ in range(4)]
    assert expected[-1]["train_loss"] < expected[0]["train_loss"]
    _, first = learner_of(name, tmp_path, "parts=2", *sets)
    training.run_epoch(TASK, first, splits.train, splits.val)
    training.save(first, tmp_path / "c.pt")
    stored = torch.load(tmp_path / "c.pt", weights_only=True)["model"]
    assert set(stored) == {key for key, p in first.model.named_parameters() if p.requires_grad}
    _, second = learner_of(name, tmp_path, "parts=2", *sets)
    training.seed_everything(99)
    training.load(second, tmp_path / "c.pt")
    for epoch in (1, 2, 3):
        resumed = training.run_epoch(TASK, second, splits.train, splits.val)
        for key in ("train_loss", "gradient_norm", "val_loss", "val_perplexity"):
            assert resumed[key] == expected[epoch][key], (epoch, key)


def test_trials_share_frozen_weights_and_change_none(checkpoints, tmp_path):
    splits, learner = learner_of(checkpoints("gpt2"), tmp_path)
    before = {name: array.copy() for name, array in splits.train.models[checkpoints("gpt2")].weights.items()}
    training.run_epoch(TASK, learner, splits.train, splits.val)
    for name, array in splits.train.models[checkpoints("gpt2")].weights.items():
        assert np.array_equal(array, before[name]), name


ALONE = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
assert not [name for name in sys.modules if name.partition(".")[0] in ("trainables", "search", "peft")]
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
ids, total, window = [], 0.0, 8
for line in json.loads(sys.argv[2]):
    ids += tokenizer(line + "\\n", add_special_tokens=False)["input_ids"]
for start in range(0, len(ids) - 1, window):
    part = torch.tensor([ids[start : start + window + 1]])
    with torch.no_grad():
        log_p = model(input_ids=part[:, :-1]).logits[0].log_softmax(-1)
    total -= log_p.gather(1, part[0, 1:, None]).sum().item()
print(total)
"""


@pytest.mark.parametrize(
    ("family", "sets"),
    [
        *((family, ()) for family in FAMILIES),
        ("gpt2", ("model.lora=2", "model.unfreeze=null")),
        ("opt", ("model.unfreeze=2",)),
    ],
    ids=str,
)  # fmt: skip
def test_export_loads_without_this_project_and_predicts_the_same(checkpoints, tmp_path, family, sets):
    splits, learner = learner_of(checkpoints(family), tmp_path, *sets)
    training.run_epoch(TASK, learner, splits.train, splits.val)
    folder = tmp_path / "export"
    folder.mkdir()
    TASK.export(learner, splits.info, folder)
    assert {"config.json", "model.safetensors", "tokenizer.json", "usage.py", "model.json"} <= {
        path.name for path in folder.iterdir()
    }
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", ALONE, str(folder), json.dumps([x for x in LINES["test"] if x])]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    metrics = TASK.evaluate(learner, splits.test)
    assert float(done.stdout.split()[-1]) == pytest.approx(metrics["loss"] * (len(splits.test) - 1), rel=1e-4)
    # as it is loaded here
    loaded = TASK.load(folder)
    texts = ["The cat sat on the mat .", "never", ""]
    answer = TASK.predict(loaded, TASK.inputs(texts[:2]))
    assert list(answer.columns) == ["continuation", "perplexity"]
    trained = training.Learner(
        learner.model.eval(),
        learner.optimizer,
        None,
        CPU,
        learner.params,
        extra={"tokenizer": loaded.extra["tokenizer"]},
    )
    same = TASK.predict(trained, TASK.inputs(texts[:2]))
    assert answer["continuation"].tolist() == same["continuation"].tolist()
    assert answer["perplexity"].iloc[0] == pytest.approx(same["perplexity"].iloc[0], rel=1e-4)
    assert math.isnan(answer["perplexity"].iloc[1]), "a single word is not predicted"
    assert not TASK.predict(loaded, TASK.inputs(texts[:1]).assign(seed=5))["continuation"].equals(
        answer["continuation"][:1]
    )
    for text in TASK.predict(loaded, TASK.inputs(texts[:2]))["continuation"]:
        assert len(text.split()) <= 20


def test_usage_example_runs(checkpoints, tmp_path):
    splits, learner = learner_of(checkpoints("gpt2"), tmp_path)
    TASK.export(learner, splits.info, tmp_path)
    done = subprocess.run([sys.executable, "-I", "usage.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "the history of" in done.stdout, done.stderr


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_samples_and_artifacts(checkpoints, tmp_path, family):
    splits, learner = learner_of(checkpoints(family), tmp_path)
    training.run_epoch(TASK, learner, splits.train, splits.val)
    said = TASK.samples(learner)
    assert len(said) == 3 and said == TASK.samples(learner) and len(set(said)) > 1
    assert all(0 < len(sentence.split()) <= 20 and "<s>" not in sentence for sentence in said)
    TASK.artifacts(learner, splits.test, splits.info, tmp_path)
    assert (tmp_path / "samples.txt").exists() and (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_stretches_of_words_add_up_to_the_objective(checkpoints, tmp_path, monkeypatch, family):
    monkeypatch.setattr("trainables.wikitext.task.UNIT", 11)
    splits, learner = learner_of(checkpoints(family), tmp_path)
    assert_units_add_up(TASK, learner, splits.val)
    units = TASK.units(learner, splits.val)
    assert units[:, 1].tolist() == [11] * (len(units) - 1) + [(len(splits.val) - 1) % 11 or 11]
    longer = learner_of(checkpoints(family), tmp_path, "bptt=16")[1]
    assert len(TASK.units(longer, splits.val)) == len(units)


@pytest.mark.parametrize("boundaries", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_words_of_tokens(checkpoints, tmp_path, family, boundaries):
    tokenizer = pretrained.load_tokenizer(checkpoints(family))
    lines = ["The cat ; sat .", "", "didn't (move)"]
    ids, words = pretrained.encode(tokenizer, lines, boundaries)
    by_word = {}
    for i, word in zip(ids.tolist(), words.tolist(), strict=True):
        by_word.setdefault(word, []).append(i)
    counted = [["<sos>"] * boundaries + basic_english(line) + ["<eos>"] * boundaries for line in lines if line]
    flat = [word for line in counted for word in line]
    assert words.min() == boundaries and words.max() == len(flat) - 3 - boundaries, "the first of ( move )"
    assert (np.diff(words) >= 0).all()
    for position, word in ((1, "cat"), (2, "sat")):
        assert word in tokenizer.decode(by_word[position + boundaries])
    assert tokenizer.decode(ids).split() == " ".join(lines).split()


def test_perplexity_of_a_prompt(checkpoints, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    splits, learner = learner_of(checkpoints("gpt2"), tmp_path, "bptt=32")
    TASK.export(learner, splits.info, tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    text = "The cat (didn't) move"
    with torch.no_grad():
        mean = model(
            **(encoded := tokenizer(text, return_tensors="pt", add_special_tokens=False)), labels=encoded["input_ids"]
        ).loss
    expected = math.exp(mean.item() * (encoded["input_ids"].shape[1] - 1) / (len(basic_english(text)) - 1))
    answer = TASK.predict(TASK.load(tmp_path), TASK.inputs([text, ";", ""]))
    assert answer["perplexity"].iloc[0] == pytest.approx(expected, rel=1e-4)
    assert answer["perplexity"][1:].isna().all() and answer["continuation"].map(bool).all()


def test_merged_splits_are_one_stream(checkpoints, tmp_path):
    name = checkpoints("gpt2")
    splits, learner = learner_of(name, tmp_path)
    merged = TASK.merge(splits)
    tokens = merged.encoded[name]
    assert len(merged) == len(splits.train) + len(splits.val)
    assert tokens.words.max() == len(merged) - 1
    assert TASK.evaluate(learner, merged)["perplexity"] > 1
    assert merged.models[name] is splits.train.models[name]


def test_bits_of_workers(checkpoints, tmp_path):
    """A worker gets the splits as bytes, and trains as the driver would."""
    import cloudpickle

    splits, learner = learner_of(checkpoints("llama"), tmp_path)
    sent = cloudpickle.loads(cloudpickle.dumps(splits))
    training.seed_everything(0)
    other = TASK.build(learner.params, sent, 4, CPU)
    one, two = (
        training.run_epoch(TASK, *pair) for pair in ((learner, splits.train, splits.val), (other, sent.train, sent.val))
    )
    assert one["val_loss"] == two["val_loss"] and one["train_loss"] == two["train_loss"]


def test_tokens_come_from_the_cache(checkpoints, tmp_path, monkeypatch):
    config = config_with(checkpoints("gpt2"))
    first, _ = prepared(config, tmp_path)
    monkeypatch.setattr(pretrained, "encode", lambda *_, **__: pytest.fail("tokenized again"))
    again, _ = prepared(config, tmp_path)
    assert np.array_equal(first.train.encoded[checkpoints("gpt2")].ids, again.train.encoded[checkpoints("gpt2")].ids)


def test_model_that_changed_is_refused_on_resume(tmp_path):
    name = save("gpt2", tmp_path / "m")
    config = config_with(name)
    splits, _ = prepared(config, tmp_path)
    assert set(splits.info.chosen["pretrained"]) == {name}
    lines = reading.tokenized(LINES, config.data, "made up", [], dict(splits.info.chosen))
    TASK.precompute(lines, config.space.choices(), CPU, tmp_path, lambda *_: None)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(name)
    model.transformer.ln_f.bias.data += 1
    model.save_pretrained(name)
    with pytest.raises(InputError, match="changed since the search began"):
        TASK.precompute(lines, config.space.choices(), CPU, tmp_path, lambda *_: None)


def test_search_from_nothing_ignores_the_section_of_pretrained_models():
    plain = load_config("wikitext")
    assert load_config("wikitext", ["model.pretrained=null"]).raw == plain.raw
    assert not any(p.name.startswith("model.") for p in plain.space.parameters)
    for profile in ("data", "demo"):
        config = load_config("wikitext", ["model.pretrained=some/id"], profile=profile)
        assert config.space.fixed()[pretrained.KEY] == "some/id"
        assert all(config.space.fixed()[name] is None for name in pretrained.FROM_NOTHING)
        assert config.search.epochs == 16
    chosen = load_config("wikitext", flags={"space.model.pretrained": "some/id"})
    assert chosen.space.fixed()[pretrained.KEY] == "some/id"


def refused(*sets):
    config = load_config("wikitext", sets)
    TASK.check(config.space.fixed())


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("embedding=200",), r"embedding: 200: means nothing with model\.pretrained"),
        (("mixture=true",), r"mixture: True: means nothing with model\.pretrained"),
        (("model.unfreeze=some",), "model.unfreeze=some: expected a whole number >= 0, or all"),
        (("model.unfreeze={choice: [-1, all]}",), "-1: expected a whole number >= 0, or all"),
        (("model.unfreeze=4",), "model.unfreeze: 4: .* has 3 blocks; allowed are 0 to 3, or all"),
        (("model.lora=4", "model.unfreeze=2"), "with model.lora 4 the adapters train alone"),
        (("bptt=64",), "bptt: 64: .* reads at most 32 tokens at once"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_before_any_trial(checkpoints, sets, message):
    with pytest.raises(InputError, match=message):
        refused(f"model.pretrained={checkpoints('gpt2')}", *sets)


def test_settings_of_a_choice_are_refused_before_any_trial(checkpoints, tmp_path):
    name = checkpoints("gpt2")
    for sets, message in (
        (("bptt={choice: [8, 64]}",), "bptt: 64"),
        (("model.unfreeze={choice: [2, 9]}",), "model.unfreeze: 9"),
        ((f"model.pretrained={{choice: [{name}, null]}}",), "are two searches"),
        (("batch_size=99999",), "at least 199998 are needed"),
    ):
        config = config_with(name, *sets)
        with pytest.raises(InputError, match=message):
            TASK.precompute(
                reading.tokenized(LINES, config.data, "x", [], {}),
                config.space.choices(),
                CPU,
                tmp_path,
                lambda *_: None,
            )


def test_settings_without_a_pretrained_model():
    with pytest.raises(InputError, match="embedding: null: only a pretrained model has none"):
        refused("embedding=null")
    with pytest.raises(InputError, match=r"model\.unfreeze"):
        refused("model.unfreeze=2")


def test_no_weight_would_train(tmp_path, checkpoints):
    assert learner_of(checkpoints("gpt2"), tmp_path, "model.unfreeze=0")[1].model.state_dict().keys() == {
        "net.transformer.ln_f.weight", "net.transformer.ln_f.bias"
    }  # fmt: skip


def test_peft_is_missing(checkpoints, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape("pip install 'trial-search[lora]'")):
        refused(f"model.pretrained={checkpoints('gpt2')}", "model.lora=4", "model.unfreeze=null")


def test_checkpoints_that_cannot_be_used(tmp_path, checkpoints):
    from transformers import BertConfig, BertModel, ViTConfig

    with pytest.raises(InputError, match=r"cannot be loaded .*; allowed are a hub id or a folder"):
        refused(f"model.pretrained={tmp_path / 'nothing'}")
    ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(InputError, match="is a vit model, which is no causal language model"):
        refused(f"model.pretrained={tmp_path / 'vit'}")
    # BERT passes for a causal model by its name alone
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    from transformers import AutoTokenizer, BertLMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(checkpoints("gpt2"))
    for folder, model in (("bert", BertModel), ("head", BertLMHeadModel)):
        model(BertConfig(vocab_size=len(tokenizer), **tiny)).save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
    with pytest.raises(InputError, match="weights are missing, such as"):
        pretrained.load(str(tmp_path / "bert"))
    with pytest.raises(InputError, match="predictions depend on later tokens"):
        pretrained.load(str(tmp_path / "head"))
    # no safetensors
    pickled = tmp_path / "pickled"
    save("gpt2", pickled)
    torch.save({}, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        pretrained.load(str(pickled))
    # cut off
    save("gpt2", tmp_path / "cut")
    whole = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[:100])
    with pytest.raises(InputError, match="cannot be loaded"):
        pretrained.load(str(tmp_path / "cut"))


def test_tokens_that_the_model_lacks(tmp_path, checkpoints):
    from transformers import AutoTokenizer

    name = save("gpt2", tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokenizer.add_tokens(["one-more"])
    tokenizer.save_pretrained(name)
    learner_of(name, tmp_path)  # the text has no such token
    tokenizer.add_tokens(["Heading"])
    tokenizer.save_pretrained(name)
    with pytest.raises(InputError, match=r"token \d+ of its tokenizer, and the model has \d+"):
        learner_of(name, tmp_path)


def test_latency_of_a_window(checkpoints, tmp_path):
    splits, learner = learner_of(checkpoints("gpt2"), tmp_path)
    assert_is_timed(TASK, learner, splits.val)
