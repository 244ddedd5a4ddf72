"""What fits on which nodes, and the reasons why not."""

from pathlib import Path

import pytest

from cluster.capacity_check import check_capacity, nodes_of_file, nodes_of_machine
from cluster.resources import Node, max_concurrent_trials
from contract.config import Cluster, Config
from contract.errors import ClusterError

SMALL = [Node("a", 2, 0), Node("b", 2, 0)]


def config(**values: object) -> Config:
    return Config().with_values({key.replace("__", "."): value for key, value in values.items()})


def reasons(settings: Config, nodes: list[Node]) -> str:
    return " ".join(reason for check in check_capacity(settings, nodes) for reason in check.errors)


def test_what_fits_gives_no_reasons() -> None:
    checks = check_capacity(config(train__num_workers=4), SMALL)
    assert [(check.purpose, check.errors) for check in checks] == [
        ("training", ()),
        ("service", ()),
    ]
    assert checks[0].text == "4 training workers of 1 CPU: the cluster can hold 4"


NO_ROOM = [
    ({"train__cpus_per_worker": 3}, "train.cpus_per_worker = 3): the largest has 2"),
    ({"train__gpus_per_worker": 1}, "no node has the 1 GPU of one training worker"),
    (
        {"train__num_workers": 8, "train__batch_size": 8},
        "train.num_workers requests 8 training workers of 1 CPU each, and the cluster can hold 4: "
        "set train.num_workers to 4",
    ),
    ({"serve__cpus_per_replica": 2.5}, "serve.cpus_per_replica = 2.5): the largest has 2"),
    ({"serve__num_replicas": 5}, "serve.num_replicas requests 5 replicas"),
]


@pytest.mark.parametrize(("values", "reason"), NO_ROOM)
def test_what_does_not_fit_is_explained(values: dict[str, object], reason: str) -> None:
    assert reason in reasons(config(**values), SMALL)


def test_cpus_and_gpus_must_be_on_one_node() -> None:
    nodes = [Node("cpu", 16, 0), Node("gpu", 1, 1)]
    asked = config(train__num_workers=1, train__cpus_per_worker=4, train__gpus_per_worker=1)
    assert "no single node has both" in reasons(asked, nodes)


def test_a_sweep_needs_room_for_one_trial_and_uses_more() -> None:
    space = {"train.learning_rate": {"loguniform": (1e-4, 1e-2)}}
    asked = config(sweep__space=space, train__num_workers=1)
    sweep = check_capacity(asked, SMALL)[1]
    assert (sweep.purpose, sweep.errors) == ("sweep", ())
    assert sweep.text == "8 trials, each 1 training worker of 1 CPU: 4 at once"
    assert check_capacity(config(sweep__space=space, train__num_workers=8), SMALL)[1].errors


def test_a_trial_may_have_other_workers_than_a_training() -> None:
    space = {"train.learning_rate": {"loguniform": (1e-4, 1e-2)}}
    training, sweep, _ = check_capacity(
        config(sweep__space=space, sweep__num_workers=1, train__num_workers=8), SMALL
    )
    assert training.errors
    assert (sweep.errors, sweep.text.split(": ")[1]) == ((), "4 at once")
    large = config(sweep__space=space, sweep__num_workers=6, train__batch_size=6)
    assert "sweep.num_workers requests 6 training workers" in " ".join(
        check_capacity(large, SMALL)[1].errors
    )


def test_a_sweep_is_reported_how_far_its_cluster_may_grow() -> None:
    space = {"train.learning_rate": {"loguniform": (1e-4, 1e-2)}}
    asked = config(sweep__space=space, sweep__num_workers=1)
    (reason,) = check_capacity(asked, SMALL, SMALL[:1])[1].errors
    assert "sweep.max_concurrent_trials is not set" in reason
    assert "hold 2 at once: set sweep.max_concurrent_trials to 4" in reason
    assert (
        check_capacity(asked.with_values({"sweep.max_concurrent_trials": 4}), SMALL, SMALL[:1])[
            1
        ].errors
        == ()
    )
    assert check_capacity(asked, SMALL, SMALL)[1].errors == ()


@pytest.mark.parametrize(
    ("nodes", "changed", "held"),
    [
        ([(4, 0)], {"num_workers": 1}, 4),
        ([(4, 0), (3, 0)], {"num_workers": 1, "cpus_per_worker": 2}, 3),
        ([(4, 0)], {"num_workers": 4}, 1),
        ([(4, 0)], {"num_workers": 8}, 0),
        ([(8, 2), (8, 0)], {"num_workers": 1, "gpus_per_worker": 1}, 2),
        ([], {"num_workers": 1}, 0),
    ],
)
def test_the_nodes_decide_how_many_trials_run_at_once(
    nodes: list[tuple[float, float]], changed: dict[str, object], held: int
) -> None:
    asked = Config().with_values({f"train.{key}": value for key, value in changed.items()})
    free = [Node("n", cpus, gpus) for cpus, gpus in nodes]
    assert max_concurrent_trials(asked.train, asked.sweep, free) == held


def test_an_empty_cluster_holds_nothing() -> None:
    assert "the largest has 0" in reasons(Config(), [])


def test_this_machine_has_the_cpus_it_is_reported_to_offer() -> None:
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


def test_a_file_is_checked_by_the_largest_cluster_it_allows(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    nodes = nodes_of_file(path)
    assert [(node.cpus, node.gpus) for node in nodes] == [(2, 0), (4, 1), (4, 1), (4, 1)]
    assert [(node.cpus, node.gpus) for node in nodes_of_file(path, "min_workers")] == [(2, 0)]


@pytest.mark.parametrize("text", ["", "max_workers: [", "max_workers: 1"])
def test_a_bad_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match="is not a valid Ray cluster file"):
        nodes_of_file(path)


def test_an_unknown_instance_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE.replace("g5.xlarge", "g5.xlrge"))
    with pytest.raises(ClusterError, match=r"did you mean g5\.xlarge"):
        nodes_of_file(path)
