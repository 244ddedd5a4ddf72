"""Whether a cluster file of Ray for AWS is whole, and leaves nothing open to the world.

Ray's own defaults do: the dashboard, which runs anyone's code, on every address; SSH open to all;
roles with every right. A reachable dashboard is a reachable shell.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.aws.resources import ANY_ADDRESS

_DEAD_IMAGES = ("rayproject/ray-ml", "anyscale/ray-ml")
_HOST = re.compile(r"--dashboard-host[= ](\S+)")


def missing_fields(tree: Mapping[str, Any]) -> list[str]:
    """What a cluster file lacks though Ray's schema allows it, one sentence each."""
    types: Mapping[str, Any] = tree.get("available_node_types", {})
    head = tree.get("head_node_type")
    found = []
    if head not in types or len(types) < 2:
        found.append("it needs available_node_types, one of them named by head_node_type.")
    if "run_options" not in tree.get("docker", {}):
        found.append("it needs docker.run_options.")
    for name, node_type in types.items():
        match node_type["node_config"].get("BlockDeviceMappings"):
            case [{"Ebs": {}}]:
                pass
            case _:
                found.append(f"{name}: BlockDeviceMappings must name one Ebs disk.")
    return found


def security_issues(tree: Mapping[str, Any], spot: bool) -> list[str]:
    """What must be fixed in a cluster file before it is used, one sentence each.

    tree: the file as read, anchors resolved and without gaps; spot: whether workers are meant to
    be spot instances.
    """
    types: Mapping[str, Any] = tree["available_node_types"]
    found = [*_dashboard(tree), *_token(tree), *_rules(tree), *_image(tree)]
    for name, node_type in types.items():
        found += _node(name, node_type["node_config"])
    if spot:
        found += _fallback(tree["head_node_type"], types)
    return found


def _dashboard(tree: Mapping[str, Any]) -> Iterator[str]:
    """Ray's documented way to close it is the default; it is to be said, not to be hoped."""
    hosts = [
        host
        for line in tree.get("head_start_ray_commands", ())
        if "ray start" in line
        for host in (_HOST.findall(line) or ["left to Ray"])
    ]
    if hosts != ["127.0.0.1"]:
        yield f"the dashboard's address is {' and '.join(hosts) or 'unknown'}: say 127.0.0.1."
    for text in _texts(tree):
        if "0.0.0.0" in text or re.search(r"(^|[\s=/'\"])::(/0)?($|[\s'\"])", text):
            yield f"{text!r} opens something to every address."


def _token(tree: Mapping[str, Any]) -> Iterator[str]:
    options = " ".join(tree.get("docker", {}).get("run_options", ()))
    for variable in ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH="):
        if variable not in options:
            yield f"docker.run_options lack {variable}: Ray would take orders without a token."
    if "RAY_AUTH_TOKEN=" in options:
        yield "docker.run_options hold the token itself, which AWS and Docker show to many."


def _rules(tree: Mapping[str, Any]) -> Iterator[str]:
    rules = tree["provider"].get("security_group", {}).get("IpPermissions", ())
    if any(block in str(rules) for block in ANY_ADDRESS):
        yield "provider.security_group has a rule for_every address of the world."


def _image(tree: Mapping[str, Any]) -> Iterator[str]:
    image = tree.get("docker", {}).get("image", "")
    if not image or image.startswith(_DEAD_IMAGES):
        yield f"docker.image = {image!r} is no longer made: take one of rayproject/ray."


def _node(name: str, node: Mapping[str, Any]) -> Iterator[str]:
    if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
        yield f"{name}: MetadataOptions.HttpTokens must be required (IMDSv2)."
    if not node.get("SecurityGroupIds"):
        yield f"{name}: without SecurityGroupIds Ray makes a group that opens SSH to the world."
    if "Arn" not in node.get("IamInstanceProfile", {}):
        yield f"{name}: without IamInstanceProfile Ray makes a role with every right on EC2 and S3."
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", node.get("ImageId", "")):
        yield f"{name}: without an ImageId (ami-…) Ray takes an image of Ubuntu 18.04."
    if not all(disk["Ebs"].get("Encrypted") for disk in node["BlockDeviceMappings"]):
        yield f"{name}: its disk is not encrypted."


def _fallback(head: str, types: Mapping[str, Any]) -> Iterator[str]:
    workers = {name: one for name, one in types.items() if name != head}
    spot = {name: one for name, one in workers.items() if _is_spot(one)}
    sure = {name: one for name, one in workers.items() if name not in spot}
    if _is_spot(types[head]):
        yield "the head is a spot instance: its end would end every job."
    if not spot or not sure:
        yield "workers need a type of spot instances and one on demand, for when there are none."
    elif min(_priority(one) for one in spot.values()) <= max(map(_priority, sure.values())):
        yield "the type of spot instances needs the higher priority, or it is not taken first."


def _is_spot(node_type: Mapping[str, Any]) -> bool:
    return node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"


def _priority(node_type: Mapping[str, Any]) -> int:
    return node_type.get("priority", 0)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a tree."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
