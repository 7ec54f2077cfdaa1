"""The cost of a trial: time, processor time, energy and, with the prices of the configuration, money."""

from __future__ import annotations

from search.core.settings import Resources
from search.core.state import Trial


def cost(trial: Trial, resources: Resources) -> dict[str, float]:
    """Sums over the recorded epochs of a trial.

    Returns:
        `seconds`. `cpu_seconds` and `gpu_seconds`: seconds times the CPUs and GPUs of a trial. `energy_joules`: only if
        the GPU's driver measures it. `cost`: (cpu_seconds x price_cpu_hour + gpu_seconds x price_gpu_hour) / 3600.
    """
    cpu, gpu = trial.seconds * resources.all_cpus, trial.seconds * resources.gpu_share * (trial.device != "cpu")
    energy = sum(metrics.get("energy_joules", 0.0) for metrics in trial.curve.values())
    return {
        "seconds": trial.seconds,
        "cpu_seconds": cpu,
        **({"gpu_seconds": gpu} if gpu else {}),
        **({"energy_joules": energy} if energy else {}),
        "cost": (cpu * resources.price_cpu_hour + gpu * resources.price_gpu_hour) / 3600,
    }
