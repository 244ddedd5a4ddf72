"""What a cluster needs on AWS besides its nodes: bucket, roles, security group, image, prices.

Everything is made only where it is missing, so that each function may be called again.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from contract.config import Config
from contract.errors import ClusterError

NEWEST_IMAGE = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)
"""Where AWS publishes its newest Deep Learning Base image: Ubuntu 22.04, GPU driver, Docker."""
ANY_ADDRESS = ("0.0.0.0/0", "::/0")
_PROPAGATION_S = 60.0
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


@dataclass(frozen=True)
class Buckets:
    """The buckets nodes may use: one for all that segfleet keeps, perhaps one for the data."""

    kept: str
    data: str | None


@dataclass(frozen=True)
class AwsResources:
    """What nodes are started from."""

    image: str
    security_group: str
    head_profile: str
    worker_profile: str


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn AWS's errors into a ClusterError of one sentence."""
    try:
        yield
    except NoCredentialsError as error:
        raise ClusterError(
            "there are no AWS credentials: run `aws configure`, or set AWS_PROFILE or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    except ClientError as error:
        told = error.response.get("Error", {})
        raise ClusterError(
            f"AWS refused {error.operation_name}: {told.get('Message', error)} "
            f"({told.get('Code', 'no code')})."
        ) from error
    except BotoCoreError as error:
        raise ClusterError(f"AWS cannot be reached: {error}.") from error


def find_buckets(config: Config) -> Buckets:
    """The buckets of the settings; ClusterError where runs would not be kept in S3."""
    kept = _bucket(config.storage.root)
    if kept is None:
        raise ClusterError(
            f"storage.root = {config.storage.root!r} is out of the reach of nodes on AWS: name a "
            "bucket that `up` may make, such as s3://my-bucket/segfleet."
        )
    data = _bucket(config.data.root or "")
    return Buckets(kept, data if data and data != kept else None)


def create_bucket(name: str, region: str) -> bool:
    """Make a private, encrypted bucket if there is none; whether it was made.

    One that this account has already is used as it is; ClusterError where it is another's.
    """
    s3 = boto3.client("s3", region_name=region)
    with translate_errors():
        if _is_ours(s3, name, _account(region)):
            return False
        # us-east-1 is the one region that must not be named.
        place = {} if region == "us-east-1" else {"LocationConstraint": region}
        s3.create_bucket(Bucket=name, **({"CreateBucketConfiguration": place} if place else {}))
        try:
            _protect(s3, name)
        except BaseException:
            # The next `up` would take it for the user's own, and use it as it is.
            s3.delete_bucket(Bucket=name)
            raise
    return True


def _is_ours(s3: Any, name: str, account: str) -> bool:
    """Whether this account has the bucket; ClusterError where another one has it."""
    try:
        s3.head_bucket(Bucket=name, ExpectedBucketOwner=account)
    except ClientError as error:
        code = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code == 403:
            raise ClusterError(
                f"bucket {name} is another account's, or your user may not use it: name another "
                "one in storage.root."
            ) from error
        if code != 404:
            raise
        return False
    return True


def _protect(s3: Any, name: str) -> None:
    """Close a bucket to the public and to plain HTTP, encrypt it, and let broken uploads expire.

    Nothing else in it is ever deleted by time: all that segfleet keeps there is meant to stay.
    """
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(
        Bucket=name, PublicAccessBlockConfiguration=dict.fromkeys(closed, True)
    )
    s3.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps(_only_by_https(name)))
    unfinished = {
        "ID": "unfinished-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    s3.put_bucket_lifecycle_configuration(
        Bucket=name, LifecycleConfiguration={"Rules": [unfinished]}
    )


def create_security_group(name: str, region: str, ssh_from: str, subnet: str | None) -> str:
    """A security group open between the nodes, and to ssh_from on port 22; its id.

    The group's other rules for the world outside are taken back, should someone have added some.
    """
    ec2 = boto3.client("ec2", region_name=region)
    with translate_errors():
        network = _network(ec2, subnet)
        found = ec2.describe_security_groups(
            Filters=[
                {"Name": "group-name", "Values": [name]},
                {"Name": "vpc-id", "Values": [network]},
            ]
        )["SecurityGroups"]
        if found:
            group: str = found[0]["GroupId"]
            if stale := found[0]["IpPermissions"]:
                ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=stale)
        else:
            group = ec2.create_security_group(
                GroupName=name, VpcId=network, Description="nodes of a segfleet cluster"
            )["GroupId"]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=_rules(group, ssh_from))
    return group


def find_open_ports(groups: list[str], region: str) -> list[str]:
    """Every port of these groups that the whole world may reach, one sentence each."""
    ec2 = boto3.client("ec2", region_name=region)
    with translate_errors():
        found = ec2.describe_security_groups(GroupIds=groups)["SecurityGroups"]
    return [
        f"security group {group['GroupId']} lets {block} reach port "
        f"{rule.get('FromPort', 'any')} to {rule.get('ToPort', 'any')}."
        for group in found
        for rule in group["IpPermissions"]
        for block in _blocks(rule)
        if block in ANY_ADDRESS
    ]


def create_instance_profiles(
    name: str, region: str, buckets: Buckets, group: str
) -> tuple[str, str]:
    """Instance profiles of head and workers with the least rights; their ARNs."""
    with translate_errors():
        names = {
            "REGION": region,
            "ACCOUNT": _account(region),
            "CLUSTER": name,
            "GROUP": group,
            "BUCKET": buckets.kept,
            "DATA_BUCKET": buckets.data or "",
            "WORKER_ROLE": f"{name}-worker",
        }
        bucket = load_policy("bucket", names)
        if buckets.data is None:
            bucket["Statement"] = [one for one in bucket["Statement"] if one["Sid"] != "ReadData"]
        worker = _make_profile(f"{name}-worker", {"bucket": bucket})
        autoscaler = load_policy("autoscaler", names)
        head = _make_profile(f"{name}-head", {"bucket": bucket, "autoscaler": autoscaler})
    return head, worker


def load_policy(name: str, names: Mapping[str, str]) -> dict[str, Any]:
    """A policy of cluster/aws/policies with its names filled in."""
    text = files("cluster.aws").joinpath("policies", f"{name}.json").read_text(encoding="utf-8")
    return json.loads(Template(text).substitute(names))


def create_spot_role() -> None:
    """Make the role by which an account may use spot instances at all; needed once."""
    iam = boto3.client("iam")
    with translate_errors():
        try:
            iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
        except ClientError as error:
            # It is there already.
            if error.response["Error"]["Code"] not in ("InvalidInput", "EntityAlreadyExists"):
                raise


def find_image(named: str | None, region: str) -> str:
    """The AMI that is named, else AWS's newest Deep Learning Base image of the region."""
    if named is not None:
        return named
    with translate_errors():
        found = boto3.client("ssm", region_name=region).get_parameter(Name=NEWEST_IMAGE)
    return found["Parameter"]["Value"]


def find_spot_price(instance_type: str, region: str) -> float:
    """The lowest present spot price of a Linux instance in US dollars per hour, over all zones."""
    now = datetime.now(UTC)
    with translate_errors():
        found = boto3.client("ec2", region_name=region).describe_spot_price_history(
            InstanceTypes=[instance_type],
            ProductDescriptions=["Linux/UNIX"],
            StartTime=now - timedelta(hours=1),
            EndTime=now,
        )["SpotPriceHistory"]
    if not found:
        raise ClusterError(f"{region} has no spot price for {instance_type}.")
    return min(float(one["SpotPrice"]) for one in found)


def list_instances(name: str, region: str) -> list[str]:
    """Instances of a cluster that exist and may cost money."""
    states = ["pending", "running", "stopping", "stopped"]
    with translate_errors():
        pages = boto3.client("ec2", region_name=region).get_paginator("describe_instances")
        found = pages.paginate(
            Filters=[
                {"Name": "tag:ray-cluster-name", "Values": [name]},
                {"Name": "instance-state-name", "Values": states},
            ]
        )
        return [
            instance["InstanceId"]
            for page in found
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]


def terminate_instances(name: str, region: str) -> None:
    """End every instance of a cluster, again until none is left."""
    while found := list_instances(name, region):
        with translate_errors():
            ec2 = boto3.client("ec2", region_name=region)
            ec2.terminate_instances(InstanceIds=found)
            ec2.get_waiter("instance_terminated").wait(InstanceIds=found)


def wait_until_usable(ground: AwsResources, instance_type: str, region: str) -> None:
    """Wait until EC2 knows new instance profiles, by starting a node without doing so.

    Also tells whether the image and the instance type exist, and this user may start nodes.
    """
    ec2 = boto3.client("ec2", region_name=region)
    end = time.monotonic() + _PROPAGATION_S
    with translate_errors():
        for profile in (ground.head_profile, ground.worker_profile):
            while not _may_start(ec2, ground.image, profile, instance_type):
                if time.monotonic() > end:
                    raise ClusterError(f"EC2 does not know {profile} yet: try again in a minute.")
                time.sleep(2.0)


def _may_start(ec2: Any, image: str, profile: str, instance_type: str) -> bool:
    try:
        ec2.run_instances(
            ImageId=image,
            InstanceType=instance_type,
            IamInstanceProfile={"Arn": profile},
            MinCount=1,
            MaxCount=1,
            DryRun=True,
        )
    except ClientError as error:
        told = error.response["Error"]
        if told["Code"] == "DryRunOperation":
            return True
        if "iamInstanceProfile" in told["Message"] or "instance profile" in told["Message"]:
            return False
        raise
    return True


def _make_profile(name: str, policies: Mapping[str, Any]) -> str:
    """An instance profile of one role with exactly these policies; its ARN."""
    iam = boto3.client("iam")
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST))
    for key, document in policies.items():
        iam.put_role_policy(RoleName=name, PolicyName=key, PolicyDocument=json.dumps(document))
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_instance_profile(InstanceProfileName=name)
    found = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    if not found["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return found["Arn"]


def _account(region: str) -> str:
    """The number of this user's account."""
    return boto3.client("sts", region_name=region).get_caller_identity()["Account"]


def _network(ec2: Any, subnet: str | None) -> str:
    """The VPC of a subnet, or the region's default one."""
    if subnet is not None:
        return ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise ClusterError(
            "the region has no default VPC: name one of yours in cluster.cloud.subnet."
        )
    return found[0]["VpcId"]


def _rules(group: str, ssh_from: str) -> list[dict[str, Any]]:
    ranges = (
        {"Ipv6Ranges": [{"CidrIpv6": ssh_from}]}
        if ":" in ssh_from
        else {"IpRanges": [{"CidrIp": ssh_from}]}
    )
    return [
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **ranges},
    ]


def _blocks(rule: Mapping[str, Any]) -> list[str]:
    return [
        *(one["CidrIp"] for one in rule.get("IpRanges", ())),
        *(one["CidrIpv6"] for one in rule.get("Ipv6Ranges", ())),
    ]


def _only_by_https(bucket: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "OnlyByHttps",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def _bucket(address: str) -> str | None:
    place = urlsplit(address)
    return place.netloc if place.scheme == "s3" else None
