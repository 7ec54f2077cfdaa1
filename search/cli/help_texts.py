"""Help text and shown default of each flag that sets a setting.

Written by `python -m docs.generate` from search/core/settings.py. `--help` reads this module,
so that it need not import the settings with everything that they import.
"""

# fmt: off
# ruff: noqa: E501

#: The help text, by flag.
HELP = {
    "--searcher": "Algorithm that proposes configurations. ranks: a Gaussian process on the ranks of all trials. tpe, gp, random and nsga2: Optuna's samplers. grid: every combination of the space. Example: tpe",
    "--trials": 'Number of configurations to try. Example: 20',
    "--epochs": 'Most epochs of a trial. An epoch is usually a pass over the training data; for wikitext a part of a pass. Example: 30',
    "--concurrency": 'Number of trials that run at the same time. Example: 4',
    "--deterministic": 'Propose and judge trials in rounds, so that the search tries the same configurations however fast each trial runs. A round has as many trials as run at the same time, and waits for its slowest trial. Needs scheduler asha, hyperband, median or none.',
    "--seed": 'Seed of proposals, weights, data order and audits. Example: 7',
    "--scheduler": 'Rule that stops or pauses weak trials. asha stops them, asha-promote pauses them and resumes the best, asha-predict lets a model choose every second trial that resumes. none: every trial trains all its epochs. Example: asha',
    "--time-budget": 'Wall-clock time of the whole command, final training and test included. Written as 90s, 30m or 1h30m. If --trials or epoch_budget is given, there is no limit unless time_budget is given too. Example: 15m',
    "--audit-stopping": 'Number of stopped trials to train to the end after the search, to measure what early stopping cost. 0: none. Example: 5',
    "--storage": 'URI of the folder for checkpoints, such as s3://bucket/folder. Example: s3://bucket/folder',
    "--cpus": 'CPUs of one trial, which is also its number of torch threads. Example: 2',
    "--gpus": 'GPUs of one trial, if the machine has any. 0.25: four trials share one GPU. auto: measure the share that the largest configuration needs. 0: train on the CPU. Example: auto',
}
#: The default that `--help` shows, by flag.
DEFAULT = {
    "--searcher": 'ranks; demo: tpe',
    "--trials": 'as many as the time budget allows; demo: set by the task',
    "--epochs": '80, or fewer if the time budget is short; demo: set by the task',
    "--concurrency": 'as many as fit',
    "--deterministic": 'off',
    "--seed": '0',
    "--scheduler": 'asha-predict; demo: asha',
    "--time-budget": '1h; none if --trials is given',
    "--audit-stopping": '0',
    "--storage": 'in the folder of the search',
    "--cpus": '1',
    "--gpus": '0.25; set by the task',
}
