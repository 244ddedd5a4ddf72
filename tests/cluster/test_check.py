"""What fits on which nodes, and the reasons why not."""

from pathlib import Path

import pytest

from cluster.check import Node, judge, nodes_of_cluster, nodes_of_file, nodes_of_machine
from cluster.connection import Connection
from contract.config import Cluster, Config
from contract.errors import ClusterError

SMALL = [Node("a", 2, 0), Node("b", 2, 0)]


def config(**values: object) -> Config:
    return Config().with_values({key.replace("__", "."): value for key, value in values.items()})


def reasons(settings: Config, nodes: list[Node]) -> str:
    return " ".join(reason for finding in judge(settings, nodes) for reason in finding.reasons)


def test_what_fits_gives_no_reasons() -> None:
    findings = judge(config(train__workers=4), SMALL)
    assert [(finding.purpose, finding.reasons) for finding in findings] == [
        ("training", ()),
        ("service", ()),
    ]
    assert findings[0].text == "4 training workers of 1 CPU: room for 4"


NO_ROOM = [
    ({"train__cpus_per_worker": 3}, "train.cpus_per_worker = 3): the largest has 2"),
    ({"train__gpus_per_worker": 1}, "no node has the 1 GPU of one training worker"),
    (
        {"train__workers": 8, "train__batch_size": 8},
        "train.workers asks for 8 training workers of 1 CPU each, and there is room for 4: set "
        "train.workers to 4",
    ),
    ({"serve__cpus_per_replica": 2.5}, "serve.cpus_per_replica = 2.5): the largest has 2"),
    ({"serve__replicas": 5}, "serve.replicas asks for 5 replicas"),
]


@pytest.mark.parametrize(("values", "reason"), NO_ROOM)
def test_what_does_not_fit_is_explained(values: dict[str, object], reason: str) -> None:
    assert reason in reasons(config(**values), SMALL)


def test_cpus_and_gpus_must_be_on_one_node() -> None:
    nodes = [Node("cpu", 16, 0), Node("gpu", 1, 1)]
    asked = config(train__workers=1, train__cpus_per_worker=4, train__gpus_per_worker=1)
    assert "no single node has both" in reasons(asked, nodes)


def test_a_sweep_needs_room_for_one_trial_and_uses_more() -> None:
    space = {"train.learning_rate": {"loguniform": (1e-4, 1e-2)}}
    asked = config(sweep__space=space, train__workers=1)
    sweep = judge(asked, SMALL)[1]
    assert (sweep.purpose, sweep.reasons) == ("sweep", ())
    assert sweep.text == "8 trials of 1 workers each: 4 at once"
    assert judge(config(sweep__space=space, train__workers=8), SMALL)[1].reasons


def test_an_empty_cluster_holds_nothing() -> None:
    assert "the largest has 0" in reasons(Config(), [])


def test_this_machine_has_the_cpus_it_is_told_to_offer() -> None:
    assert nodes_of_machine(Cluster(cpus=3))[0].cpus == 3
    assert nodes_of_machine(Cluster())[0].cpus >= 1


FILE = """
max_workers: 3
head_node_type: head
available_node_types:
  head: {node_config: {InstanceType: m6i.xlarge}, resources: {CPU: 2}}
  spot: {node_config: {InstanceType: g5.xlarge}, resources: {}, max_workers: 3}
  sure: {node_config: {InstanceType: g5.xlarge}, resources: {CPU: 4, GPU: 1}, max_workers: 3}
"""


def test_a_file_is_judged_by_the_largest_cluster_it_allows(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    nodes = nodes_of_file(path)
    assert [(node.cpus, node.gpus) for node in nodes] == [(2, 0), (4, 1), (4, 1), (4, 1)]


@pytest.mark.parametrize("text", ["", "max_workers: [", "max_workers: 1"])
def test_a_bad_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match="does not read as a cluster file"):
        nodes_of_file(path)


def test_an_unknown_instance_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE.replace("g5.xlarge", "g5.xlrge"))
    with pytest.raises(ClusterError, match=r"did you mean g5\.xlarge"):
        nodes_of_file(path)


def test_the_nodes_of_a_real_cluster_are_seen(ray_cluster: Connection) -> None:
    nodes = nodes_of_cluster(Cluster(address=ray_cluster.dashboard))
    assert [(node.cpus, node.gpus) for node in nodes] == [(4, 0)]
