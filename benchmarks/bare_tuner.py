"""What a user would write without this project: `tune.Tuner`, OptunaSearch and ASHA around the toy task.

`python -m benchmarks.bare_tuner ADDRESS TRIALS EPOCHS CONCURRENCY LOG` appends a line to LOG as each trial ends.
"""

import os
import sys
from pathlib import Path

os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0", "RAY_TRAIN_V2_ENABLED": "0"}

import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from trainables import Splits, choose_device, get_task, seed_everything

TASK, DATA = get_task("toy"), {"size": 64, "pause": 0.0, "fault": "none", "once": ""}


class Toy(tune.Trainable):
    """The toy task's training; no checkpoints, which Tune would otherwise ask for at the end."""

    def setup(self, config: dict, splits: Splits, epochs: int) -> None:
        self.splits, self.epochs = splits, epochs
        self.reset_config(config)

    def reset_config(self, new_config: dict) -> bool:
        seed_everything(0)
        self.learner = TASK.build(new_config, self.splits, self.epochs, choose_device(1, 0, "fp32"))
        return True

    def step(self) -> dict:
        self.learner.epoch += 1
        TASK.train_epoch(self.learner, self.splits.train)
        return TASK.evaluate(self.learner, self.splits.val)


class Log(tune.Callback):
    def __init__(self, path: str) -> None:
        self.path = path

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        with Path(self.path).open("a") as file:
            file.write(f"{trial.last_result.get('training_iteration', 0)}\n")


def main(address: str, trials: int, epochs: int, concurrency: int, log: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ray.init(address=address, log_to_driver=False)
    splits = TASK.prepare(DATA, None, Path(), None)
    toy = tune.with_parameters(Toy, splits=splits, epochs=epochs)
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=6, multivariate=True, group=True, constant_liar=True)
    tune.Tuner(
        tune.with_resources(toy, {"cpu": 1}),
        param_space={"lr": tune.loguniform(0.001, 0.2), "index": tune.choice([1]), "curve": tune.choice(["none"])},
        tune_config=tune.TuneConfig(
            metric="score", mode="max", num_samples=trials, max_concurrent_trials=concurrency, reuse_actors=True,
            search_alg=OptunaSearch(sampler=sampler),
            scheduler=ASHAScheduler(grace_period=1, reduction_factor=3, max_t=epochs),
        ),
        run_config=tune.RunConfig(
            stop={"training_iteration": epochs}, callbacks=[Log(log)], verbose=0, storage_path=f"{log}.tune",
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()  # fmt: skip
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
