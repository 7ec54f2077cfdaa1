"""What a finished search is asked: is its winner better than the next, and what did early stopping cost?"""

import json

import pytest

from tests.outcomes import assert_logged_once, results

pytestmark = pytest.mark.slow

SEARCH = (
    "run", "toy", "--name", "s", "--searcher", "tpe", "--trials", "10", "--epochs", "6", "--set", "index={value: 1}",
    "--set", "lr={loguniform: [0.001, 0.2]}", "--scheduler", "asha", "--set", "search.reduction_factor=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(module_here):
    module_here.call(*SEARCH, "--audit-stopping", "2")
    return module_here


def audited(command):
    curves = {e["number"]: {} for e in command.events("s") if e["event"] == "audit_started"}
    for event in command.events("s"):
        if event["event"] == "audit_result":
            assert event["epoch"] not in curves[event["number"]]
            curves[event["number"]][event["epoch"]] = event["metrics"]["val_score"]
    return curves


def test_audit_continues_stopped_trials(searched):
    """Other results do not change."""
    before = [e for e in searched.events("s") if e["event"] in ("trial", "result", "final_finished")]
    output = searched.call("resume", "s", "--audit-stopping", "+1")
    curves = audited(searched)
    assert len(curves) == 3
    stopped = {e["number"]: e["epoch"] for e in results(searched.events("s")) if e["outcome"] == "stopped_early"}
    for number, curve in curves.items():
        assert max(curve) == 6 and set(curve) | set(range(1, stopped[number] + 1)) == set(range(1, 7))
    assert "3 were trained to the end" in output and "a regret of" in output
    after = [e for e in searched.events("s") if e["event"] in ("trial", "result", "final_finished")]
    assert after == before


def test_audit_equals_search_without_stopping(searched, tmp_path_factory):
    # The same search without a scheduler: with a searcher that samples at random nothing else differs.
    alone = type(searched)(tmp_path_factory.mktemp("alone"), searched.env, searched.empty_store)
    common = ("--searcher", "random", "--no-retrain", "--trials", "4")
    searched.call(*SEARCH, "--name", "r", *common, "--audit-stopping", "9")
    alone.call(*SEARCH, "--name", "r", *common, "--scheduler", "none")
    whole = {(e["number"], e["epoch"]): e["metrics"]["val_score"] for e in results(alone.events("r"))}
    found = {
        (e["number"], e["epoch"]): e["metrics"]["val_score"]
        for e in searched.events("r")
        if e["event"] in ("result", "audit_result")
    }
    assert found == whole


def test_retrain_finalists_same_seeds(searched):
    output = searched.call("retrain", "s", "--finalists", "2", "--seeds", "3")
    assert "MLflow lacks" not in output and "registry: toy version" in output
    (decision,) = [e for e in searched.events("s") if e["event"] == "decided"]
    done = {(e["trial"], e["seed"]): e["test"]["score"] for e in searched.events("s") if e["event"] == "final_finished"}
    trials = [row["trial"] for row in decision["finalists"]]
    assert set(done) == {(trial, seed) for trial in trials for seed in range(3)}
    for row in decision["finalists"]:
        assert row["test"] == pytest.approx(sum(done[row["trial"], seed] for seed in range(3)) / 3)
        assert row["low"] < row["test"] < row["high"]
    assert decision["champion"] == trials[0] and decision["resampled"]
    assert ("within noise" in output) != decision["winner"]
    refused = searched.call("retrain", "s", "--finalists", "2", "--seeds", "1", code=2)
    assert "error: --seeds 1: a comparison of finalists needs at least 2 seeds" in refused


def test_decision_and_audit_in_mlflow_and_report(searched):
    assert_logged_once(searched, "toy", "s")
    client, runs = searched.runs("toy")
    (parent,) = [r for r in runs if r.data.tags["search"] == "s" and r.data.tags["role"] == "parent"]
    assert parent.data.tags["winner"] in ("true", "false")
    assert "finalists.md" in [a.path for a in client.list_artifacts(parent.info.run_id)]
    (decision,) = [e for e in searched.events("s") if e["event"] == "decided"]
    newest = max(client.search_model_versions("name = 'toy'"), key=lambda v: int(v.version))
    assert newest.tags["trial"] == str(decision["champion"])
    audits = [r for r in runs if r.data.tags["search"] == "s" and r.data.tags["role"] == "audit"]
    assert len(audits) == 3 and {r.info.status for r in audits} == {"FINISHED"}
    searched.call("report", "s")
    page = (searched.folder / "mlruns/searches/s/report.html").read_text()
    assert "trained to the end" in page and "rank at the end" in page and "Validation against test" in page


def test_pareto_front_of_two_objectives(module_here):
    objectives = ("--searcher", "nsga2", "--set", "search.objective=[score max, gradient_norm min]")
    output = module_here.call(*SEARCH, "--name", "p", *objectives, "--set", "search.startup_trials=4")
    events = module_here.events("p")
    front = [int(line.split("trial ")[1].split(":")[0]) for line in output.split("Pareto front")[1].splitlines()
             if line.startswith("  trial ")]  # fmt: skip
    records = json.loads(module_here.call("compare", "toy", "--search", "p", "--top", "0", "--format", "json"))
    assert sorted(front) == sorted(r["trial"] for r in records if r["front"])
    for one in records:
        mine = [e["metrics"] for e in results(events) if e["number"] == one["trial"]]
        assert one["gradient_norm"] == pytest.approx(max(mine, key=lambda m: m["val_score"])["gradient_norm"])
        better = [r for r in records if r["val_score"] > one["val_score"] and r["gradient_norm"] < one["gradient_norm"]]
        assert not (one["front"] and better)
    module_here.call("report", "p")
    assert "Pareto front" in (module_here.folder / "mlruns/searches/p/report.html").read_text()


def test_objective_that_no_epoch_measures(module_here):
    objectives = ("--searcher", "nsga2", "--set", "search.objective=[score max, speed max]")
    output = module_here.call(*SEARCH, "--name", "wrong", *objectives, code=2)
    assert "error: search.objective: 'speed': no metric of this task; there are " in output
    assert "Traceback" not in output and "parameters" in output
