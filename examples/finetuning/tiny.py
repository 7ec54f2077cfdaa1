"""Saves a tiny model with its tokenizer in the folder `tiny`, or in the folder that you name: nothing is downloaded."""

import sys

import tokenizers
import torch
import transformers
from texts import TRAIN

PAD, UNKNOWN, END = "<pad>", "<unk>", "</s>"
folder = sys.argv[1] if len(sys.argv) > 1 else "tiny"
words = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token=UNKNOWN))
words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
trainer = tokenizers.trainers.WordLevelTrainer(special_tokens=[PAD, UNKNOWN, END])
words.train_from_iterator([text for text, _ in TRAIN], trainer)
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=words, pad_token=PAD, unk_token=UNKNOWN, eos_token=END
)  # fmt: skip
torch.manual_seed(0)
config = transformers.LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=2,
)  # fmt: skip
transformers.LlamaForCausalLM(config).save_pretrained(folder)
tokenizer.save_pretrained(folder)
