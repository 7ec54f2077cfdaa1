"""A cluster without a machine that could train, whose autoscaler starts some when trials wait for them.

The machines are Ray's own stand-in for a cloud: further nodes of this machine, started by its real autoscaler.
"""

import json
import os
import secrets
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import CODE, Command
from tests.serving import free_port

pytestmark = pytest.mark.nightly

HEAD = "ray.head.default"


def _description(port: int, cpus: int, most: int) -> dict:
    empty = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
             "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude",
             "rsync_filter")  # fmt: skip
    worker = {"resources": {"CPU": cpus, "object_store_memory": 10**8}, "node_config": {}, "max_workers": most}
    return {
        "cluster_name": "fake_multinode", "max_workers": most, "upscaling_speed": 1.0, "idle_timeout_minutes": 5,
        "provider": {"type": "fake_multinode", "gcs_address": f"127.0.0.1:{port}", "disable_node_updaters": True},
        "auth": {"ssh_user": "nobody"},
        "available_node_types": {HEAD: {"resources": {}, "node_config": {}, "max_workers": 0}, "worker": worker},
        "head_node_type": HEAD, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False,
        "head_node": {}, "worker_nodes": {}, **{key: [] for key in empty},
    }  # fmt: skip


@contextmanager
def autoscaling_cluster():
    """Yields what a command needs to reach it."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Not in the test's own folder: a socket's path has room for 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        port, path = free_port(), Path(folder) / "cluster.json"
        path.write_text(json.dumps(_description(port, cpus=1, most=2)))
        fake = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_TMPDIR": folder, "PYTHONPATH": CODE}
        head = subprocess.Popen(
            ["ray", "start", "--head", f"--port={port}", "--num-cpus=0", f"--autoscaling-config={path}",
             "--include-dashboard=false", "--block"],
            env={**os.environ, **token, **fake}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert head.poll() is None
                time.sleep(0.2)
            yield {**token, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        finally:
            head.kill()
            head.wait()
            for process in psutil.process_iter():  # what the head and the autoscaler started
                with suppress(psutil.Error):
                    if process.environ().get("RAY_TMPDIR") == folder:
                        process.kill()


def test_search_waits_for_autoscaled_machines(tmp_path, command):
    with autoscaling_cluster() as env:
        search = Command(tmp_path, env, command.empty_store)
        run = ("run", "toy", "--name", "s", "--concurrency", "2", "--no-retrain")
        output = search.run(*run, code=2)
        assert "there are 1 x 0 CPUs and 0 GPUs; if the cluster starts machines on demand: --set" in output
        output = search.run(*run, "--set", "resources.autoscaled=true")
        assert "trials: 4 completed" in output
