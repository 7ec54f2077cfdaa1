import pickle

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from trainables.base.device import choose_device
from trainables.base.errors import InputError
from trainables.text import encoders
from trainables.text.encoders import Frozen
from trainables.text.ragged import Ragged

TEXTS = ["so sick of this traffic", "Fever since monday, off to the doctor 🤒 #flu", "ok", "a " * 200]


@pytest.fixture(scope="module")
def packaged():
    return encoders.load_encoder("packaged"), encoders.load_tokenizer("packaged")


def quiet(done, total, what):
    pass


def test_packaged_bert_is_the_same_function_as_a_distilbert(packaged):
    ours, tokenizer = packaged
    theirs = BertModel.from_pretrained(encoders.folder_of("packaged"), add_pooling_layer=False).eval()
    ids = encoders.tokenize(tokenizer, TEXTS, 128)
    padded, mask = (torch.from_numpy(a) for a in ids.padded(np.arange(len(TEXTS))))
    assert mask.sum(1).tolist()[2] < mask.shape[1], "there is padding"
    with torch.no_grad():
        for one, other, where in (
            (ours(padded, mask), theirs(padded, mask), mask),  # float32: on every token
            (ours.double()(padded, mask), theirs.double()(padded, mask), torch.ones_like(mask)),
        ):
            assert torch.allclose(one.last_hidden_state[where], other.last_hidden_state[where], atol=1e-5)
    ours.float()


def test_tokenizer_neither_pads_nor_cuts_by_itself(packaged):
    _, tokenizer = packaged
    lengths = encoders.tokenize(tokenizer, TEXTS, 512).lengths
    assert lengths[2] == 3
    assert lengths[3] == 202
    assert encoders.tokenize(tokenizer, TEXTS, 10).lengths.max() == 10


def test_features_of_a_text_do_not_depend_on_its_batch(packaged):
    encoder, tokenizer = packaged
    ids, device = encoders.tokenize(tokenizer, TEXTS, 64), choose_device(1, 0, "fp32")
    full = encoder.config.n_layers
    tokens = encoders.encode(encoder, ids, Frozen(full, "tokens"), device, quiet)
    assert tokens.shape == (len(ids.flat), 384)
    for text, one in enumerate(ids):
        with torch.no_grad():
            alone = encoder(torch.tensor(one[None])).last_hidden_state[0].numpy()
        assert np.allclose(tokens[ids.starts[text] : ids.starts[text + 1]], alone, atol=1e-5)
        for pooling, expected in (("cls", alone[0]), ("mean", alone.mean(0))):
            pooled = encoders.encode(encoder, ids, Frozen(full, pooling), device, quiet)
            assert np.allclose(pooled[text], expected, atol=1e-5)


def test_filling_is_read_as_text(packaged):
    encoder, tokenizer = packaged
    ids, device = encoders.tokenize(tokenizer, TEXTS, 16), choose_device(1, 0, "fp32")
    states = encoders.encode(encoder, ids, Frozen(6, "tokens", fill=16), device, quiet).reshape(len(TEXTS), 16, 384)
    with torch.no_grad():
        everything = encoder(torch.from_numpy(ids.padded(np.arange(len(TEXTS)))[0])).last_hidden_state.numpy()
    assert np.allclose(states, everything, atol=1e-5)


def test_blocks_above_the_frozen_ones_finish_the_work(packaged):
    encoder, tokenizer = packaged
    ids, device, rows = encoders.tokenize(tokenizer, TEXTS, 64), choose_device(1, 0, "fp32"), np.arange(len(TEXTS))
    for blocks in (0, 4):
        lower = Ragged(encoders.encode(encoder, ids, Frozen(blocks, "tokens"), device, quiet), ids.starts)
        states, mask = (torch.from_numpy(a) for a in lower.padded(rows))
        with torch.no_grad():
            upper = encoders.through(encoder.transformer.layer[blocks:], states, mask, encoder.config)
        full = Ragged(encoders.encode(encoder, ids, Frozen(6, "tokens"), device, quiet), ids.starts)
        assert np.allclose(upper[mask].numpy(), full.flat, atol=1e-5)


def test_encoder_is_the_same_after_its_travel(packaged):
    _, tokenizer = packaged
    travelled = pickle.loads(pickle.dumps(encoders.load("packaged")))
    assert encoders.tokenize(travelled.tokenizer(), TEXTS, 64).flat.tolist() == (
        encoders.tokenize(tokenizer, TEXTS, 64).flat.tolist()
    )
    for name, tensor in encoders.load_encoder("packaged").state_dict().items():
        assert torch.equal(travelled.model().state_dict()[name], tensor), name


def tiny(**changes):
    return DistilBertConfig(
        **{"vocab_size": 50, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 32}
        | changes
    )


def test_cached_features_key(tmp_path):
    torch.manual_seed(0)
    encoder, device, calls = DistilBertModel(tiny()), choose_device(1, 0, "fp32"), []

    def count(done, total, what):
        calls.append(done)

    def features(ids, pooling="cls"):
        rows = Ragged(np.concatenate(ids), np.cumsum([0, *map(len, ids)]))
        return encoders.cached_features(encoder, rows, Frozen(1, pooling), device, tmp_path, count)

    first = features([[1, 2], [3]])
    assert isinstance(first, np.memmap)
    assert len(calls) == 1
    assert np.array_equal(features([[1, 2], [3]]), first)
    assert len(calls) == 1
    features([[1], [2, 3]])  # the same tokens, cut elsewhere
    features([[1, 2], [3]], "mean")
    with torch.no_grad():
        encoder.transformer.layer[0].ffn.lin1.bias.add_(1)
    assert not np.array_equal(features([[1, 2], [3]]), first)
    assert len(calls) == 4


def test_encoder_in_a_folder_is_taken_whatever_its_kind(tmp_path):
    DistilBertModel(tiny()).save_pretrained(tmp_path / "distilbert")
    small = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**small, intermediate_size=16)).save_pretrained(tmp_path / "bert")
    for name in ("distilbert", "bert"):
        encoders.check(str(tmp_path / name))
        assert encoders.load_encoder(str(tmp_path / name)).config.dim == 8


def test_encoder_that_cannot_be_used_is_named(tmp_path):
    from transformers import GPT2Config

    with pytest.raises(InputError, match=r"data.encoder: '.*absent' cannot be loaded"):
        encoders.check(str(tmp_path / "absent"))
    GPT2Config().save_pretrained(tmp_path / "gpt")
    with pytest.raises(InputError, match="is a gpt2 model; allowed are encoders that read"):
        encoders.check(str(tmp_path / "gpt"))
    with pytest.raises(InputError, match="a BERT with relu units cannot become a DistilBERT"):
        encoders.from_bert(BertModel(BertConfig(hidden_act="relu", hidden_size=8, num_attention_heads=2)))


def test_choose_encoder_without_hub(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    name, said = encoders.choose("auto")
    assert name == "packaged"
    assert "neither the local cache nor the hub" in said
    assert encoders.choose("packaged")[0] == "packaged"


def test_auto_is_the_reference_where_it_can_be_had(monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: "/somewhere/config.json")
    assert encoders.choose("auto")[0] == encoders.REFERENCE
