"""Checks that a Ray cluster file for AWS is complete and secure.

Ray's defaults are not secure: the dashboard, which runs arbitrary code, may listen on every
address, SSH is open to the world, and the roles have all permissions.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.aws.resources import ANY_ADDRESS

_DISCONTINUED_IMAGES = ("rayproject/ray-ml", "anyscale/ray-ml")
_HOST = re.compile(r"--dashboard-host[= ](\S+)")


def missing_fields(cluster_yaml: Mapping[str, Any]) -> list[str]:
    """What a cluster file lacks although Ray's schema allows it, one sentence each."""
    types: Mapping[str, Any] = cluster_yaml.get("available_node_types", {})
    head = cluster_yaml.get("head_node_type")
    missing = []
    if head not in types or len(types) < 2:
        missing.append("it needs available_node_types, one of them named by head_node_type.")
    if "run_options" not in cluster_yaml.get("docker", {}):
        missing.append("it needs docker.run_options.")
    for name, node_type in types.items():
        match node_type["node_config"].get("BlockDeviceMappings"):
            case [{"Ebs": {}}]:
                pass
            case _:
                missing.append(f"{name}: BlockDeviceMappings must name one Ebs disk.")
    return missing


def security_issues(cluster_yaml: Mapping[str, Any], use_spot: bool) -> list[str]:
    """The security issues of a cluster file, one sentence each.

    cluster_yaml: the content of the file, filled in; use_spot: whether workers should be spot
    instances.
    """
    types: Mapping[str, Any] = cluster_yaml["available_node_types"]
    issues = [
        *_dashboard_issues(cluster_yaml),
        *_token_issues(cluster_yaml),
        *_security_group_issues(cluster_yaml),
        *_image_issues(cluster_yaml),
    ]
    for name, node_type in types.items():
        issues += _node_issues(name, node_type["node_config"])
    if use_spot:
        issues += _fallback_issues(cluster_yaml["head_node_type"], types)
    return issues


def _dashboard_issues(cluster_yaml: Mapping[str, Any]) -> Iterator[str]:
    """The address must be explicit, even though it is Ray's documented default."""
    hosts = [
        host
        for line in cluster_yaml.get("head_start_ray_commands", ())
        if "ray start" in line
        for host in (_HOST.findall(line) or ["not set"])
    ]
    if hosts != ["127.0.0.1"]:
        yield f"the dashboard's address is {' and '.join(hosts) or 'unknown'}: set it to 127.0.0.1."
    for text in _texts(cluster_yaml):
        if "0.0.0.0" in text or re.search(r"(^|[\s=/'\"])::(/0)?($|[\s'\"])", text):
            yield f"{text!r} allows every address."


def _token_issues(cluster_yaml: Mapping[str, Any]) -> Iterator[str]:
    options = " ".join(cluster_yaml.get("docker", {}).get("run_options", ()))
    for variable in ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH="):
        if variable not in options:
            yield f"docker.run_options lack {variable}: Ray would accept requests without a token."
    if "RAY_AUTH_TOKEN=" in options:
        yield "docker.run_options contain the token, which AWS and Docker show to other users."


def _security_group_issues(cluster_yaml: Mapping[str, Any]) -> Iterator[str]:
    rules = cluster_yaml["provider"].get("security_group", {}).get("IpPermissions", ())
    if any(block in str(rules) for block in ANY_ADDRESS):
        yield "provider.security_group has a rule that allows every address."


def _image_issues(cluster_yaml: Mapping[str, Any]) -> Iterator[str]:
    image = cluster_yaml.get("docker", {}).get("image", "")
    if not image or image.startswith(_DISCONTINUED_IMAGES):
        yield f"docker.image = {image!r} is discontinued: use an image of rayproject/ray."


def _node_issues(name: str, node: Mapping[str, Any]) -> Iterator[str]:
    if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
        yield f"{name}: MetadataOptions.HttpTokens must be required (IMDSv2)."
    if not node.get("SecurityGroupIds"):
        yield f"{name}: without SecurityGroupIds Ray allows SSH from every address."
    if "Arn" not in node.get("IamInstanceProfile", {}):
        yield f"{name}: without IamInstanceProfile Ray grants all EC2 and S3 permissions."
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", node.get("ImageId", "")):
        yield f"{name}: without an ImageId (ami-…) Ray uses an image of Ubuntu 18.04."
    if not all(disk["Ebs"].get("Encrypted") for disk in node["BlockDeviceMappings"]):
        yield f"{name}: its disk is not encrypted."


def _fallback_issues(head: str, types: Mapping[str, Any]) -> Iterator[str]:
    workers = [node_type for name, node_type in types.items() if name != head]
    spot = [node_type for node_type in workers if _is_spot(node_type)]
    on_demand = [node_type for node_type in workers if not _is_spot(node_type)]
    if _is_spot(types[head]):
        yield "the head is a spot instance: every job would end with it."
    if not spot or not on_demand:
        yield "workers need a spot and an on-demand type, for when no spot instance is available."
    elif min(map(_priority, spot)) <= max(map(_priority, on_demand)):
        yield "the spot type needs the higher priority, so that it is used first."


def _is_spot(node_type: Mapping[str, Any]) -> bool:
    return node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"


def _priority(node_type: Mapping[str, Any]) -> int:
    return node_type.get("priority", 0)


def _texts(value: Any) -> Iterator[str]:
    """Every string in a tree of dicts and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
