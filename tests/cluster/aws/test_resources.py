"""Bucket, roles, security group, image and prices, made and read over HTTP at moto's AWS."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from cluster.aws import resources
from cluster.aws.resources import BucketNames
from contract.config import Config
from contract.errors import ClusterError

ROOT = Path(__file__).parents[3]
REGION = "us-east-1"
HOME = "203.0.113.7/32"

pytestmark = pytest.mark.usefixtures("s3_server")


@pytest.fixture
def name() -> str:
    """A name nothing at moto has yet."""
    return f"t{uuid4().hex[:8]}"


def test_the_buckets_are_those_of_the_settings() -> None:
    config = Config().with_values({"storage.root": "s3://kept/a/b"})
    assert resources.find_buckets(config) == BucketNames("kept", None)
    data = {"data.source": "folder", "data.root": "s3://slices/x"}
    config = Config().with_values({"storage.root": "s3://kept", **data})
    assert resources.find_buckets(config) == BucketNames("kept", "slices")
    with pytest.raises(ClusterError, match="cannot be read by nodes on AWS"):
        resources.find_buckets(Config())


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_a_bucket_is_private_encrypted_and_forgets_nothing(name: str, region: str) -> None:
    assert resources.create_bucket(name, region) is True
    s3 = boto3.client("s3", region_name=region)
    assert all(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values())
    rules = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    policy = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])
    assert policy["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    kept = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert [rule["ID"] for rule in kept if "Expiration" not in rule] == ["unfinished-uploads"]
    assert resources.create_bucket(name, region) is False


def test_a_bucket_that_cannot_be_protected_is_not_left_behind(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject(**_: object) -> None:
        raise ClientError({"Error": {"Message": "no", "Code": "c"}}, "PutBucketPolicy")

    refusing = boto3.Session()
    refusing.events.register("before-call.s3.PutBucketPolicy", reject)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", refusing)
    with pytest.raises(ClusterError, match="AWS rejected PutBucketPolicy"):
        resources.create_bucket(name, REGION)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    assert resources.create_bucket(name, REGION) is True


def test_a_bucket_of_another_account_is_rejected(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def answer(model: object, params: dict[str, Any], **_: object) -> tuple[AWSResponse, dict]:
        """What S3 says to callers that expects an account that does not own the bucket."""
        asked.update(params["headers"])
        parsed = {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        return AWSResponse("", 403, {}, None), parsed

    foreign = boto3.Session()
    foreign.events.register("before-call.s3.HeadBucket", answer)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", foreign)
    with pytest.raises(ClusterError, match="belongs to another account"):
        resources.create_bucket(name, REGION)
    assert asked["x-amz-expected-bucket-owner"] == "123456789012"


def test_a_security_group_lets_nodes_and_one_address_in(name: str) -> None:
    group = resources.create_security_group(name, REGION, HOME, subnet=None)
    ec2 = boto3.client("ec2", region_name=REGION)
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {
                "IpProtocol": "tcp",
                "FromPort": 8265,
                "ToPort": 8265,
                "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
            }
        ],
    )
    assert resources.find_open_ports([group], REGION) == [
        f"security group {group} allows 0.0.0.0/0 to connect to port 8265 to 8265."
    ]
    assert resources.create_security_group(name, REGION, "198.51.100.4/32", subnet=None) == group
    assert resources.find_open_ports([group], REGION) == []
    rules = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    ports = {rule.get("FromPort"): rule for rule in rules}
    assert set(ports) == {None, 22}
    assert [one["CidrIp"] for one in ports[22]["IpRanges"]] == ["198.51.100.4/32"]
    assert [one["GroupId"] for one in ports[None]["UserIdGroupPairs"]] == [group]


def test_ipv6_and_a_subnet_of_ones_own(name: str) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)
    network = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=network, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    group = resources.create_security_group(name, REGION, "2001:db8::7/128", subnet)
    result = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    assert result["VpcId"] == network
    (ssh,) = [rule for rule in result["IpPermissions"] if rule.get("FromPort") == 22]
    assert ssh["Ipv6Ranges"] == [{"CidrIpv6": "2001:db8::7/128"}]


def role_policies(role: str) -> dict[str, Any]:
    iam = boto3.client("iam")
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    return {
        one: iam.get_role_policy(RoleName=role, PolicyName=one)["PolicyDocument"] for one in names
    }


def actions(policy: dict[str, Any]) -> set[str]:
    return {action for one in policy["Statement"] for action in one["Action"]}


def test_nodes_have_the_rights_they_need_and_no_others(name: str) -> None:
    buckets = BucketNames("kept", "slices")
    head, worker = resources.create_instance_profiles(name, REGION, buckets, "sg-1234")
    assert (head, worker) == resources.create_instance_profiles(name, REGION, buckets, "sg-1234")
    assert worker.endswith(f":instance-profile/{name}-worker")
    given = role_policies(f"{name}-worker")
    assert set(given) == {"bucket"}
    assert "s3:DeleteBucket" not in actions(given["bucket"])
    reading = [one for one in given["bucket"]["Statement"] if "slices" in str(one["Resource"])]
    assert {action for one in reading for action in one["Action"]} == {
        "s3:ListBucket",
        "s3:GetObject",
    }
    given = role_policies(f"{name}-head")
    assert set(given) == {"bucket", "autoscaler"}
    for one in given["autoscaler"]["Statement"]:
        changes = [action for action in one["Action"] if not action.startswith("ec2:Describe")]
        assert one["Resource"] != "*" or not changes
    assert "$" not in json.dumps(given)


def test_without_a_data_bucket_there_is_no_right_to_one(name: str) -> None:
    resources.create_instance_profiles(name, REGION, BucketNames("kept", None), "sg-1234")
    given = role_policies(f"{name}-worker")
    assert {one["Sid"] for one in given["bucket"]["Statement"]} == {
        "ListTheBucket",
        "KeepRunsAndBundles",
    }


@pytest.mark.parametrize("policy", ["bucket", "autoscaler", "user"])
def test_no_policy_has_a_wildcard_and_each_right_is_justified(policy: str) -> None:
    text = (ROOT / "cluster/aws/policies" / f"{policy}.json").read_text()
    rights = actions(json.loads(text))
    assert not [right for right in rights if "*" in right]
    page = (ROOT / "docs/cloud.md").read_text()
    assert not [right for right in rights if not re.search(rf"`{right}`.*\| \S", page)]


def test_spot_instances_are_allowed_once_and_again() -> None:
    resources.create_spot_role()
    resources.create_spot_role()


def test_the_image_is_the_one_named_or_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resources.find_image("ami-0123456789abcdef0", REGION) == "ami-0123456789abcdef0"
    with pytest.raises(ClusterError, match="ParameterNotFound"):
        resources.find_image(None, REGION)
    # moto knows the parameters of Amazon Linux, not those of the Deep Learning images.
    known = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    monkeypatch.setattr(resources, "LATEST_IMAGE", known)
    assert resources.find_image(None, REGION).startswith("ami-")


def test_the_spot_price_is_the_lowest_of_the_zones() -> None:
    assert 0 < resources.find_spot_price("g5.xlarge", REGION) < 1


def test_all_nodes_of_a_cluster_are_ended_and_no_others(name: str) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for cluster, count in ((name, 3), (f"{name}-other", 1)):
        tags = [{"Key": "ray-cluster-name", "Value": cluster}]
        ec2.run_instances(
            ImageId=image,
            MinCount=count,
            MaxCount=count,
            InstanceType="m6i.large",
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
    assert len(resources.list_instances(name, REGION)) == 3
    resources.terminate_instances(name, REGION)
    assert resources.list_instances(name, REGION) == []
    assert len(resources.list_instances(f"{name}-other", REGION)) == 1


def test_missing_credentials_and_refusals_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=r"AWS rejected DescribeSubnets: .*subnet-0"):
        resources.create_security_group("x", REGION, HOME, "subnet-0")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    for variable in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with (
        pytest.raises(ClusterError, match="there are no AWS credentials"),
        resources.translate_errors(),
    ):
        boto3.Session().client("ec2", region_name=REGION).describe_instances()
    with pytest.raises(ClusterError, match="AWS rejected X: no"), resources.translate_errors():
        raise ClientError({"Error": {"Message": "no", "Code": "c"}}, "X")
