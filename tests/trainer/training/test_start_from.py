"""Fine-tuning: which bundle a run starts from, which layers it gets, and whose patients it saw."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract import bundle
from contract.bundle import ParentBundle
from contract.config import Config
from contract.errors import DataError, TrainingError
from contract.imaging.mask_encoding import threshold_encoding
from contract.registry import Registry
from contract.storage import LocalStorage, Storage, open_storage
from tests.small import NETWORK, WINDOW
from trainer.data.dataset_index import SPLITS, Dataset, SliceRecord
from trainer.export.ensemble import export_ensemble
from trainer.export.saved_model import build_inference_model, export_bundle
from trainer.training import checkpoints, run_store, start_from
from trainer.training.finalize import bundle_metadata, finalize_run
from trainer.training.run_store import TrainingDataInfo
from trainer.training.train_loop import build_compiled_model

GRANDPARENT = ParentBundle(
    name="first", digest="0" * 64, fingerprint="f", dataset="d", patients={"train": ("old",)}
)
METRICS = {"epoch": 1.0, "val_dice_coef": 0.5}


def dataset(**patients: str) -> Dataset:
    """A dataset with one patient in each split."""
    names = {"train": "a", "valid": "b", "test": "c", **patients}
    slices = tuple(
        SliceRecord(f"{names[split]}-1", names[split], split, "i", "m", 32, 32, (0.1,))
        for split in SPLITS
    )
    return Dataset("/slices", slices, "0123456789abcdef", threshold_encoding(127))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the run "parent", whose bundle was itself started from another one."""
    root = tmp_path_factory.mktemp("exported")
    config = Config.model_validate({"run": {"name": "parent"}, "network": NETWORK})
    model = build_inference_model(config.network, 1, 1)
    model.set_weights([value + 7.0 for value in model.get_weights()])
    data = TrainingDataInfo("d", {"train": ("p", "q"), "valid": ("r",)}, WINDOW)
    metadata = bundle_metadata(config, data, METRICS, None, [GRANDPARENT])
    export_bundle(model, config, metadata, LocalStorage(root / "runs" / "parent" / "bundle"))
    return root


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "store")


def settings(root: Path, **values: Any) -> Config:
    train = {"num_workers": 1, "batch_size": 1, "start_from": "parent"}
    tree = {"run": {"name": "tuned"}, "storage": {"root": str(root)}, "train": train}
    return Config.model_validate({**tree, "network": NETWORK}).with_values(values)


def start(config: Config, slices: Dataset | None = None) -> tuple[Config, Storage]:
    """A run that is started; its settings with the digest, and its storage."""
    run = run_store.run_storage(config)
    pinned = start_from.pin_start_from(config, run)
    run_store.create_run(run, pinned, slices or dataset())
    return pinned, run


def save_epoch(run: Storage, state: list[np.ndarray]) -> None:
    checkpoints.save_checkpoint(run.child("checkpoints"), state, [METRICS])


def test_the_fingerprint_has_the_digest_and_not_the_address(root: Path) -> None:
    by_name, by_folder = (
        start_from.pin_start_from(
            settings(root, **{"train.start_from": reference}), LocalStorage(root / "none")
        )
        for reference in ("parent", str(root / "runs" / "parent"))
    )
    _, digest = bundle.identify(LocalStorage(root / "runs" / "parent" / "bundle"))
    assert by_name.train.start_from == f"parent@sha256:{digest}"
    assert by_name.fingerprint() == by_folder.fingerprint()
    assert by_name.fingerprint() != settings(root, **{"train.start_from": None}).fingerprint()


def test_a_network_starts_with_all_weights_of_the_bundle(root: Path) -> None:
    config, run = start(settings(root))
    model = build_compiled_model(config)
    iterations = model.optimizer.iterations.numpy()
    start_from.load_start_weights(model, config, run)
    with np.load(root / "runs" / "parent" / "bundle" / "weights.npz") as file:
        expected = [file[name] for name in sorted(file.files)]
    for value, other in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(value, other)
    assert model.optimizer.iterations.numpy() == iterations == 0
    assert json.loads(run.read("loaded_layers.json"))["not_loaded"] == []


def test_layers_of_another_network_that_fit_are_loaded_and_the_others_named(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = {"network.name": "attention_unet", "data.source": "folder", "data.root": "/slices"}
    classes = {"data.classes.a": 1, "data.classes.b": 2}
    config = start_from.pin_start_from(settings(root, **other, **classes), LocalStorage(root))
    run, model = LocalStorage(root / "run"), build_compiled_model(config)
    start_from.load_start_weights(model, config, run)
    layers = json.loads(run.read("loaded_layers.json"))
    assert "probability" in layers["not_loaded"]
    assert "decoder_0_attention_gate" in layers["not_loaded"]
    assert {"encoder_0_1_conv", "decoder_0_upsample"} <= set(layers["loaded"])
    reports: list[object] = []
    on_progress = start_from.log_layers_once(run, "tuned", lambda *report: reports.append(report))
    on_progress(0, None, "building")
    assert caplog.messages == []
    on_progress(1, 9, "")
    on_progress(2, 9, "")
    total = sum(map(len, layers.values()))
    (message,) = caplog.messages
    assert f"in {len(layers['loaded'])} of {total} layers; the others" in message
    assert "decoder_0_attention_features" in message
    assert len(reports) == 3


def test_a_network_that_no_layer_fits_is_an_error(root: Path) -> None:
    config, run = start(settings(root, **{"network.base_filters": 6}))
    with pytest.raises(
        TrainingError,
        match=r"start_from = 'parent@sha.*: no layer of its network unet .* a layer of unet: start",
    ):
        start_from.load_start_weights(build_compiled_model(config), config, run)


def test_an_ensemble_or_a_missing_bundle_starts_no_run(root: Path) -> None:
    member = LocalStorage(root / "runs" / "parent" / "bundle")
    export_ensemble([member, member], "both", LocalStorage(root / "both"))
    for reference, reason in (
        (str(root / "both"), "is an ensemble"),
        ("nothing", "there is no bundle at"),
        ("nothing@production", "there is no model 'nothing'"),
    ):
        with pytest.raises(TrainingError, match=rf"^train\.start_from = '.*: .*{reason}"):
            start(settings(root, **{"train.start_from": reference}))
    assert not (root / "runs" / "tuned").exists()


@pytest.mark.parametrize(
    ("split", "patient", "rejected"),
    [
        ("train", "p", False),
        ("valid", "p", True),
        ("valid", "r", False),
        ("test", "r", True),
        ("test", "old", True),
    ],
)
def test_patients_that_trained_the_bundle_or_one_before_it_are_not_tested(
    split: str, patient: str, rejected: bool, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slices = dataset(**{split: patient})
    if not rejected:
        start(settings(root), slices)
        return
    match = rf"data leakage: .* on 1 patient of .* \({patient}\): move them to the train split"
    with pytest.raises(DataError, match=match):
        start(settings(root), slices)
    assert not (root / "runs" / "tuned").exists()
    start(settings(root, **{"data.allow_patient_overlap": True}), slices)
    assert "not of new patients" in caplog.text


def test_a_bundle_names_those_that_it_was_started_from(root: Path) -> None:
    config, run = start(settings(root))
    weights = build_inference_model(config.network, 1, 1).get_weights()
    save_epoch(run, weights)
    finalize_run(run, config, [METRICS], None)
    manifest, _ = bundle.identify(run.child("bundle"))
    source, digest = bundle.identify(LocalStorage(root / "runs" / "parent" / "bundle"))
    assert [parent.name for parent in manifest.parents] == ["parent", "first"]
    assert (manifest.parents[0].digest, manifest.parents[0].fingerprint) == (
        digest,
        source.fingerprint,
    )
    assert manifest.seen_patients(["train", "valid"]) == {"a", "b", "old", "p", "q", "r"}
    assert manifest.fingerprint == config.fingerprint()


def test_a_run_resumes_with_its_bundle_although_the_stage_has_moved(root: Path) -> None:
    registry = Registry(open_storage(str(root)))
    source = str(root / "runs" / "parent" / "bundle")
    registry.register("pancreas", source)
    registry.promote("pancreas", 1, "production")
    config, run = start(settings(root, **{"train.start_from": "pancreas@production"}))
    # A second version.
    manifest = json.loads((Path(source) / "manifest.json").read_text(encoding="utf-8"))
    manifest["name"] = "another"
    (Path(source) / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    registry.register("pancreas", source)
    registry.promote("pancreas", 2, "production")
    again, _ = start(settings(root, **{"train.start_from": "pancreas@production"}))
    assert again == config
    # Without an epoch the run still needs the bundle; with one it does not.
    for version in registry.versions("pancreas"):
        shutil.rmtree(version.bundle)
    with pytest.raises(TrainingError, match=r"start_from = 'pancreas@production@sha256.*missing"):
        start(settings(root, **{"train.start_from": "pancreas@production"}))
    save_epoch(run, [np.zeros(3)])
    start(settings(root, **{"train.start_from": "pancreas@production"}))
    with pytest.raises(TrainingError, match=r"train\.start_from was 'sha256:.*', now None"):
        start(settings(root, **{"train.start_from": None}))
