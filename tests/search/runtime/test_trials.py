"""What this project uses of Tune's internals, and what happens where it is not there."""

import logging
from types import SimpleNamespace

from ray.tune.execution.tune_controller import TuneController

from search.runtime.trials import _Decisions

TRIAL = SimpleNamespace(placement_group_factory="bundle")


def decisions():
    watchdog = SimpleNamespace(expect=lambda trial: None)
    return _Decisions(SimpleNamespace(queue=SimpleNamespace(concurrency=5), watchdog=watchdog))


def test_tune_keeps_as_many_idle_workers_as_trials_run_at_once():
    kept = []
    controller = SimpleNamespace(_actor_cache=SimpleNamespace(increase_max=lambda *given: kept.append(given)))
    scheduler = decisions()
    scheduler.on_trial_add(controller, TRIAL)
    scheduler.on_trial_add(controller, TRIAL)
    assert kept == [("bundle", 5)]
    assert "_actor_cache" in TuneController.__init__.__code__.co_names, "this Ray has it"


def test_ray_without_that_cache_is_told_and_searches_on(caplog):
    with caplog.at_level(logging.WARNING):
        decisions().on_trial_add(SimpleNamespace(), TRIAL)
    assert "keeps only one idle worker" in caplog.text
