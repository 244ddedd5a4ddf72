"""How many equal work items the nodes of a cluster can hold, and why not more.

Separate from cluster.capacity_check so that the processes of a training start faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, inf

import ray

from contract.config import Sweep, Train

UNLIMITED = 10_000
"""The number of placements of an item that needs no resources."""


@dataclass(frozen=True)
class Node:
    """A node of a cluster and the resources that Ray can assign on it."""

    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class ResourceRequest:
    """Equal items that must all be placed at the same time, each on one node."""

    item: str
    """The name of one item: "training worker"."""
    count: int
    cpus: float
    gpus: float
    resource_setting: str
    """The settings of the resources of one item: "train.{}_per_worker"."""
    count_setting: str
    """The setting of the number of items."""


def alive_nodes() -> list[Node]:
    """The nodes of the connected cluster with their total resources."""
    running = [node for node in ray.nodes() if node["Alive"]]
    return [
        Node(
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0),
            node["Resources"].get("GPU", 0),
        )
        for node in running
    ]


def training_request(train: Train) -> ResourceRequest:
    """The workers of `trainer train`, which are placed at the same time."""
    return ResourceRequest(
        "training worker",
        train.num_workers,
        train.cpus_per_worker,
        train.gpus_per_worker,
        "train.{}_per_worker",
        "train.num_workers",
    )


def trial_request(train: Train, sweep: Sweep) -> ResourceRequest:
    """The training workers of one trial of the sweep."""
    request = training_request(train)
    if sweep.num_workers is None:
        return request
    return replace(request, count=sweep.num_workers, count_setting="sweep.num_workers")


def max_placements(request: ResourceRequest, nodes: Sequence[Node]) -> int:
    """How many of the items the empty nodes can hold."""
    return sum(_max_placements_on_node(request, node) for node in nodes)


def max_concurrent_trials(train: Train, sweep: Sweep, nodes: Sequence[Node]) -> int:
    """How many trials of the sweep the empty nodes can hold at the same time."""
    request = trial_request(train, sweep)
    return max_placements(request, nodes) // request.count


def placement_errors(request: ResourceRequest, nodes: Sequence[Node]) -> list[str]:
    """Why the nodes cannot hold the request, one sentence each; empty if they can."""
    resources = (("CPU", request.cpus, "cpus"), ("GPU", request.gpus, "gpus"))
    errors = [
        f"no node has the {requested:g} {name} of one {request.item} "
        f"({request.resource_setting.format(field)} = {requested:g}): the largest has {largest:g}."
        for name, requested, field in resources
        if requested > (largest := max((getattr(node, field) for node in nodes), default=0))
    ]
    if errors:
        return errors
    placements = max_placements(request, nodes)
    if placements >= request.count:
        return []
    if placements == 0:
        return [f"no single node has both the CPUs and the GPUs of one {request.item}."]
    return [
        f"{request.count_setting} requests {request.count} {request.item}s of "
        f"{describe_size(request)} each, and the cluster can hold {placements}: set "
        f"{request.count_setting} to {placements}, request less for each, or add nodes."
    ]


def describe_size(request: ResourceRequest) -> str:
    """The resources of one item in words: "2 CPU and 1 GPU"."""
    gpus = f" and {request.gpus:g} GPU" if request.gpus else ""
    return f"{request.cpus:g} CPU{gpus}"


def _max_placements_on_node(request: ResourceRequest, node: Node) -> int:
    resources = ((node.cpus, request.cpus), (node.gpus, request.gpus))
    fit = min((total / needed for total, needed in resources if needed > 0), default=inf)
    return min(floor(fit), UNLIMITED) if fit != inf else UNLIMITED
