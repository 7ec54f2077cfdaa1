"""Help text and shown default of each flag that sets a setting.

Written by `python -m docs.generate` from search/core/settings.py. `--help` reads this module,
so that it need not import the settings with everything that they import.
"""

# fmt: off
# ruff: noqa: E501

#: The help text, by flag.
HELP = {
    "--searcher": "Algorithm that proposes configurations. ranks: a Gaussian process that uses the order of the trials, not their metric values. tpe, gp and random: Optuna's samplers. nsga2: Optuna's genetic algorithm for several objectives. grid: every combination of the space. Example: tpe",
    "--trials": 'Number of configurations to try. Example: 20',
    "--epochs": 'Largest number of epochs of a trial. An epoch is usually a pass over the training data; for wikitext a part of a pass. Example: 30',
    "--report-every": 'Steps from one report of a trial to the next. The search of a function or a command then counts in steps: settings about epochs count reports, and search.epochs is --steps divided by this number. Example: 100',
    "--concurrency": 'Number of trials that run at the same time. Example: 4',
    "--deterministic": 'Make the search repeatable: with the same seed and the same --concurrency it tries the same configurations, no matter which trial is faster. Trials run in rounds of --concurrency trials. A round starts when the round before it has ended, so fast workers wait. The default scheduler becomes asha. hyperband, median and none are allowed too; asha-promote and asha-predict are not.',
    "--seed": 'Seed of proposals, weights and data order. To repeat a search that runs several trials at once, give --deterministic too. Example: 7',
    "--scheduler": 'Rule that stops or pauses weak trials. asha: stop them. asha-promote: pause them, and resume the best. asha-predict: pause them, and resume in turn the best trial so far and the trial that the searcher forecasts to end best. hyperband: asha in several groups, each of which first compares trials at another epoch. median: stop a trial that is worse than half of the trials at the same epoch. none: train every trial to its last epoch. Example: asha',
    "--time-budget": 'Wall-clock time of the whole command, final training and test included. Written as 90s, 30m or 1h30m. Example: 15m',
    "--target": 'Stop the trials as soon as a result reaches this value of the objective. The final training follows. Example: 0.95',
    "--cost-budget": 'Stop the trials when they and the final training cost this much, in the currency of resources.price_cpu_hour and price_gpu_hour. The final training is expected to cost as much as the best trial. Example: 20',
    "--worth": 'Stop the trials when one more hour is expected to improve the best value by less, in units of the objective. Example: 0.002',
    "--audit-stopping": 'Number of stopped trials to train to the end after the search, to measure what early stopping cost. 0: none. Example: 5',
    "--storage": 'Write checkpoints to this URI. Example: s3://bucket/folder',
    "--notify": 'Address that gets JSON when the search ends, fails, or finds a new best value (at most one message a minute). May be given several times. hooks.slack.com and discord.com get their own form. The path of an address is not stored, as it may be a secret. env:NAME takes the address from the environment variable NAME, also on resume. Example: env:SLACK_WEBHOOK',
    "--on-end": "Command that /bin/sh runs at the end of the command, after the final test, however the search ended, for at most ten minutes. Its environment has SEARCH_NAME, SEARCH_FOLDER, SEARCH_STORE, SEARCH_STATUS, SEARCH_METRIC, SEARCH_BEST, SEARCH_TRIAL and SEARCH_TEST. Example: 'mail -s $SEARCH_NAME-$SEARCH_STATUS me@example.org'",
    "--log-to": 'Other tools that get every metric too. tensorboard: event files in the folder of the search (extra tensorboard). wandb: a run of Weights & Biases for each trial (extra wandb). Example: tensorboard',
    "--cpus": 'CPUs of one trial. Torch uses as many threads. With several processes: CPUs of each process. Example: 2',
    "--gpus": 'GPUs of one trial, if the machine has any. 0.25: four trials share one GPU. auto: measure the share that the configuration with the most parameters needs. 0: train on the CPU. 2: a function or a command sees two GPUs. With several processes: GPUs of all processes together, a multiple of their number; by default one for each. Example: auto',
}
#: The default that `--help` shows, by flag.
DEFAULT = {
    "--searcher": 'ranks; demo: tpe',
    "--trials": 'as many as the time budget allows; demo: set by the task',
    "--epochs": 'set by the task, or fewer if the time budget is short; demo: set by the task',
    "--report-every": 'count in epochs',
    "--concurrency": 'as many as fit',
    "--deterministic": 'off',
    "--seed": '0',
    "--scheduler": 'asha-predict; demo: asha',
    "--time-budget": '1h; none if --trials is given',
    "--target": 'none',
    "--cost-budget": 'none',
    "--worth": 'none',
    "--audit-stopping": '0',
    "--storage": 'in the folder of the search',
    "--notify": 'none',
    "--on-end": 'none',
    "--log-to": 'none',
    "--cpus": '1',
    "--gpus": 'set by the task; 0.25 if it sets none',
}
