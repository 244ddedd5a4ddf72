"""An ensemble: one bundle, the mean of its members, whatever their sizes and signatures are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from contract import bundle
from contract.bundle import ParentBundle
from contract.config import Config
from contract.errors import BundleError, UserError
from contract.imaging.post_processing import PostProcessing
from contract.storage import LocalStorage
from inference.engines import OpenVinoEngine, TensorFlowEngine
from inference.predictor import load_predictor
from tests.small import WINDOW
from trainer.__main__ import app
from trainer.export import saved_model
from trainer.export.ensemble import export_ensemble
from trainer.export.prediction_settings import export_with_settings, load_changed_config
from trainer.training.finalize import bundle_metadata
from trainer.training.run_store import TrainingDataInfo
from trainer.training.train_loop import seeded_initializers

SLICES = np.random.default_rng(0).integers(0, 255, (2, 80, 64, 1), np.uint8)


GRANDPARENT, PARENT = (
    ParentBundle(
        name=name, digest=name, fingerprint="f", dataset="d", patients={"train": (patient,)}
    )
    for name, patient in (("grandparent", "x"), ("parent", "a"))
)


def make_member(folder: Path, seed: int, patients: dict[str, Any], **settings: Any) -> Path:
    """A bundle of random weights."""
    network = {"image_size": 32, "num_layers": 2, "base_filters": 4}
    config = Config.model_validate({"network": network}).with_values(
        {"run.name": folder.name, **settings}
    )
    classes = len(config.data.segmentation_classes)
    with seeded_initializers(seed):
        model = saved_model.build_inference_model(config.network, classes, config.input_channels)
    scaling = replace(WINDOW, mean=float(seed))
    data = TrainingDataInfo("0123456789abcdef", patients, scaling)
    # Both start from one bundle, and the second from one that was trained after it.
    parents = [PARENT, GRANDPARENT] if seed == 4 else [GRANDPARENT]
    best = {"epoch": seed, "val_dice_coef": seed / 10}
    metadata = bundle_metadata(config, data, best, None, parents)
    saved_model.export_bundle(model, config, metadata, LocalStorage(folder))
    return folder


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folds of a cross-validation, of which the second has another size and windows."""
    root = tmp_path_factory.mktemp("members")
    return [
        make_member(
            root / "one",
            1,
            {"train": ("a", "b"), "valid": ("c",)},
            **{"predict.fill_holes": "slice"},
        ),
        make_member(
            root / "two",
            4,
            {"train": ("b", "c"), "valid": ("a", "d")},
            **{
                "network.image_size": 64,
                "predict.sliding_window": True,
                "predict.threshold": 0.25,
                "predict.largest_component": "patient",
                "predict.fill_holes": "slice",
            },
        ),
    ]


def test_an_ensemble_predicts_the_mean_in_both_engines(members: list[Path], tmp_path: Path) -> None:
    words = ["ensemble", *map(str, members), str(tmp_path / "both")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout == f"bundle: {tmp_path / 'both'}\n"
    folders = [*members, tmp_path / "both"]
    for dtype in (np.uint8, np.int32):
        slices = SLICES.astype(dtype)
        first, second, both = (TensorFlowEngine(folder, 1).infer(slices)[0] for folder in folders)
        assert np.abs(first - second).max() > 0.01
        assert np.abs(both - (first + second) / 2).max() < 1e-6
        served, mask = OpenVinoEngine(tmp_path / "both", 1).infer(slices)
        assert np.abs(served - both).max() < 1e-3
        assert ((served[..., 0] > 0.375) == mask).all()
    # It needs neither its members nor their folders.
    assert load_predictor(LocalStorage(tmp_path / "both")).predict(SLICES[0]).mask.shape == (80, 64)


def test_its_manifest_knows_its_members_and_all_patients_that_they_have_seen(
    members: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sources = [LocalStorage(folder) for folder in members]
    manifest = export_ensemble(sources, "both", LocalStorage(tmp_path))
    assert manifest == bundle.verify(tmp_path)
    assert manifest.post_processing == PostProcessing(fill_holes="slice")
    (warning,) = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    assert (
        'differ in predict.largest_component, which it therefore does not apply: "off" (' in warning
    )
    assert f'"patient" ({manifest.members[1]}); if it should, write members' in warning
    assert "`segfleet export MEMBER OUTPUT predict.largest_component=...`" in warning
    own = [bundle.verify(folder) for folder in members]
    assert manifest.name == "both"
    digests = [bundle.identify(source)[1] for source in sources]
    assert manifest.members == (f"one {digests[0][:16]}", f"two {digests[1][:16]}")
    assert manifest.patients == {"train": ("a", "b", "c"), "valid": ("d",)}
    assert [parent.name for parent in manifest.parents] == ["grandparent", "parent"]
    assert manifest.seen_patients(["train"]) == {"a", "b", "c", "x"}
    assert manifest.threshold == 0.375
    assert manifest.metrics == {"val_dice_coef": 0.25}
    assert manifest.fingerprint not in {each.fingerprint for each in own}
    config = load_changed_config(LocalStorage(tmp_path), ["predict.threshold=0.4"])
    with pytest.raises(BundleError, match="is an ensemble, whose members have settings"):
        export_with_settings(LocalStorage(tmp_path), config, LocalStorage(tmp_path / "other"))


def test_what_has_no_mean_is_rejected(members: list[Path], tmp_path: Path) -> None:
    stacks = make_member(tmp_path / "stacks", 2, {}, **{"data.neighbours": 1})
    classes = {
        "data.source": "folder",
        "data.root": "slices",
        "data.classes": {"liver": 1, "spleen": 2},
    }
    organs = make_member(tmp_path / "organs", 3, {}, **classes)
    for others, message in (
        ([], "two bundles or more"),
        ([stacks], r"stacks is given 3 slices for a mask, but .*one 1 \(data\.neighbours\)"),
        ([organs], r"organs has the classes liver, spleen, but .*one has foreground"),
        ([tmp_path / "nothing"], "there is no bundle"),
    ):
        sources = [LocalStorage(folder) for folder in (members[0], *others)]
        with pytest.raises(UserError, match=message):
            export_ensemble(sources, "x", LocalStorage(tmp_path / "output"))
        assert not (tmp_path / "output").exists()
    with pytest.raises(BundleError, match="has a bundle already"):
        export_ensemble([LocalStorage(each) for each in members], "x", LocalStorage(members[0]))
