"""The settings for a dataset, as `segfleet plan` prints them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.capacity_check import nodes_of_cluster, nodes_of_machine
from cluster.connection import has_address
from cluster.ray_internals import machine_memory_gb
from contract.config import Cluster, Config, set_value, validate
from contract.config.ini_reader import is_ini
from contract.config.loader import create_config, flatten_settings, parse_toml, parse_values
from contract.errors import ConfigError, DataError
from contract.host_info import cpu_model, gpu_memory_gb, gpu_names
from contract.plurals import pluralize
from contract.progress import ProgressCallback, no_progress
from contract.storage import LocalStorage, open_storage
from trainer.planning.decisions import (
    Choice,
    TrainingPlan,
    choose_settings,
    describe_nodes,
)
from trainer.planning.fingerprint import DatasetFingerprint, measure_fingerprint
from trainer.planning.measured_speed import measure_speed
from trainer.planning.settings_file import render_settings
from trainer.planning.sizing import Resources

_DATA = "data."
# A small network computes fewer multiply-adds per second than a large one, so the speed is measured
# again with the network that the first measurement led to.
_MEASUREMENTS = 2


@dataclass(frozen=True)
class PlannedSettings:
    """Settings that were chosen for a dataset.

    text: the TOML file; config: the same settings; plan: each choice with its reason.
    """

    text: str
    config: Config
    plan: TrainingPlan
    fingerprint: DatasetFingerprint


def read_given(
    root: str, base: Path | None, overrides: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings by section.key that are not chosen: those of a TOML file and of overrides.

    The overrides and settings replace those of the file. Raises ConfigError for an unknown key, an
    invalid value, or one that contradicts root.
    """
    tree: dict[str, Any] = {}
    if base:
        if is_ini(base):
            raise ConfigError(f"{base} is not a TOML file: convert it with `segfleet convert`.")
        tree = _read_tree(base)
    values = parse_values(overrides, settings)
    for key, value in {"data.source": "folder", "data.root": root}.items():
        if values.get(key, value) != value:
            raise ConfigError(
                f"{key} = {values[key]!r} contradicts DATA = {root!r}: "
                + ("name the folder once." if key == "data.root" else f"remove {key}.")
            )
        values[key] = value
    for key, value in values.items():
        set_value(tree, key, value)
    given = flatten_settings(tree)
    # Values alone: those that have to fit other settings are checked with the chosen ones.
    alone = {"network.image_size": 2048, "train.num_workers": 1} | given
    config = validate(_create_tree(alone), origin=str(base or "settings"))
    if config.network.name != "unet":
        raise ConfigError(
            f"network.name = {config.network.name!r}: segfleet plan knows the cost of a unet only; "
            "remove network.name, and change it in the file that is written."
        )
    return given


def _read_tree(base: Path) -> dict[str, Any]:
    try:
        return parse_toml(base.read_text(encoding="utf-8-sig"), str(base))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the settings file {base} ({error}): pass a readable TOML file."
        ) from error


def _create_tree(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        set_value(tree, key, value)
    return tree


def create_plan(
    root: str,
    given: Mapping[str, Any],
    minutes: float,
    on_progress: ProgressCallback = no_progress,
    *,
    measure: bool = True,
) -> PlannedSettings:
    """Look at a dataset and choose the settings to train on it.

    Args:
        root: The folder or s3:// address of the slices.
        given: What read_given returns.
        minutes: The time for the training.
        on_progress: Called after each slice.
        measure: Measure some training steps, if the training will run on this machine.

    Returns:
        The settings.

    Raises:
        ConfigError: The given settings do not fit each other or the chosen ones.
        DataError, StorageError: The dataset cannot be used.
        ClusterError: The cluster that the settings name cannot be reached.
    """
    alone = {"network.image_size": 2048, "train.num_workers": 1} | dict(given)
    partial = validate(_create_tree(alone), origin="settings")
    is_local = not has_address(partial.cluster)
    resources = find_resources(partial.cluster)
    names = {key.removeprefix(_DATA) for key in given if key.startswith(_DATA)}
    storage = open_storage(root)
    if isinstance(storage, LocalStorage) and not storage.path.is_dir():
        raise DataError(
            f"there is no folder {storage.url}: name the folder that contains your images and "
            "masks (docs/data.md)."
        )
    fingerprint = measure_fingerprint(partial.data, names, partial.run.seed, storage, on_progress)
    plan = choose_settings(fingerprint, resources, minutes, given)
    for _ in range(_MEASUREMENTS if measure and is_local else 0):
        on_progress(0, None, "measuring training steps")
        shape = plan.shape
        speed = measure_speed(_validate(plan), shape)
        resources = replace(resources, measured_speed=speed)
        plan = choose_settings(fingerprint, resources, minutes, given)
        if plan.shape == shape:
            break
    if "run.name" not in given:
        name = Choice("run.name", _run_name(root), "that of the folder")
        plan = replace(plan, choices=(name, *plan.choices))
    heading = _heading(fingerprint, resources, minutes, root, is_local)
    return PlannedSettings(
        render_settings(plan.choices, heading), _validate(plan), plan, fingerprint
    )


def find_resources(cluster: Cluster) -> Resources:
    """The nodes of the cluster that the settings or RAY_ADDRESS name, else this machine."""
    if has_address(cluster):
        return Resources(tuple(nodes_of_cluster(cluster)))
    _, memory = machine_memory_gb()
    return Resources(tuple(nodes_of_machine(cluster)), memory, gpu_memory_gb())


def _validate(plan: TrainingPlan) -> Config:
    """The settings, with absolute folders as load_config makes them."""
    values = {choice.key: choice.value for choice in plan.choices}
    return create_config(values, Path("settings"), lambda key: None)


def _run_name(root: str) -> str:
    """A name for the run, from that of the folder."""
    name = PurePosixPath(root).name
    text = "".join(char if char.isascii() and char.isalnum() else "-" for char in name)
    return text.strip("-")[:80] or "slices"


def _heading(
    fingerprint: DatasetFingerprint,
    resources: Resources,
    minutes: float,
    root: str,
    is_local: bool,
) -> list[str]:
    where = "this machine, " + ", ".join([cpu_model(), *gpu_names()]) if is_local else "the cluster"
    total = sum(fingerprint.slices.values())
    decoded = (
        "all of them were decoded"
        if fingerprint.decoded == total
        else f"{fingerprint.decoded} of them, evenly spaced, were decoded, so medians, intensities "
        "and fractions are those of a sample"
    )
    return [
        f"Settings for {root}, chosen by segfleet plan for {minutes:g} minutes on {where}: "
        f"{describe_nodes(resources.nodes)}.",
        f"{pluralize(total, 'slice')} of "
        f"{pluralize(sum(fingerprint.patients.values()), 'patient')}; {decoded}.",
    ]
