"""What a trial took: time, processors, energy and, where the configuration has prices, money."""

from __future__ import annotations

from search.config import Resources
from search.journal import Trial


def cost(trial: Trial, resources: Resources) -> dict[str, float]:
    """Of its recorded epochs: `seconds` of training and validation (of fused trials each one's share), `cpu_seconds`
    and `gpu_seconds` (times what a trial is given), `energy_joules` where the GPU's driver tells it, and `cost`."""
    seconds = sum(metrics.get("epoch_seconds", 0.0) for metrics in trial.curve.values())
    cpu, gpu = seconds * resources.cpus, seconds * resources.gpus * (trial.device != "cpu")
    energy = sum(metrics.get("energy_joules", 0.0) for metrics in trial.curve.values())
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        **({"gpu_seconds": gpu} if gpu else {}),
        **({"energy_joules": energy} if energy else {}),
        "cost": (cpu * resources.price_cpu_hour + gpu * resources.price_gpu_hour) / 3600,
    }
