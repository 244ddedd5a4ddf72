"""What a job takes along: our code and one settings file, and nothing else.

Data, runs and bundles stay in the storage; packages are installed on the nodes; secrets are the
nodes' own.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import contract
from cluster.connection import PACKAGES
from contract.config import Config
from contract.errors import ClusterError
from contract.loading import dump, parse_override

ROOMS = ("trainer", "tuning", "inference")
SETTINGS = "settings.toml"
LIMIT_BYTES = 512 * 2**20
"""Ray's limit on what a job takes along."""
_OVERRIDE = re.compile(r"^[a-z_]+(\.[a-z_]+)+=")
_LEFT_OUT = ("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True)
class Shipment:
    """A folder to be sent along with a job."""

    folder: Path
    files: int
    size: int
    """Bytes, before Ray packs them."""


def told(config: Config, words: Sequence[str]) -> Config:
    """The settings with the overrides among the command's words."""
    return config.with_values(dict(parse_override(word) for word in words if _OVERRIDE.match(word)))


def command(words: Sequence[str], settings: str) -> list[str]:
    """What the job runs behind `python -m`: room, subcommand, arguments.

    words: the command as one would type it, without `python -m`. The settings file as the user
    named it becomes the one that is sent; where the command has no argument at all, it is added.
    Overrides are left out, as they are part of what is sent. Raises ClusterError.
    """
    if len(words) < 2 or words[0] not in ROOMS:
        raise ClusterError(
            f"behind -- must stand a command of {', '.join(ROOMS)}, such as trainer train; "
            f"{' '.join(words) or 'nothing'!r} is none."
        )
    room, verb, *rest = (word for word in words if not _OVERRIDE.match(word))
    arguments = [SETTINGS if word == settings else word for word in rest]
    named = any(not word.startswith("-") for word in arguments)
    return [room, verb, *([] if named else [SETTINGS]), *arguments]


def pack(folder: Path, config: Config) -> Shipment:
    """Fill an empty folder with the packages and the settings.

    The cluster's address is left out: on the cluster it is another one, which Ray tells the job.
    """
    home = Path(contract.__file__).parents[1]
    for package in PACKAGES:
        shutil.copytree(home / package, folder / package, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    settings = config.with_values({"cluster.address": None})
    (folder / SETTINGS).write_text(dump(settings), encoding="utf-8")
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    if sum(sizes) > LIMIT_BYTES:
        raise ClusterError(
            f"{home} holds {sum(sizes) / 2**20:.0f} MB in the folders of our packages, and Ray "
            f"takes {LIMIT_BYTES / 2**20:.0f} MB with a job: keep data out of them."
        )
    return Shipment(folder, len(sizes), sum(sizes))


def check_folders(config: Config, shared: bool) -> None:
    """Refuse settings that name folders of this machine, which the nodes do not have.

    shared: the user says that every node has them.
    """
    named = {"storage.root": config.storage.root, "data.root": config.data.root}
    for key, place in named.items():
        if place is not None and "://" not in place and not shared:
            raise ClusterError(
                f"{key} = {place!r} is a folder of this machine, which a job cannot see: use an "
                "s3:// address, or say --shared if every node has that folder."
            )
