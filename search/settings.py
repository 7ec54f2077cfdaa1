"""What can be set in the sections `search` and `resources` of a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchSection(Section):
    """How to search."""

    #: None: the task's own alone; or several, such as `[macro_f1 max, parameters min]`, the task's own first.
    objective: list[str] | None
    searcher: Literal["tpe", "random", "grid", "gp", "nsga2"]
    #: Trials sampled at random before tpe or gp model the objective.
    startup_trials: int = Field(ge=0)
    #: Trials that tpe and gp model at most: a quarter of them the best, the others the newest.
    model_trials: int = Field(ge=50)
    #: A choice parameter whose values take turns, so that each gets an equal share of the trials and is stopped
    #: early only by comparison with its own kind.
    balance: str | None = None
    scheduler: Literal["asha", "asha-promote", "hyperband", "median", "none"]
    #: Epochs before a trial may be stopped: the first rung.
    grace_period: int = Field(ge=1)
    #: Of the trials at a rung, one in so many goes on.
    reduction_factor: float = Field(gt=1)
    #: hyperband only: how many brackets, each with a first rung `reduction_factor` later.
    brackets: int = Field(ge=1)
    #: None: all points for grid.
    trials: int | None = Field(ge=1)
    epochs: int = Field(ge=1)
    #: Trials at once; None: as many as the resources hold.
    concurrency: int | None = Field(ge=1)
    seed: int = Field(ge=0)
    #: Of the best so many trials the checkpoints stay after the search.
    keep_checkpoints: int = Field(ge=1)
    #: Trials of one shape that train as one batched model, at most; 1: each by itself.
    fuse: int = Field(ge=1)
    #: How often a trial that raises is taken up again from its checkpoint before it gets an epoch further. (One that
    #: runs out of memory is taken up once, with half the micro-batch.)
    max_failures: int = Field(ge=0)
    #: The same for a trial whose worker or machine was lost, or hung.
    max_lost_workers: int = Field(ge=0)
    #: So many failed trials in a row stop the search: the cause is then hardly their hyperparameters.
    max_failed_in_a_row: int = Field(ge=1)
    #: A trial that ends no epoch for so long hangs, and is taken up again by another worker; None: for ever.
    stall_timeout: str | None
    #: Training time after which a trial ends with what it has; None: no limit.
    trial_timeout: str | None
    #: Wall-clock limit such as 30m, 2h or 1h30m; trials then finish their epoch and the best is taken.
    time_budget: str | None
    #: Epochs that all trials train together; then as with `time_budget`.
    epoch_budget: int | None = Field(ge=1)
    #: Room for checkpoints; beyond it the oldest go, but for a running trial's last and the search's best.
    max_checkpoint_gb: float = Field(gt=0)
    #: Where checkpoints are kept, a URI such as s3://bucket/folder; None: in the search's folder.
    storage: str | None
    #: In rounds of `concurrency` trials, each proposed and judged by the rounds before: what is tried does not depend
    #: on which trial is faster.
    deterministic: bool
    #: How many seeds the best trial of each balanced value is trained again with, for their comparison; 0: none.
    compare_seeds: int = Field(ge=0)
    #: How many of the stopped trials are trained to the end after the search, to see what stopping cost; 0: none.
    audit_stopping: int = Field(ge=0)
    #: How many seeds the final training is repeated with.
    retrain_seeds: int = Field(ge=1)


class Resources(Section):
    """What one trial takes."""

    #: CPUs a trial, which is also its number of torch threads.
    cpus: float = Field(gt=0)
    #: GPUs a trial where the machine has any; fractions share one. auto: what an epoch of the largest takes.
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"]
    #: The cluster starts machines for trials that wait: what is there at first is no limit.
    autoscaled: bool
    precision: Literal["auto", "native", "fp32", "bf16"]
    #: Money for an hour of a CPU and of a whole GPU, in any currency.
    price_cpu_hour: float = Field(ge=0)
    price_gpu_hour: float = Field(ge=0)
    #: Whether a Ray that is started here serves its dashboard on 127.0.0.1; it takes a second or two to start.
    dashboard: bool

    @property
    def gpu_share(self) -> float:
        """`auto` is a whole GPU until it is measured."""
        return 1.0 if self.gpus == "auto" else self.gpus
