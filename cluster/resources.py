"""How many equal pieces of work the nodes of a cluster hold, and why not more.

Apart from cluster.capacity_check so that a training's processes, which ask nothing else,
start sooner.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, inf

import ray

from contract.config import Config

UNLIMITED = 10_000
"""As many as anybody asks for: where a piece needs nothing."""


@dataclass(frozen=True)
class Node:
    """A machine of a cluster and what Ray may give away of it."""

    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class ResourceRequest:
    """Equal pieces of work that must all be placed at once, each on one node."""

    what: str
    """What one is called: "training worker"."""
    count: int
    cpus: float
    gpus: float
    setting: str
    """Prefix of the settings that decide it: "train.cpus_per_worker"."""
    number: str
    """The setting that decides how many there are."""


def alive_nodes() -> list[Node]:
    """The nodes of the cluster that this process is connected to, as large as they are."""
    found = [node for node in ray.nodes() if node["Alive"]]
    return [
        Node(
            one["NodeManagerAddress"],
            one["Resources"].get("CPU", 0),
            one["Resources"].get("GPU", 0),
        )
        for one in found
    ]


def max_placements(need: ResourceRequest, nodes: Sequence[Node]) -> int:
    """How many of the pieces the empty nodes hold."""
    return sum(_places_on(need, node) for node in nodes)


def max_concurrent_trials(config: Config, nodes: Sequence[Node]) -> int:
    """How many trials of the sweep the empty nodes hold side by side."""
    need = trial_request(config)
    return max_placements(need, nodes) // need.count


def trial_request(config: Config) -> ResourceRequest:
    """The training workers of one trial of the sweep."""
    need = training_request(config)
    if config.sweep.num_workers is None:
        return need
    return replace(need, count=config.sweep.num_workers, number="sweep.num_workers")


def placement_errors(need: ResourceRequest, nodes: Sequence[Node]) -> list[str]:
    """Why the nodes cannot hold the need, one sentence each; none where they can."""
    kinds = (("CPU", need.cpus, "cpus"), ("GPU", need.gpus, "gpus"))
    missing = [
        f"no node has the {wanted:g} {kind} of one {need.what} ({need.setting.format(field)} = "
        f"{wanted:g}): the largest has {most:g}."
        for kind, wanted, field in kinds
        if wanted > (most := max((getattr(node, field) for node in nodes), default=0))
    ]
    if missing:
        return missing
    room = max_placements(need, nodes)
    if room >= need.count:
        return []
    if room == 0:
        return [f"no single node has both the CPUs and the GPUs of one {need.what}."]
    return [
        f"{need.number} asks for {need.count} {need.what}s of {describe_size(need)} each, and there is "
        f"room for {room}: set {need.number} to {room}, ask for less each, or add nodes."
    ]


def training_request(config: Config) -> ResourceRequest:
    """The workers of `trainer train`, which are placed all at once."""
    train = config.train
    return ResourceRequest(
        "training worker",
        train.num_workers,
        train.cpus_per_worker,
        train.gpus_per_worker,
        "train.{}_per_worker",
        "train.num_workers",
    )


def describe_size(need: ResourceRequest) -> str:
    """What one piece needs, in words: "2 CPU and 1 GPU"."""
    gpus = f" and {need.gpus:g} GPU" if need.gpus else ""
    return f"{need.cpus:g} CPU{gpus}"


def _places_on(need: ResourceRequest, node: Node) -> int:
    shares = ((node.cpus, need.cpus), (node.gpus, need.gpus))
    fitting = min((has / wants for has, wants in shares if wants > 0), default=inf)
    return min(floor(fitting), UNLIMITED) if fitting != inf else UNLIMITED
