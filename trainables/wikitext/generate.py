"""Draws words, or the tokens of a pretrained model, from a language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainables.wikitext.model import LanguageModel
from trainables.wikitext.pretrained import Finetuned


@torch.no_grad()
def generate(
    model: LanguageModel | Finetuned, prompt: Sequence[int], count: int, temperature: float, top_k: int, top_p: float,
    generator: torch.Generator, never: Sequence[int],
) -> list[int]:  # fmt: skip
    """Draws `count` words after `prompt`, which has at least one word.

    Args:
        temperature: the divisor of the logits; 0 always takes the most probable word.
        top_k: the number of most probable words from which to draw; 0: all.
        top_p: the words to draw from are the most probable ones whose probabilities add up to this (the nucleus of
            Holtzman et al. 2019, arXiv:1904.09751); 1: all.
        never: words that are never drawn.
    """
    model.eval()
    device = next(model.parameters()).device
    words = list(prompt)
    for _ in range(count):
        seen = torch.tensor([words[-model.context :]], device=device)
        logits = model(seen)[0, -1].float().cpu()
        logits[list(never)] = float("-inf")
        words.append(_draw(logits, temperature, top_k, top_p, generator))
    return words[len(prompt) :]


def _draw(logits: torch.Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    if temperature <= 0:
        return int(logits.argmax())
    probabilities, order = (logits / temperature).softmax(0).sort(descending=True)
    if top_k:
        probabilities[top_k:] = 0.0
    # The word that reaches `top_p` stays.
    probabilities[(probabilities.cumsum(0) - probabilities) >= top_p * probabilities.sum()] = 0.0
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])
