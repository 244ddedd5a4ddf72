"""The plan and its price, the filled-in cluster file, and Ray's own use of it at moto's AWS."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import yaml

from cluster.aws import cluster_yaml_checks, launcher, resources
from cluster.aws.resources import AwsResources, BucketNames
from cluster.capacity_check import nodes_of_file
from contract.config import Config
from contract.config.loader import to_toml
from contract.errors import ClusterError

ROOT = Path(__file__).parents[3]
FILE = ROOT / "ray_cluster.yaml"
GROUND = AwsResources(
    "ami-0123456789abcdef0",
    "sg-0123456789abcdef0",
    "arn:aws:iam::123456789012:instance-profile/head",
    "arn:aws:iam::123456789012:instance-profile/worker",
)
BUCKETS = BucketNames("kept", None)


def config(**cloud: object) -> Config:
    settings = {"storage.root": "s3://kept/segfleet", "cluster.cloud.ssh_from": "203.0.113.7/32"}
    return Config().with_values(
        {**settings, **{f"cluster.cloud.{key}": value for key, value in cloud.items()}}
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of a checkout that `up` needs."""
    shutil.copy(FILE, tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "constraints.txt").write_text("ray==2.60.0\n")
    return tmp_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, for the token, the SSH key and the cluster's file."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_the_plan_names_what_is_made_and_its_price() -> None:
    asked = config(min_workers=1, max_workers=8, worker_type="g5.xlarge", disk_gb=100)
    plan = launcher.create_plan(asked, BUCKETS, spot_usd=0.4)
    disk = 100 * launcher.GB_MONTH_USD / 730
    assert plan.idle_usd == pytest.approx(0.192 + disk + 0.4 + disk)
    assert plan.max_usd == pytest.approx(0.192 + disk + 8 * (1.006 + disk))
    text = "\n".join(plan.lines)
    assert "1 to 8 g5.xlarge (4 CPUs, 1 GPU (A10G, 24 GB)): 0.400 USD now as spot" in text
    assert "SSH from 203.0.113.7/32, nothing else" in text
    unknown = launcher.create_plan(asked, BUCKETS, spot_usd=None)
    assert unknown.idle_usd == pytest.approx(0.192 + disk + 1.006 + disk)


def test_an_unknown_instance_type_has_no_price() -> None:
    with pytest.raises(ClusterError, match=r"did you mean g5\.xlarge"):
        launcher.create_plan(config(worker_type="g5.xlrge"), BUCKETS, None)


def test_the_file_takes_the_values_of_the_settings(tmp_path: Path) -> None:
    cloud = config(
        name="mine",
        region="eu-central-1",
        worker_type="g6.12xlarge",
        min_workers=1,
        max_workers=5,
        idle_minutes=3,
        disk_gb=200,
        image="rayproject/ray:2.60.0-py311",
        subnet="subnet-1",
        private_addresses=True,
    ).cluster.cloud
    tree = launcher.fill_cluster_file(launcher.read_cluster_file(FILE), cloud, GROUND)
    assert cluster_yaml_checks.security_issues(tree, use_spot=True) == []
    assert (tree["cluster_name"], tree["max_workers"]) == ("segfleet-mine", 5)
    assert tree["idle_timeout_minutes"] == 3
    assert tree["provider"]["region"] == "eu-central-1"
    assert tree["provider"]["use_internal_ips"] is True
    assert "--env AWS_DEFAULT_REGION=eu-central-1" in tree["docker"]["run_options"]
    types = tree["available_node_types"]
    assert {name: one["min_workers"] for name, one in types.items()} == {
        "head": 0,
        "worker-spot": 1,
        "worker-on-demand": 0,
    }
    for name in ("worker-spot", "worker-on-demand"):
        node = types[name]["node_config"]
        assert types[name]["resources"] == {"CPU": 48, "GPU": 4}
        assert node["InstanceType"] == "g6.12xlarge"
        assert node["IamInstanceProfile"] == {"Arn": GROUND.worker_profile}
        assert node["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 200
        assert node["SubnetIds"] == ["subnet-1"]
    assert "InstanceMarketOptions" not in types["worker-on-demand"]["node_config"]
    assert types["head"]["node_config"]["IamInstanceProfile"] == {"Arn": GROUND.head_profile}
    written = tmp_path / "cluster.yaml"
    written.write_text(yaml.safe_dump(tree))
    nodes = nodes_of_file(written)
    assert [(node.cpus, node.gpus) for node in nodes] == [(2, 0), *[(48, 4)] * 5]


def test_workers_without_spot_or_gpu(tmp_path: Path) -> None:
    cloud = config(spot=False, worker_type="c7i.4xlarge", min_workers=2).cluster.cloud
    tree = launcher.fill_cluster_file(launcher.read_cluster_file(FILE), cloud, GROUND)
    assert list(tree["available_node_types"]) == ["head", "worker-on-demand"]
    worker = tree["available_node_types"]["worker-on-demand"]
    assert (worker["min_workers"], worker["resources"]) == (2, {"CPU": 16})
    assert tree["worker_setup_commands"] == []
    assert cluster_yaml_checks.security_issues(tree, use_spot=False) == []


def test_a_file_without_on_demand_workers_cannot_do_without_spot(checkout: Path) -> None:
    tree = launcher.read_cluster_file(checkout / "ray_cluster.yaml")
    del tree["available_node_types"]["worker-on-demand"]
    with pytest.raises(ClusterError, match="no type of on-demand workers"):
        launcher.fill_cluster_file(tree, config(spot=False).cluster.cloud, GROUND)


def test_up_rejects_before_anything_is_made(checkout: Path) -> None:
    with pytest.raises(ClusterError, match="ssh_from is not set"):
        launcher.check_ready(config(ssh_from=None), checkout / "ray_cluster.yaml")
    file = checkout / "ray_cluster.yaml"
    file.write_text(file.read_text().replace("=127.0.0.1", "=0.0.0.0"))
    with pytest.raises(ClusterError, match="is not secure"):
        launcher.check_ready(config(), file)
    (checkout / "constraints.txt").unlink()
    with pytest.raises(ClusterError, match=r"constraints\.txt is missing"):
        launcher.check_ready(config(), file)


def test_what_goes_to_the_nodes_is_for_this_user_alone(checkout: Path, home: Path) -> None:
    file = launcher.write_cluster_file(
        {"cluster_name": "mine"}, config(name="mine").cluster.cloud, checkout
    )
    assert file == home / ".segfleet/mine/ray_cluster.yaml"
    node = file.parent / "node"
    requirements = (node / "requirements.txt").read_text().splitlines()
    assert {"tensorflow", "openvino", "boto3"} <= set(requirements)
    assert (node / "constraints.txt").read_text() == "ray==2.60.0\n"
    token = (home / ".ray/auth_token").read_text()
    assert len(token) == 64
    assert (node / "auth_token").read_text() == token
    kept = (node / "auth_token", home / ".ray/auth_token", file)
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600] * 3
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert launcher.ensure_token() == token


def test_ray_starts_safe_nodes_from_the_file_and_down_ends_them(
    checkout: Path, home: Path, s3_server: str
) -> None:
    image = boto3.client("ec2").describe_images()["Images"][0]["ImageId"]
    asked = config(name=f"t{uuid4().hex[:8]}", machine_image=image)
    cloud = asked.cluster.cloud
    asked = asked.with_values({"storage.root": f"s3://kept-{cloud.name}/segfleet"})
    settings = checkout / "cloud.toml"
    settings.write_text(to_toml(asked))
    source = str(checkout / "ray_cluster.yaml")
    written = run_command("up", str(settings), "--file", source, "--write-only", "--yes")
    assert written.returncode == 0, written.stderr
    file = launcher.cluster_file_path(cloud)
    assert f"start the cluster with `ray up {file}`" in written.stdout
    created = launcher.provision(asked, BucketNames(f"kept-{cloud.name}", None))
    assert resources.find_open_ports([created.security_group], cloud.region) == []
    started = start_as_ray_does(file, ("head", "worker-spot", "worker-on-demand"))
    name = launcher.cluster_name(cloud)
    assert len(resources.list_instances(name, cloud.region)) == 3
    assert [one.get("InstanceLifecycle") for one in started] == [None, "spot", None]
    for one in started:
        assert one["MetadataOptions"]["HttpTokens"] == "required"
        assert [group["GroupId"] for group in one["SecurityGroups"]] == [created.security_group]
    assert [one["IamInstanceProfile"]["Arn"] for one in started] == [
        created.head_profile,
        created.worker_profile,
        created.worker_profile,
    ]
    output = run_command("down", str(settings), "--yes")
    assert output.returncode == 0, output.stderr
    assert "has 3 nodes" in output.stdout
    assert f"no node of cluster {name} is left" in output.stdout
    assert resources.list_instances(name, cloud.region) == []


def run_command(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cluster", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def start_as_ray_does(file: Path, types: tuple[str, ...]) -> list[dict[str, Any]]:
    """Start one node of each type by Ray's own code, up to where it would reach for SSH."""
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import (
        TAG_RAY_LAUNCH_CONFIG,
        TAG_RAY_NODE_KIND,
        TAG_RAY_USER_NODE_TYPE,
    )

    tree = _bootstrap_config(yaml.safe_load(file.read_text()), no_config_cache=True)
    provider = _get_node_provider(tree["provider"], tree["cluster_name"])
    ids = []
    for name in types:
        tags = {
            TAG_RAY_NODE_KIND: "head" if name == "head" else "worker",
            TAG_RAY_LAUNCH_CONFIG: "0",
            TAG_RAY_USER_NODE_TYPE: name,
        }
        node = copy.deepcopy(tree["available_node_types"][name]["node_config"])
        ids += list(provider.create_node(node, tags, 1) or {})
    result = boto3.client("ec2").describe_instances(InstanceIds=ids)["Reservations"]
    by_id = {one["InstanceId"]: one for group in result for one in group["Instances"]}
    return [by_id[one] for one in ids]


def test_the_plan_is_shown_before_anything_is_made(checkout: Path, s3_server: str) -> None:
    settings = checkout / "cloud.toml"
    settings.write_text(to_toml(config(name="planned")))
    words = ("up", str(settings), "--file", str(checkout / "ray_cluster.yaml"))

    def run(*more: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "cluster", *words, *more],
            cwd=ROOT,
            env={**os.environ, **variables},
            input="n\n",
            capture_output=True,
            text=True,
            check=False,
        )

    shown = run("--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "at most 2.24 with all workers on demand" in shown.stdout
    assert "current prices: https://aws.amazon.com" in shown.stdout
    rejected = run()
    assert rejected.returncode == 1
    assert "Create these resources" in rejected.stdout
    with pytest.raises(boto3.client("iam").exceptions.NoSuchEntityException):
        boto3.client("iam").get_role(RoleName="segfleet-planned-head")
    for variables, reason in WITHOUT_CREDENTIALS:
        refused = run(**variables, AWS_EC2_METADATA_DISABLED="true", HOME=str(checkout))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith(f"error: {reason}")
        assert refused.stderr.count("\n") == 1


WITHOUT_CREDENTIALS = [
    ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no AWS credentials: run"),
    (
        {"AWS_PROFILE": "unknown"},
        "the AWS credentials cannot be used (The config profile (unknown)",
    ),
]
