"""Whether a cluster has the resources that the settings request, and why not.

The decision uses plain numbers; only nodes_of_cluster connects to Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import ray
import yaml
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from cluster.aws import instances
from cluster.connection import NO_RAY_ADDRESS, environment_variables
from cluster.jobs.client import JobClient
from cluster.resources import (
    UNLIMITED,
    Node,
    ResourceRequest,
    describe_size,
    max_concurrent_trials,
    max_placements,
    placement_errors,
    training_request,
    trial_request,
)
from contract.config import Cluster, Config, Serve
from contract.errors import ClusterError
from contract.host_info import cpu_count, gpu_count
from contract.plurals import pluralize

WorkerCount = Literal["min_workers", "max_workers"]
"""The size of a cluster that scales automatically: at its start, or at its largest."""


@dataclass(frozen=True)
class CapacityCheck:
    """The result for one purpose: it fits, or the errors say why not."""

    purpose: str
    text: str
    errors: tuple[str, ...] = ()


def check_capacity(
    config: Config, nodes: Sequence[Node], initial_nodes: Sequence[Node] | None = None
) -> list[CapacityCheck]:
    """Check training, the sweep (if there is a search space) and the service, each by itself.

    Args:
        config: The settings.
        nodes: The nodes of the cluster, at its largest if it scales automatically.
        initial_nodes: The nodes that it starts with; None if it does not scale.
    """
    checks = [
        _check("training", training_request(config.train), nodes),
        _check("service", _service_request(config.serve), nodes),
    ]
    if config.sweep.space:
        initial = nodes if initial_nodes is None else initial_nodes
        checks.insert(1, _check_sweep(config, nodes, initial))
    return checks


def _service_request(serve: Serve) -> ResourceRequest:
    return ResourceRequest(
        "replica",
        serve.num_replicas,
        serve.cpus_per_replica,
        serve.gpus_per_replica,
        "serve.{}_per_replica",
        "serve.num_replicas",
    )


def _check(purpose: str, request: ResourceRequest, nodes: Sequence[Node]) -> CapacityCheck:
    text = f"{_describe(request)}: the cluster can hold {max_placements(request, nodes)}"
    return CapacityCheck(purpose, text, tuple(placement_errors(request, nodes)))


def _check_sweep(
    config: Config, nodes: Sequence[Node], initial_nodes: Sequence[Node]
) -> CapacityCheck:
    """A sweep needs the resources of one trial, and is faster with the resources of more."""
    train, sweep = config.train, config.sweep
    request, limit = trial_request(train, sweep), sweep.max_concurrent_trials
    concurrent = min(max_concurrent_trials(train, sweep, nodes), limit or UNLIMITED)
    text = (
        f"{pluralize(sweep.num_samples, 'trial')}, each {_describe(request)}: {concurrent} at once"
    )
    errors = placement_errors(request, nodes)
    initial = max_concurrent_trials(train, sweep, initial_nodes)
    if limit is None and initial < min(concurrent, sweep.num_samples):
        errors.append(
            "sweep.max_concurrent_trials is not set, so the sweep uses only the nodes that the "
            f"cluster starts with, which hold {initial} at once: set sweep.max_concurrent_trials "
            f"to {concurrent} to make the cluster grow."
        )
    return CapacityCheck("sweep", text, tuple(errors))


def _describe(request: ResourceRequest) -> str:
    plural = "s" if request.count > 1 else ""
    return f"{request.count} {request.item}{plural} of {describe_size(request)}"


def nodes_of_machine(cluster: Cluster) -> list[Node]:
    """The node of a local cluster on this machine."""
    return [Node("this machine", cluster.cpus or cpu_count(), gpu_count())]


def nodes_of_cluster(cluster: Cluster) -> list[Node]:
    """The alive nodes of the cluster that the settings name; ClusterError if it is unreachable."""
    client = JobClient(cluster)
    _check_version(client.ray_version, client.address)
    try:
        with environment_variables(NO_RAY_ADDRESS):
            # The type stub of NodeState, a pydantic dataclass, has no fields.
            states = list_nodes(address=client.address, detail=True)
    except RayStateApiException as error:
        raise ClusterError(f"{client.address} does not list its nodes: {error}.") from error
    return [_node(state) for state in cast("list[Any]", states) if state.state == "ALIVE"]


def _node(state: Any) -> Node:
    resources: Mapping[str, float] = state.resources_total or {}
    return Node(state.node_ip, resources.get("CPU", 0.0), resources.get("GPU", 0.0))


def _check_version(cluster_version: str, address: str) -> None:
    if cluster_version.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise ClusterError(
            f"the cluster at {address} runs Ray {cluster_version}, and this machine has Ray "
            f"{ray.__version__}: install the same version on both."
        )


def nodes_of_file(path: Path, count: WorkerCount = "max_workers") -> list[Node]:
    """The nodes of a Ray cluster file; ClusterError if it is not a valid one."""
    try:
        return nodes_of_tree(yaml.safe_load(path.read_text(encoding="utf-8")), count)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ClusterError(
            f"{path} is not a valid Ray cluster file: {type(error).__name__} {error}."
        ) from error


def nodes_of_tree(tree: Mapping[str, Any], count: WorkerCount = "max_workers") -> list[Node]:
    """The head and the workers of a parsed cluster file, at most max_workers, largest first."""
    types, head, limit = tree["available_node_types"], tree["head_node_type"], tree["max_workers"]
    nodes = [
        _node_of_type(name, node_type)
        for name, node_type in types.items()
        for _ in range(min(node_type.get(count, 0), limit))
        if name != head
    ]
    largest_first = sorted(nodes, key=lambda node: (node.gpus, node.cpus), reverse=True)
    return [_node_of_type(head, types[head]), *largest_first[:limit]]


def _node_of_type(name: str, node_type: Mapping[str, Any]) -> Node:
    """A node of a type; resources that the file does not name come from the instance table."""
    resources = node_type.get("resources") or {}
    if "CPU" in resources:
        return Node(name, resources["CPU"], resources.get("GPU", 0))
    instance = instances.load_table().instance(node_type["node_config"]["InstanceType"])
    return Node(name, instance.cpus, instance.gpus)
