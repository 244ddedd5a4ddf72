"""Manifests for KubeRay: a RayJob for a command, a RayService for a service.

The fields are those of KubeRay's API ray.io/v1 (https://ray-project.github.io/kuberay/reference/api).
KubeRay starts a cluster for each of them, so nothing else has to run before `kubectl apply`.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import yaml

from cluster.connection import WORKER_ENV
from contract.config import Config, Kubernetes
from contract.config.loader import to_toml
from contract.errors import ConfigError

API_VERSION = "ray.io/v1"
SETTINGS_FOLDER = "/etc/segfleet"
SETTINGS = "settings.toml"
_HEAD_CPUS = 2
# KubeRay appends up to 16 characters to the name of a RayJob or a RayService for its own objects,
# whose names have at most 63 (MaxRayJobNameLength, MaxRayServiceNameLength in its code).
_MAX_NAME = 47
# Seconds after which KubeRay deletes the cluster of a finished job.
_TTL_S = 600

Manifest = dict[str, Any]


def object_name(name: str, suffix: str) -> str:
    """A name that KubeRay accepts for a RayJob or a RayService: a label of RFC 1035.

    Args:
        name: What the object is named after, such as a run; shortened if it is too long.
        suffix: The end of the name: lower-case letters, digits and dashes.
    """
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not label[:1].isalpha():
        label = f"run-{label}"
    return label[: _MAX_NAME - len(suffix)].rstrip("-") + suffix


def rayjob_yaml(config: Config, name: str, command: Sequence[str]) -> str:
    """A RayJob that runs a command, and the ConfigMap with its settings.

    Each training worker has a pod of its own, with cpus_per_worker CPUs and gpus_per_worker GPUs.

    Args:
        config: The settings of the command; storage.root must be in S3.
        name: Name of the job, from object_name.
        command: Package, command and arguments: ["trainer", "train", "settings.toml"].

    Raises:
        ConfigError: cluster.kubernetes.image is not set.
    """
    train = config.train
    arguments = [f"{SETTINGS_FOLDER}/{SETTINGS}" if word == SETTINGS else word for word in command]
    volume = {"name": "settings", "configMap": {"name": f"{name}-settings"}}
    spec = _cluster_spec(
        config.cluster.kubernetes,
        head_gpus=0,
        workers=train.num_workers,
        worker_cpus=train.cpus_per_worker,
        worker_gpus=train.gpus_per_worker,
    )
    _add_volume(spec["headGroupSpec"]["template"]["spec"], volume, SETTINGS_FOLDER)
    job = {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": _metadata(config.cluster.kubernetes, name),
        "spec": {
            "entrypoint": " ".join(["python", "-m", *arguments]),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": _TTL_S,
            "rayClusterSpec": spec,
        },
    }
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(config.cluster.kubernetes, f"{name}-settings"),
        "data": {SETTINGS: to_toml(config.with_values({"cluster.address": None}))},
    }
    return _render(settings, job)


def rayservice_yaml(config: Config, name: str, serve_config: Mapping[str, Any]) -> str:
    """A RayService for the service of these settings.

    Args:
        config: The settings; storage.root must be in S3.
        name: Name of the service, from object_name.
        serve_config: The config of Ray Serve (ray.serve.schema.ServeDeploySchema).

    Raises:
        ConfigError: cluster.kubernetes.image is not set, or storage.root is a folder.
    """
    settings = config.serve
    if "://" not in config.storage.root:
        raise ConfigError(
            f"storage.root = {config.storage.root!r} is a folder of this machine, which a pod "
            "cannot read: use an s3:// URL."
        )
    # A pod is reached at its own address, not at the loopback address.
    options = {**serve_config["http_options"], "host": "0.0.0.0"}
    content = {**serve_config, "http_options": options}
    spec = _cluster_spec(
        config.cluster.kubernetes,
        head_gpus=0,
        workers=settings.max_replicas or settings.num_replicas,
        worker_cpus=settings.cpus_per_replica,
        worker_gpus=settings.gpus_per_replica,
    )
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        container["ports"] = [{"name": "serve", "containerPort": settings.port}]
    service = {
        "apiVersion": API_VERSION,
        "kind": "RayService",
        "metadata": _metadata(config.cluster.kubernetes, name),
        "spec": {
            "serveConfigV2": yaml.safe_dump(content, sort_keys=False),
            "rayClusterConfig": spec,
        },
    }
    return _render(service)


def _metadata(kubernetes: Kubernetes, name: str) -> Manifest:
    return {"name": name, "namespace": kubernetes.namespace}


def _cluster_spec(
    kubernetes: Kubernetes, head_gpus: int, workers: int, worker_cpus: float, worker_gpus: float
) -> Manifest:
    """A RayClusterSpec: a head without work of its own, and pods of one size."""
    return {
        "rayVersion": version("ray"),
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
            "template": _pod(kubernetes, "ray-head", _HEAD_CPUS, head_gpus),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": {},
                "template": _pod(kubernetes, "ray-worker", worker_cpus, worker_gpus),
            }
        ],
    }


def _pod(kubernetes: Kubernetes, name: str, cpus: float, gpus: float) -> Manifest:
    """The template of a pod with one container; requests equal limits, as Ray expects."""
    if kubernetes.image is None:
        raise ConfigError(
            "cluster.kubernetes.image is not set: name a container image that has segfleet[all] "
            f"and Ray {version('ray')} installed."
        )
    # Ray counts whole CPUs, and Kubernetes assigns only whole GPUs.
    quantities = {"cpu": str(max(1, round(cpus))), "memory": f"{kubernetes.memory_gb}Gi"}
    if gpus:
        quantities["nvidia.com/gpu"] = str(max(1, round(gpus)))
    container: Manifest = {
        "name": name,
        "image": kubernetes.image,
        "resources": {"requests": quantities, "limits": dict(quantities)},
        "env": [{"name": key, "value": value} for key, value in WORKER_ENV.items()],
    }
    if kubernetes.secret:
        container["envFrom"] = [{"secretRef": {"name": kubernetes.secret}}]
    spec: Manifest = {"containers": [container]}
    if kubernetes.service_account:
        spec["serviceAccountName"] = kubernetes.service_account
    return {"spec": spec}


def _add_volume(pod: Manifest, volume: Manifest, path: str) -> None:
    pod["volumes"] = [volume]
    mount = {"name": volume["name"], "mountPath": path, "readOnly": True}
    pod["containers"][0]["volumeMounts"] = [mount]


def _render(*manifests: Manifest) -> str:
    header = "# For KubeRay: kubectl apply -f THIS_FILE\n"
    return header + yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines, such as a settings file, line by line."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
