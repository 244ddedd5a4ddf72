"""A host follows the registry, and keeps what it has where the new one cannot be served."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import BundleError, RegistryError
from contract.registry import Registry
from contract.storage import LocalStorage, open_storage
from inference.serving.model_manager import ModelManager


@pytest.fixture
def registry(make_bundle: Any, bright: LocalStorage, tmp_path: Path) -> Registry:
    """bright@production at version 1 of 2."""
    made = Registry(open_storage(str(tmp_path)))
    made.register("bright", bright.url)
    made.register("bright", make_bundle(0.2).url)
    made.promote("bright", 1, "production")
    return made


def host(reference: str, folder: Path) -> ModelManager:
    return ModelManager(reference, str(folder), threads=1, gpu=False)


def test_a_promotion_is_followed_and_a_roll_back_too(registry: Registry, tmp_path: Path) -> None:
    follower = host("bright@production", tmp_path)
    follower.load()
    dim = np.full((32, 32, 1), 80, np.uint8)
    first = follower.current
    assert not first.predictor.predict([dim])[0].mask.any()
    registry.promote("bright", 2, "production")
    follower.refresh()
    assert follower.current.label == "bright@2"
    assert follower.current.predictor.predict([dim])[0].mask[16, 16]
    registry.rollback("bright", "production")
    follower.refresh()
    assert follower.current.label == "bright@1"


def test_nothing_new_is_not_opened_again(registry: Registry, tmp_path: Path) -> None:
    assert registry.stages("bright")
    follower = host("bright@production", tmp_path)
    follower.load()
    before = follower.current
    follower.refresh()
    assert follower.current is before


def test_a_version_is_stayed_at(registry: Registry, tmp_path: Path) -> None:
    follower = host("bright@2", tmp_path)
    follower.load()
    registry.promote("bright", 1, "production")
    follower.refresh()
    assert follower.current.label == "bright@2"


def test_what_cannot_be_hosted_is_a_problem_and_changes_nothing(
    registry: Registry, make_bundle: Any, failing: LocalStorage, tmp_path: Path
) -> None:
    follower = host("bright@production", tmp_path)
    follower.load()
    registry.promote("bright", damaged(registry, make_bundle(0.9)), "production")
    follower.refresh()
    assert follower.current.label == "bright@1"
    assert follower.load_error is not None
    assert "saved_model.pb" in follower.load_error
    registry.promote("bright", registry.register("bright", failing.url).version, "production")
    follower.refresh()
    assert follower.current.label == "bright@1"
    assert follower.load_error == "bright@production cannot be served: InvalidArgumentError."
    registry.promote("bright", 2, "production")
    follower.refresh()
    assert (follower.current.label, follower.load_error) == ("bright@2", None)


def test_a_host_that_starts_falls_back_to_what_the_stage_stood_at(
    registry: Registry, make_bundle: Any, failing: LocalStorage, tmp_path: Path
) -> None:
    registry.promote("bright", registry.register("bright", failing.url).version, "production")
    registry.promote("bright", damaged(registry, make_bundle(0.9)), "production")
    follower = host("bright@production", tmp_path)
    follower.load()
    assert follower.current.label == "bright@1"
    assert follower.load_error is not None
    assert "saved_model.pb" in follower.load_error
    follower.refresh()
    assert "saved_model.pb" in follower.load_error
    registry.promote("bright", 2, "production")
    follower.refresh()
    assert (follower.current.label, follower.load_error) == ("bright@2", None)


def damaged(registry: Registry, bundle: LocalStorage) -> int:
    """The version of a bundle whose graph is lost once it is registered."""
    number = registry.register("bright", bundle.url).version
    (bundle.path / "saved_model/saved_model.pb").write_bytes(b"")
    return number


def test_the_first_bundle_must_be_there(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="there is no model 'unknown'"):
        host("unknown@production", tmp_path).load()
    version = registry.resolve("bright@1")
    (Path(version.bundle) / "weights.npz").rename(Path(version.bundle) / "moved")
    try:
        with pytest.raises(BundleError, match=r"weights\.npz"):
            host("bright@1", tmp_path).load()
    finally:
        (Path(version.bundle) / "moved").rename(Path(version.bundle) / "weights.npz")
