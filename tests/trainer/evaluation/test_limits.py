"""The limits of an evaluation that its dataset shows."""

import dataclasses
from pathlib import Path

from contract.bundle import Manifest, ParentBundle, TriedSetting, read_manifest
from contract.storage import LocalStorage
from tests.trainer.conftest import Prepared
from tests.trainer.evaluation.test_surface_scorer import tilted_record
from trainer.data.dataset_index import Dataset
from trainer.data.importers.slice_files import ImportOptions
from trainer.evaluation.limits import find_limits


def changed(dataset: Dataset, **values: object) -> Dataset:
    """The dataset with values of its test slices replaced."""
    slices = [dataclasses.replace(each, **values) for each in dataset.select("test")]
    return dataclasses.replace(dataset, slices=tuple(slices))


def manifest_of(bundle: Path) -> Manifest:
    return read_manifest(LocalStorage(bundle))


def test_new_patients_with_empty_slices_have_the_limit_of_pixels_alone(
    prepared: Prepared, thresholding: Path
) -> None:
    manifest = manifest_of(thresholding)
    (limit,) = find_limits(prepared.dataset, "test", manifest, {}, "px")
    assert "HD95 and surface Dice are in pixels" in limit
    assert find_limits(prepared.dataset, "test", manifest, {}, "mm") == ()


def test_each_limit_is_named(prepared: Prepared, thresholding: Path) -> None:
    manifest = manifest_of(thresholding)
    dataset = changed(
        prepared.dataset,
        class_fractions=(0.1,),
        mask="masks/x.JPG",
        image="images/v-crop40-0001.tif",
    )
    options = ImportOptions(foreground_only=True)
    volumes = {"v": tilted_record("v").model_copy(update={"options": options})}
    limits = find_limits(dataset, "test", manifest, volumes, "mm")
    starts = ("Here every slice has foreground", "Volumes were imported", "6 of 6 slices are")
    assert [limit[: len(start)] for limit, start in zip(limits, starts, strict=False)] == [*starts]
    assert limits[3].startswith("6 of 6 masks are JPEG files")
    # The name looks like that of an import, but there was none.
    assert not any(
        "center crops" in each for each in find_limits(dataset, "test", manifest, {}, "mm")
    )


def test_patients_of_the_training_are_named(prepared: Prepared, thresholding: Path) -> None:
    manifest = manifest_of(thresholding)
    trained = find_limits(changed(prepared.dataset, patient="a"), "test", manifest, {}, "mm")
    assert trained[0].startswith("1 of 1 patients have the name of a patient that the network")
    assert trained[1].startswith("There is one patient")
    (chosen, *_) = find_limits(prepared.dataset, "valid", manifest, {}, "mm")
    assert "best checkpoint of the network was chosen" in chosen
    assert "settings of the prediction" not in chosen


def test_patients_that_the_settings_of_the_prediction_were_chosen_on_are_named(
    prepared: Prepared, thresholding: Path
) -> None:
    tried = TriedSetting(setting="predict.threshold", value="0.4", dice=0.9, chosen=True)
    manifest = manifest_of(thresholding).model_copy(update={"tried_settings": (tried,)})
    (chosen, *_) = find_limits(prepared.dataset, "valid", manifest, {}, "mm")
    assert "best checkpoint of the network was chosen" in chosen
    assert chosen.endswith("Its settings of the prediction were also chosen on 1 of them.")
    assert find_limits(prepared.dataset, "test", manifest, {}, "mm") == ()


def test_patients_of_a_bundle_that_the_training_started_from_are_named(
    prepared: Prepared, thresholding: Path
) -> None:
    fields = {"name": "before", "digest": "d", "fingerprint": "f", "dataset": "x"}
    parent = ParentBundle(patients={"train": ("half",), "valid": ("wide",)}, **fields)
    manifest = manifest_of(thresholding).model_copy(update={"parents": (parent,)})
    trained, chosen = find_limits(prepared.dataset, "test", manifest, {}, "mm")
    assert trained.startswith("1 of 5 patients")
    assert "the network or a bundle that its training started from was trained on" in trained
    assert "best checkpoint of the network or a bundle that its training started from" in chosen
