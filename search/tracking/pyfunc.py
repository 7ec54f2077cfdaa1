"""The model that MLflow serves (a pyfunc). MLflow copies this file into each logged model and runs it on loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from trainables import Exported, get_task, register_task


class ServedModel(mlflow.pyfunc.PythonModel):
    """An exported model of any task, behind MLflow's pyfunc interface."""

    def load_context(self, context: Any) -> None:
        """Loads the exported model; MLflow calls it once."""
        if address := context.model_config.get("address"):  # of a function, which no package offers
            register_task(context.model_config["task"], address)
        task = get_task(context.model_config["task"])
        assert isinstance(task, Exported)  # else there would be no such model
        self.task = task
        self.model = self.task.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predictions for a frame of inputs, as the task's `predict` returns them."""
        return self.task.predict(self.model, model_input)


mlflow.models.set_model(ServedModel())
