import gc
import inspect
import os
import socket
import sys
from subprocess import PIPE

import pytest
import ray
from ray._private import parameter, services
from ray.tune.execution import class_cache

from search.core.config import load_config
from search.runtime.cluster import connect, disconnect, leave_early, start_early, start_here, start_ray
from search.runtime.placement import place
from tests.ray_here import ray_here
from trainables.base.errors import InputError


def test_address_where_nothing_listens_is_refused_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(InputError, match=f"--address {address}: no Ray cluster answers"):
        start_ray(address, dashboard=False, task="rnn")


def test_no_garbage_with_references_is_collected_while_ray_shuts_down(monkeypatch):
    collects = []
    monkeypatch.setattr(ray, "shutdown", lambda: collects.append(gc.isenabled()))
    disconnect()
    assert (collects, gc.isenabled()) == ([False], True)


def test_client_address_is_refused_with_what_to_do_instead():
    with pytest.raises(
        InputError, match=r"--address ray://host:10001: .* start this command on a machine of the cluster"
    ):
        start_ray("ray://host:10001", dashboard=False, task="rnn")


def test_what_fits_nowhere_is_refused_with_the_arithmetic():
    config = load_config("windows", ["resources.cpus=4"])
    needs = "a trial takes 4 CPUs and 0 GPUs of one machine; there are "
    with pytest.raises(InputError, match=f"{needs}1 x 2 CPUs and 0 GPUs"):
        place(config, [(2, 0)])
    with pytest.raises(InputError, match=f"{needs}3 x 2 CPUs and 0 GPUs"):
        place(config, [(2, 0)] * 3)
    with pytest.raises(InputError, match="--concurrency 5: only 2 trials of 1 CPUs and 0 GPUs fit at once"):
        place(load_config("windows", [], {"search.concurrency": 5}), [(2, 0)])


def test_gpus_are_shared_by_fractions_and_left_out_where_there_are_none():
    config = load_config("windows", ["resources.gpus=0.25"])
    assert place(config, [(16, 1)]).concurrency == 4
    assert (place(config, [(2, 0)]).gpus, place(config, [(2, 0)]).concurrency) == (0, 2)


def test_groups_of_processes_take_whole_gpus_of_as_many_machines_as_asked():
    def placed(*sets, machines):
        placement = place(load_config("windows", [f"resources.{text}" for text in sets]), machines)
        return placement.cpus, placement.gpus, placement.concurrency

    assert placed("processes=2", machines=[(8, 0)]) == (2, 0, 4), "no machine has a GPU"
    assert placed("processes=2", machines=[(8, 4)]) == (2, 2, 2), "a GPU for each process"
    assert placed("gpus=2", "cpus=4", machines=[(16, 4), (16, 1)]) == (4, 2, 2)
    assert placed("gpus=4", "processes=4", "nodes=2", machines=[(8, 4), (8, 4)]) == (4, 4, 2)
    assert placed("gpus=4", "processes=4", "nodes=2", machines=[(8, 8), (8, 2), (2, 2)]) == (4, 4, 2)
    with pytest.raises(InputError, match=r"a trial takes 2 CPUs and 2 GPUs of each of 2 machines; there are 1 x"):
        placed("gpus=4", "processes=4", "nodes=2", machines=[(8, 8)])
    bundles = place(load_config("windows", ["resources.processes=4", "resources.nodes=2"]), [(8, 2)] * 2).bundles
    assert bundles == [{"CPU": 2, "GPU": 2}] * 2


def test_machines_of_several_kinds_are_used_for_what_they_can():
    there = [(8, 0), (16, 2), (2, 1)]
    assert place(load_config("windows", ["resources.gpus=0.5"]), there).concurrency == 4 + 2
    assert place(load_config("windows", ["resources.gpus=0"]), there).concurrency == 26, "CPUs are anyone's"


@pytest.fixture
def starts(monkeypatch):
    """The options of each start of Ray, none of which starts servers."""
    starts = []
    with ray_here():
        init = ray.init
        monkeypatch.setattr(ray, "init", lambda **options: starts.append(options) or init(**options))
        yield starts
        disconnect()


def test_search_takes_the_ray_that_its_command_started_early(starts):
    config = load_config("rnn", [], {"search.concurrency": 1})
    start_early(config, None, ["search.session"])
    assert "search.session" in sys.modules
    connect(config, None)
    assert len(starts) == 1
    connect(config, None)
    assert len(starts) == 2, "each early start is for one search"
    start_early(config, None, [])
    leave_early()
    connect(config, None)
    assert len(starts) == 4, "a command that failed has left its Ray"


def test_workers_take_the_variables_of_tune_from_the_process_that_starts_ray(starts, monkeypatch):
    monkeypatch.delenv("PL_DISABLE_FORK", raising=False)
    own, passed = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    assert own == {"PL_DISABLE_FORK": "1"}, "with other variables, `_QUIET` in cluster.py has to have them too"
    start_ray(None, dashboard=False, task="rnn")
    assert ({}, set()) == (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)
    assert os.environ["PL_DISABLE_FORK"] == "1"
    disconnect()
    assert (own, passed) == (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)
    assert "PL_DISABLE_FORK" not in os.environ


def test_workers_of_a_cluster_get_the_variables_of_tune_with_the_job(starts, monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("AWS_SESSION_TOKEN", "mine")
        start_ray(f"127.0.0.1:{server.getsockname()[1]}", dashboard=False, task="rnn")
    given = starts[0]["runtime_env"]["env_vars"]
    assert (given["PL_DISABLE_FORK"], given["AWS_SESSION_TOKEN"]) == ("1", "mine")


def test_servers_of_ray_are_as_few_as_needed_and_a_process_group_of_their_own(monkeypatch):
    whole, start, given = parameter.RayParams, services.ConsolePopen, []
    assert {"no_monitor", "include_log_monitor"} <= set(inspect.signature(whole).parameters), "this Ray has them"

    def init(**_):
        given.append(parameter.RayParams())
        group = services.ConsolePopen(
            [sys.executable, "-c", "import os; print(os.getpgid(0) == os.getpid())"], stdout=PIPE
        )
        given.append(group.communicate()[0])

    monkeypatch.setattr(ray, "init", init)
    start_here()
    assert (given[0].no_monitor, given[0].include_log_monitor, given[1]) == (True, False, b"True\n")
    assert (parameter.RayParams, services.ConsolePopen) == (whole, start)
