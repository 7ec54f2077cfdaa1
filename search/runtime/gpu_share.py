"""Measures on a worker how many trials share a GPU (`resources.gpus: auto`)."""

from __future__ import annotations

from dataclasses import replace

import ray

from search.core.config import SearchConfig
from search.gpu import memory
from search.runtime.placement import Placement
from trainables import InputError, Splits


def measure(config: SearchConfig, splits: Splits, placement: Placement) -> memory.Need:
    """Trains the largest configuration for an epoch, alone on a GPU; raises InputError if the training fails."""
    resources = replace(placement, gpus=1.0).training_resources(config)
    probe = ray.remote(memory.measure).options(num_cpus=placement.cpus, num_gpus=1, max_retries=0)
    try:
        need: memory.Need = ray.get(probe.remote(config, splits.for_search(), resources))
    except ray.exceptions.RayError as error:
        raise InputError(f"resources.gpus: auto: the largest configuration cannot be trained: {error}") from error
    return need
