"""The frozen base model and its adapters: what both trainings share.

Import this module inside the training function. A worker then keeps it for all its trials, and reads each base once.
"""

import copy
import functools
import os

import peft
import torch
import transformers

import search

#: `model` is a folder or a name of the Hugging Face hub; `tiny.py` makes the folder `tiny`. It is a hyperparameter with
#: one value, so that it reaches each worker, and a resumed search too.
SPACE = {
    "model": os.environ.get("MODEL", "tiny"),
    "lr": search.loguniform(1e-4, 3e-2, prior=3e-3),
    "rank": search.choice([2, 4, 8]),
    "alpha": search.choice([8, 16, 32]),
    "targets": search.choice(["q_proj v_proj", "q_proj k_proj v_proj o_proj", "all-linear"]),
}


@functools.cache
def tokenizer(name):
    found = transformers.AutoTokenizer.from_pretrained(name)
    found.pad_token = found.pad_token or found.eos_token
    return found


@functools.cache
def frozen(name, kind, device):
    """A base model, as a worker reads it once.

    The weights on a CPU are the pages of the model's file (safetensors maps it), which all workers of a machine share.
    """
    print(f"reads {name} for {kind}")
    with torch.random.fork_rng():  # a new head is the same in each worker, and no trial's random numbers change
        torch.manual_seed(0)
        model = getattr(transformers, kind).from_pretrained(name)
    model.config.pad_token_id = tokenizer(name).pad_token_id
    return model.to(device).requires_grad_(False)


def adapted(trial, kind, task_type):
    """The base with new adapters. Each trial has modules of its own, around the weights that all trials share."""
    base = frozen(trial.params["model"], kind, str(trial.device))
    shared = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    targets = trial.params["targets"]
    config = peft.LoraConfig(
        r=trial.params["rank"], lora_alpha=trial.params["alpha"], task_type=task_type,
        target_modules=targets if targets == "all-linear" else targets.split(),
    )  # fmt: skip
    return peft.get_peft_model(copy.deepcopy(base, shared), config)


class Trained:
    """The trained weights of a model as a part of a trial: a checkpoint holds no frozen weight."""

    def __init__(self, model):
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    def state_dict(self):
        return {name: weight.detach() for name, weight in self.weights.items()}

    def load_state_dict(self, state):
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state[name])
