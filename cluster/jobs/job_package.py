"""The files of a job: the code and one settings file.

Data, runs and bundles stay in the storage; packages are installed on the nodes, and secrets belong
to the nodes.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import contract
from cluster.connection import PACKAGES
from contract.cli.main import module_command
from contract.config import Config, check_searched_networks, encoder_weights
from contract.config.loader import parse_override, to_toml
from contract.config.start_from import local_folder
from contract.errors import ClusterError
from contract.host_info import COMMIT_FILE, code_commit

COMMAND_PACKAGES = ("trainer", "tuning", "inference")
_PROGRAMS = (("segfleet",), ("python", "-m"))
SETTINGS = "settings.toml"
LIMIT_BYTES = 512 * 2**20
"""Ray's limit for the working directory of a job."""
_OVERRIDE = re.compile(r"^[a-z_]+(\.[a-z_]+)+=")
_EXCLUDED = ("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True)
class JobPackage:
    """The working directory of a job."""

    folder: Path
    files: int
    size: int
    """Bytes, uncompressed."""


def parse_job_command(config: Config, words: Sequence[str], file: str) -> tuple[Config, list[str]]:
    """The settings of a job, and its command after `python -m`.

    words: the command, such as train or trainer train, also with the program in front of it
    (segfleet, python -m); file: the settings file as the user named it. A command
    that names that file, or has no argument, gets the uploaded settings, with its overrides. Any
    other command, such as trainer evaluate BUNDLE, is unchanged. Raises ClusterError if it is not
    a segfleet command.
    """
    typed = " ".join(words)
    for program in _PROGRAMS:
        if tuple(words[: len(program)]) == program:
            words = words[len(program) :]
    words = module_command(words)
    if len(words) < 2 or words[0] not in COMMAND_PACKAGES:
        raise ClusterError(
            f"{typed!r} is not a segfleet command that a job can run: after --, use one such as "
            "train, sweep, predict or deploy."
            if typed
            else "no command is given: add one such as -- train."
        )
    package, subcommand, *rest = words
    overrides = [word for word in rest if _OVERRIDE.match(word)]
    arguments = [word for word in rest if word not in overrides]
    if file not in arguments:
        if any(not word.startswith("-") for word in arguments):
            return config, list(words)
        arguments.insert(0, file)
    # The settings that are sent are TOML, whatever the file was.
    arguments = [word for word in arguments if word != "--lenient"]
    settings = config.with_values(dict(parse_override(word) for word in overrides))
    if subcommand == "sweep":
        check_searched_networks(settings)
    return settings, [
        package,
        subcommand,
        *(SETTINGS if word == file else word for word in arguments),
    ]


def build(folder: Path, config: Config) -> JobPackage:
    """Copy the packages and the settings to an empty folder.

    The cluster's address is removed: Ray sets that of the job.
    """
    root = Path(contract.__file__).parents[1]
    for package in PACKAGES:
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns(*_EXCLUDED))
    if commit := code_commit():
        # The folder has no .git, and results name the commit of the code.
        (folder / COMMIT_FILE.relative_to(root)).write_text(commit, encoding="utf-8")
    settings = config.with_values({"cluster.address": None})
    (folder / SETTINGS).write_text(to_toml(settings), encoding="utf-8")
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    if sum(sizes) > LIMIT_BYTES:
        raise ClusterError(
            f"the package folders of {root} contain {sum(sizes) / 2**20:.0f} MB, and Ray's limit "
            f"is {LIMIT_BYTES / 2**20:.0f} MB: move data out of them."
        )
    return JobPackage(folder, len(sizes), sum(sizes))


def check_folders(config: Config, shared: bool) -> None:
    """ClusterError if settings name folders or files of this machine, which the nodes do not have.

    shared: every node has them, according to the user.
    """
    paths = {
        "storage.root": (config.storage.root, "folder"),
        "data.root": (config.data.root, "folder"),
        "network.encoder_weights": (encoder_weights(config.network), "file"),
        "train.start_from": (local_folder(config.train.start_from), "folder"),
        "train.preview_source": (
            config.train.preview_source if config.train.preview_images else None,
            "folder",
        ),
    }
    for key, (path, kind) in paths.items():
        if path is not None and "://" not in path and not shared:
            raise ClusterError(
                f"{key} = {path!r} is a {kind} of this machine, which a job cannot read: use an "
                f"s3:// URL, or --shared if every node has that {kind}."
            )
