"""A Ray cluster of several machines, all of them processes here, that lose and gain machines on demand."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import CODE

_SCRIPT = """
import sys, time
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": int(sys.argv[1])})
nodes = []
print("address", cluster.address, flush=True)
for line in sys.stdin:
    if line.startswith("add"):
        nodes.append(cluster.add_node(num_cpus=int(line.split()[1])))
    elif line.startswith("until"):
        ray.init(address=cluster.address, ignore_reinit_error=True, log_to_driver=False)
        while ray.cluster_resources().get("CPU", 0) < int(line.split()[1]):
            time.sleep(0.1)
        ray.shutdown()
    else:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""


class Machines:
    """`env` is what a command needs to reach them."""

    def __init__(self, process: subprocess.Popen, token: dict[str, str]) -> None:
        self._process = process
        self.env = {**token, "RAY_ADDRESS": self._answer("address")}

    def _answer(self, word: str) -> str:
        return next(line for line in self._process.stdout if line.startswith(word)).removeprefix(word).strip()

    def _ask(self, command: str) -> None:
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self._answer("done")

    def add(self, cpus: int) -> None:
        self._ask(f"add {cpus}")

    def until(self, cpus: int) -> None:
        """Waits for a machine that joins by itself."""
        self._ask(f"until {cpus}")

    def remove(self) -> None:
        """The one that was added last, without grace."""
        self._ask("remove")


@contextmanager
def machines(head_cpus: int) -> Iterator[Machines]:
    # Ray reads its token when it is imported, so the cluster lives in a process of its own.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(head_cpus)], env={**os.environ, "PYTHONPATH": CODE, **token}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Machines(process, token)
    finally:
        process.communicate(timeout=120)
