import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from search.core.config import load_config
from tests.conftest import SHARED
from tests.trainables.conftest import assert_is_timed, assert_units_add_up
from trainables.base import training
from trainables.base.device import Device, choose_device
from trainables.base.errors import InputError
from trainables.wikitext import adaptive, mixture
from trainables.wikitext import data as reading
from trainables.wikitext.data import batchify, get_batch, tokenized
from trainables.wikitext.generate import generate
from trainables.wikitext.model import LanguageModel
from trainables.wikitext.ngram import KneserNey
from trainables.wikitext.task import TASK
from trainables.wikitext.tokenizer import basic_english, decode, vocabulary

CPU = Device(torch.device("cpu"))
TINY = ("embedding=24", "heads=2", "hidden=20", "layers=2", "dropout=0.1", "optimizer=adam", "adam_lr=0.003")
TINY += ("batch_size=4", "bptt=7")
DATA = load_config("wikitext", ["data.batch=4", "data.bptt=7"]).data


def params(*sets):
    space = load_config("wikitext", [*TINY, *sets]).space
    return space.sample(lambda parameter: pytest.fail(f"{parameter.name} is not fixed"))


def splits(**changes):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(30)]
    text = {
        s: [" ".join(rng.choice(words, 40)) + " ." for _ in range(n)]
        for s, n in (("train", 20), ("val", 5), ("test", 5))
    }
    return tokenized(text, DATA | changes, "made up", [], {})


def model(*sets, words=40):
    torch.manual_seed(0)
    return LanguageModel(words, 7, params(*sets), torch.float32).eval()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello , world !"),
        ("It's (really) so.", "it ' s ( really ) so ."),
        ('He said: "No; never?"', "he said no never ?"),
        ("a<br />b", "a b"),
        ("3.14 is\tPI\n", "3 . 14 is pi"),
        ("state @-@ of <unk>", "state @-@ of <unk>"),
        ("", ""),
    ],
)
def test_basic_english(text, expected):
    assert basic_english(text) == expected.split()


def test_vocabulary_is_that_of_train_the_frequent_first():
    words = ["b", "a", "a", "c", "c", "c", "<unk>"]
    assert vocabulary(words, 1, False) == ("<unk>", "c", "a", "b")
    assert vocabulary(words, 2, True) == ("<unk>", "<sos>", "<eos>", "c", "a")
    made = tokenized(
        {"train": ["a b c d e f g"] * 9, "val": ["a z"], "test": ["z b"]}, DATA | {"batch": 2}, "x", [], {}
    )
    assert "z" not in made.train.words
    assert made.test.tokens.tolist() == [0, made.train.words.index("b")]
    wrapped = tokenized(
        {"train": ["a b", "c"] * 20, "val": ["a"], "test": ["b"]}, DATA | {"boundaries": True}, "x", [], {}
    )
    assert [wrapped.train.words[i] for i in wrapped.val.tokens] == ["<sos>", "a", "<eos>"]


def test_decoded_words_read_as_a_sentence():
    assert decode(["it", "'", "s", "(", "really", ")", "so", ",", "yes", "."]) == "it's (really) so, yes."


def test_batchify_and_get_batch_by_hand():
    source = batchify(torch.arange(14), 3)
    assert source.tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    data, target = get_batch(source, 0, 2)
    assert data.tolist() == [[0, 4, 8], [1, 5, 9]]
    assert target.tolist() == [1, 5, 9, 2, 6, 10]
    data, target = get_batch(source, 2, 2)
    assert data.tolist() == [[2, 6, 10]], "the last row is a target only"
    assert target.tolist() == [3, 7, 11]


@pytest.mark.parametrize("sets", [(), ("positions=rotary",), ("positions=learned", "norm_first=true"), ("tied=true",)])
def test_no_word_depends_on_later_ones(sets):
    network = model(*sets)
    one = torch.randint(40, (2, 7))
    other = one.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 40
    with torch.no_grad():
        assert torch.allclose(network(one)[:, :4], network(other)[:, :4], atol=1e-6)
        assert not torch.allclose(network(one)[:, 4:], network(other)[:, 4:])
        assert torch.allclose(network(one[:, :3]), network(one)[:, :3], atol=1e-5), "nor on how many there are"


@pytest.mark.parametrize("norm_first", [False, True])
def test_block_equals_the_library_s(norm_first):
    block = model(f"norm_first={str(norm_first).lower()}").blocks[0]
    library = nn.TransformerEncoderLayer(24, 2, 20, 0.0, batch_first=True, norm_first=norm_first).eval()
    named = {"in_projection.weight": "self_attn.in_proj_weight", "in_projection.bias": "self_attn.in_proj_bias"}
    named |= {f"out_projection.{kind}": f"self_attn.out_proj.{kind}" for kind in ("weight", "bias")}
    library.load_state_dict({named.get(name, name): tensor for name, tensor in block.state_dict().items()})
    x = torch.randn(3, 7, 24)
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    assert torch.allclose(block(x, None), library(x, src_mask=mask), atol=1e-5)


def test_rotary_attention_depends_on_distances_only():
    block = model("positions=rotary").blocks[0]
    from trainables.wikitext.model import rotate, rotation_table

    q, k = torch.randn(1, 12), torch.randn(1, 12)
    table = rotation_table(20, 12)
    near, far = (rotate(q, table[:, a : a + 1]) @ rotate(k, table[:, b : b + 1]).T for a, b in ((5, 2), (15, 12)))
    assert torch.allclose(near, far, atol=1e-5)
    assert block.heads == 2


def test_reference_loss_is_that_of_float32_eager():
    """bf16 and fused within 1 % of float32 and apart, losses and gradients' norm, over training."""
    data, curves = splits(), {}
    for name, device in (("fp32", CPU), ("bf16", Device(torch.device("cpu"), torch.bfloat16))):
        training.seed_everything(0)
        learner = TASK.build(params("dropout=0.0"), data, 4, device)
        curves[name] = [training.run_epoch(TASK, learner, data.train, data.val) for _ in range(4)]
    for one, other in zip(curves["fp32"], curves["bf16"], strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=0.01)
        assert other["val_loss"] == pytest.approx(one["val_loss"], rel=0.01)
    assert curves["fp32"][-1]["train_loss"] < curves["fp32"][0]["train_loss"]


def test_evaluation_predicts_every_word_once():
    data = splits()
    learner = TASK.build(params(), data, 1, CPU)
    tokens = torch.from_numpy(data.val.tokens.astype(np.int64))
    assert (len(tokens) - 1) % 7, "the last window is shorter"
    network = learner.model.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, 7):
            window, target = tokens[start : start + 7][: len(tokens) - 1 - start], tokens[start + 1 : start + 8]
            total += nn.functional.cross_entropy(network(window[None])[0], target, reduction="sum").item()
    found = TASK.evaluate(learner, data.val)
    assert found["loss"] == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))


def test_stretches_of_text_add_up_to_the_objective(monkeypatch):
    monkeypatch.setattr("trainables.wikitext.task.UNIT", 11)
    data = splits()
    learner = TASK.build(params(), data, 1, CPU)
    assert_units_add_up(TASK, learner, data.val)
    longer = TASK.build(params("bptt=9"), data, 1, CPU)
    assert len(TASK.units(longer, data.val)) == len(TASK.units(learner, data.val)), "whatever the window"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume_in_the_middle_of_a_pass(tmp_path, precision):
    data, device = splits(), choose_device(1, 0, precision)
    settings = params("parts=3")

    def start():
        training.seed_everything(0)
        return TASK.build(settings, data, 6, device)

    whole = start()
    expected = [training.run_epoch(TASK, whole, data.train, data.val) for _ in range(5)]
    first = start()
    for _ in range(2):
        training.run_epoch(TASK, first, data.train, data.val)
    training.save(first, tmp_path / "c.pt")
    training.seed_everything(99)
    second = TASK.build(settings, data, 6, device)
    training.load(second, tmp_path / "c.pt")
    for epoch in (2, 3, 4):
        resumed = training.run_epoch(TASK, second, data.train, data.val)
        for key in ("train_loss", "gradient_norm", "val_loss"):
            assert resumed[key] == expected[epoch][key], (epoch, key)


def test_parts_of_a_pass_are_the_pass():
    data, seen = splits(), {}
    for parts in (1, 3):
        learner = TASK.build(params(f"parts={parts}"), data, parts, CPU)
        seen[parts] = sum(
            training.run_epoch(TASK, learner, data.train, None)["samples_per_second"] > 0 for _ in range(parts)
        )
        learner.epoch = 0
        counts = []
        for _ in range(parts):
            learner.epoch += 1
            counts.append(TASK.train_epoch(learner, data.train)["samples"])
        seen[parts] = sum(counts)
    assert seen[1] == seen[3] == (len(data.train) // 4 - 1) * 4


def test_a_part_of_a_short_text_is_a_step():
    data = splits()
    learner = TASK.build(params("parts=9999"), data, 2, CPU)
    learner.epoch = 1
    assert TASK.train_epoch(learner, data.train)["samples"] == 4 * 7


def test_perplexity_that_overflows_is_infinite():
    from trainables.wikitext.task import exp_or_infinity

    assert exp_or_infinity(1e4) == math.inf
    assert exp_or_infinity(1.0) == pytest.approx(math.e)


def test_sampler_keeps_to_its_settings():
    network = model()

    def draw(count=200, temperature=1.0, top_k=0, top_p=1.0, seed=0, never=()):
        generator = torch.Generator().manual_seed(seed)
        return generate(network, [3], count, temperature, top_k, top_p, generator, list(never))

    assert draw() == draw()
    assert draw() != draw(seed=1)
    assert 0 not in draw(never=[0])
    with torch.no_grad():
        logits = network(torch.tensor([[3]]))[0, -1]
    best = logits.argsort(descending=True)
    firsts = Counter(draw(count=1, seed=s, top_k=3)[0] for s in range(100))
    assert set(firsts) == set(best[:3].tolist())
    assert draw(count=1, temperature=0.0) == [int(best[0])]
    assert draw(count=1, top_p=1e-6) == [int(best[0])]
    p = logits.softmax(0)[best].cumsum(0)
    nucleus = set(best[: int((p < 0.3).sum()) + 1].tolist())
    assert {draw(count=1, seed=s, top_p=0.3)[0] for s in range(200)} <= nucleus


def test_exported_model_continues_as_the_trained_one(tmp_path):
    data = splits()
    learner = TASK.build(params(), data, 2, CPU)
    training.run_epoch(TASK, learner, data.train, data.val)
    TASK.artifacts(learner, data.test, data.info, tmp_path)
    said = (tmp_path / "samples.txt").read_text().splitlines()
    assert len(said) == 3
    assert "<unk>" not in " ".join(said)
    assert (tmp_path / "curves.png").exists()
    TASK.export(learner, data.info, tmp_path)
    loaded = TASK.load(tmp_path)
    with torch.no_grad():
        tokens = torch.from_numpy(data.test.tokens[None, :7].astype(np.int64))
        assert torch.equal(loaded.model(tokens), learner.model.eval()(tokens))
    frame = TASK.inputs(["w1 w2", "w3 never-seen"])
    answer = TASK.predict(loaded, frame)
    assert list(answer.columns) == ["continuation", "perplexity"]
    assert TASK.predict(loaded, frame).equals(answer)
    assert not TASK.predict(loaded, frame.assign(seed=5))["continuation"].equals(answer["continuation"])


def test_kneser_ney_gives_probabilities_and_knows_its_context():
    rng = np.random.default_rng(0)
    stream = np.array([0, 1, 2, 3, 4] * 40 + rng.integers(0, 8, 200).tolist(), dtype=np.int32)
    for order in (1, 2, 3):
        fitted = KneserNey(stream, 10, order)
        for context in ([0, 1], [1, 2], [9, 9], [9, 1]):
            total = sum(fitted.probabilities(np.array([*context, w]))[-1] for w in range(10))
            assert total == pytest.approx(1.0)
    assert fitted.probabilities(np.array([0, 1, 2]))[-1] > 0.6
    assert fitted.probabilities(np.array([9, 9, 9])).min() > 0


def test_bigrams_by_hand():
    """Of `a b a b a c`: counts ab 2, ba 2, ac 1; continuations of a, b, c are 1, 1, 1; discounts 0.5, 1, 1.5."""
    fitted = KneserNey(np.array([0, 1, 0, 1, 0, 2]), 3, 2)
    unigram = (1 - 0.5) / 3 + 0.5 * 3 / 3 / 3
    assert fitted.probabilities(np.array([0, 1]))[1] == pytest.approx((2 - 1.0) / 3 + (1.0 + 0.5) / 3 * unigram)
    assert fitted.probabilities(np.array([0, 2]))[1] == pytest.approx((1 - 0.5) / 3 + (1.0 + 0.5) / 3 * unigram)


def test_prepare_files_and_missing_splits(tmp_path):
    (tmp_path / "wiki.train.tokens").write_text("a b c d\n" * 50)
    (tmp_path / "wiki.valid.tokens").write_text("a b\n" * 3)
    (tmp_path / "wiki.test.tokens").write_text("c d e\n" * 3)
    made = reading.prepare(DATA, tmp_path)
    assert made.info.sizes == {"train": 200, "val": 6, "test": 9}
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "book.txt").write_text("".join(f"line {n} of all\n" for n in range(100)))
    made = reading.prepare(DATA, tmp_path / "alone")
    assert made.info.sizes == {"train": 81 * 4, "val": 9 * 4, "test": 10 * 4}
    assert "test: the last 10 lines of train" in made.info.notes
    (tmp_path / "short.txt").write_text("too short\n" * 5)
    with pytest.raises(InputError, match=r"train has \d+ words; with data.batch 4 and data.bptt 7 at least 32"):
        reading.prepare(DATA, tmp_path / "short.txt")


def test_texts_of_a_table_are_read_as_files_of_text_are(tmp_path):
    words = ["the", "cat", "sat", "on", "the", "mat", "and", "the", "dog", "on", "the", "log"]
    lines = [" ".join(np.random.default_rng(n).permutation(words)) for n in range(60)]
    (tmp_path / "plain").mkdir()
    (tmp_path / "hub").mkdir()
    for name, at in (("train", slice(0, 40)), ("validation", slice(40, 50)), ("test", slice(50, 60))):
        (tmp_path / "plain" / f"{name}.txt").write_text("\n".join(lines[at]))
        frame = pd.DataFrame({"number": range(at.stop - at.start), "text": lines[at]})
        frame.to_parquet(tmp_path / "hub" / f"{name}-00000-of-00001.parquet")
    (tmp_path / "hub" / "dataset_info.json").write_text("{}")
    expected = reading.prepare(DATA, tmp_path / "plain").info
    assert reading.prepare(DATA, tmp_path / "hub").info.fingerprint == expected.fingerprint
    frame.rename(columns={"text": "story"}).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(InputError, match=r"test\.csv: no text column is recognised among number, story"):
        reading.prepare(DATA, tmp_path / "test.csv")
    alone = reading.prepare({**DATA, "text": "story"}, tmp_path / "test.csv").info
    assert alone.sizes["train"] == 8 * len(words), "a file that is given alone is cut, whatever it is called"


def test_text_of_one_line_is_cut_too(tmp_path):
    (tmp_path / "book.txt").write_text("once upon a time " * 500)
    made = reading.prepare(DATA, tmp_path / "book.txt")
    assert made.info.sizes == {"train": 1620, "val": 180, "test": 200}
    assert "test: the last 10 pieces of 20 words of train" in made.info.notes


def test_demo_is_prose_and_no_split_holds_what_another_says():
    lines = reading.demo(0)
    words = {split: len(basic_english(" ".join(some))) for split, some in lines.items()}
    assert words["train"] > 20_000
    assert min(words["val"], words["test"]) > 2_000
    assert len(set(lines["train"]) & set(lines["test"])) == 0
    assert len(set(lines["train"]) & set(lines["val"])) == 0
    assert ">>>" not in " ".join(lines["train"])


def test_corpus_is_the_demo_where_neither_cache_nor_hub_has_one(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    name, said = reading.choose("auto")
    assert name == "demo"
    assert "neither cache nor hub" in said
    with pytest.raises(InputError, match=r"data.corpus: 'wiki': allowed are auto, hub and demo"):
        reading.choose("wiki")


def test_hub_files_in_the_cache_are_read(monkeypatch, tmp_path):
    import pandas as pd

    paths = {}
    for split, file in reading.FILES.items():
        paths[file] = str(tmp_path / f"{split}.parquet")
        pd.DataFrame({"text": ["", f" {split} a b c d \n"] * 30}).to_parquet(paths[file])
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file, **kwargs: paths[file])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file, **kwargs: paths[file])
    made = reading.prepare(DATA, None)
    assert made.info.chosen == {"corpus": "hub"}
    assert made.info.sizes == {"train": 150, "val": 150, "test": 150}


def test_every_sampled_pair_of_width_and_heads_divides():
    space = load_config("wikitext").space
    found = {p.name: p.values() for p in space.parameters}
    assert all(width % heads == 0 for width in found["embedding"] for heads in found["heads"])
    with pytest.raises(InputError, match="embedding: 200: must be a multiple of heads"):
        TASK.check({"embedding": 200, "heads": 3})


@pytest.mark.skipif(not (SHARED / "wikitext-2").exists(), reason="WikiText-2 is not here")
def test_wikitext_2_counts_and_perplexities():
    data = load_config("wikitext").data
    made = reading.prepare(data, SHARED / "wikitext-2")
    assert len(made.train.words) == 28_782
    assert made.info.sizes == {"train": 2_049_990, "val": 214_417, "test": 241_859}
    for order, expected in ((2, 251), (3, 209), (5, 203)):
        assert KneserNey(made.train.tokens, 28_782, order).perplexity(made.test.tokens) == pytest.approx(
            expected, abs=1
        )


@pytest.mark.parametrize("words", [30, 40, 90])
def test_adaptive_softmax_distribution_and_losses(words, monkeypatch):
    monkeypatch.setattr(adaptive, "CUTOFFS", (30, 60))
    net = model("softmax=adaptive", "tied=true", words=words)
    tokens = torch.randint(words, (4, 8))
    log_p = net(tokens[:, :-1])
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(4, 7), atol=1e-5)
    own = -log_p.gather(-1, tokens[:, 1:, None]).mean()
    loss = net.loss(tokens[:, :-1], tokens[:, 1:])
    assert loss.item() == pytest.approx(own.item(), rel=1e-5)
    gradients = [torch.autograd.grad(value, net.embedding.weight)[0] for value in (loss, own)]
    assert torch.allclose(*gradients, atol=1e-6)


def test_adaptive_softmax_trains_writes_and_is_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(adaptive, "CUTOFFS", (5, 15))
    monkeypatch.setattr("trainables.wikitext.task.UNIT", 11)
    made = splits()
    training.seed_everything(0)
    learner = TASK.build(params("softmax=adaptive", "parts=2", "weight_decay=0.01"), made, 3, CPU)
    curve = [training.run_epoch(TASK, learner, made.train, made.val) for _ in range(3)]
    assert curve[-1]["val_perplexity"] < curve[0]["val_perplexity"]
    assert_units_add_up(TASK, learner, made.test)
    TASK.export(learner, made.info, tmp_path)
    frame = TASK.example(made.test, made.info)
    predicted = TASK.predict(TASK.load(tmp_path), frame)
    assert predicted["perplexity"].between(1, 60).all()


def test_cache_is_the_share_of_a_word_among_the_recent_ones():
    share = mixture.cache(np.array([1, 2, 1, 1, 3]))
    d = mixture.DECAY
    expected = [0, 0, d**2 / (d + d**2), (d + d**3) / (d + d**2 + d**3), 0]
    assert share == pytest.approx(expected)


def test_mixture_beats_its_parts(monkeypatch):
    monkeypatch.setattr("trainables.wikitext.task.UNIT", 11)
    made = splits()
    training.seed_everything(0)
    learner = TASK.build(params("mixture=true"), made, 3, CPU)
    metrics = training.run_epoch(TASK, learner, made.train, made.val)
    ngram, cached = mixture.components(made.train, made.val)
    assert metrics["val_perplexity"] <= 1.001 * metrics["val_network_perplexity"]
    assert metrics["val_perplexity"] <= 1.001 * np.exp(-np.log(ngram).mean())
    assert KneserNey(made.train.tokens, len(made.train.words), mixture.ORDER).perplexity(
        made.val.tokens
    ) == pytest.approx(np.exp(-np.log(ngram).mean()))
    assert 0 <= metrics["val_ngram_weight"] + metrics["val_cache_weight"] <= 1 and len(cached) == len(made.val) - 1
    # The final training gets the weights, and its test fits none.
    learner.params |= {name: metrics[f"val_{name}"] for name in TASK.objective.tuned}
    tested = TASK.evaluate(learner, made.test)
    assert tested["ngram_weight"] == pytest.approx(metrics["val_ngram_weight"])
    assert_units_add_up(TASK, learner, made.test)
    assert TASK.evaluate(learner, made.val)["perplexity"] == pytest.approx(metrics["val_perplexity"])


@pytest.mark.parametrize("softmax", ["full", "adaptive"])
def test_latency_of_a_window(monkeypatch, softmax):
    monkeypatch.setattr(adaptive, "CUTOFFS", (5, 15))
    data = splits()
    assert_is_timed(TASK, TASK.build(params(f"softmax={softmax}"), data, 1, CPU), data.val)
