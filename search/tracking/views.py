"""The view of a search in MLflow's page, which MLflow keeps as a tag of the experiment, and the address of the view."""

from __future__ import annotations

import json

from mlflow.tracking import MlflowClient

from search.core.config import SearchConfig
from search.core.store import Store
from search.reports.columns import ordered
from search.tracking.names import original, translated
from trainables import Objective

#: The beginning of the tag with a view; its key follows.
TAG = "mlflow.sharedViewState."
#: The tag that MLflow's page shows as the description of an experiment, and the beginning of our description.
_NOTE, _LATEST = "mlflow.note.content", "Latest search: "
#: The port of the command `ui`.
PORT = 5000


def share_view(
    client: MlflowClient, experiment: str, key: str, name: str, parent: str, config: SearchConfig, objective: Objective
) -> None:
    """Saves the view of a search: only its runs, with outcome, best value and hyperparameters as columns.

    The learning rate and numbers on a logarithmic scale are the first hyperparameters, as a window shows few columns.

    Args:
        key: of the view.
        parent: the id of the parent run, whose trials are unfolded.
    """
    best, test = (f"metrics.`{translated(f'{kind}_{objective.metric}')}`" for kind in ("best_val", "test"))
    parameters = ordered((p for p in config.space.parameters if p.searched), {})
    searched = [f"params.`{translated(p.name)}`" for p in parameters]
    columns = ["tags.`outcome`", best, f"metrics.`best_{config.search.unit.name}`", test, *searched]
    # A tag of an experiment has at most 20,000 characters, and each column is named twice.
    while sum(map(len, columns)) > 8000:
        columns.pop()
    charts = [
        {
            "type": "LINE", "uuid": curve, "metricSectionId": "curves", "isGenerated": False, "deleted": False,
            "metricKey": curve, "selectedMetricKeys": [curve], "displayName": original(curve),
            # By default MLflow smooths lines by 70 of 100.
            "lineSmoothness": 0, "useGlobalLineSmoothing": True, "xAxisKey": "step", "useGlobalXaxisKey": True,
        }
        for curve in map(translated, dict.fromkeys((objective.key, "val_loss", "train_loss")))
    ]  # fmt: skip
    state = {
        "searchFilter": f"tags.search = '{name}'",
        "orderByKey": best,
        "orderByAsc": objective.mode == "min",
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", *columns],
        "runsExpanded": {parent: True},
        "runsHiddenMode": "FIRST_20_RUNS",  # of the curves; by default 10
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": "curves", "name": "Curves", "display": True, "isReordered": True}],
        "isAccordionReordered": True,  # else the sections are sorted by name
        "hideEmptyCharts": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    client.set_experiment_tag(experiment, f"{TAG}{key}", json.dumps(state))
    _link_latest(client, experiment, key, name)


def _link_latest(client: MlflowClient, experiment: str, key: str, name: str) -> None:
    """Links the view of a search in the description of the experiment. A description that a user wrote stays.

    MLflow's page opens an experiment on traces of language models, with this description above them.
    """
    if client.get_experiment(experiment).tags.get(_NOTE, _LATEST).startswith(_LATEST):
        client.set_experiment_tag(experiment, _NOTE, f"{_LATEST}[{name}]({_view('', experiment, key)})")


def relink_latest(client: MlflowClient, experiment: str, key: str, name: str | None) -> None:
    """Renames the search in the description of the experiment if the description links its view.

    Args:
        name: the new name; None: the search is deleted, and so is its link.
    """
    note = client.get_experiment(experiment).tags.get(_NOTE, "")
    if note.startswith(_LATEST) and f"viewStateShareKey={key}" in note:
        client.set_experiment_tag(experiment, _NOTE, f"{_LATEST}[{name}]({_view('', experiment, key)})" if name else "")


def _view(base: str, experiment: str, key: str) -> str:
    return f"{base}#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={key}"


def view_key(search_id: str) -> str:
    """The key of the view of a search, from the id of the search."""
    return search_id[:12]


def search_pages(store: Store, experiment: str, key: str, port: int = PORT) -> list[str]:
    """The addresses of the table and of the curves of a search in MLflow's page.

    Empty where the tracking server is a database: the address of its page is unknown.
    """
    base = f"http://127.0.0.1:{port}" if store.is_local else store.shown
    if not base.startswith("http"):
        return []
    table = _view(f"{base}/", experiment, key)
    return [table, f"{table}&compareRunsMode=CHART"]


def latest_searches(client: MlflowClient) -> list[tuple[str, str, str]]:
    """The last search of each experiment that has a view, newest first: name, experiment and key."""
    searches = []
    for experiment in client.search_experiments():
        last = client.search_runs(
            [experiment.experiment_id], "tags.`search.run` = 'parent'", order_by=["start_time DESC"], max_results=1
        )
        for run in last:
            key = view_key(run.data.tags["search.id"])
            if f"{TAG}{key}" in experiment.tags:
                searches.append((run.info.start_time, run.data.tags["search"], experiment.experiment_id, key))
    return [(name, str(experiment), key) for _, name, experiment, key in sorted(searches, reverse=True)]
