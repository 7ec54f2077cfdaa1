"""Claim: with no flag but a time budget, the command is ahead of Optuna and of `tune.Tuner` on people's own data.

Ten minutes each on two cores, on C-MAPSS, TrashNet and lines of verse, three seeds: best validation figure against
time, and the test figure after retraining on train and validation. All search the task's space for real data, of
trials with as many epochs as the command chose; peers run with its priors as enqueued first points, and without.
Optuna: TPE and Hyperband in two processes. Tuner: ASHA and OptunaSearch with reused actors. A peer's retraining is
not counted in its ten minutes; the command's is. `python -m benchmarks.hour` runs what benchmarks/hour.jsonl does not
hold yet and adds to it, so that it may be stopped at any time; `--tasks`, `--systems`, `--seeds` run a part. Exits
with 1 where the command is not ahead in the median.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from search.core.config import load_config, parse_duration
from search.core.events import Event
from search.core.journal import read_events
from search.core.searchers.optuna_searcher import suggest
from search.core.space import Parameter, Space
from trainables import Splits, choose_device, get_task, seed_everything
from trainables.base import training

HERE = Path(__file__).parent
RESULTS, DATA = HERE / "hour.jsonl", HERE.parent.parent / "shared" / "data"
TASKS = {"rnn": DATA / "cmapss", "windows": DATA / "trashnet", "lyrics": DATA / "verse"}
SYSTEMS = ("search", "optuna", "optuna + priors", "tuner", "tuner + priors")
WORKERS = 2


def prepared(name: str, cache: Path, profile: Literal["data", "demo"] = "data") -> tuple[Any, Any, Splits]:
    """Task, configuration and data, as the command prepares them."""
    task, config = get_task(name), load_config(name, profile=profile)
    splits = task.prepare(config.data, TASKS[name] if profile == "data" else None, cache, lambda *_: None)
    if hasattr(task, "precompute"):
        device = choose_device(WORKERS, 0, config.resources.precision)
        splits = task.precompute(splits, config.space.choices(), device, cache, lambda *_: None)
    return task, config, splits


def epochs(
    task: Any, splits: Splits, params: dict[str, Any], count: int, seed: int, precision: str, gpus: float = 0.0
) -> Iterator[float]:
    """Trains a configuration; yields the validation objective of each epoch, worst where it diverges."""
    seed_everything(seed)
    learner = task.build(params, splits, count, choose_device(1, gpus, precision))
    for _ in range(count):
        try:
            yield training.run_epoch(task, learner, splits.train, splits.val)[f"val_{task.objective.metric}"]
        except training.Diverged:
            yield task.objective.loss(1e9)
            return


def run_command(name: str, data: str | Path, seed: int, budget: str, store: Path) -> tuple[list[Event], float]:
    """Runs the real command. Returns the events of its search, which is called `s`, and its seconds."""
    began = time.time()
    subprocess.run(
        [sys.executable, "-m", "search", "run", name, "--data", data, "--time-budget", budget,
         "--seed", str(seed), "--name", "s", "--store", store],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, "RAY_ADDRESS": ""},
    )  # fmt: skip
    took = time.time() - began
    return list(read_events(store / "searches" / "s" / "journal.jsonl")), took


def command(name: str, seed: int, budget: str, store: Path) -> dict[str, Any]:
    """The real command; also how many epochs it gave a full trial."""
    begun = time.time()
    events, took = run_command(name, TASKS[name], seed, budget, store)
    metric = get_task(name).objective.metric
    results = [e for e in events if e["event"] == "result" and f"val_{metric}" in e["metrics"]]
    test = [e["test"][metric] for e in events if e["event"] == "final_finished"]
    config = json.loads((store / "searches" / "s" / "search.json").read_text())["config"]
    curve = [(e["time"] / 1000 - begun, e["metrics"][f"val_{metric}"]) for e in results]
    return {"curve": curve, "test": test[0], "seconds": took, "epochs": config["search"]["epochs"],
            "first": config["search"]["grace_period"]}  # fmt: skip


def peer(system: str, name: str, seed: int, budget: str, full: dict[str, Any]) -> dict[str, Any]:
    """One of the others, in processes of its own; then its best configuration is retrained and tested."""
    with tempfile.TemporaryDirectory() as folder:
        about = {"name": name, "seed": seed, "seconds": parse_duration(budget), "priors": "priors" in system,
                 "epochs": full["epochs"], "first": full["first"], "folder": folder, "begun": time.time()}  # fmt: skip
        kind = system.split()[0]
        arguments = [sys.executable, "-m", "benchmarks.hour", "--as", kind, json.dumps(about)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {**os.environ, "RAY_ADDRESS": "local"}
        running = [
            subprocess.Popen([*arguments, str(i)], cwd=HERE.parent, env=environment, **quiet)
            for i in range(WORKERS if kind == "optuna" else 1)
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit(f"{system} failed")
        told = [
            json.loads(line) for path in sorted(Path(folder).glob("*.log")) for line in path.read_text().splitlines()
        ]
        told.sort(key=lambda one: one["time"])
        task, config, splits = prepared(name, Path(folder))
        best = min(told, key=lambda one: task.objective.loss(one["value"]))
        merged = replace(splits, train=task.merge(splits), val=splits.test)
        *_, test = epochs(task, merged, best["params"], best["epoch"], seed, config.resources.precision)
        return {"curve": [(one["time"], one["value"]) for one in told], "test": test}


class Log:
    """Appends what an epoch came to to a file of this process."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.path, self.begun = Path(about["folder"]) / f"{os.getpid()}.log", about["begun"]

    def __call__(self, params: dict[str, Any], epoch: int, value: float) -> None:
        with self.path.open("a") as file:
            row = {"time": time.time() - self.begun, "params": params, "epoch": epoch, "value": value}
            file.write(json.dumps(row) + "\n")


def prior(parameter: Parameter) -> Any:
    return parameter.prior if parameter.has_prior else (parameter.values() or (parameter.low,))[0]


def optuna(about: dict[str, Any], process: int) -> None:
    """As Optuna's manual has it: TPE and Hyperband, a process for each core, one storage."""
    import optuna
    from optuna.storages import JournalStorage, journal

    task, config, splits = prepared(about["name"], Path(about["folder"]))
    storage = JournalStorage(journal.JournalFileBackend(f"{about['folder']}/study"))
    study = optuna.create_study(
        storage=storage, study_name="s", load_if_exists=True,
        direction="minimize" if task.objective.mode == "min" else "maximize",
        sampler=optuna.samplers.TPESampler(seed=WORKERS * about["seed"] + process),
        pruner=optuna.pruners.HyperbandPruner(min_resource=about["first"], max_resource=about["epochs"]),
    )  # fmt: skip
    if about["priors"] and process == 0:
        first = config.space.sample(prior)
        study.enqueue_trial({p.name: first[p.name] for p in config.space.parameters if p.searched and p.exists(first)})
    log, until = Log(about), about["begun"] + about["seconds"]

    def objective(trial: optuna.Trial) -> float:
        params = config.space.sample(lambda parameter: suggest(trial, replace(parameter, ordered=False)))
        values = []
        for epoch, value in enumerate(
            epochs(task, splits, params, about["epochs"], trial.number, config.resources.precision), 1
        ):
            log(params, epoch, value)
            values.append(value)
            trial.report(value, epoch)
            if trial.should_prune() or time.time() > until:
                raise optuna.TrialPruned
        return min(values, key=task.objective.loss)

    study.optimize(objective, timeout=until - time.time())


@dataclass(frozen=True)
class Suggested:
    """A space as OptunaSearch takes one, which Tune pickles: it asks for what is searched, and returns the rest."""

    space: Space

    def __call__(self, trial: Any) -> dict[str, Any]:
        chosen = self.space.sample(lambda parameter: suggest(trial, replace(parameter, ordered=False)))
        return {p.name: chosen[p.name] for p in self.space.parameters if not (p.searched and p.exists(chosen))}


def tuner(about: dict[str, Any], process: int) -> None:
    """As Ray's manual has it: ASHA, OptunaSearch, actors that are reused."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0", "RAY_TRAIN_V2_ENABLED": "0"}
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    task, config, splits = prepared(about["name"], Path(about["folder"]))
    log, metric = Log(about), task.objective.metric

    class Trial(tune.Trainable):
        def setup(self, config: dict[str, Any], splits: Splits) -> None:
            self.splits = splits
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.params, self.done = new_config, 0
            own = get_task(about["name"])
            self.left = epochs(own, self.splits, new_config, about["epochs"], 0, config.resources.precision)
            return True

        def step(self) -> dict[str, Any]:
            value, self.done = next(self.left), self.done + 1
            log(self.params, self.done, value)
            return {metric: value}

    first = config.space.sample(prior)
    points = [{p.name: first[p.name] for p in config.space.parameters if p.searched and p.exists(first)}]
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    tune.Tuner(
        tune.with_resources(tune.with_parameters(Trial, splits=splits), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric=metric, mode=task.objective.mode, num_samples=-1, max_concurrent_trials=WORKERS, reuse_actors=True,
            time_budget_s=about["begun"] + about["seconds"] - time.time(),
            search_alg=OptunaSearch(
                Suggested(config.space), metric=metric, mode=task.objective.mode, seed=about["seed"],
                points_to_evaluate=points if about["priors"] else None,
            ),
            scheduler=ASHAScheduler(grace_period=about["first"], reduction_factor=3, max_t=about["epochs"]),
        ),
        run_config=tune.RunConfig(
            stop={"training_iteration": about["epochs"]}, verbose=0, storage_path=f"{about['folder']}/tune",
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()  # fmt: skip


def best_until(found: dict[str, Any], seconds: float, mode: str) -> float:
    values = [value for when, value in found["curve"] if when <= seconds]
    return (min if mode == "min" else max)(values, default=float("nan"))


def show(results: list[dict[str, Any]], minutes: float) -> bool:
    """Prints medians over seeds; returns whether the command is ahead everywhere."""
    ahead = True
    for name in TASKS:
        objective, tested = get_task(name).objective, {}
        for system in SYSTEMS:
            mine = [r for r in results if (r["task"], r["system"], r["minutes"]) == (name, system, minutes)]
            if not mine:
                continue
            times = [minutes * 60 * share for share in (0.25, 0.5, 1.0)]
            values = [median(best_until(r, seconds, objective.mode) for r in mine) for seconds in times]
            tested[system] = median(r["test"] for r in mine)
            print(
                f"{name:8} {system:16} {len(mine)} seeds: val {objective.metric} at 1/4, 1/2 and all of the time "
                + ", ".join(f"{value:.4g}" for value in values) + f"; test {tested[system]:.4g}"
            )  # fmt: skip
        ours = tested.pop("search", None)
        ahead &= ours is not None and all(objective.better(ours, other) for other in tested.values())
    return ahead


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--as", dest="peer", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        kind, about, process = options.peer
        {"optuna": optuna, "tuner": tuner}[kind](json.loads(about), int(process))
        return 0
    RESULTS.touch()
    results = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    for name in options.tasks:
        if not TASKS[name].exists():
            print(f"{name}: skipped, as there is no {TASKS[name]}")
            continue
        for seed in options.seeds:
            for system in SYSTEMS:  # the command first: it says how many epochs a full trial has
                which = {"task": name, "system": system, "seed": seed, "minutes": options.minutes}
                known = {(r["task"], r["system"], r["seed"], r["minutes"]): r for r in results}
                if tuple(which.values()) in known or (system != "search" and system not in options.systems):
                    continue
                budget = f"{options.minutes:g}m"
                if system == "search":
                    with tempfile.TemporaryDirectory() as store:
                        found = command(name, seed, budget, Path(store))
                else:
                    found = peer(system, name, seed, budget, known[name, "search", seed, options.minutes])
                results.append({**which, "when": time.strftime("%Y-%m-%d"), **found})
                with RESULTS.open("a") as file:
                    print(json.dumps(results[-1]), file=file)
                print(f"{name}, {system}, seed {seed}: test {found['test']:.4g}", flush=True)
    ahead = show(results, options.minutes)
    print(f"the command is {'ahead' if ahead else 'not ahead'} of every peer in the median of the test figures")
    return 0 if ahead else 1


if __name__ == "__main__":
    sys.exit(main())
