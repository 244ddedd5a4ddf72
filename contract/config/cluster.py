"""The sections [cluster], [cluster.cloud] and [cluster.kubernetes]."""

from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import Field, model_validator

from contract.config.section import Name, Section


class Cloud(Section):
    """The cluster that `segfleet up` starts on AWS."""

    name: Name = "main"
    """Name of the cluster: its AWS resources are named segfleet-NAME. Two clusters of one AWS
    account need different names."""
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = "us-east-1"
    """AWS region of the nodes, and of the bucket of storage.root if `up` creates it."""
    head_type: str = "m6i.xlarge"
    """Instance type of the head node, which is never a spot instance."""
    worker_type: str = "g5.xlarge"
    """Instance type of the worker nodes."""
    min_workers: Annotated[int, Field(ge=0, le=100)] = 0
    """Minimum number of worker nodes."""
    max_workers: Annotated[int, Field(ge=1, le=100)] = 2
    """Maximum number of worker nodes; they are started and ended as needed."""
    spot: bool = True
    """Use spot instances as workers, and on-demand instances if no spot instance is available."""
    idle_minutes: Annotated[int, Field(ge=1)] = 10
    """Minutes without work after which a worker node is ended."""
    disk_gb: Annotated[int, Field(ge=60, le=2000)] = 120
    """Size of a node's disk in GB; images and packages need 60."""
    machine_image: str | None = None
    """AMI of the nodes (ami-…); absent: AWS's newest Deep Learning Base image with GPU driver."""
    image: str = "rayproject/ray:2.60.0-py311-gpu"
    """Container image of the nodes; it must have the same version of Ray as this machine."""
    ssh_from: str | None = None
    """The only addresses that may reach the head by SSH, as a CIDR block (203.0.113.7/32: your
    own address); needed by `up`."""
    subnet: str | None = None
    """Subnet of the nodes (subnet-…); absent: the default one of the region."""
    private_addresses: bool = False
    """Assign no public addresses to the nodes; requires a subnet that you reach by VPN and that
    reaches the internet by NAT."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError("cluster.cloud.min_workers must not be above max_workers")
        if self.private_addresses and self.subnet is None:
            raise ValueError("cluster.cloud.private_addresses needs cluster.cloud.subnet")
        if self.ssh_from is not None:
            _check_closed_block(self.ssh_from)
        return self


class Kubernetes(Section):
    """The pods of the manifests that `submit --write` and `deploy --write` create for KubeRay."""

    image: str | None = None
    """Container image with segfleet[all] and the Ray version of this machine; required for a
    manifest."""
    namespace: Name = "default"
    """Namespace of all objects."""
    secret: str | None = None
    """Secret whose keys become environment variables of the pods (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, the key of serve.api_key_env)."""
    service_account: str | None = None
    """Service account of the pods, for example one with an IAM role for S3."""
    memory_gb: Annotated[int, Field(ge=1, le=4096)] = 8
    """Memory of each pod in GiB."""


class Cluster(Section):
    """The Ray cluster that runs the work."""

    address: str | None = None
    """Address of a running cluster: host:port on one of its nodes, ray://host:port, or
    http://host:8265 to send jobs to it; absent: RAY_ADDRESS, else a local cluster on this
    machine for the duration of the command."""
    cpus: Annotated[int, Field(ge=1)] | None = None
    """CPUs of the local cluster; absent: all CPUs of this machine."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds that the workers may take to be placed and started before the run fails."""
    cloud: Cloud = Cloud()
    kubernetes: Kubernetes = Kubernetes()


def _check_closed_block(block: str) -> None:
    """ValueError for an invalid CIDR block, or for one with more than 65,536 addresses."""
    try:
        network = ip_network(block)
    except ValueError as error:
        raise ValueError(
            f"cluster.cloud.ssh_from = {block!r} is not a valid CIDR block: {error}"
        ) from error
    if network.num_addresses > 2**16:
        raise ValueError(
            f"cluster.cloud.ssh_from = {block!r} opens SSH to {network.num_addresses} addresses: "
            "name your own, such as 203.0.113.7/32"
        )
