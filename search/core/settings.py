"""The settings of the sections `search` and `resources`: type, bounds and the one explanation of each.

`docs/generate.py` writes the comments of configs/defaults.yaml, the help texts of `run` (search/cli/help_texts.py) and
docs/reference/settings.md from the fields of this module. Edit an explanation here, then run `python -m docs.generate`.

The first sentence of a description is the help text of the flag. The other sentences give the unit, the meaning of null
and what the setting excludes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from search.core.feasibility import OutcomeLimit, limits_of, parse_limit
from search.core.registry import SCHEDULERS, SEARCHERS, WRITERS, Registry
from trainables.base.unit import Unit
from trainables.base.values import suggestion


def _known(registry: Registry) -> AfterValidator:
    """Accepts the names of a registry; another name is an error that lists them."""

    def check(name: str) -> str:
        if name not in (names := registry.names()):
            raise ValueError(f"allowed are {', '.join(names)}{suggestion(name, names)}")
        return name

    return AfterValidator(check)


#: A name of `SEARCHERS`, and of `SCHEDULERS`.
SearcherName = Annotated[str, _known(SEARCHERS)]
SchedulerName = Annotated[str, _known(SCHEDULERS)]
WriterName = Annotated[str, _known(WRITERS)]


def _address(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+([/?#]\S*)?|env:\w+", text):
        raise ValueError("expected an address that begins with https:// or http://, or env:NAME")
    return text


#: The address of a web hook, or `env:NAME` of the environment variable with the address.
Address = Annotated[str, AfterValidator(_address)]


def _limits(given: Any) -> Any:
    if given is not None and not isinstance(given, Mapping):
        raise ValueError('expected a limit by metric, such as {latency_ms: "<= 5"}')
    for metric, text in (given or {}).items():
        try:
            parse_limit(metric, text)
        except ValueError as error:
            raise ValueError(f"{metric}: {text!r}: {error}") from None
    return given


#: A limit by metric, such as `{"latency_ms": "<= 5"}`.
Limits = Annotated[dict[str, str] | None, BeforeValidator(_limits)]

#: The groups of settings, in the order of the reference page and of `run --help`.
Group = Literal[
    "Search", "Early stopping", "Budget", "After the trials", "Failures", "Checkpoints", "Notifications", "Resources"
]


class Section(BaseModel):
    """A section of the YAML: unknown keys are refused, values are read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses true and false for a number: pydantic would read true as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"{str(value).lower()} is neither a number nor a text")
        return value


def setting(
    group: Group, description: str, *, example: Any, shown_default: str = "", flag: str = "", **field: Any
) -> Any:  # fmt: skip
    """A field with its explanation.

    Args:
        example: a value that differs from the default, as YAML shows it.
        shown_default: the default that `--help` shows, in words.
        flag: the flag of `run` that sets the field, such as `--trials`.
        field: arguments of pydantic's `Field`, such as `ge=1`.
    """
    extra: dict[str, Any] = {"group": group, "default": shown_default, "flag": flag}
    return Field(description=description, examples=[example], json_schema_extra=extra, **field)


class SearchSection(Section):
    """How to search: the section `search`."""

    searcher: SearcherName = setting(
        "Search",
        "Algorithm that proposes configurations. ranks: a Gaussian process that uses the order of the trials, "
        "not their metric values. tpe, gp and random: Optuna's samplers. nsga2: Optuna's genetic algorithm "
        "for several objectives. grid: every combination of the space.",
        example="tpe", shown_default="ranks; demo: tpe", flag="--searcher",
    )  # fmt: skip
    trials: int | None = setting(
        "Search",
        "Number of configurations to try. null: as many as the time budget allows; with searcher grid, every point of "
        "the grid.",
        example=20, shown_default="as many as the time budget allows; demo: set by the task", flag="--trials", ge=1,
    )  # fmt: skip
    epochs: int = setting(
        "Search",
        "Largest number of epochs of a trial. An epoch is usually a pass over the training data; for wikitext a "
        "part of a pass.",
        example=30, shown_default="set by the task, or fewer if the time budget is short; demo: set by the task",
        flag="--epochs", ge=1,
    )  # fmt: skip
    report_every: int | None = setting(
        "Search",
        "Steps from one report of a trial to the next. The search of a function or a command then counts in steps: "
        "settings about epochs count reports, and search.epochs is --steps divided by this number. null: it counts in "
        "epochs.",
        example=100, shown_default="count in epochs", flag="--report-every", default=None, ge=1,
    )  # fmt: skip
    fit_epochs: bool = setting(
        "Search",
        "Reduce epochs and grace_period if a full trial would take more than 30 % of the time budget. --epochs sets it "
        "to false.",
        example=False,
    )  # fmt: skip
    first: list[dict[str, Any]] | None = setting(
        "Search",
        "Starting configurations: the first trials have them, in this order. The configuration of the priors follows. "
        "A starting configuration may lack hyperparameters: each gets the value of its prior, or a random value if it "
        "has none. null: no starting configurations.",
        example=[{"lr": 0.001}, {"lr": 0.01, "width": 32}], default=None,
    )  # fmt: skip
    startup_trials: int = setting(
        "Search",
        "Number of trials with a result before the searcher's model proposes. Applies to ranks, tpe and gp. nsga2: the "
        "size of a generation.",
        example=20, ge=0,
    )  # fmt: skip
    model_trials: int = setting(
        "Search",
        "Largest number of trials that the searcher's model uses: the best quarter and the newest. Applies to tpe and "
        "gp; ranks uses at most 200.",
        example=500, ge=50,
    )  # fmt: skip
    objective: list[str] | None = setting(
        "Search",
        "Metrics to optimize, if there are several. Each is `METRIC min` or `METRIC max`; the task's own comes first. "
        "null: the task's own metric alone. Not for searcher gp. The objective of a function or a command is stored "
        "with `val_` before its name: `acc max` as `val_acc`.",
        example=["macro_f1 max", "parameters min"],
    )  # fmt: skip
    limits: Limits = setting(
        "Search",
        "Limits on outcomes: `<= N` or `>= N` for each limited metric. Only a trial within all limits can be the best. "
        "A trial beyond a limit on `parameters`, `latency_ms` or `peak_memory_mib` ends as soon as the figure is "
        "known. Any other metric may come back within its limit, so the trial goes on. null: no limits.",
        example={"latency_ms": "<= 5", "recall": ">= 0.9"}, default=None,
    )  # fmt: skip
    preference: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = setting(
        "Search",
        "Weight of each metric of `objective`: the trial with the best weighted mean wins, and the final training "
        "trains it again. Each metric is scaled to the front: 0 is its best value there, and 1 its worst. Equal "
        "weights choose the knee of the front. A metric without a weight does not count. null: the trial with the best "
        "value of the first metric wins.",
        example={"macro_f1": 2, "parameters": 1}, default=None,
    )  # fmt: skip
    balance: str | None = setting(
        "Search",
        "Choice parameter whose values get an equal share of the trials. Early stopping then compares a trial only "
        "with trials of the same value. null: no parameter.",
        example="variant", default=None,
    )  # fmt: skip
    concurrency: int | None = setting(
        "Search",
        "Number of trials that run at the same time. null: as many as fit on the machine or cluster.",
        example=4, shown_default="as many as fit", flag="--concurrency", ge=1,
    )  # fmt: skip
    deterministic: bool = setting(
        "Search",
        "Make the search repeatable: with the same seed and the same --concurrency it tries the same configurations, "
        "no matter which trial is faster. Trials run in rounds of --concurrency trials. A round starts when the round "
        "before it has ended, so fast workers wait. The default scheduler becomes asha. hyperband, median and none are "
        "allowed too; asha-promote and asha-predict are not.",
        example=True, shown_default="off", flag="--deterministic",
    )  # fmt: skip
    seed: int = setting(
        "Search",
        "Seed of proposals, weights and data order. To repeat a search that runs several trials at once, give "
        "--deterministic too.",
        example=7, shown_default="0", flag="--seed", ge=0,
    )  # fmt: skip
    fuse: int = setting(
        "Search",
        "Largest number of trials of one shape that train as one batched model. 1: each trial trains alone. The task "
        "must support it; rnn does.",
        example=32, ge=1,
    )  # fmt: skip

    scheduler: SchedulerName = setting(
        "Early stopping",
        "Rule that stops or pauses weak trials. asha: stop them. asha-promote: pause them, and resume the best. "
        "asha-predict: pause them, and resume in turn the best trial so far and the trial that the searcher forecasts "
        "to end best. hyperband: asha in several groups, each of which first compares trials at another epoch. median: "
        "stop a trial that is worse than half of the trials at the same epoch. none: train every trial to its last "
        "epoch.",
        example="asha", shown_default="asha-predict; demo: asha", flag="--scheduler",
    )  # fmt: skip
    grace_period: int = setting(
        "Early stopping",
        "Epochs of a trial before the scheduler may stop or pause it: the first rung.",
        example=3, ge=1,
    )  # fmt: skip
    reduction_factor: float = setting(
        "Early stopping",
        "Factor of the rungs: at each rung one in this many trials continues, and the next rung is this many times "
        "later. 3 with grace_period 5: rungs at epochs 5, 15 and 45, where the best third continues.",
        example=4, gt=1,
    )  # fmt: skip
    brackets: int = setting(
        "Early stopping",
        "Number of brackets of scheduler hyperband. Each bracket's first rung is reduction_factor times later than the "
        "one before.",
        example=2, ge=1,
    )  # fmt: skip

    time_budget: str | None = setting(
        "Budget",
        "Wall-clock time of the whole command, final training and test included. Written as 90s, 30m or 1h30m. null: "
        "no limit; then --trials, --cost-budget or --set search.epoch_budget=N ends the search.",
        example="15m", shown_default="1h; none if --trials is given", flag="--time-budget",
    )  # fmt: skip
    epoch_budget: int | None = setting(
        "Budget",
        "Number of epochs that all trials train together. null: no limit.",
        example=500, ge=1,
    )  # fmt: skip
    target: float | None = setting(
        "Budget",
        "Stop the trials as soon as a result reaches this value of the objective. The final training follows. null: no "
        "target.",
        example=0.95, shown_default="none", flag="--target", default=None, allow_inf_nan=False,
    )  # fmt: skip
    cost_budget: float | None = setting(
        "Budget",
        "Stop the trials when they and the final training cost this much, in the currency of resources.price_cpu_hour "
        "and price_gpu_hour. The final training is expected to cost as much as the best trial. null: no limit.",
        example=20, shown_default="none", flag="--cost-budget", default=None, gt=0, allow_inf_nan=False,
    )  # fmt: skip
    worth: float | None = setting(
        "Budget",
        "Stop the trials when one more hour is expected to improve the best value by less, in units of the objective. "
        "null: no such limit.",
        example=0.002, shown_default="none", flag="--worth", default=None, gt=0, allow_inf_nan=False,
    )  # fmt: skip
    max_epoch_seconds: float | None = setting(
        "Budget",
        "Longest epoch, in seconds. Configurations whose epochs are predicted to take longer are not tried. A trial "
        "whose epoch takes twice as long is stopped. null: the limit that the time budget sets.",
        example=30.0, gt=0,
    )  # fmt: skip
    trial_timeout: str | None = setting(
        "Budget",
        "Training time after which a trial ends with the epochs that it has. Written as 90s, 30m or 1h30m. null: no "
        "limit.",
        example="20m",
    )  # fmt: skip

    retrain_seeds: int = setting(
        "After the trials",
        "Number of seeds of the final training. The model of the first seed is registered.",
        example=3, ge=1,
    )  # fmt: skip
    compare_seeds: int = setting(
        "After the trials",
        "Number of seeds with which the best trial of each value of `balance` is trained again, to compare the values. "
        "0: no comparison.",
        example=5, ge=0,
    )  # fmt: skip
    audit_stopping: int = setting(
        "After the trials",
        "Number of stopped trials to train to the end after the search, to measure what early stopping cost. 0: none.",
        example=5, shown_default="0", flag="--audit-stopping", ge=0,
    )  # fmt: skip

    max_failures: int = setting(
        "Failures",
        "Number of times that an epoch which raises an error is tried again from the trial's last checkpoint. An epoch "
        "that runs out of memory is tried again once, with half the micro-batch.",
        example=0, ge=0,
    )  # fmt: skip
    max_lost_workers: int = setting(
        "Failures",
        "Number of times that an epoch is tried again after its worker or machine was lost or hung.",
        example=10, ge=0,
    )  # fmt: skip
    max_failed_in_a_row: int = setting(
        "Failures",
        "Number of consecutive failed trials that stops the search. So many failures rarely come from hyperparameters.",
        example=3, ge=1,
    )  # fmt: skip
    stall_timeout: str | None = setting(
        "Failures",
        "Time without a finished epoch after which a trial counts as hung and moves to another worker. Written as 90s, "
        "30m or 1h30m. null: no limit.",
        example="30m",
    )  # fmt: skip

    storage: str | None = setting(
        "Checkpoints",
        "Write checkpoints to this URI. null: to the folder of the search.",
        example="s3://bucket/folder", shown_default="in the folder of the search", flag="--storage",
    )  # fmt: skip
    keep_checkpoints: int = setting(
        "Checkpoints",
        "Number of best trials whose checkpoints remain after the search.",
        example=10, ge=1,
    )  # fmt: skip
    max_checkpoint_gb: float = setting(
        "Checkpoints",
        "Disk space for checkpoints during the search, in gigabytes. Beyond it the oldest are deleted. The last "
        "checkpoint of a running trial and the best one of the search always remain.",
        example=200.0, gt=0,
    )  # fmt: skip

    notify: list[Address] = setting(
        "Notifications",
        "Address that gets JSON when the search ends, fails, or finds a new best value (at most one message a minute). "
        "May be given several times. hooks.slack.com and discord.com get their own form. The path of an address is not "
        "stored, as it may be a secret. env:NAME takes the address from the environment variable NAME, also on resume.",
        example=["env:SLACK_WEBHOOK"], shown_default="none", flag="--notify", default=[],
    )  # fmt: skip
    on_end: str | None = setting(
        "Notifications",
        "Command that /bin/sh runs at the end of the command, after the final test, however the search ended, for at "
        "most ten minutes. Its environment has SEARCH_NAME, SEARCH_FOLDER, SEARCH_STORE, SEARCH_STATUS, SEARCH_METRIC, "
        "SEARCH_BEST, SEARCH_TRIAL and SEARCH_TEST. null: none.",
        example="mail -s $SEARCH_NAME-$SEARCH_STATUS me@example.org", shown_default="none", flag="--on-end",
        default=None,
    )  # fmt: skip
    writers: list[WriterName] = setting(
        "Notifications",
        "Other tools that get every metric too. tensorboard: event files in the folder of the search (extra "
        "tensorboard). wandb: a run of Weights & Biases for each trial (extra wandb).",
        example=["tensorboard"], shown_default="none", flag="--log-to", default=[],
    )  # fmt: skip

    @property
    def unit(self) -> Unit:
        """The unit in which people see the progress of a trial."""
        return Unit(self.report_every)

    @property
    def outcome_limits(self) -> tuple[OutcomeLimit, ...]:
        """The limits of `limits`."""
        return limits_of(self.limits)


class Resources(Section):
    """The resources of a trial: the section `resources`."""

    cpus: float = setting(
        "Resources",
        "CPUs of one trial. Torch uses as many threads. With several processes: CPUs of each process.",
        example=2, shown_default="1", flag="--cpus", gt=0,
    )  # fmt: skip
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = setting(
        "Resources",
        "GPUs of one trial, if the machine has any. 0.25: four trials share one GPU. auto: measure the share that the "
        "configuration with the most parameters needs. 0: train on the CPU. 2: a function or a command sees two GPUs. "
        "With several processes: GPUs of all processes together, a multiple of their number; by default one for each.",
        example="auto", shown_default="set by the task; 0.25 if it sets none", flag="--gpus",
    )  # fmt: skip
    processes: int = setting(
        "Resources",
        "Number of processes that train one trial together. They form a process group of torch.distributed: each has "
        "a rank, and its own part of the GPUs. Applies to functions, whose code decides whether they can.",
        example=2, shown_default="1", ge=1,
    )  # fmt: skip
    nodes: int = setting(
        "Resources",
        "Number of machines over which the processes of a trial are spread, the same number on each. 1: all of them "
        "are on one machine.",
        example=2, ge=1,
    )  # fmt: skip
    autoscaled: bool = setting(
        "Resources",
        "Let the cluster start machines for waiting trials. The machines that exist at the start are then no limit; "
        "concurrency must be set.",
        example=True,
    )  # fmt: skip
    precision: Literal["auto", "native", "fp32", "bf16"] = setting(
        "Resources",
        "Number format of the training. auto: bf16 on a GPU that supports it, else fp32. native: bf16 also on a CPU "
        "that supports it.",
        example="fp32",
    )  # fmt: skip
    price_cpu_hour: float = setting(
        "Resources",
        "Price of one CPU for one hour, in any currency. `compare` and `report` then show the cost of trials.",
        example=0.04, ge=0,
    )  # fmt: skip
    price_gpu_hour: float = setting(
        "Resources",
        "Price of one whole GPU for one hour, in the same currency.",
        example=2.5, ge=0,
    )  # fmt: skip
    dashboard: bool = setting(
        "Resources",
        "Start Ray's dashboard on 127.0.0.1, which takes one or two seconds. Applies to a Ray that the command starts.",
        example=False,
    )  # fmt: skip

    @property
    def gpu_share(self) -> float:
        """GPUs of a trial; `auto` counts as a whole GPU until it is measured.

        Processes of a group do not share GPUs: the default, which is a part of a GPU, means one GPU for each.
        """
        gpus = 1.0 if self.gpus == "auto" else self.gpus
        return float(self.processes) if self.processes > 1 and 0 < gpus < 1 else gpus

    @property
    def all_cpus(self) -> float:
        """CPUs of all processes of a trial."""
        return self.cpus * self.processes
