"""Tiny checkpoints with random weights, one for each family of encoders, each with a tiny tokenizer of its own."""

from collections import Counter

import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from trainables.tweets import demo

TEXTS = demo.make(size=120, positives=0.2, label_noise=0.0, seed=0)["train"]["text"].tolist()
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
SMALL |= {"initializer_range": 0.3}


def words(count=150):
    """The most frequent words of the demo's tweets."""
    return [word for word, _ in Counter(" ".join(TEXTS).lower().split()).most_common(count)]


def word_pieces():
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words(), *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    return hf.BertTokenizer(vocab={word: row for row, word in enumerate(dict.fromkeys(vocabulary))})


def byte_pairs():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("i", "n"), ("Ġ", "a"), ("Ġ", "the"), ("o", "n"), ("in", "g")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, *(a + b for a, b in merges), "<mask>"]
    return hf.RobertaTokenizer(vocab={piece: row for row, piece in enumerate(pieces)}, merges=merges)


def unigrams(specials):
    letters = [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    pieces = [(f"▁{word}", -3.0 - row / 50) for row, word in enumerate(words()) if word.isalpha() and len(word) > 1]
    return [*((token, 0.0) for token in specials), ("▁", -5.0), *letters, *pieces]


def plain_words():
    """A tokenizer of the library `tokenizers` without a class of its own, as ModernBERT has."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer = Tokenizer(models.WordLevel({w: row for row, w in enumerate(special + words())}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, mask_token="[MASK]")


def tweet_words(folder):
    """BERTweet's tokenizer, which is written in Python."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*(f"{letter}@@" for letter in "abcdefghijklmnopqrstuvwxyz"), *"abcdefghijklmnopqrstuvwxyz", "the", "to"]
    (folder / "vocab.txt").write_text("".join(f"{piece} 1\n" for piece in pieces))
    (folder / "bpe.codes").write_text("t h 3\nth e</w> 2\nt o</w> 2\n")
    return hf.BertweetTokenizer(str(folder / "vocab.txt"), str(folder / "bpe.codes"))


def roberta(kind=hf.RobertaConfig, model=hf.RobertaModel, **more):
    """RoBERTa numbers positions from 2: 34 positions are enough for 32 tokens."""
    settings = {
        "max_position_embeddings": 34,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    return lambda words: model(kind(vocab_size=words, **SMALL, **settings, **more))


def modernbert(words):
    special = {"pad_token_id": 3, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    local = {"local_attention": 6, "global_attn_every_n_layers": 3, "initializer_cutoff_factor": 2.0}
    return hf.ModernBertModel(
        hf.ModernBertConfig(vocab_size=words, **SMALL, **special, **local, max_position_embeddings=32)
    )


def deberta(words):
    """As DeBERTa-v3: disentangled attention with position buckets, without absolute positions."""
    relative = {
        "relative_attention": True, "position_buckets": 4, "max_relative_positions": -1, "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False, "type_vocab_size": 0,
    }  # fmt: skip
    return hf.DebertaV2Model(hf.DebertaV2Config(vocab_size=words, **SMALL, **relative, max_position_embeddings=32))


def bert(**more):
    return lambda words: hf.BertModel(hf.BertConfig(vocab_size=words, **SMALL, max_position_embeddings=32, **more))


def distilbert(words):
    small = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24, "initializer_range": 0.3}
    return hf.DistilBertModel(hf.DistilBertConfig(vocab_size=words, **small, max_position_embeddings=32))


def electra(words):
    """Its embeddings are narrower than its blocks."""
    return hf.ElectraModel(hf.ElectraConfig(vocab_size=words, embedding_size=8, **SMALL, max_position_embeddings=32))


def albert(words):
    """All its blocks are one block."""
    return hf.AlbertModel(hf.AlbertConfig(vocab_size=words, embedding_size=8, **SMALL, max_position_embeddings=32))


#: Tokenizer and model of each family. E5 and BGE are BERT or XLM-R.
FAMILIES = {
    "bert": (word_pieces, bert()),
    "bert with relu": (word_pieces, bert(hidden_act="relu")),
    "distilbert": (word_pieces, distilbert),
    "roberta": (byte_pairs, roberta()),
    "xlm-roberta": (
        lambda: hf.XLMRobertaTokenizer(vocab=unigrams(["<s>", "<pad>", "</s>", "<unk>"])),
        roberta(hf.XLMRobertaConfig, hf.XLMRobertaModel),
    ),
    "deberta-v2": (
        lambda: hf.DebertaV2Tokenizer(vocab=unigrams(["[PAD]", "[CLS]", "[SEP]", "[UNK]"]), unk_id=3),
        deberta,
    ),
    "modernbert": (plain_words, modernbert),
    "bertweet": (None, roberta()),
    "electra": (word_pieces, electra),
    "albert": (word_pieces, albert),
}
#: Families whose blocks cannot train alone.
WHOLE = {"electra", "albert"}


def save(family, folder):
    """Writes the tiny checkpoint of a family."""
    make, model = FAMILIES[family]
    tokenizer = tweet_words(folder / "made") if make is None else make()
    torch.manual_seed(0)
    network = model(len(tokenizer))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):  # biases begin at zero: a lost bias would not be noticed
            torch.nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
