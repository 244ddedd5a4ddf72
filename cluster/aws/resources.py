"""The AWS resources of a cluster besides its nodes: bucket, roles, security group, image, prices.

A resource is only created if it does not exist, so each function can be called again.
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
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from contract.config import Config
from contract.errors import ClusterError

LATEST_IMAGE = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)
"""The parameter with AWS's latest Deep Learning Base image: Ubuntu 22.04, GPU driver, Docker."""
ANY_ADDRESS = ("0.0.0.0/0", "::/0")
_SET_CREDENTIALS = (
    "run `aws configure`, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_CREDENTIAL_ERRORS = (
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
_PROPAGATION_TIMEOUT_S = 60.0
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
class BucketNames:
    """The buckets of the nodes: the storage and, if it is another one, the data."""

    storage: str
    data: str | None


@dataclass(frozen=True)
class AwsResources:
    """The resources that nodes are started with."""

    image: str
    security_group: str
    head_profile: str
    worker_profile: str


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate errors of AWS into a ClusterError of one sentence."""
    try:
        yield
    except NoCredentialsError as error:
        raise ClusterError(f"there are no AWS credentials: {_SET_CREDENTIALS}.") from error
    except _CREDENTIAL_ERRORS as error:
        raise ClusterError(
            f"the AWS credentials cannot be used ({str(error).rstrip('.')}): {_SET_CREDENTIALS}."
        ) from error
    except ClientError as error:
        details = error.response.get("Error", {})
        raise ClusterError(
            f"AWS rejected {error.operation_name}: {details.get('Message', error)} "
            f"({details.get('Code', 'no code')})."
        ) from error
    except BotoCoreError as error:
        raise ClusterError(f"AWS cannot be reached: {error}.") from error


def check_credentials(region: str) -> None:
    """ClusterError if this process has no credentials, or AWS does not accept them."""
    with translate_errors():
        _account(region)


def find_buckets(config: Config) -> BucketNames:
    """The buckets of the settings; ClusterError if storage.root is not in S3."""
    storage = _bucket(config.storage.root)
    if storage is None:
        raise ClusterError(
            f"storage.root = {config.storage.root!r} cannot be read by nodes on AWS: set it to a "
            "bucket that `up` may create, such as s3://my-bucket/segfleet."
        )
    data = _bucket(config.data.root or "")
    return BucketNames(storage, data if data and data != storage else None)


def create_bucket(name: str, region: str) -> bool:
    """Create a private, encrypted bucket if it does not exist; returns whether it was created.

    An existing bucket of this account is not changed; ClusterError if it is another account's.
    """
    s3 = boto3.client("s3", region_name=region)
    with translate_errors():
        if _is_owned(s3, name, _account(region)):
            return False
        # us-east-1 is the only region that must not be given.
        location = {} if region == "us-east-1" else {"LocationConstraint": region}
        s3.create_bucket(
            Bucket=name, **({"CreateBucketConfiguration": location} if location else {})
        )
        try:
            _protect(s3, name)
        except BaseException:
            # The next `up` would treat it as a bucket of the user, and not change it.
            s3.delete_bucket(Bucket=name)
            raise
    return True


def _is_owned(s3: Any, name: str, account: str) -> bool:
    """Whether this account owns the bucket; ClusterError if another one does."""
    try:
        s3.head_bucket(Bucket=name, ExpectedBucketOwner=account)
    except ClientError as error:
        code = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code == 403:
            raise ClusterError(
                f"bucket {name} belongs to another account, or your user has no permission: set "
                "storage.root to another one."
            ) from error
        if code != 404:
            raise
        return False
    return True


def _protect(s3: Any, name: str) -> None:
    """Block public access and plain HTTP, encrypt the bucket, and expire incomplete uploads.

    Nothing else in it expires.
    """
    blocked = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(
        Bucket=name, PublicAccessBlockConfiguration=dict.fromkeys(blocked, True)
    )
    s3.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps(_https_only_policy(name)))
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
    """A security group that allows the nodes, and ssh_from on port 22; returns its id.

    Other ingress rules that were added to the group are removed.
    """
    ec2 = boto3.client("ec2", region_name=region)
    with translate_errors():
        vpc = _find_vpc(ec2, subnet)
        groups = ec2.describe_security_groups(
            Filters=[
                {"Name": "group-name", "Values": [name]},
                {"Name": "vpc-id", "Values": [vpc]},
            ]
        )["SecurityGroups"]
        if groups:
            group: str = groups[0]["GroupId"]
            if stale := groups[0]["IpPermissions"]:
                ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=stale)
        else:
            group = ec2.create_security_group(
                GroupName=name, VpcId=vpc, Description="nodes of a segfleet cluster"
            )["GroupId"]
        ec2.authorize_security_group_ingress(
            GroupId=group, IpPermissions=_ingress_rules(group, ssh_from)
        )
    return group


def find_open_ports(groups: list[str], region: str) -> list[str]:
    """The ports of these groups that every address may connect to, one sentence each."""
    ec2 = boto3.client("ec2", region_name=region)
    with translate_errors():
        described = ec2.describe_security_groups(GroupIds=groups)["SecurityGroups"]
    return [
        f"security group {group['GroupId']} allows {block} to connect to port "
        f"{rule.get('FromPort', 'any')} to {rule.get('ToPort', 'any')}."
        for group in described
        for rule in group["IpPermissions"]
        for block in _cidr_blocks(rule)
        if block in ANY_ADDRESS
    ]


def create_instance_profiles(
    name: str, region: str, buckets: BucketNames, group: str
) -> tuple[str, str]:
    """Instance profiles of head and workers with minimal permissions; returns their ARNs."""
    with translate_errors():
        names = {
            "REGION": region,
            "ACCOUNT": _account(region),
            "CLUSTER": name,
            "GROUP": group,
            "BUCKET": buckets.storage,
            "DATA_BUCKET": buckets.data or "",
            "WORKER_ROLE": f"{name}-worker",
        }
        bucket = load_policy("bucket", names)
        if buckets.data is None:
            bucket["Statement"] = [s for s in bucket["Statement"] if s["Sid"] != "ReadData"]
        worker = _create_profile(f"{name}-worker", {"bucket": bucket})
        autoscaler = load_policy("autoscaler", names)
        head = _create_profile(f"{name}-head", {"bucket": bucket, "autoscaler": autoscaler})
    return head, worker


def load_policy(name: str, names: Mapping[str, str]) -> dict[str, Any]:
    """A policy of cluster/aws/policies with its placeholders filled in."""
    text = files("cluster.aws").joinpath("policies", f"{name}.json").read_text(encoding="utf-8")
    return json.loads(Template(text).substitute(names))


def create_spot_role() -> None:
    """Create the service-linked role for spot instances, which an account needs once."""
    iam = boto3.client("iam")
    with translate_errors():
        try:
            iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
        except ClientError as error:
            # It exists already.
            if error.response["Error"]["Code"] not in ("InvalidInput", "EntityAlreadyExists"):
                raise


def find_image(image: str | None, region: str) -> str:
    """The given AMI, else AWS's latest Deep Learning Base image of the region."""
    if image is not None:
        return image
    with translate_errors():
        response = boto3.client("ssm", region_name=region).get_parameter(Name=LATEST_IMAGE)
    return response["Parameter"]["Value"]


def find_spot_price(instance_type: str, region: str) -> float:
    """The lowest current spot price of a Linux instance, over all zones, in USD per hour."""
    now = datetime.now(UTC)
    with translate_errors():
        prices = boto3.client("ec2", region_name=region).describe_spot_price_history(
            InstanceTypes=[instance_type],
            ProductDescriptions=["Linux/UNIX"],
            StartTime=now - timedelta(hours=1),
            EndTime=now,
        )["SpotPriceHistory"]
    if not prices:
        raise ClusterError(f"{region} has no spot price for {instance_type}.")
    return min(float(price["SpotPrice"]) for price in prices)


def list_instances(name: str, region: str) -> list[str]:
    """The instances of a cluster that are not terminated."""
    states = ["pending", "running", "stopping", "stopped"]
    with translate_errors():
        paginator = boto3.client("ec2", region_name=region).get_paginator("describe_instances")
        pages = paginator.paginate(
            Filters=[
                {"Name": "tag:ray-cluster-name", "Values": [name]},
                {"Name": "instance-state-name", "Values": states},
            ]
        )
        return [
            instance["InstanceId"]
            for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]


def terminate_instances(name: str, region: str) -> None:
    """Terminate the instances of a cluster, until none is left."""
    while instances := list_instances(name, region):
        with translate_errors():
            ec2 = boto3.client("ec2", region_name=region)
            ec2.terminate_instances(InstanceIds=instances)
            ec2.get_waiter("instance_terminated").wait(InstanceIds=instances)


def wait_until_usable(aws: AwsResources, instance_type: str, region: str) -> None:
    """Wait until EC2 accepts new instance profiles, with dry runs of starting a node.

    Also checks that the image and the instance type exist and that this user may start nodes.
    """
    ec2 = boto3.client("ec2", region_name=region)
    deadline = time.monotonic() + _PROPAGATION_TIMEOUT_S
    with translate_errors():
        for profile in (aws.head_profile, aws.worker_profile):
            while not _can_start(ec2, aws.image, profile, instance_type):
                if time.monotonic() > deadline:
                    raise ClusterError(f"EC2 does not accept {profile} yet: try again in a minute.")
                time.sleep(2.0)


def _can_start(ec2: Any, image: str, profile: str, instance_type: str) -> bool:
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
        details = error.response["Error"]
        if details["Code"] == "DryRunOperation":
            return True
        if "iamInstanceProfile" in details["Message"] or "instance profile" in details["Message"]:
            return False
        raise
    return True


def _create_profile(name: str, policies: Mapping[str, Any]) -> str:
    """An instance profile of one role with these policies; returns its ARN."""
    iam = boto3.client("iam")
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST))
    for key, document in policies.items():
        iam.put_role_policy(RoleName=name, PolicyName=key, PolicyDocument=json.dumps(document))
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_instance_profile(InstanceProfileName=name)
    profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    if not profile["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return profile["Arn"]


def _account(region: str) -> str:
    """The id of this user's account."""
    return boto3.client("sts", region_name=region).get_caller_identity()["Account"]


def _find_vpc(ec2: Any, subnet: str | None) -> str:
    """The VPC of a subnet, or the default VPC of the region."""
    if subnet is not None:
        return ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise ClusterError(
            "the region has no default VPC: set cluster.cloud.subnet to one of your subnets."
        )
    return vpcs[0]["VpcId"]


def _ingress_rules(group: str, ssh_from: str) -> list[dict[str, Any]]:
    ranges = (
        {"Ipv6Ranges": [{"CidrIpv6": ssh_from}]}
        if ":" in ssh_from
        else {"IpRanges": [{"CidrIp": ssh_from}]}
    )
    return [
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **ranges},
    ]


def _cidr_blocks(rule: Mapping[str, Any]) -> list[str]:
    return [
        *(r["CidrIp"] for r in rule.get("IpRanges", ())),
        *(r["CidrIpv6"] for r in rule.get("Ipv6Ranges", ())),
    ]


def _https_only_policy(bucket: str) -> dict[str, Any]:
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
    url = urlsplit(address)
    return url.netloc if url.scheme == "s3" else None
