"""Ray's public functions, as far as a search uses them, in this process and without a server.

The search's own code runs unchanged above them: `connect`, `run_trials` with its `TuneRunner`, `TaskTrainable`, and
the generators of the final training. One trial trains at a time, in the calling thread, so that a sequence of faults
always meets the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

_CONTROLLER = SimpleNamespace(_actor_cache=SimpleNamespace(increase_max=lambda *_: None))
NODE = {"Alive": True, "NodeID": "here", "Resources": {"CPU": 1.0}}


class LostWorker(BaseException):
    """Stands for the end of a worker's process. It passes every `except Exception` of a task, as SIGKILL does."""


class _Remote:
    """What `ray.remote(function)` returns; `.remote(...)` calls the function here."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def options(self, **_: Any) -> _Remote:
        return self

    def remote(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class _Tuner:
    """Tune's loop for one worker: it asks for a trial, trains it step by step and hands each result over."""

    def __init__(self, trainable: Any, *, tune_config: Any, run_config: Any) -> None:
        self._trainable, self._given = trainable
        self._proposals, self._decisions = tune_config.search_alg, tune_config.scheduler
        self._stop = run_config.stop

    def fit(self) -> None:
        launched = 0
        while not self._stop.stop_all():
            launched += 1
            config = self._proposals.suggest(str(launched))
            if config == Searcher.FINISHED:
                return
            assert config is not None, "the search waits, though no trial runs"
            self._train(str(launched), config)

    def _train(self, name: str, config: dict[str, Any]) -> None:
        worker = object.__new__(self._trainable)
        drop = SimpleNamespace(remote=worker.drop)
        actor = SimpleNamespace(drop=drop, killed=False)
        trial = _Trial(config, SimpleNamespace(ray_actor=actor))
        self._decisions.on_trial_add(_CONTROLLER, trial)
        failed, decision = False, TrialScheduler.CONTINUE
        try:
            worker.setup(config, **self._given)
            while decision == TrialScheduler.CONTINUE:
                decision = self._decisions.on_trial_result(None, trial, worker.step())
                self._stop.stop_all()
                if actor.killed:
                    raise LostWorker
        except LostWorker:
            failed = True
            self._decisions.on_trial_error(_CONTROLLER, trial)
        self._proposals.on_trial_complete(name, error=failed)


class _Trial:
    """A trial of Tune's, as the search's callbacks see it; equal to itself alone."""

    error_file = None
    status = TuneTrial.RUNNING
    placement_group_factory = None

    def __init__(self, config: dict[str, Any], state: Any) -> None:
        self.config, self.temporary_state = config, state


def _no_actor(name: str) -> Any:
    raise ValueError(f"no actor {name}")  # as Ray says it


@contextmanager
def ray_here() -> Iterator[None]:
    """While entered, Ray's functions are those of this module."""
    context = SimpleNamespace(get_job_id=lambda: "0", get_node_id=lambda: NODE["NodeID"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", lambda **_: SimpleNamespace(dashboard_url=None, address_info={}))
        patch.setattr(ray, "shutdown", lambda: None)
        patch.setattr(ray, "nodes", lambda: [NODE])
        patch.setattr(ray, "get_runtime_context", lambda: context)
        patch.setattr(ray, "put", lambda value: value)
        patch.setattr(ray, "get", lambda value: value)
        patch.setattr(ray, "get_actor", _no_actor)
        patch.setattr(ray, "wait", lambda streams, **_: (streams[:1], streams[1:]))
        patch.setattr(ray, "remote", lambda function=None, **_: _Remote(function) if function else _Remote)
        patch.setattr(ray, "kill", lambda actor: setattr(actor, "killed", True))
        patch.setattr(tune, "Tuner", _Tuner)
        patch.setattr(tune, "with_parameters", lambda trainable, **given: (trainable, given))
        patch.setattr(tune, "with_resources", lambda trainable, _: trainable)
        yield
