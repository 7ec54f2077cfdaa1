import gc
import socket

import pytest
import ray

from search.core.config import load_config
from search.runtime.cluster import disconnect, start_ray
from search.runtime.placement import place
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
