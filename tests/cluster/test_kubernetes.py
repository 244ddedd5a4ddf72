"""Manifests for KubeRay have the fields that its API requires (ray.io/v1), and no others.

Kubernetes rejects unknown fields, so the fields of each object are compared with those that the
API defines, as far as they are used.
"""

import re
from typing import Any

import pytest
import yaml

from cluster.kubernetes import object_name, rayjob_yaml, rayservice_yaml
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
# RFC 1035, and the limit of KubeRay: the name of a RayJob or RayService.
KUBERAY_NAME = re.compile(r"(?=.{1,47}$)[a-z]([-a-z0-9]*[a-z0-9])?")
SPEC_FIELDS = {
    "RayJob": {
        "entrypoint",
        "submissionMode",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    },
    "RayService": {"serveConfigV2", "rayClusterConfig"},
}
HEAD_FIELDS = {"rayStartParams", "template"}
WORKER_FIELDS = HEAD_FIELDS | {"groupName", "replicas", "minReplicas", "maxReplicas"}
POD_FIELDS = {"containers", "volumes", "serviceAccountName"}
CONTAINER_FIELDS = {"name", "image", "resources", "env", "envFrom", "volumeMounts", "ports"}


def check_object(manifest: dict[str, Any], kind: str) -> dict[str, Any]:
    """The fields of a RayJob or RayService; its spec."""
    assert list(manifest) == ["apiVersion", "kind", "metadata", "spec"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", kind)
    assert manifest["metadata"].keys() == {"name", "namespace"}
    assert KUBERAY_NAME.fullmatch(manifest["metadata"]["name"])
    assert manifest["spec"].keys() == SPEC_FIELDS[kind]
    return manifest["spec"]


def check_cluster(spec: dict[str, Any]) -> None:
    """The required fields of a RayClusterSpec, and pods that Kubernetes accepts."""
    assert spec.keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert spec["headGroupSpec"].keys() == HEAD_FIELDS
    assert spec["workerGroupSpecs"][0].keys() == WORKER_FIELDS
    assert re.fullmatch(r"\d+\.\d+\.\d+", spec["rayVersion"])
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert all(isinstance(value, str) for value in head["rayStartParams"].values())
    assert NAME.fullmatch(workers["groupName"])
    assert 0 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        pod = group["template"]["spec"]
        assert pod.keys() <= POD_FIELDS
        assert pod["serviceAccountName"] == "trainer"
        (container,) = pod["containers"]
        assert container.keys() <= CONTAINER_FIELDS
        assert NAME.fullmatch(container["name"])
        assert container["image"] == "example.org/segfleet:0.2.0"
        # All keys of the Secret by reference; no secret is in the manifest.
        assert container["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]
        assert not any(
            word in each["name"] for each in container["env"] for word in ("KEY", "SECRET", "TOKEN")
        )
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["limits"]["memory"] == "16Gi"
        # Quantities and values of variables are texts.
        quantities = container["resources"]["limits"]
        assert quantities.keys() <= {"cpu", "memory", "nvidia.com/gpu"}
        assert all(isinstance(value, str) for value in quantities.values())
        assert all(isinstance(each["value"], str) for each in container["env"])


def test_a_rayjob_mounts_its_settings_and_has_a_pod_per_worker() -> None:
    text = rayjob_yaml(CONFIG, "demo-1", ["trainer", "train", "settings.toml"])
    settings, job = yaml.safe_load_all(text)
    assert (settings["kind"], job["kind"]) == ("ConfigMap", "RayJob")
    assert settings["apiVersion"] == "v1"
    spec = check_object(job, "RayJob")
    assert job["metadata"] == {"name": "demo-1", "namespace": "medical"}
    assert settings["metadata"]["namespace"] == "medical"
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
    config = CONFIG.with_values({"serve.gpus_per_replica": 0.5, "serve.max_replicas": 3})
    (service,) = yaml.safe_load_all(rayservice_yaml(config, "demo-service", SERVE_CONFIG))
    check_cluster(check_object(service, "RayService")["rayClusterConfig"])
    content = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert content["applications"] == [{"name": "a"}]
    assert content["http_options"] == {"host": "0.0.0.0", "port": 8000}
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert head["containers"][0]["ports"] == [{"name": "serve", "containerPort": 8000}]
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    (workers,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert workers["replicas"] == 3
    # Kubernetes assigns whole GPUs only.
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize(
    ("name", "suffix", "expected"),
    [
        ("demo", "-service", "demo-service"),
        ("Pancreas_v1.2", "-service", "pancreas-v1-2-service"),
        ("2026-run", "-a1", "run-2026-run-a1"),
        ("x" * 39 + "-y", "-service", "x" * 39 + "-service"),
    ],
)
def test_the_name_of_an_object_is_one_that_kuberay_accepts(
    name: str, suffix: str, expected: str
) -> None:
    assert object_name(name, suffix) == expected
    assert KUBERAY_NAME.fullmatch(expected)


def test_a_manifest_needs_an_image() -> None:
    config = CONFIG.with_values({"cluster.kubernetes.image": None})
    with pytest.raises(ConfigError, match=r"cluster\.kubernetes\.image is not set"):
        rayjob_yaml(config, "demo-1", ["trainer", "train", "settings.toml"])


def test_a_service_that_reads_a_folder_of_this_machine_is_rejected() -> None:
    config = CONFIG.with_values({"storage.root": "segfleet-data"})
    with pytest.raises(ConfigError, match=r"storage\.root = 'segfleet-data' is a folder of this"):
        rayservice_yaml(config, "demo-service", SERVE_CONFIG)
