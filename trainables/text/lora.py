"""Low-rank adapters on linear layers (LoRA, Hu et al. 2021, arXiv:2106.09685), by the library `peft`.

The weight W of a linear layer stays frozen; W + (2 / rank) * rank * B A is used, and only B and A train.
"""

from __future__ import annotations

import importlib.util

from torch import nn

from trainables.base.errors import InputError


def check() -> None:
    """Raises InputError if `peft` is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise InputError("model.lora: needs the library peft: pip install 'trial-search[lora]'")


def add(model: nn.Module, blocks: nn.ModuleList, rank: int) -> None:
    """Adds an adapter to each linear layer of `blocks`, modules of `model`, and freezes everything else.

    Raises:
        InputError: `peft` is not installed.
    """
    check()
    from peft import LoraConfig, inject_adapter_in_model

    inside = {id(module) for module in blocks.modules()}
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and id(module) in inside]
    model.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
    inject_adapter_in_model(config, model)


def merge(model: nn.Module) -> None:
    """Adds each adapter to the weight of its layer, and removes it: the modules have their first names again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.get_base_layer())
