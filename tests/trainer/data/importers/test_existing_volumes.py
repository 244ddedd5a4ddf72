"""Volumes of an existing dataset keep their names, and other volumes never replace them."""

from pathlib import Path

import numpy as np
import pytest

from contract.config import Data
from contract.errors import DataError
from contract.imaging.decode import read_image
from contract.imaging.volume import Volume
from contract.storage import LocalStorage
from tests.volumes import standard_labels, standard_volume, write_nifti, write_series
from trainer.data.dataset_index import prepare_dataset
from trainer.data.importers.dataset_import import ImportResult, plan_import, run_import
from trainer.data.importers.existing_volumes import list_records
from trainer.data.importers.patients import PatientRule
from trainer.data.importers.slice_files import ImportOptions

LABELS = standard_labels()


def write_patients(folder: Path, *names: str, seed: int = 0) -> None:
    """Series with a PatientID of their own, and labels."""
    for number, name in enumerate(names):
        volume = standard_volume(seed=seed + number)
        write_series(folder / "CT" / name, volume, PatientID=f"MRN{seed}{number}")
        write_nifti(folder / f"labels/{name}.nii.gz", LABELS)


def import_folder(folder: Path, output: LocalStorage, source: str = "CT") -> ImportResult:
    rule = PatientRule("patient-id") if source == "patient-id" else PatientRule()
    sources = [folder / ("CT" if source == "patient-id" else source)]
    tasks, result = plan_import(sources, [folder / "labels"], output, rule, ImportOptions())
    run_import(tasks, result, output)
    return result


def files_of(output: LocalStorage) -> dict[str, int]:
    return {info.key: info.size for info in output.list_objects()}


def test_another_patient_of_the_same_name_is_an_error(tmp_path: Path) -> None:
    output = LocalStorage(tmp_path / "out")
    write_patients(tmp_path / "A", "P1", "P2")
    write_patients(tmp_path / "B", "p1", "P3", seed=50)
    import_folder(tmp_path / "A", output)
    before = files_of(output)
    result = import_folder(tmp_path / "B", output)
    (message,) = result.failures.values()
    assert message.startswith(f"{output.url} has a patient P1 already, whose volume is not ")
    assert "delete " in message
    assert [record.name for record in result.records] == ["P3"]
    after = files_of(output)
    assert {key: after[key] for key in before if key != "volumes.json"} == {
        key: size for key, size in before.items() if key != "volumes.json"
    }
    output.delete("volumes/P1.json")
    assert not import_folder(tmp_path / "B", output).failures


def test_a_volume_under_another_name_is_an_error(tmp_path: Path) -> None:
    output = LocalStorage(tmp_path / "out")
    write_patients(tmp_path, "P1", "P2")
    import_folder(tmp_path, output)
    result = import_folder(tmp_path, output, "patient-id")
    assert [record.name for record in list_records(output)] == ["P1", "P2"]
    assert len(result.failures) == 2
    for message, (name, identifier) in zip(
        result.failures.values(), (("P1", "MRN00"), ("P2", "MRN01")), strict=True
    ):
        assert f"already, as the patient {name} and not {identifier}" in message


def test_volumes_keep_their_names_if_others_are_added(tmp_path: Path) -> None:
    output = LocalStorage(tmp_path / "out")
    for seed, name in enumerate(("a", "b")):
        volume = standard_volume(seed=seed)
        write_series(tmp_path / "CT/P1" / name, volume, StudyInstanceUID="1.2.3")
    for name, expected in (("b", ["P1"]), ("a", ["P1-v2", "P1"])):
        write_nifti(tmp_path / f"labels/P1/{name}/P1.nii.gz", LABELS)
        result = import_folder(tmp_path, output, "CT/P1")
        assert not result.failures
        assert sorted(record.name for record in result.records) == sorted(expected)
        assert read_image(output, "images/P1-0000.tif")[0, 0, 0] == -999


@pytest.mark.parametrize("change", ["labels", "record"])
def test_slices_without_a_record_are_not_trained_on(change: str, tmp_path: Path) -> None:
    output = LocalStorage(tmp_path / "out")
    write_patients(tmp_path, "P1", "P2", "P3", "P4")
    import_folder(tmp_path, output)
    data = Data(
        source="folder", root=output.url, layout="unsplit", mask_threshold=0, test_fraction=0.3
    )
    prepare_dataset(data, 0, LocalStorage(tmp_path / "storage"))
    before = files_of(output)
    if change == "labels":
        # A volume whose new labels are damaged stays as it was.
        negative = Volume(LABELS.voxels.astype(np.int16) - 1, LABELS.affine)
        write_nifti(tmp_path / "labels/P1.nii.gz", negative)
        assert len(import_folder(tmp_path, output).failures) == 1
        assert files_of(output) == before
        prepare_dataset(data, 0, LocalStorage(tmp_path / "storage"))
    else:
        output.delete("volumes/P1.json")
        with pytest.raises(DataError, match=r"has 5 slices, such as images/P1-0000.tif, of vol"):
            prepare_dataset(data, 0, LocalStorage(tmp_path / "storage"))
