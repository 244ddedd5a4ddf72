"""A model manager follows the registry, and keeps its model if the new one cannot be served."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import BundleError, RegistryError
from contract.registry import Registry
from contract.storage import LocalStorage, open_storage
from inference.serving.model_manager import ModelManager
from tests.inference.conftest import promote_damaged


@pytest.fixture
def registry(make_bundle: Any, bright_bundle: LocalStorage, tmp_path: Path) -> Registry:
    """bright@production at version 1 of 2."""
    registry = Registry(open_storage(str(tmp_path)))
    registry.register("bright", bright_bundle.url)
    registry.register("bright", make_bundle(0.2).url)
    registry.promote("bright", 1, "production")
    return registry


def create_manager(reference: str, folder: Path) -> ModelManager:
    return ModelManager(reference, str(folder), threads=1, gpu=False)


def test_promotions_and_rollbacks_are_followed(registry: Registry, tmp_path: Path) -> None:
    manager = create_manager("bright@production", tmp_path)
    manager.load()
    dim = np.full((32, 32, 1), 80, np.uint8)
    assert not manager.current.predictor.predict_batch([dim])[0].mask.any()
    registry.promote("bright", 2, "production")
    manager.refresh()
    assert manager.current.label == "bright@2"
    assert manager.current.predictor.predict_batch([dim])[0].mask[16, 16]
    registry.rollback("bright", "production")
    manager.refresh()
    assert manager.current.label == "bright@1"


@pytest.mark.usefixtures("registry")
def test_an_unchanged_version_is_not_loaded_again(tmp_path: Path) -> None:
    manager = create_manager("bright@production", tmp_path)
    manager.load()
    model = manager.current
    manager.refresh()
    assert manager.current is model


def test_a_reference_to_a_version_ignores_promotions(registry: Registry, tmp_path: Path) -> None:
    manager = create_manager("bright@2", tmp_path)
    manager.load()
    registry.promote("bright", 1, "production")
    manager.refresh()
    assert manager.current.label == "bright@2"


def test_a_model_that_cannot_be_served_is_a_load_error_and_changes_nothing(
    registry: Registry, make_bundle: Any, failing_bundle: LocalStorage, tmp_path: Path
) -> None:
    manager = create_manager("bright@production", tmp_path)
    manager.load()
    promote_damaged(registry, make_bundle(0.9))
    manager.refresh()
    assert manager.current.label == "bright@1"
    assert manager.load_error is not None
    assert "saved_model.pb" in manager.load_error
    failing = registry.register("bright", failing_bundle.url).version
    registry.promote("bright", failing, "production")
    manager.refresh()
    assert manager.current.label == "bright@1"
    assert manager.load_error == "bright@production cannot be served: InvalidArgumentError."
    registry.promote("bright", 2, "production")
    manager.refresh()
    assert (manager.current.label, manager.load_error) == ("bright@2", None)


def test_the_first_load_falls_back_to_an_earlier_version_of_the_stage(
    registry: Registry, make_bundle: Any, failing_bundle: LocalStorage, tmp_path: Path
) -> None:
    failing = registry.register("bright", failing_bundle.url).version
    registry.promote("bright", failing, "production")
    promote_damaged(registry, make_bundle(0.9))
    manager = create_manager("bright@production", tmp_path)
    manager.load()
    assert manager.current.label == "bright@1"
    assert manager.load_error is not None
    assert "saved_model.pb" in manager.load_error
    manager.refresh()
    assert "saved_model.pb" in manager.load_error
    registry.promote("bright", 2, "production")
    manager.refresh()
    assert (manager.current.label, manager.load_error) == ("bright@2", None)


def test_without_any_valid_version_the_first_load_fails(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="there is no model 'unknown'"):
        create_manager("unknown@production", tmp_path).load()
    bundle = Path(registry.resolve("bright@1").bundle)
    (bundle / "weights.npz").rename(bundle / "moved")
    try:
        with pytest.raises(BundleError, match=r"weights\.npz"):
            create_manager("bright@1", tmp_path).load()
    finally:
        (bundle / "moved").rename(bundle / "weights.npz")
