"""How MLflow's page shows a search."""

import json

import pytest

from search.core.config import load_config
from search.core.program_config import loop_config
from search.tracking.views import share_view
from trainables import Objective


class Experiment:
    """Keeps the tags that a client would set."""

    def __init__(self):
        self.tags = {}

    def get_experiment(self, experiment):
        return self

    def set_experiment_tag(self, experiment, key, value):
        self.tags[key] = value

    @property
    def view(self):
        return json.loads(self.tags["mlflow.sharedViewState.key"])


@pytest.fixture
def experiment():
    return Experiment()


def test_curves_are_drawn_as_measured_before_other_charts(experiment):
    share_view(experiment, "1", "key", "s", "run", load_config("windows"), Objective("acc@1", "max"))
    charts = experiment.view["compareRunCharts"]
    assert [chart["metricKey"] for chart in charts] == ["val_acc__at__1", "val_loss", "train_loss"]
    for chart in charts:  # the page draws `lineSmoothness` of a chart, and 70 where there is none
        assert chart["lineSmoothness"] == 0 and chart["useGlobalLineSmoothing"]
    assert experiment.view["globalLineChartConfig"]["lineSmoothness"] == 0
    assert experiment.view["compareRunSections"][0]["name"] == "Curves" and experiment.view["isAccordionReordered"]
    assert experiment.view["orderByKey"] == "metrics.`best_val_acc__at__1`"


def test_view_of_a_space_with_hundreds_of_hyperparameters_is_short_enough_for_a_tag(experiment):
    space = {f"layer[{number}].learning_rate": {"uniform": [0, 1]} for number in range(400)}
    config = loop_config("many", space, "loss min", {}, (), "here")
    share_view(experiment, "1", "key", "s", "run", config, Objective("loss", "min"))
    assert len(experiment.tags["mlflow.sharedViewState.key"]) <= 20_000
    assert "params.`layer__open__0__close__.learning_rate`" in experiment.view["selectedColumns"]


def test_first_hyperparameter_of_the_table_is_the_learning_rate(experiment):
    share_view(experiment, "1", "key", "s", "run", load_config("rnn", profile="data"), Objective("mse", "min"))
    columns = experiment.view["selectedColumns"]
    assert columns[:6] == [
        "tags.`outcome`", "metrics.`best_val_mse`", "metrics.`best_epoch`", "metrics.`test_mse`", "params.`lr`",
        "params.`weight_decay`",
    ]  # fmt: skip
    assert {"params.`variant`", "params.`batch_size`"} < set(columns)


def test_description_of_the_experiment_links_the_latest_search_unless_a_user_wrote_it(experiment):
    about = ("run", load_config("windows"), Objective("accuracy", "max"))
    for key in ("one", "two"):
        share_view(experiment, "1", key, f"search-{key}", *about)
    link = "#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=two"
    assert experiment.tags["mlflow.note.content"] == f"Latest search: [search-two]({link})"
    experiment.tags["mlflow.note.content"] = "mine"
    share_view(experiment, "1", "three", "search-three", *about)
    assert experiment.tags["mlflow.note.content"] == "mine"
