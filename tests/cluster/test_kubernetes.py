"""Manifests for KubeRay have the fields that its API requires (ray.io/v1)."""

import re
from typing import Any

import pytest
import yaml

from cluster.kubernetes import rayjob_yaml, rayservice_yaml
from contract.config import Config
from contract.config.loader import parse_toml
from contract.errors import ConfigError

CONFIG = Config.model_validate(
    {
        "storage": {"root": "s3://bucket/segfleet"},
        "cluster": {
            "kubernetes": {
                "image": "example.org/segfleet:0.2.0",
                "namespace": "medical",
                "secret": "s3-keys",
                "service_account": "trainer",
                "memory_gb": 16,
            }
        },
        "train": {"num_workers": 4, "cpus_per_worker": 8, "gpus_per_worker": 1},
    }
)
SERVE_CONFIG = {
    "http_options": {"host": "127.0.0.1", "port": 8000},
    "applications": [{"name": "a"}],
}
# RFC 1123: the name of a Kubernetes object.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def check_cluster(spec: dict[str, Any]) -> None:
    """The required fields of a RayClusterSpec, and pods that Kubernetes accepts."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", spec["rayVersion"])
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert all(isinstance(value, str) for value in head["rayStartParams"].values())
    assert NAME.fullmatch(workers["groupName"])
    assert 0 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == "trainer"
        (container,) = pod["containers"]
        assert NAME.fullmatch(container["name"])
        assert container["image"] == "example.org/segfleet:0.2.0"
        assert container["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["limits"]["memory"] == "16Gi"
        assert all(isinstance(each["value"], str) for each in container["env"])


def test_a_rayjob_mounts_its_settings_and_has_a_pod_per_worker() -> None:
    text = rayjob_yaml(CONFIG, "demo-1", ["trainer", "train", "settings.toml"])
    settings, job = yaml.safe_load_all(text)
    assert (settings["kind"], job["kind"]) == ("ConfigMap", "RayJob")
    assert job["apiVersion"] == "ray.io/v1"
    assert job["metadata"] == {"name": "demo-1", "namespace": "medical"}
    spec = job["spec"]
    assert spec["entrypoint"] == "python -m trainer train /etc/segfleet/settings.toml"
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["submissionMode"] == "K8sJobMode"
    check_cluster(spec["rayClusterSpec"])
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["replicas"] == 4
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (limits["cpu"], limits["nvidia.com/gpu"]) == ("8", "1")
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["volumes"][0]["configMap"]["name"] == settings["metadata"]["name"]
    assert head["containers"][0]["volumeMounts"][0]["mountPath"] == "/etc/segfleet"
    assert Config.model_validate(parse_toml(settings["data"]["settings.toml"], "x")) == CONFIG


def test_a_rayservice_contains_the_serve_config() -> None:
    (service,) = yaml.safe_load_all(rayservice_yaml(CONFIG, "demo-service", SERVE_CONFIG))
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    check_cluster(service["spec"]["rayClusterConfig"])
    content = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert content["applications"] == [{"name": "a"}]
    assert content["http_options"] == {"host": "0.0.0.0", "port": 8000}
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert head["containers"][0]["ports"] == [{"name": "serve", "containerPort": 8000}]
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]


def test_a_manifest_needs_an_image() -> None:
    config = CONFIG.with_values({"cluster.kubernetes.image": None})
    with pytest.raises(ConfigError, match=r"cluster\.kubernetes\.image is not set"):
        rayjob_yaml(config, "demo-1", ["trainer", "train", "settings.toml"])
