"""The shipped cluster file is safe, and each danger is found."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.aws.cluster_yaml_checks import security_issues
from cluster.aws.launcher import read_cluster_file
from contract.errors import ClusterError

FILE = Path(__file__).parents[3] / "ray_cluster.yaml"
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def shipped() -> Tree:
    return read_cluster_file(FILE)


def check_by_ray(tree: Tree) -> Tree:
    """The file as `ray up` completes and validates it, for which Ray has no public function."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(tree))
    validate_config(prepared)
    return prepared


def test_the_shipped_file_passes_rays_own_checks(shipped: Tree) -> None:
    check_by_ray(shipped)


def test_the_file_with_its_five_values_filled_in_by_hand_is_complete(tmp_path: Path) -> None:
    """A user replaces the values of the marked lines, and nothing else."""
    values = {
        "1": "ami-0abc1234def567890",
        "2": "[sg-0abc1234def567890]",
        "3": "arn:aws:iam::123456789012:instance-profile/my-head",
        "4": "arn:aws:iam::123456789012:instance-profile/my-worker",
        "5": str(tmp_path / "node"),
    }
    (tmp_path / "node").mkdir()
    text, filled = FILE.read_text(), []
    for line in text.splitlines():
        marked = re.fullmatch(r"(\s*\S+: )(\S+)  # (\d)", line)
        filled.append(f"{marked[1]}{values.pop(marked[3])}" if marked else line)
    assert values == {}
    # What the comments name; the name of the cluster may stay.
    content = "\n".join(line for line in filled if not line.lstrip().startswith("#"))
    assert not re.search(r"0{6}", content)
    assert content.count("main") == content.count("cluster_name: segfleet-main") == 1
    path = tmp_path / "ray_cluster.yaml"
    path.write_text(content)
    tree = read_cluster_file(path)
    prepared = check_by_ray(tree)
    assert security_issues(tree, use_spot=True) == []
    nodes = {name: kind["node_config"] for name, kind in prepared["available_node_types"].items()}
    assert {node["ImageId"] for node in nodes.values()} == {"ami-0abc1234def567890"}
    roles = {name: node["IamInstanceProfile"]["Arn"] for name, node in nodes.items()}
    assert {name: role.rpartition("-")[2] for name, role in roles.items()} == {
        "head": "head",
        "worker-spot": "worker",
        "worker-on-demand": "worker",
    }
    assert prepared["file_mounts"] == {"/home/ray/segfleet": str(tmp_path / "node")}


def test_the_shipped_file_is_secure(shipped: Tree) -> None:
    assert security_issues(shipped, use_spot=True) == []


def node(tree: Tree, name: str = "worker-spot") -> Tree:
    # The file shares parts by anchors; a change must not reach the other nodes.
    tree["available_node_types"][name] = copy.deepcopy(tree["available_node_types"][name])
    return tree["available_node_types"][name]["node_config"]


def start(tree: Tree, old: str, new: str) -> None:
    commands = tree["head_start_ray_commands"]
    tree["head_start_ray_commands"] = [line.replace(old, new) for line in commands]


def rule(tree: Tree, block: str) -> None:
    ranges = [{"CidrIp": block}]
    tree["provider"]["security_group"] = {
        "IpPermissions": [{"FromPort": 22, "ToPort": 22, "IpRanges": ranges}]
    }


HOST = "--dashboard-host=127.0.0.1"
CHANGES: list[tuple[Callable[[Tree], Any], str]] = [
    (lambda tree: start(tree, HOST, "--dashboard-host=0.0.0.0"), "0.0.0.0"),
    (lambda tree: start(tree, HOST, "--dashboard-host ::"), "dashboard's address is ::"),
    (lambda tree: start(tree, HOST, ""), "dashboard's address is not set"),
    (lambda tree: tree["setup_commands"].append("jupyter --ip 0.0.0.0"), "every address"),
    (lambda tree: tree["docker"].update(run_options=[]), "lack RAY_AUTH_MODE=token"),
    (lambda tree: tree["docker"]["run_options"].append("-e RAY_AUTH_TOKEN=x"), "contain the token"),
    (lambda tree: rule(tree, "0.0.0.0/0"), "security_group has a rule that allows every address"),
    (lambda tree: node(tree)["MetadataOptions"].update(HttpTokens="optional"), "IMDSv2"),
    (lambda tree: node(tree).pop("MetadataOptions"), "IMDSv2"),
    (lambda tree: node(tree).pop("SecurityGroupIds"), "allows SSH from every address"),
    (
        lambda tree: node(tree, "head").pop("IamInstanceProfile"),
        "grants all EC2 and S3 permissions",
    ),
    (lambda tree: node(tree, "head").update(ImageId="latest_dlami"), "Ubuntu 18.04"),
    (lambda tree: node(tree)["BlockDeviceMappings"][0]["Ebs"].pop("Encrypted"), "not encrypted"),
    (lambda tree: tree["docker"].update(image="rayproject/ray-ml:2.9.0"), "is discontinued"),
    (lambda tree: node(tree).pop("InstanceMarketOptions"), "need a spot and an on-demand type"),
    (
        lambda tree: tree["available_node_types"].pop("worker-on-demand"),
        "need a spot and an on-demand type",
    ),
    (lambda tree: tree["available_node_types"]["worker-spot"].pop("priority"), "higher priority"),
    (
        lambda tree: node(tree, "head").update(InstanceMarketOptions={"MarketType": "spot"}),
        "the head is a spot instance",
    ),
]


@pytest.mark.parametrize(("change", "danger"), CHANGES)
def test_each_danger_is_found(change: Callable[[Tree], Any], danger: str, shipped: Tree) -> None:
    tree = copy.deepcopy(shipped)
    change(tree)
    issues = security_issues(tree, use_spot=True)
    assert any(danger in one for one in issues), issues


def test_on_demand_workers_need_no_fallback(shipped: Tree) -> None:
    tree = copy.deepcopy(shipped)
    del tree["available_node_types"]["worker-spot"]
    assert security_issues(tree, use_spot=False) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "cannot read the cluster file"),
        ("cluster_name: x", "does not fit Ray's schema: 'provider' is a required property"),
        (
            yaml.safe_dump({"cluster_name": "x", "provider": {"type": "aws"}, "max_wrkers": 3}),
            "does not fit Ray's schema: Additional properties are not allowed",
        ),
        (
            yaml.safe_dump({"cluster_name": "x", "provider": {"type": "aws"}}),
            r"cannot be filled in: it needs available_node_types.* it needs docker\.run_options",
        ),
    ],
)
def test_a_file_that_is_no_cluster_file_is_rejected(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=reason):
        read_cluster_file(path)


@pytest.mark.parametrize("disks", [[], [{"VirtualName": "ephemeral0"}], "none"])
def test_a_node_without_its_one_disk_is_rejected(disks: Any, shipped: Tree, tmp_path: Path) -> None:
    tree = copy.deepcopy(shipped)
    node(tree).update(BlockDeviceMappings=disks)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ClusterError, match="worker-spot: BlockDeviceMappings must name one Ebs"):
        read_cluster_file(path)
