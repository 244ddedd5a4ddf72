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
from contract.config.loader import parse_override, to_toml
from contract.errors import ClusterError

COMMAND_PACKAGES = ("trainer", "tuning", "inference")
SETTINGS = "settings.toml"
LIMIT_BYTES = 512 * 2**20
"""Ray's limit on what a job takes along."""
_OVERRIDE = re.compile(r"^[a-z_]+(\.[a-z_]+)+=")
_LEFT_OUT = ("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True)
class JobPackage:
    """A folder to be sent along with a job."""

    folder: Path
    files: int
    size: int
    """Bytes, before Ray packs them."""


def parse_job_command(config: Config, words: Sequence[str], file: str) -> tuple[Config, list[str]]:
    """The settings that are sent, and what the job runs behind `python -m`.

    words: the command as one would type it, without `python -m`; file: the settings file as the
    user named it. Where the command names that file, or has no argument, it gets the settings
    that are sent, and its overrides become part of them. Any other command, such as trainer
    evaluate BUNDLE, stays as it is. Raises ClusterError where it is none of our commands.
    """
    if len(words) < 2 or words[0] not in COMMAND_PACKAGES:
        raise ClusterError(
            f"behind -- must stand a command of {', '.join(COMMAND_PACKAGES)}, such as trainer train; "
            f"{' '.join(words) or 'nothing'!r} is none."
        )
    room, verb, *rest = words
    overrides = [word for word in rest if _OVERRIDE.match(word)]
    arguments = [word for word in rest if word not in overrides]
    if file not in arguments:
        if any(not word.startswith("-") for word in arguments):
            return config, list(words)
        arguments.insert(0, file)
    sent = config.with_values(dict(parse_override(word) for word in overrides))
    return sent, [room, verb, *(SETTINGS if word == file else word for word in arguments)]


def build(folder: Path, config: Config) -> JobPackage:
    """Fill an empty folder with the packages and the settings.

    The cluster's address is left out: on the cluster it is another one, which Ray tells the job.
    """
    home = Path(contract.__file__).parents[1]
    for package in PACKAGES:
        shutil.copytree(home / package, folder / package, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    settings = config.with_values({"cluster.address": None})
    (folder / SETTINGS).write_text(to_toml(settings), encoding="utf-8")
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    if sum(sizes) > LIMIT_BYTES:
        raise ClusterError(
            f"{home} holds {sum(sizes) / 2**20:.0f} MB in the folders of our packages, and Ray "
            f"takes {LIMIT_BYTES / 2**20:.0f} MB with a job: keep data out of them."
        )
    return JobPackage(folder, len(sizes), sum(sizes))


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
