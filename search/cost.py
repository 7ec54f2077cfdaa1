"""What a trial took: time, processors, energy and, where the configuration has prices, money."""

from __future__ import annotations

from search.settings import Resources
from search.state import Trial


def cost(trial: Trial, resources: Resources) -> dict[str, float]:
    """Of its recorded epochs: `seconds`, `cpu_seconds` and `gpu_seconds` (times what a trial is given),
    `energy_joules` where the GPU's driver tells it, and `cost`."""
    cpu, gpu = trial.seconds * resources.cpus, trial.seconds * resources.gpu_share * (trial.device != "cpu")
    energy = sum(metrics.get("energy_joules", 0.0) for metrics in trial.curve.values())
    return {
        "seconds": trial.seconds,
        "cpu_seconds": cpu,
        **({"gpu_seconds": gpu} if gpu else {}),
        **({"energy_joules": energy} if energy else {}),
        "cost": (cpu * resources.price_cpu_hour + gpu * resources.price_gpu_hour) / 3600,
    }
