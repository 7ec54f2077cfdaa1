"""The settings of the sections `search` and `resources`, with their types and bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from search.core.registry import SCHEDULERS, SEARCHERS, Registry
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


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchSection(Section):
    """How to search: the section `search`."""

    #: None: the task's own objective. Or several, the task's own first, such as `[macro_f1 max, parameters min]`.
    objective: list[str] | None
    searcher: SearcherName
    #: Trials sampled at random before tpe or gp model the objective.
    startup_trials: int = Field(ge=0)
    #: Most trials that tpe and gp model: the best quarter and the newest.
    model_trials: int = Field(ge=50)
    #: A choice parameter whose values trials take in turn. Each value gets an equal share of the trials, and early
    #: stopping compares a trial only with others of its value.
    balance: str | None = None
    scheduler: SchedulerName
    #: The first rung: a trial trains so many epochs before it may be stopped.
    grace_period: int = Field(ge=1)
    #: One in so many of the trials at a rung goes on.
    reduction_factor: float = Field(gt=1)
    #: Number of brackets, for hyperband only; the first rung of each is `reduction_factor` times as late.
    brackets: int = Field(ge=1)
    #: None: until a budget ends; for the grid searcher all of its points.
    trials: int | None = Field(ge=1)
    #: Most epochs of a trial.
    epochs: int = Field(ge=1)
    #: Whether fewer epochs, and an earlier first rung, are chosen where the time budget would hold too few trials.
    fit_epochs: bool
    #: Trials that run at once; None: as many as fit.
    concurrency: int | None = Field(ge=1)
    seed: int = Field(ge=0)
    #: Number of best trials whose checkpoints stay after the search.
    keep_checkpoints: int = Field(ge=1)
    #: Most trials of one shape that train as one batched model; 1: each trains by itself.
    fuse: int = Field(ge=1)
    #: How often an epoch that raises is tried again, from the trial's last checkpoint. (One that runs out of memory is
    #: tried again once, in halved micro-batches.)
    max_failures: int = Field(ge=0)
    #: How often an epoch is tried again whose worker or machine was lost, or hung.
    max_lost_workers: int = Field(ge=0)
    #: So many failed trials in a row stop the search, as their hyperparameters are hardly the cause.
    max_failed_in_a_row: int = Field(ge=1)
    #: A trial that ends no epoch for so long counts as hanging: another worker takes it up. None: no limit.
    stall_timeout: str | None
    #: Configurations whose epochs are predicted to take longer are not tried, and one that takes twice as long is
    #: stopped. None: no limit, or the one that the time budget sets.
    max_epoch_seconds: float | None = Field(gt=0)
    #: A trial that has trained for so long ends with what it has; None: no limit.
    trial_timeout: str | None
    #: Wall-clock limit of the whole command such as 30m, 2h or 1h30m, the final training included; None: no limit.
    time_budget: str | None
    #: Epochs that all trials train together; then as with `time_budget`.
    epoch_budget: int | None = Field(ge=1)
    #: Room for checkpoints. Beyond it the oldest are deleted, never a running trial's last or the search's best.
    max_checkpoint_gb: float = Field(gt=0)
    #: A URI where checkpoints are kept, such as s3://bucket/folder; None: the search's folder.
    storage: str | None
    #: Trials run in rounds of `concurrency`, proposed and judged by earlier rounds only. What is tried then does not
    #: depend on which trial is faster.
    deterministic: bool
    #: Number of seeds with which the best trial of each balanced value is trained again for their comparison; 0: none.
    compare_seeds: int = Field(ge=0)
    #: Number of stopped trials that are trained to the end afterwards, to see what early stopping cost; 0: none.
    audit_stopping: int = Field(ge=0)
    #: Number of seeds of the final training.
    retrain_seeds: int = Field(ge=1)


class Resources(Section):
    """What one trial takes: the section `resources`."""

    #: CPUs of a trial, which is also its number of torch threads.
    cpus: float = Field(gt=0)
    #: GPUs of a trial where the machine has any; fractions share one. auto: measured with the largest configuration.
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"]
    #: Whether the cluster starts machines for trials that wait. The machines of the start are then no limit.
    autoscaled: bool
    precision: Literal["auto", "native", "fp32", "bf16"]
    #: Price of an hour of a CPU, and of a whole GPU, in any currency.
    price_cpu_hour: float = Field(ge=0)
    price_gpu_hour: float = Field(ge=0)
    #: Whether a Ray that is started here serves its dashboard on 127.0.0.1; it takes a second or two to start.
    dashboard: bool

    @property
    def gpu_share(self) -> float:
        """GPUs of a trial; `auto` counts as a whole GPU until it is measured."""
        return 1.0 if self.gpus == "auto" else self.gpus
