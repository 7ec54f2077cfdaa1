"""Trainings beside the trials: each job is started in turn, and its messages come to the driver."""

import pytest
import ray

from search.runtime.placement import Placement
from search.runtime.remote import is_recorded, run_jobs
from tests.ray_here import ray_here
from tests.search.runtime.test_search import search_in

CPU = {"cpus": 1.0, "gpus": 0, "precision": "auto"}


def run(search, worker, on_message=lambda job, message: None):
    placement = Placement(1.0, 0, 1)
    with ray_here():
        run_jobs(search, "splits", placement, "audit", ["a", "b"], worker, lambda job: (job, 7), on_message,
                 lambda job: f"the audit of trial {job}")  # fmt: skip


def test_run_jobs_passes_each_message_with_its_job(tmp_path):
    heard = []

    def worker(task, splits, resources, job, number):
        assert (task, splits, resources, number) == ("windows", "splits", CPU, 7)
        yield {"event": "one", "job": job}
        yield {"event": "two", "files": {f"{job}.pt": b"state"}}

    search = search_in(tmp_path)
    run(search, worker, lambda job, message: heard.append((job, message["event"])))
    assert heard == [("a", "one"), ("a", "two"), ("b", "one"), ("b", "two")]
    assert (search.folder.path / "a.pt").read_bytes() == b"state"
    search.end("interrupted")


def test_run_jobs_tells_listeners_of_damaged_files(tmp_path):
    search, told, heard = search_in(tmp_path), [], []
    search.listeners.append(lambda event, state: told.append(event))

    def worker(task, splits, resources, job, number):
        yield {"event": "damaged", "file": "x.pt", "why": "is empty"}

    run(search, worker, lambda job, message: heard.append(message))
    assert [event["file"] for event in told] == ["x.pt", "x.pt"] and not heard
    search.end("interrupted")


def test_run_jobs_names_the_job_whose_worker_failed(tmp_path):
    search = search_in(tmp_path)

    def worker(task, splits, resources, job, number):
        yield {"event": "one"}
        raise ray.exceptions.RayError("boom")

    with pytest.raises(ray.exceptions.RayError, match="boom") as raised:
        run(search, worker)
    assert raised.value.__notes__ == ["this ended the audit of trial a"]
    search.end("interrupted")


def test_run_jobs_ends_where_the_search_was_stopped(tmp_path):
    search = search_in(tmp_path)

    def worker(task, splits, resources, job, number):
        yield {"event": "one"}

    search.stop("interrupted")
    search.stop("interrupted")
    assert search.cut_off
    with pytest.raises(KeyboardInterrupt):
        run(search, worker)
    search.end("interrupted")


def test_is_recorded_keeps_the_first_record_of_an_epoch():
    assert is_recorded({"event": "audit_result", "epoch": 2}, {1: {}, 2: {}})
    assert not is_recorded({"event": "audit_result", "epoch": 3}, {1: {}, 2: {}})
    assert not is_recorded({"event": "audit_finished"}, {1: {}, 2: {}})
