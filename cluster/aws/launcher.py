"""Starts and ends a cluster on AWS: fills in ray_cluster.yaml and runs `ray up`."""

import json
import logging
import secrets
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import ray.autoscaler
import yaml

from cluster.aws import cluster_yaml_checks, instances, resources
from cluster.aws.resources import AwsResources, BucketNames
from cluster.connection import environment_variables
from contract.config import Cloud, Config
from contract.errors import ClusterError

log = logging.getLogger(__name__)

CLUSTER_FILE = Path("ray_cluster.yaml")
PLACEHOLDER = AwsResources(image="", security_group="", head_profile="", worker_profile="")
"""For the file that `up` would write, before any resource exists."""
GB_MONTH_USD = 0.08
"""Price of a GB of gp3 disk per month in us-east-1, of the date of the instance table."""
_HOURS_PER_MONTH = 730
_NODE_FOLDER = "/home/ray/segfleet"


@dataclass(frozen=True)
class LaunchPlan:
    """The resources that `up` creates, and their price."""

    lines: tuple[str, ...]
    idle_usd: float
    """USD per hour with the minimum number of workers."""
    max_usd: float
    """USD per hour with all workers, on demand."""


def cluster_name(cloud: Cloud) -> str:
    """The name of the cluster and of its AWS resources."""
    return f"segfleet-{cloud.name}"


def create_plan(config: Config, buckets: BucketNames, spot_usd: float | None) -> LaunchPlan:
    """The resources and their price; spot_usd: USD per hour of a spot worker, if known."""
    cloud, table = config.cluster.cloud, instances.load_table()
    head, worker = table.instance(cloud.head_type), table.instance(cloud.worker_type)
    disk = cloud.disk_gb * GB_MONTH_USD / _HOURS_PER_MONTH
    worker_usd = spot_usd if cloud.spot and spot_usd is not None else worker.usd
    spot = (
        f"{worker_usd:.3f} USD now as spot instance, "
        if cloud.spot and spot_usd is not None
        else ""
    )
    gpu = f", {worker.gpus} GPU ({worker.gpu})" if worker.gpus else ""
    lines = (
        f"region          {cloud.region}",
        f"bucket          {buckets.storage} (created private and encrypted if it does not exist)",
        f"roles           {cluster_name(cloud)}-head, {cluster_name(cloud)}-worker",
        f"security group  {cluster_name(cloud)}: SSH from {cloud.ssh_from}, nothing else",
        f"head            1 {cloud.head_type} ({head.cpus} CPUs): {head.usd:.3f} USD an hour",
        f"workers         {cloud.min_workers} to {cloud.max_workers} {cloud.worker_type} "
        f"({worker.cpus} CPUs{gpu}): {spot}{worker.usd:.3f} USD an hour on demand",
        f"disks           {cloud.disk_gb} GB a node: {disk:.3f} USD an hour",
    )
    idle = head.usd + disk + cloud.min_workers * (worker_usd + disk)
    maximum = head.usd + disk + cloud.max_workers * (worker.usd + disk)
    return LaunchPlan(lines, idle, maximum)


def check_ready(config: Config, file: Path) -> None:
    """ClusterError if `up` cannot work with the settings, before anything is created."""
    cloud = config.cluster.cloud
    if cloud.ssh_from is None:
        raise ClusterError(
            "cluster.cloud.ssh_from is not set: set it to the only address that may connect to the "
            "head by SSH, your own (`curl https://checkip.amazonaws.com`), such as 203.0.113.7/32."
        )
    for required in (file, file.parent / "pyproject.toml", file.parent / "constraints.txt"):
        if not required.is_file():
            raise ClusterError(f"{required} is missing: run `up` in a checkout of segfleet.")
    check_security(read_cluster_file(file), cloud.spot, file)


def read_cluster_file(file: Path) -> dict[str, Any]:
    """A cluster file that fits Ray's schema and has the fields that `up` fills in."""
    schema = json.loads(
        (Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8")
    )
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        jsonschema.validate(tree, schema)
    except (OSError, yaml.YAMLError) as error:
        raise ClusterError(f"cannot read the cluster file {file}: {error}.") from error
    except jsonschema.ValidationError as error:
        raise ClusterError(f"{file} does not fit Ray's schema: {error.message}.") from error
    if missing := cluster_yaml_checks.missing_fields(tree):
        raise ClusterError(f"{file} cannot be filled in: {' '.join(missing)}")
    return tree


def check_security(cluster_yaml: Mapping[str, Any], use_spot: bool, file: Path) -> None:
    """ClusterError if a cluster file has security issues.

    cluster_yaml: its content; use_spot: whether workers should be spot instances; file: its path,
    for the message.
    """
    if issues := cluster_yaml_checks.security_issues(cluster_yaml, use_spot):
        raise ClusterError(f"{file} is not secure: {' '.join(issues)}")


def fill_cluster_file(tree: Mapping[str, Any], cloud: Cloud, aws: AwsResources) -> dict[str, Any]:
    """The cluster file with the values of the settings and of the AWS resources."""
    types: dict[str, Any] = tree["available_node_types"]
    head_name: str = tree["head_node_type"]
    workers = {
        key: _worker(node_type, cloud, aws)
        for key, node_type in types.items()
        if key != head_name and (cloud.spot or "InstanceMarketOptions" not in _node(node_type))
    }
    if not workers:
        raise ClusterError(
            "the cluster file has no type of on-demand workers, which cluster.cloud.spot = false "
            "requires: add one without InstanceMarketOptions."
        )
    # Only the type that is used first has a minimum.
    preferred = max(workers, key=lambda key: workers[key].get("priority", 0))
    workers[preferred]["min_workers"] = cloud.min_workers
    table = instances.load_table()
    if table.instance(cloud.worker_type).gpus:
        gpu_setup = [f"pip install --quiet 'tensorflow[and-cuda]' {_constraint()}"]
    else:
        gpu_setup = []
    head = _filled_node(types[head_name], cloud, aws, cloud.head_type, aws.head_profile)
    # The other half of the head's CPUs is for Ray itself and the drivers of jobs.
    head["resources"] = {"CPU": max(1, table.instance(cloud.head_type).cpus // 2)}
    options = [
        option for option in tree["docker"]["run_options"] if "AWS_DEFAULT_REGION=" not in option
    ]
    return {
        **tree,
        "cluster_name": cluster_name(cloud),
        "max_workers": cloud.max_workers,
        "idle_timeout_minutes": cloud.idle_minutes,
        "provider": {
            **tree["provider"],
            "region": cloud.region,
            "use_internal_ips": cloud.private_addresses,
        },
        "docker": {
            **tree["docker"],
            "image": cloud.image,
            "run_options": [*options, f"--env AWS_DEFAULT_REGION={cloud.region}"],
        },
        "available_node_types": {head_name: head, **workers},
        "file_mounts": {_NODE_FOLDER: str(node_folder(cloud))},
        "worker_setup_commands": gpu_setup,
    }


def _worker(node_type: Mapping[str, Any], cloud: Cloud, aws: AwsResources) -> dict[str, Any]:
    instance = instances.load_table().instance(cloud.worker_type)
    worker = _filled_node(node_type, cloud, aws, cloud.worker_type, aws.worker_profile)
    gpus = {"GPU": instance.gpus} if instance.gpus else {}
    return {
        **worker,
        "min_workers": 0,
        "max_workers": cloud.max_workers,
        "resources": {"CPU": instance.cpus, **gpus},
    }


def _filled_node(
    node_type: Mapping[str, Any],
    cloud: Cloud,
    aws: AwsResources,
    instance_type: str,
    profile: str,
) -> dict[str, Any]:
    (disk,) = _node(node_type)["BlockDeviceMappings"]
    node = {
        **_node(node_type),
        "InstanceType": instance_type,
        "ImageId": aws.image,
        "SecurityGroupIds": [aws.security_group],
        "IamInstanceProfile": {"Arn": profile},
        "BlockDeviceMappings": [{**disk, "Ebs": {**disk["Ebs"], "VolumeSize": cloud.disk_gb}}],
    }
    if cloud.subnet is not None:
        node["SubnetIds"] = [cloud.subnet]
    return {**node_type, "node_config": node}


def _node(node_type: Mapping[str, Any]) -> dict[str, Any]:
    return node_type["node_config"]


def _constraint() -> str:
    return f"--constraint {_NODE_FOLDER}/constraints.txt"


def provision(config: Config, buckets: BucketNames) -> AwsResources:
    """Create the AWS resources that do not exist yet."""
    cloud = config.cluster.cloud
    assert cloud.ssh_from is not None, "see check_ready"
    if resources.create_bucket(buckets.storage, cloud.region):
        log.info("created bucket %s", buckets.storage)
    group = resources.create_security_group(
        cluster_name(cloud), cloud.region, cloud.ssh_from, cloud.subnet
    )
    head, worker = resources.create_instance_profiles(
        cluster_name(cloud), cloud.region, buckets, group
    )
    if cloud.spot:
        resources.create_spot_role()
    aws = AwsResources(resources.find_image(cloud.machine_image, cloud.region), group, head, worker)
    resources.wait_until_usable(aws, cloud.head_type, cloud.region)
    return aws


def write_cluster_file(tree: Mapping[str, Any], cloud: Cloud, checkout: Path) -> Path:
    """Write the filled-in file and the folder that is copied to each node; returns the file."""
    folder = node_folder(cloud)
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    # Nodes train and serve.
    requirements = [*project["dependencies"], *extras["train"], *extras["serve"]]
    _write_private(folder / "requirements.txt", "\n".join(requirements))
    _write_private(
        folder / "constraints.txt", (checkout / "constraints.txt").read_text(encoding="utf-8")
    )
    _write_private(folder / "auth_token", ensure_token())
    file = cluster_file_path(cloud)
    _write_private(file, yaml.safe_dump(dict(tree), sort_keys=False))
    return file


def ensure_token() -> str:
    """This user's token for Ray clusters, created if there is none; Ray reads the same file."""
    file = Path("~/.ray/auth_token").expanduser()
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_private(file, secrets.token_hex(32))
    return file.read_text(encoding="utf-8").strip()


def create_cluster_file(config: Config, file: Path) -> Path:
    """Create the AWS resources and the filled-in cluster file, from which `ray up` can start.

    Returns the file. Raises ClusterError if the cluster would not be secure, or AWS fails.
    """
    cloud = config.cluster.cloud
    check_ready(config, file)
    aws = provision(config, resources.find_buckets(config))
    if issues := resources.find_open_ports([aws.security_group], cloud.region):
        raise ClusterError(f"the cluster would not be secure: {' '.join(issues)}")
    tree = fill_cluster_file(read_cluster_file(file), cloud, aws)
    check_security(tree, cloud.spot, file)
    return write_cluster_file(tree, cloud, file.parent)


def up(config: Config, file: Path) -> Path:
    """Create the resources and start the head; returns the filled-in cluster file.

    Raises ClusterError as create_cluster_file does, or if Ray fails.
    """
    written = create_cluster_file(config, file)
    if code := _ray_up(written):
        raise ClusterError(
            f"`ray up` failed with exit code {code}, see above: correct it and run `up` again, or "
            "terminate the nodes with `segfleet down`."
        )
    return written


def down(config: Config) -> None:
    """Terminate every node of the cluster, and check that none is left.

    EC2 is called directly: `ray down` first tries to connect to each node by SSH for minutes, while
    nodes cost money. Bucket, roles and security group remain: only the bucket's content costs.
    """
    resources.terminate_instances(cluster_name(config.cluster.cloud), config.cluster.cloud.region)


def _ray_up(file: Path) -> int:
    """Run `ray up` in this terminal; returns its exit code."""
    command = [str(Path(sys.executable).with_name("ray")), "up", str(file), "--yes"]
    with environment_variables(
        {"RAY_UP_enable_autoscaler_v2": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    ):
        return subprocess.run([*command, "--no-config-cache"], check=False).returncode


def cluster_file_path(cloud: Cloud) -> Path:
    """The filled-in file of a cluster."""
    return Path("~/.segfleet").expanduser() / cloud.name / "ray_cluster.yaml"


def node_folder(cloud: Cloud) -> Path:
    """The folder that is copied to every node: packages to install, and the token."""
    return cluster_file_path(cloud).with_name("node")


def _write_private(file: Path, text: str) -> None:
    """Write a file that only this user can read, atomically."""
    temporary = file.with_name(f"{file.name}.temporary")
    temporary.touch(mode=0o600)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
