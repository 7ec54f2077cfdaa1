"""The files of configs/cluster, against the schemas and tools of those who read them."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "configs" / "cluster"
KUBERNETES = "1.34"


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_cluster_launcher_file():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    (config,) = documents("aws.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "max_worker": 3}, schema)


@pytest.mark.parametrize("name", ["mlflow.yaml", "kuberay.yaml"])
def test_kubernetes_resources(name):
    checked = 0
    for document in documents(name):
        if document["apiVersion"].startswith("ray.io/"):
            continue
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        checked += 1
    assert checked >= 1


def test_kubernetes_pods_of_ray_cluster():
    job = next(d for d in documents("kuberay.yaml") if d["kind"] == "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    claims = {d["metadata"]["name"] for d in documents("kuberay.yaml") if d["kind"] == "PersistentVolumeClaim"}
    mounted = {v["persistentVolumeClaim"]["claimName"] for v in cluster["headGroupSpec"]["template"]["spec"]["volumes"]}
    assert mounted == claims
    broken = copy.deepcopy(pod)
    broken["spec"]["containers"][0]["resourcez"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_slurm_script():
    # The environment's programs, whose folder need not be on PATH.
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck, "it comes with the dev extra"
    found = subprocess.run([shellcheck, str(FOLDER / "slurm.sh")], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", ["aws.yaml", "kuberay.yaml", "mlflow.yaml", "slurm.sh"])
def test_docs_explain_each_file(name):
    assert f"configs/cluster/{name}" in (ROOT / "docs" / "howto" / "cluster.md").read_text()
