"""Whether a cluster can hold what the settings ask for, and why not.

The decision is made on plain numbers; only nodes_of_cluster talks to Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import ray
import yaml
from ray._private.accelerators import NvidiaGPUAcceleratorManager
from ray._private.utils import get_num_cpus
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
from contract.config import Cluster, Config
from contract.errors import ClusterError

Extent = Literal["min_workers", "max_workers"]
"""Of a cluster that grows by itself: as it begins, or as large as it may become."""


@dataclass(frozen=True)
class CapacityCheck:
    """What was found of one purpose: it fits, or the reasons why not."""

    purpose: str
    text: str
    reasons: tuple[str, ...] = ()


def check_capacity(
    config: Config, nodes: Sequence[Node], first: Sequence[Node] | None = None
) -> list[CapacityCheck]:
    """Training, the sweep (where there is a search space) and the service, each by itself.

    first: the nodes of a cluster that has not grown to `nodes` yet; absent: it does not grow.
    """
    found = [
        _judged("training", training_request(config), nodes),
        _judged("service", _service(config), nodes),
    ]
    if config.sweep.space:
        found.insert(1, _judged_sweep(config, nodes, nodes if first is None else first))
    return found


def _service(config: Config) -> ResourceRequest:
    serve = config.serve
    return ResourceRequest(
        "replica",
        serve.num_replicas,
        serve.cpus_per_replica,
        serve.gpus_per_replica,
        "serve.{}_per_replica",
        "serve.num_replicas",
    )


def _judged(purpose: str, need: ResourceRequest, nodes: Sequence[Node]) -> CapacityCheck:
    text = f"{_pieces(need)}: room for {max_placements(need, nodes)}"
    return CapacityCheck(purpose, text, tuple(placement_errors(need, nodes)))


def _judged_sweep(config: Config, nodes: Sequence[Node], first: Sequence[Node]) -> CapacityCheck:
    """A sweep needs room for one trial, and is as fast as there is room for more."""
    need, parallel = trial_request(config), config.sweep.max_concurrent_trials
    together = min(max_concurrent_trials(config, nodes), parallel or UNLIMITED)
    text = f"{config.sweep.num_samples} trials, each {_pieces(need)}: {together} at once"
    found = placement_errors(need, nodes)
    begins = max_concurrent_trials(config, first)
    if parallel is None and begins < min(together, config.sweep.num_samples):
        found.append(
            "sweep.max_concurrent_trials is not set, so the sweep counts on the nodes it begins with, which "
            f"hold {begins} at once: set sweep.max_concurrent_trials to {together} for the cluster to grow."
        )
    return CapacityCheck("sweep", text, tuple(found))


def _pieces(need: ResourceRequest) -> str:
    return f"{need.count} {need.what}{'s' if need.count > 1 else ''} of {describe_size(need)}"


def nodes_of_machine(cluster: Cluster) -> list[Node]:
    """What a private cluster on this machine would have."""
    gpus = NvidiaGPUAcceleratorManager.get_current_node_num_accelerators()
    return [Node("this machine", cluster.cpus or get_num_cpus(), gpus)]


def nodes_of_cluster(cluster: Cluster) -> list[Node]:
    """The nodes that are alive in the cluster the settings name; ClusterError if unreachable."""
    api = JobClient(cluster)
    _check_version(api.ray_version, api.address)
    try:
        with environment_variables(NO_RAY_ADDRESS):
            # Ray's stub of NodeState, a pydantic dataclass, shows none of its fields.
            found = list_nodes(address=api.address, detail=True)
    except RayStateApiException as error:
        raise ClusterError(f"{api.address} does not tell of its nodes: {error}.") from error
    return [_node(state) for state in cast("list[Any]", found) if state.state == "ALIVE"]


def _node(state: Any) -> Node:
    has: Mapping[str, float] = state.resources_total or {}
    return Node(state.node_ip, has.get("CPU", 0.0), has.get("GPU", 0.0))


def _check_version(running: str, address: str) -> None:
    if running.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise ClusterError(
            f"the cluster at {address} runs Ray {running}, and this machine has Ray "
            f"{ray.__version__}: install the same on both."
        )


def nodes_of_file(path: Path, extent: Extent = "max_workers") -> list[Node]:
    """The cluster of a cluster file of Ray at an extent; ClusterError where it is none."""
    try:
        return nodes_of_tree(yaml.safe_load(path.read_text(encoding="utf-8")), extent)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ClusterError(
            f"{path} does not read as a cluster file of Ray: {type(error).__name__} {error}."
        ) from error


def nodes_of_tree(tree: Mapping[str, Any], extent: Extent = "max_workers") -> list[Node]:
    """The head and, at most max_workers, the largest workers of a cluster file."""
    types, head, limit = tree["available_node_types"], tree["head_node_type"], tree["max_workers"]
    nodes = [
        _typed_node(name, node_type)
        for name, node_type in types.items()
        for _ in range(min(node_type.get(extent, 0), limit))
        if name != head
    ]
    largest_first = sorted(nodes, key=lambda node: (node.gpus, node.cpus), reverse=True)
    return [_typed_node(head, types[head]), *largest_first[:limit]]


def _typed_node(name: str, node_type: Mapping[str, Any]) -> Node:
    """A node of a type; what the file does not say of it, the instance table does."""
    has = node_type.get("resources") or {}
    if "CPU" in has:
        return Node(name, has["CPU"], has.get("GPU", 0))
    instance = instances.table().instance(node_type["node_config"]["InstanceType"])
    return Node(name, instance.cpus, instance.gpus)
