"""From a tree of DICOM series and NIfTI labels to a trained bundle and a DICOM SEG."""

import csv
import io
from pathlib import Path

import highdicom
import numpy as np
import pytest
from typer.testing import CliRunner

from contract.config import Config, Phantom
from contract.imaging.volume_files import find_volumes
from contract.storage import open_storage
from inference import __main__ as inference_commands
from tests.phantom_volumes import LOW, WIDTH, write_phantom_tree
from trainer import __main__ as trainer_commands
from trainer.data.dataset_index import prepare_dataset
from trainer.evaluation.evaluate import evaluate
from trainer.training import train_loop
from tuning import best_trial
from tuning.trainable import train_in_process


def run(app: object, *arguments: object) -> str:
    """The output of a command of segfleet."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])  # pyright: ignore[reportArgumentType]
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::UserWarning:highdicom")
def test_series_and_labels_become_a_bundle_and_a_segmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TensorFlow is initialized already, after which its threads cannot be configured.
    monkeypatch.setattr(train_loop, "configure_process", lambda train: None)
    tree, slices = tmp_path / "Pancreas", tmp_path / "slices"
    write_phantom_tree(
        tree,
        Phantom(train_patients=4, valid_patients=1, test_patients=1, slices=4, size=64),
    )
    output = run(trainer_commands.app, "import", tree / "CT", slices, "--labels", tree / "labels")
    assert "patients: 6" in output
    config = Config.model_validate(
        {
            "storage": {"root": str(tmp_path / "store")},
            "data": {
                "source": "folder",
                "root": str(slices),
                "layout": "unsplit",
                "intensity_low": LOW,
                "intensity_high": LOW + WIDTH,
                "augment": {"rotation_probability": 0.0, "scale_probability": 0.0},
            },
            "network": {"image_size": 64, "num_layers": 3, "base_filters": 8},
            "train": {
                "num_workers": 1,
                "epochs": 4,
                "steps_per_epoch": 20,
                "batch_size": 4,
                "learning_rate": 1e-2,
                "precision": "float32",
            },
        }
    )
    store = open_storage(config.storage.root)
    dataset = prepare_dataset(config.data, config.run.seed, store)
    patient = dataset.patients("train")[0]
    train_in_process(config, dataset, lambda metrics: None)
    bundle = best_trial.finalize_trial_run(config, None)

    run(
        inference_commands.app,
        "predict",
        bundle,
        tree / "CT",
        tmp_path / "masks",
        "--format",
        "dicom-seg",
    )
    (row,) = (
        row
        for row in csv.DictReader(io.StringIO((tmp_path / "masks/volumes.csv").read_text()))
        if row["patient"] == patient
    )
    segmentation = highdicom.seg.segread(tmp_path / f"masks/{patient}.dcm")
    predicted = int(np.count_nonzero(segmentation.pixel_array))
    (labels,) = (
        each
        for each in find_volumes(tree / "labels").volumes
        if each.path.endswith(f"{patient[-4:]}.nii.gz")
    )
    volume = labels.read()
    true_ml = np.count_nonzero(volume.voxels) * volume.geometry.voxel_ml
    assert float(row["foreground_ml"]) == pytest.approx(
        predicted * volume.geometry.voxel_ml, abs=0.001
    )
    assert float(row["foreground_ml"]) == pytest.approx(true_ml, rel=0.5)

    out = open_storage(str(tmp_path / "evaluation"))
    evaluation = evaluate(open_storage(bundle), dataset, "train", config.data, config.predict, out)
    assert evaluation.distance_unit == "mm"
    dice = evaluation.summary_of("dice").mean
    assert dice is not None
    assert dice > 0.5
    volumetry = {
        row["patient"]: row
        for row in csv.DictReader(io.StringIO(out.read("volumetry.csv").decode()))
    }
    assert set(volumetry) == set(dataset.patients("train"))
    assert float(volumetry[patient]["truth_ml"]) == pytest.approx(true_ml, rel=1e-3)
    assert float(volumetry[patient]["predicted_ml"]) == pytest.approx(
        float(row["foreground_ml"]), rel=1e-3
    )
