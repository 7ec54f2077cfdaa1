"""What a trial cost: time, processor time, energy and, where the configuration has prices, money."""

from __future__ import annotations

from search.core.settings import Resources
from search.core.state import Trial


def cost(trial: Trial, resources: Resources) -> dict[str, float]:
    """Sums over the recorded epochs of a trial.

    Returns:
        `seconds`; `cpu_seconds` and `gpu_seconds`: seconds times the CPUs and GPUs of a trial; `energy_joules`, where
        the GPU's driver tells it; `cost` in the currency of the prices.
    """
    cpu, gpu = trial.seconds * resources.cpus, trial.seconds * resources.gpu_share * (trial.device != "cpu")
    energy = sum(metrics.get("energy_joules", 0.0) for metrics in trial.curve.values())
    return {
        "seconds": trial.seconds,
        "cpu_seconds": cpu,
        **({"gpu_seconds": gpu} if gpu else {}),
        **({"energy_joules": energy} if energy else {}),
        "cost": (cpu * resources.price_cpu_hour + gpu * resources.price_gpu_hour) / 3600,
    }
