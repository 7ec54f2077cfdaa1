"""Claim: 40 short trials take at most 1.10 x what their bare training takes, and at most 0.15 s a trial more.

And the whole command, start and end included, takes a third of the time of `tune.Tuner` with a function trainable and
defaults, and is not slower than Optuna's own `study.optimize` in two processes. All train the same 40 configurations
of the rnn task (vanilla, hidden 32, learning rates of a grid) for as many epochs, two at a time on one thread each,
and evaluate after each epoch; only the search writes checkpoints, a journal and MLflow. `bare` is the loop itself in
two processes that have imported everything and have the data: nothing can be faster. The store is there already, as
for every search but the first: making MLflow's tables takes two seconds once. `fused` is the same search with
`search.fuse=20`, which trains trials of one shape as one batched model: what a user would do with such a task. Exits
with 1 where a trial's best validation MSE differs between bare and searched by more than 0.1 % (fused, where sums are
taken in another order: half of them by more than 1 %, or the best of all), or a claim is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import run_search
from search.core.store import Store
from search.tracking.client import mlflow_client

TRIALS, EPOCHS, WORKERS, FUSE = 40, 20, 2, 20
IDEAL, EACH, TUNER, OPTUNA = 1.10, 0.15, 3.0, 1.0
#: Of a bare trial that many; the trial's number gives the rate.
RATES = [round(0.001 * 1.1**number, 6) for number in range(TRIALS)]
SETS = (
    "variant=vanilla", "hidden=32", "layers=1", "activation=tanh", "optimizer=adam", "batch_size=64", "weight_decay=0",
    "clip_norm=1.0", "init=orthogonal", "schedule=constant", "search.balance=null", "search.compare_seeds=0",
    "resources.dashboard=false", f"lr={{choice: {RATES}}}",
)  # fmt: skip


def prepared() -> tuple[Any, Any, list[dict[str, Any]]]:
    """The task, its data, and the 40 configurations."""
    # Inside, as a worker process pays for it. What a user's own script imports for such a task, transformers too.
    import transformers  # noqa: F401

    from search.core.config import load_config
    from trainables import get_task

    task, config = get_task("rnn"), load_config("rnn", SETS, {"search.searcher": "grid"})
    splits = task.prepare(config.data, None, Path(), lambda *_: None)
    return task, splits, config.space.grid("benchmark")


def train(task: Any, splits: Any, number: int, params: dict[str, Any], report: Any = None) -> tuple[float, float]:
    """The loop that everybody runs; returns best validation MSE and seconds."""
    from search.core.seeds import trial_seed
    from trainables import choose_device, seed_everything

    begun = time.perf_counter()
    device = choose_device(1, 0, "fp32")
    seed_everything(trial_seed(0, number))
    learner, best = task.build(params, splits, EPOCHS, device), float("inf")
    for _ in range(EPOCHS):
        learner.epoch += 1
        task.train_epoch(learner, splits.train)
        mse = task.evaluate(learner, splits.val)["mse"]
        best = min(best, mse)
        if report:
            report({"mse": mse})
    return best, time.perf_counter() - begun


_READY: tuple[Any, Any, list[dict[str, Any]]]


def _get_ready() -> None:
    global _READY
    _READY = prepared()


def _bare(number: int) -> tuple[float, float]:
    return train(_READY[0], _READY[1], number, _READY[2][number])


def bare() -> tuple[dict[int, float], float]:
    """Best MSE of each, and the sum of the seconds of all."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, context, _get_ready) as pool:
        done = list(pool.map(_bare, range(TRIALS)))
    return {number: best for number, (best, _) in enumerate(done)}, sum(seconds for _, seconds in done)


def search(store: str, fuse: int = 1) -> tuple[dict[int, float], float, float]:
    """Best MSE of each, seconds from the first trial's start to the last one's end, and seconds of the command."""
    begun = time.perf_counter()
    events = run_search(
        "rnn", "--searcher", "grid", "--scheduler", "none", "--trials", str(TRIALS), "--epochs", str(EPOCHS),
        "--concurrency", str(WORKERS), sets=(*SETS, f"search.fuse={fuse}"), store=store,
    )  # fmt: skip
    whole = time.perf_counter() - begun
    results = [event for event in events if event["event"] == "result"]
    number, when = results[0]["number"], results[0]["time"]
    reported = [r for r in results if (r["number"], r["time"]) == (number, when)]
    first = when / 1000 - sum(r["metrics"]["epoch_seconds"] for r in reported)
    best: dict[int, float] = {}
    for result in results:
        best[result["number"]] = min(result["metrics"]["val_mse"], best.get(result["number"], float("inf")))
    return best, results[-1]["time"] / 1000 - first, whole


def script(kind: str) -> float:
    """Seconds of a whole program that is one of the alternatives."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "optuna":
            enqueue(folder)
        begun = time.perf_counter()
        commands = [[sys.executable, "-m", "benchmarks.overhead", "--as", kind, folder]] * (
            2 if kind == "optuna" else 1
        )
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = [subprocess.Popen(one, env={**os.environ, "RAY_ADDRESS": "local"}, **quiet) for one in commands]
        if any(process.wait() for process in running):
            raise SystemExit(f"{kind} failed")
        return time.perf_counter() - begun


def tuner(folder: str) -> None:
    """As Ray's own tutorial writes it."""
    from ray import tune

    _, splits, configurations = prepared()

    def trainable(config: dict[str, Any], splits: Any = None) -> None:
        import transformers  # noqa: F401

        from trainables import get_task

        train(get_task("rnn"), splits, config["number"], configurations[config["number"]], tune.report)

    tune.Tuner(
        tune.with_parameters(trainable, splits=splits),
        param_space={"number": tune.grid_search(list(range(TRIALS)))},
        tune_config=tune.TuneConfig(metric="mse", mode="min"),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    ).fit()


def storage(folder: str) -> Any:
    """What Optuna's manual has several processes use; of two that open a new SQLite file at once, one may fail."""
    from optuna.storages import JournalStorage, journal

    return JournalStorage(journal.JournalFileBackend(f"{folder}/study.log"))


def enqueue(folder: str) -> None:
    """The study, with the configurations that it is to try."""
    import optuna

    study = optuna.create_study(storage=storage(folder), study_name="b")
    for rate in RATES:
        study.enqueue_trial({"lr": rate})


def optuna(folder: str) -> None:
    """As Optuna's tutorial on several processes writes it: each a share of the trials, one storage."""
    import optuna

    task, splits, configurations = prepared()
    study = optuna.load_study(storage=storage(folder), study_name="b")

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("lr", 0.001, 0.05, log=True)
        steps = iter(range(EPOCHS))
        params = {**configurations[trial.number], "lr": rate}
        return train(task, splits, trial.number, params, lambda m: trial.report(m["mse"], next(steps)))[0]

    study.optimize(objective, n_trials=TRIALS // WORKERS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1, help="how often each is run")
    parser.add_argument("--as", dest="alternative", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alternative:
        kind, folder = options.alternative
        {"tuner": tuner, "optuna": optuna}[kind](folder)
        return 0
    ideals, extras, tuners, optunas, fuseds = [], [], [], [], []
    with tempfile.TemporaryDirectory() as store:
        mlflow_client(Store.open(Path(store)))
        for pair in range(options.pairs):
            kinds = {
                "bare": bare, "search": partial(search, store), "fused": partial(search, store, FUSE),
                "tuner": partial(script, "tuner"), "optuna": partial(script, "optuna"),
            }  # fmt: skip
            took = {kind: kinds[kind]() for kind in (list(kinds) if pair % 2 == 0 else reversed(kinds))}
            (alone, training), (best, seconds, whole), (together, _, fused) = (
                took[kind] for kind in ("bare", "search", "fused")
            )
            ideal = training / WORKERS
            ideals.append(seconds / ideal)
            extras.append((seconds - ideal) * WORKERS / TRIALS)
            tuners.append(took["tuner"] / whole)
            optunas.append(took["optuna"] / whole)
            fuseds.append(took["optuna"] / fused)
            print(
                f"pair {pair}: bare {ideal:.1f} s, search {seconds:.1f} s ({ideals[-1]:.3f} x, {extras[-1]:.3f} s "
                f"each); whole command {whole:.1f} s, fused {fused:.1f} s, Tuner {took['tuner']:.1f} s "
                f"({tuners[-1]:.2f} x), Optuna {took['optuna']:.1f} s ({optunas[-1]:.2f} x, fused {fuseds[-1]:.2f} x)",
                flush=True,
            )
            apart = max(abs(best[n] / alone[n] - 1) for n in range(TRIALS))
            rounding = median(abs(together[n] / alone[n] - 1) for n in range(TRIALS))
            first = abs(min(together.values()) / min(alone.values()) - 1)
            if apart > 0.001 or max(rounding, first) > 0.01:
                print(f"they do not agree about the results: {apart:.2%}; fused {rounding:.2%}, the best {first:.2%}")
                return 1
    held = (median(ideals) <= IDEAL, median(extras) <= EACH, median(tuners) >= TUNER, median(optunas) >= OPTUNA)
    print(
        f"median of {options.pairs}: {median(ideals):.3f} x ideal (claimed {IDEAL:g}), {median(extras):.3f} s of a "
        f"worker a trial (claimed {EACH:g}), {median(tuners):.2f} x as fast as Tuner (claimed {TUNER:g}), "
        f"{median(optunas):.2f} x as fast as Optuna (claimed {OPTUNA:g}), fused {median(fuseds):.2f} x"
    )
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
