"""From finished searches to a decision: side by side, simulated, given more, promoted."""

import io
import json

import pandas as pd
import pytest

from search.core.store import Store
from search.reports.compare import read_tables
from search.tracking.results import tracked_searches
from tests.outcomes import assert_logged_once
from tests.outcomes import results as epochs_of

ONE = (
    "run", "toy", "--name", "one", "--searcher", "tpe", "--scheduler", "asha", "--trials", "6", "--epochs", "4",
    "--set", "lr={loguniform: [0.001, 0.2]}", "--set", "search.reduction_factor=2",
    "--set", "resources.price_cpu_hour=3600",
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(module_here):
    module_here.call(*ONE)
    module_here.call("run", "toy", "--name", "two", "--no-retrain", "--set", "lr=0.1", "--epochs", "2")
    return module_here


def test_compare_ranks_trials_of_several_searches(searched):
    frame = pd.read_csv(io.StringIO(searched.call("compare", "toy", "--format", "csv", "--top", "0")))
    assert len(frame) == 10 and set(frame["search"]) == {"one", "two"}
    assert frame["val_score"].is_monotonic_decreasing
    assert frame["behind"].tolist() == pytest.approx((frame["val_score"].max() - frame["val_score"]).tolist())
    events = searched.events("one")
    for _, row in frame[frame["search"] == "one"].iterrows():
        curve = [e for e in epochs_of(events) if e["number"] == row["trial"]]
        assert row["epochs"] == len(curve)
        assert row["val_score"] == max(e["metrics"]["val_score"] for e in curve)
        assert row["seconds"] == pytest.approx(sum(e["metrics"]["epoch_seconds"] for e in curve))
        assert row["cost"] == pytest.approx(row["seconds"]), "3600 an hour for one CPU"
        params = next(e["params"] for e in events if e["event"] == "trial" and e["number"] == row["trial"])
        assert row["lr"] == pytest.approx(params["lr"]) and row["index"] == params["index"]


def test_compare_formats(searched):
    records = json.loads(searched.call("compare", "toy", "--search", "one", "--format", "json"))
    markdown = searched.call("compare", "toy", "--search", "one", "--format", "md")
    table = searched.call("compare", "toy", "--search", "one", "--top", "2")
    assert [r["search"] for r in records] == ["one"] * 6
    assert markdown.count("| one |") == 7, "six trials and the search"
    assert "2 of 6 trials; --top 0 shows all" in table


def test_journals_and_mlflow_read_alike(searched):
    store = Store(searched.folder / "mlruns")
    journals = {table.name: table for table in read_tables(store, "toy")}
    tracked = {table.name: table for table in tracked_searches(store, "toy")}
    assert journals.keys() == tracked.keys()
    for name, table in journals.items():
        other = tracked[name]
        assert (other.id, other.created, other.objectives) == (table.id, table.created, table.objectives)
        assert other.test == pytest.approx(table.test, nan_ok=True)
        trials = other.trials.reindex(columns=table.trials.columns)
        pd.testing.assert_frame_equal(trials, table.trials, check_dtype=False)


def test_compare_without_task(searched):
    output = searched.call("compare", "--format", "csv", "--top", "0")
    assert len(pd.read_csv(io.StringIO(output))) == 10


def test_compare_search_on_other_data(searched):
    searched.call("run", "toy", "--name", "other", "--no-retrain", "--set", "data.size=80", "--epochs", "1")
    output = searched.call("compare", "toy", "--search", "one", "--search", "other", "--format", "csv", "--top", "0")
    assert "not compared, as their data is other than other's" in output
    assert output.count("other,") == 4 and "\none," not in output
    assert "no such search of toy; there are" in searched.call("compare", "toy", "--search", "nope", code=2)


def test_simulate_logged_and_other_scheduler(searched):
    output = searched.call("simulate", "one")
    same, total = output.split(" early-stopping")[0].split("the logged search: ")[1].split(" of ")
    assert same == total and int(total) > 5
    output = searched.call("simulate", "one", "--scheduler", "none", "--concurrency", "3")
    assert "unknown" in output and "their recorded epochs count" in output


def test_report_is_one_file_and_is_logged(searched):
    output = searched.call("report", "one")
    path = searched.folder / "mlruns" / "searches" / "one" / "report.html"
    assert f"report: {path}" in output
    page = path.read_text()
    for heading in ("Learning curves", "Configurations", "Importance", "Early stopping", "What it took", "Environment"):
        assert f"<h2>{heading}</h2>" in page
    assert "hardly more than a guess" in page, "six trials say little of importance"
    client, runs = searched.runs("toy")
    parent = next(r for r in runs if r.data.tags["role"] == "parent" and r.data.tags["search"] == "one")
    assert "report.html" in {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert "no search of that name" in searched.call("report", "nope", code=2)


def test_promote_version(searched):
    assert "there are 1" in searched.call("promote", "toy", "9", code=2)
    assert "toy version 1" in searched.call("promote", "toy", "1")


@pytest.mark.nightly
def test_resume_with_more_trials_and_epochs(here, module_here):
    """The search ends as one that had them from the start."""
    whole = (*ONE[:3], "whole", *ONE[4:9], "9", *ONE[10:])
    module_here.call(*whole)
    here.call(*ONE)
    assert "it can only be given more" in here.call("resume", "one", "--trials", "3", code=2)
    here.call("resume", "one", "--trials", "+3")
    trials, other = (
        [(e["number"], e["params"]) for e in c.events(n) if e["event"] == "trial"]
        for c, n in ((here, "one"), (module_here, "whole"))
    )
    assert len(trials) == 9 and trials == other
    here.call("resume", "one", "--epochs", "6")
    reached = {e["number"]: e["epoch"] for e in epochs_of(here.events("one"))}
    assert max(reached.values()) == 6
    assert_logged_once(here, "toy", "one")
