"""An ensemble: one bundle whose probabilities are the means of those of several bundles.

Each member is in the graph as it was exported, with its own size, scaling and sliding window, so
members may differ in everything but their classes and the stack of slices that they are given. It
is evaluated, registered and served like any other bundle. Its settings are those of the first.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import tensorflow as tf

from contract import bundle as bundles
from contract.bundle import BundleMetadata, Manifest, TriedSetting
from contract.config import Predict
from contract.errors import BundleError
from contract.imaging.post_processing import MaskScope, PostProcessing
from contract.storage import LocalStorage, Storage
from contract.temp_folders import folder_prefix
from contract.timestamps import utc_now
from trainer.components.class_maps import predicted_mask
from trainer.export.saved_model import save_graph

log = logging.getLogger(__name__)


def export_ensemble(members: Sequence[Storage], name: str, destination: Storage) -> Manifest:
    """Write a bundle whose probabilities are the means of those of other bundles.

    Args:
        members: Two bundles or more; they stay as they are.
        name: The name in its manifest.
        destination: Where the bundle is written.

    Returns:
        The manifest of the ensemble. Its patients are those of all members; one that any member was
        trained on counts as trained on. Its thresholds and metrics are the means of the members';
        a step of the post-processing is that of the members if all have the same, else none, with
        a warning.

    Raises:
        BundleError: There are fewer than two bundles, one is damaged, their classes or stacks
            differ, or there is a bundle at the destination.
    """
    if len(members) < 2:
        raise BundleError(
            "an ensemble needs two bundles or more, and then OUTPUT: segfleet ensemble A B OUTPUT."
        )
    bundles.check_no_bundle(destination)
    folders = [bundles.fetch(member) for member in members]
    manifests = [bundles.read_manifest(LocalStorage(folder)) for folder in folders]
    _check_members(members, manifests)
    metadata = _mean_metadata(name, manifests, bundles.member_names(members))
    with tempfile.TemporaryDirectory(prefix=folder_prefix("ensemble")) as temporary:
        folder = Path(temporary)
        save_graph(EnsembleModule(folders, _thresholds(metadata)), folder / "saved_model")
        (folder / "config.toml").write_bytes((folders[0] / "config.toml").read_bytes())
        return bundles.write_bundle(folder, destination, metadata)


def update_ensemble(members: Sequence[Storage], name: str, destination: Storage) -> str:
    """Write an ensemble in place of that of other bundles, or keep it if it is of these.

    Returns its address. Arguments and errors are those of export_ensemble.
    """
    if destination.exists(bundles.MANIFEST):
        if bundles.read_manifest(destination).members == bundles.member_names(members):
            return destination.url
        # Without it there is no bundle, whichever files are left.
        destination.delete(bundles.MANIFEST)
        for info in destination.list_objects():
            destination.delete(info.key)
    export_ensemble(members, name, destination)
    return destination.url


class EnsembleModule(tf.Module):
    """The exported graph: raw slices [B, H, W, C] to mean probabilities [B, H, W, K] and masks."""

    def __init__(self, folders: Sequence[Path], thresholds: Sequence[float]) -> None:
        """folders: those of the members; thresholds: of the mean, by class."""
        super().__init__(name="ensemble")
        self.members = [tf.saved_model.load(str(folder / "saved_model")) for folder in folders]
        self.thresholds = tuple(thresholds)

    def segment(self, slices: tf.Tensor) -> dict[str, tf.Tensor]:
        """probability: float32 [B, H, W, K] in 0..1; mask: uint8 [B, H, W] of class indices."""
        signature = "serving_default" if slices.dtype == tf.uint8 else "int32"
        maps = [member.signatures[signature](slices=slices) for member in self.members]
        probability = tf.add_n([each["probability"] for each in maps]) / float(len(maps))
        return {"probability": probability, "mask": predicted_mask(probability, self.thresholds)}


def _check_members(members: Sequence[Storage], manifests: Sequence[Manifest]) -> None:
    """BundleError for members whose probabilities have no mean."""
    first = manifests[0]
    for member, manifest in zip(members, manifests, strict=True):
        names, expected = ([each.name for each in m.classes] for m in (manifest, first))
        if names != expected:
            raise BundleError(
                f"{member.url} has the classes {', '.join(names)}, but {members[0].url} has "
                f"{', '.join(expected)}: an ensemble needs bundles of the same classes."
            )
        if manifest.neighbours != first.neighbours:
            raise BundleError(
                f"{member.url} is given {manifest.stack_size} slices for a mask, but "
                f"{members[0].url} {first.stack_size} (data.neighbours): an ensemble needs bundles "
                "of the same stack."
            )


def _mean_metadata(
    name: str, manifests: Sequence[Manifest], members: tuple[str, ...]
) -> BundleMetadata:
    """The metadata of an ensemble: means of numbers, the patients of all, else the first's."""
    first = manifests[0]
    trained = {patient for each in manifests for patient in each.patients.get("train", ())}
    valid_patients = {patient for each in manifests for patient in each.patients.get("valid", ())}
    common = set.intersection(*(set(each.metrics) for each in manifests)) - {"epoch"}
    fingerprints = " ".join(each.fingerprint for each in manifests)
    values = {field: getattr(first, field) for field in BundleMetadata.model_fields}
    changed = {
        "name": name,
        "created": utc_now(),
        "fingerprint": hashlib.sha256(fingerprints.encode()).hexdigest()[: len(first.fingerprint)],
        "patients": {
            "train": tuple(sorted(trained)),
            "valid": tuple(sorted(valid_patients - trained)),
        },
        "threshold": fmean(each.threshold for each in manifests),
        "class_thresholds": _mean_class_thresholds(manifests),
        "zooms": (1.0,),
        "shifts": (),
        "flips": (),
        "post_processing": _common_post_processing(manifests, members),
        "tried_settings": _common_tried_settings(manifests),
        "metrics": {
            metric: fmean(each.metrics[metric] for each in manifests) for metric in sorted(common)
        },
        "members": members,
        "parents": tuple(
            {parent.digest: parent for each in manifests for parent in each.parents}.values()
        ),
    }
    return BundleMetadata(**{**values, **changed})


def _common_tried_settings(manifests: Sequence[Manifest]) -> tuple[TriedSetting, ...]:
    """How the settings of all members were chosen together; empty if each has its own."""
    first = manifests[0].tried_settings
    return first if all(each.tried_settings == first for each in manifests) else ()


def _thresholds(metadata: BundleMetadata) -> tuple[float, ...]:
    """The threshold of each class."""
    predict = Predict(
        threshold=metadata.threshold, class_thresholds=dict(metadata.class_thresholds)
    )
    return predict.thresholds([each.name for each in metadata.classes])


def _mean_class_thresholds(manifests: Sequence[Manifest]) -> dict[str, float]:
    """The means of the thresholds by class; empty if no member has any."""
    if not any(each.class_thresholds for each in manifests):
        return {}
    names = [each.name for each in manifests[0].classes]
    means = map(fmean, zip(*map(_thresholds, manifests), strict=True))
    return dict(zip(names, means, strict=True))


def _common_post_processing(
    manifests: Sequence[Manifest], members: Sequence[str]
) -> PostProcessing:
    """The steps that all members have; a warning for the others. members: their names."""

    def common(setting: str, scopes: Sequence[MaskScope]) -> MaskScope:
        if len(set(scopes)) == 1:
            return scopes[0]
        values = ", ".join(
            f"{json.dumps(scope)} ({member})" for scope, member in zip(scopes, members, strict=True)
        )
        log.warning(
            "the members of the ensemble differ in predict.%s, which it therefore does not apply: "
            "%s; if it should, write members with the same value by `segfleet export MEMBER OUTPUT "
            "predict.%s=...`, and make the ensemble of these",
            setting,
            values,
            setting,
        )
        return "off"

    steps = [each.post_processing for each in manifests]
    return PostProcessing(
        common("largest_component", [each.largest_component for each in steps]),
        common("fill_holes", [each.fill_holes for each in steps]),
    )
