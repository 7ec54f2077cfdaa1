"""Commands that share one Ray: starting it takes longer than most of the searches here.

The tests of what a user sees who has no cluster start their own with `OWN_RAY`.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import CODE, Command

OWN_RAY = {"RAY_ADDRESS": ""}
_CLUSTER = """
import sys, ray
context = ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print("address", context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def ray_env() -> Iterator[dict[str, str]]:
    """The environment in which commands find the Ray of this test process."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER], env={**os.environ, "PYTHONPATH": CODE, **token}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    line = next(line for line in process.stdout if line.startswith("address "))
    yield {**token, "RAY_ADDRESS": line.split()[1]}
    process.communicate(timeout=60)


@pytest.fixture
def command(tmp_path, ray_env) -> Command:
    return Command(tmp_path, ray_env)


@pytest.fixture(scope="module")
def module_command(tmp_path_factory, ray_env) -> Command:
    return Command(tmp_path_factory.mktemp("run"), ray_env)
