"""Starting and ending a cluster on AWS: ray_cluster.yaml, filled in, and `ray up` over it."""

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

from cluster.aws import file_checks, instances, resources
from cluster.aws.resources import AwsResources, Buckets
from cluster.connection import environment_variables
from contract.config import Cloud, Config
from contract.errors import ClusterError

log = logging.getLogger(__name__)

CLUSTER_FILE = Path("ray_cluster.yaml")
PLACEHOLDER = AwsResources(image="", security_group="", head_profile="", worker_profile="")
"""For a look at the file that `up` would write, before anything is made."""
GB_MONTH_USD = 0.08
"""Price of a GB of gp3 disk for a month in us-east-1, of the same date as the instance table."""
_HOURS_A_MONTH = 730
_NODE_FOLDER = "/home/ray/segfleet"


@dataclass(frozen=True)
class LaunchPlan:
    """What `up` will make, and what it costs."""

    lines: tuple[str, ...]
    idle_usd: float
    """An hour with the workers that are always kept."""
    max_usd: float
    """An hour with all workers, none of them a spot instance."""


def cluster_name(cloud: Cloud) -> str:
    """What the cluster, and all that is made for it on AWS, is called."""
    return f"segfleet-{cloud.name}"


def create_plan(config: Config, buckets: Buckets, spot_usd: float | None) -> LaunchPlan:
    """What will be made and what an hour costs; spot_usd: an hour of a spot worker, if known."""
    cloud, table = config.cluster.cloud, instances.load_table()
    head, worker = table.instance(cloud.head_type), table.instance(cloud.worker_type)
    disk = cloud.disk_gb * GB_MONTH_USD / _HOURS_A_MONTH
    first = spot_usd if cloud.spot and spot_usd is not None else worker.usd
    spot = f"{first:.3f} USD now as spot instance, " if cloud.spot and spot_usd is not None else ""
    gpu = f", {worker.gpus} GPU ({worker.gpu})" if worker.gpus else ""
    lines = (
        f"region          {cloud.region}",
        f"bucket          {buckets.kept} (used as it is; if missing, made private and encrypted)",
        f"roles           {cluster_name(cloud)}-head, {cluster_name(cloud)}-worker",
        f"security group  {cluster_name(cloud)}: SSH from {cloud.ssh_from}, nothing else",
        f"head            1 {cloud.head_type} ({head.cpus} CPUs): {head.usd:.3f} USD an hour",
        f"workers         {cloud.min_workers} to {cloud.max_workers} {cloud.worker_type} "
        f"({worker.cpus} CPUs{gpu}): {spot}{worker.usd:.3f} USD an hour on demand",
        f"disks           {cloud.disk_gb} GB a node: {disk:.3f} USD an hour",
    )
    idle = head.usd + disk + cloud.min_workers * (first + disk)
    most = head.usd + disk + cloud.max_workers * (worker.usd + disk)
    return LaunchPlan(lines, idle, most)


def check_ready(config: Config, file: Path) -> None:
    """Refuse settings that `up` cannot work from, before anything is asked or made."""
    cloud = config.cluster.cloud
    if cloud.ssh_from is None:
        raise ClusterError(
            "cluster.cloud.ssh_from is not set: name the only address that may reach the head by "
            "SSH, your own (`curl https://checkip.amazonaws.com`), such as 203.0.113.7/32."
        )
    for needed in (file, file.parent / "pyproject.toml", file.parent / "constraints.txt"):
        if not needed.is_file():
            raise ClusterError(f"{needed} is missing: run `up` in a checkout of segfleet.")
    check_security(read_cluster_file(file), cloud.spot, file)


def read_cluster_file(file: Path) -> dict[str, Any]:
    """A cluster file that holds to Ray's own schema, and has what `up` fills in."""
    schema = json.loads(
        (Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8")
    )
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        jsonschema.validate(tree, schema)
    except (OSError, yaml.YAMLError) as error:
        raise ClusterError(f"cannot read the cluster file {file}: {error}.") from error
    except jsonschema.ValidationError as error:
        raise ClusterError(f"{file} breaks Ray's schema: {error.message}.") from error
    if found := file_checks.missing_fields(tree):
        raise ClusterError(f"{file} cannot be filled in: {' '.join(found)}")
    return tree


def check_security(tree: Mapping[str, Any], spot: bool, file: Path) -> None:
    """Raise ClusterError where a cluster file would leave something open."""
    if found := file_checks.security_issues(tree, spot):
        raise ClusterError(f"{file} is not safe: {' '.join(found)}")


def fill_cluster_file(
    tree: Mapping[str, Any], cloud: Cloud, ground: AwsResources
) -> dict[str, Any]:
    """The cluster file with the values of the settings and of what was made on AWS."""
    types: dict[str, Any] = tree["available_node_types"]
    head_name: str = tree["head_node_type"]
    workers = {
        key: _worker(node_type, cloud, ground)
        for key, node_type in types.items()
        if key != head_name and (cloud.spot or "InstanceMarketOptions" not in _node(node_type))
    }
    if not workers:
        raise ClusterError(
            "the cluster file has no type of on-demand workers, which cluster.cloud.spot = false "
            "asks for: add one without InstanceMarketOptions."
        )
    # Only the type that is taken first keeps a minimum.
    first = max(workers, key=lambda key: workers[key].get("priority", 0))
    workers[first]["min_workers"] = cloud.min_workers
    has = instances.load_table()
    if has.instance(cloud.worker_type).gpus:
        gpu_setup = [f"pip install --quiet 'tensorflow[and-cuda]' {_constraint()}"]
    else:
        gpu_setup = []
    head = _filled_node(types[head_name], cloud, ground, cloud.head_type, ground.head_profile)
    # Half of the head's CPUs are left to Ray itself and to the drivers of jobs.
    head["resources"] = {"CPU": max(1, has.instance(cloud.head_type).cpus // 2)}
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


def _worker(node_type: Mapping[str, Any], cloud: Cloud, ground: AwsResources) -> dict[str, Any]:
    instance = instances.load_table().instance(cloud.worker_type)
    worker = _filled_node(node_type, cloud, ground, cloud.worker_type, ground.worker_profile)
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
    ground: AwsResources,
    instance_type: str,
    profile: str,
) -> dict[str, Any]:
    (disk,) = _node(node_type)["BlockDeviceMappings"]
    node = {
        **_node(node_type),
        "InstanceType": instance_type,
        "ImageId": ground.image,
        "SecurityGroupIds": [ground.security_group],
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


def provision(config: Config, buckets: Buckets) -> AwsResources:
    """Make on AWS what the nodes are started from, as far as it is missing."""
    cloud = config.cluster.cloud
    assert cloud.ssh_from is not None, "check_ready has seen to it"
    if resources.create_bucket(buckets.kept, cloud.region):
        log.info("made bucket %s", buckets.kept)
    group = resources.create_security_group(
        cluster_name(cloud), cloud.region, cloud.ssh_from, cloud.subnet
    )
    head, worker = resources.create_instance_profiles(
        cluster_name(cloud), cloud.region, buckets, group
    )
    if cloud.spot:
        resources.create_spot_role()
    ground = AwsResources(
        resources.find_image(cloud.machine_image, cloud.region), group, head, worker
    )
    resources.wait_until_usable(ground, cloud.head_type, cloud.region)
    return ground


def write_cluster_file(tree: Mapping[str, Any], cloud: Cloud, checkout: Path) -> Path:
    """Write the filled-in file and the folder that goes to each node; the file's path."""
    folder = node_folder(cloud)
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)
    wanted = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    _put(folder / "requirements.txt", "\n".join(wanted["project"]["dependencies"]))
    _put(folder / "constraints.txt", (checkout / "constraints.txt").read_text(encoding="utf-8"))
    _put(folder / "auth_token", ensure_token())
    file = cluster_file_path(cloud)
    _put(file, yaml.safe_dump(dict(tree), sort_keys=False))
    return file


def ensure_token() -> str:
    """This user's token for Ray clusters, made if there is none; Ray reads the same file."""
    file = Path("~/.ray/auth_token").expanduser()
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _put(file, secrets.token_hex(32))
    return file.read_text(encoding="utf-8").strip()


def up(config: Config, file: Path) -> Path:
    """Make everything and start the head; the filled-in cluster file.

    Raises ClusterError where something would be open to the world, or AWS or Ray refuses.
    """
    cloud = config.cluster.cloud
    check_ready(config, file)
    ground = provision(config, resources.find_buckets(config))
    if found := resources.find_open_ports([ground.security_group], cloud.region):
        raise ClusterError(f"the cluster would not be safe: {' '.join(found)}")
    tree = fill_cluster_file(read_cluster_file(file), cloud, ground)
    check_security(tree, cloud.spot, file)
    written = write_cluster_file(tree, cloud, file.parent)
    if code := _ray_up(written):
        raise ClusterError(
            f"`ray up` ended with {code}, see above: fix it and run `up` again, or end what was "
            "started with `python -m cluster down`."
        )
    return written


def down(config: Config) -> None:
    """End every node of the cluster, and make sure of it.

    EC2 is told directly: `ray down` first tries for minutes to reach each node by SSH, and nodes
    cost money meanwhile. Bucket, roles and security group stay: only what the bucket holds costs.
    """
    resources.terminate_instances(cluster_name(config.cluster.cloud), config.cluster.cloud.region)


def _ray_up(file: Path) -> int:
    """Run `ray up` with this terminal; its exit code."""
    command = [str(Path(sys.executable).with_name("ray")), "up", str(file), "--yes"]
    with environment_variables(
        {"RAY_UP_enable_autoscaler_v2": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    ):
        return subprocess.run([*command, "--no-config-cache"], check=False).returncode


def cluster_file_path(cloud: Cloud) -> Path:
    """The filled-in file of a cluster."""
    return Path("~/.segfleet").expanduser() / cloud.name / "ray_cluster.yaml"


def node_folder(cloud: Cloud) -> Path:
    """The folder that goes to every node of a cluster: packages to install, and the token."""
    return cluster_file_path(cloud).with_name("node")


def _put(file: Path, text: str) -> None:
    """Write a file for this user alone, whole or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
