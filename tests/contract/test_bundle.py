"""A bundle is whole or rejected, and the rejection names the bad file."""

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract import bundle
from contract.bundle import MANIFEST, BundleMetadata, Manifest
from contract.errors import BundleError, StorageError
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.post_processing import PostProcessing
from contract.imaging.segmentation_class import single_foreground
from contract.storage import LocalStorage, Storage, open_storage

FACTS = BundleMetadata(
    name="demo",
    created="2024-05-01T12:00:00+00:00",
    commit="0" * 40,
    machine="a CPU, 2 cores",
    fingerprint="0123456789ab",
    dataset="0123456789abcdef",
    patients={"train": ("P1", "P2"), "valid": ("P3",)},
    image_size=(128, 128),
    image_channels=1,
    neighbours=0,
    classes=single_foreground(),
    intensity_scaling=IntensityScaling.from_window(0.0, 255.0),
    class_tolerance=None,
    other_values_are_background=False,
    threshold=0.5,
    metrics={"val_dice_coef": 0.81},
)
BOTH = pytest.mark.parametrize("store", ["folder", "s3"], indirect=True)
FILES = ("config.toml", "saved_model/saved_model.pb", "saved_model/variables/v", "weights.npz")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder as the trainer makes it, before it is a bundle."""
    for name in FILES:
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_text(f"content of {name}")
    return tmp_path / "made"


@pytest.fixture
def local(made: Path, tmp_path: Path) -> Path:
    """A whole bundle in a folder."""
    bundle.write_bundle(made, LocalStorage(tmp_path / "local"), FACTS)
    return tmp_path / "local"


class TestWriting:
    def test_a_bundle_knows_its_neighbours(self, made: Path, tmp_path: Path) -> None:
        stacked = FACTS.model_copy(update={"neighbours": 2})
        bundle.write_bundle(made, LocalStorage(tmp_path / "local"), stacked)
        manifest = bundle.verify(tmp_path / "local")
        assert (manifest.neighbours, manifest.stack_size) == (2, 5)
        assert FACTS.stack_size == 1

    @BOTH
    def test_a_bundle_says_what_it_holds(self, made: Path, store: Storage) -> None:
        manifest = bundle.write_bundle(made, store, FACTS)
        assert bundle.read_manifest(store).files == manifest.files
        assert sorted(manifest.files) == sorted((*FILES, "metrics.json"))
        assert [e.key for e in store.list_objects()] == sorted((*manifest.files, MANIFEST))
        assert manifest.fingerprint == FACTS.fingerprint

    def test_metrics_that_are_no_numbers_survive(self, made: Path, store: Storage) -> None:
        odd = {"val_dice_coef": 0.81, "val_loss": math.nan}
        bundle.write_bundle(made, store, FACTS.model_copy(update={"metrics": odd}))
        metrics = bundle.read_manifest(store).metrics
        assert metrics["val_dice_coef"] == 0.81
        assert math.isnan(metrics["val_loss"])
        assert json.loads(store.read("metrics.json"))["val_dice_coef"] == 0.81

    def test_a_folder_may_become_a_bundle_in_place(self, made: Path) -> None:
        bundle.write_bundle(made, LocalStorage(made), FACTS)
        assert bundle.verify(made).name == "demo"

    def test_a_bundle_being_replaced_is_no_bundle_until_it_is_done(
        self, made: Path, local: Path
    ) -> None:
        (made / "broken").symlink_to("nowhere")
        (made / "broken2").mkdir()
        (local / "config.toml").unlink()
        (local / "config.toml").mkdir()
        with pytest.raises(StorageError):
            bundle.write_bundle(made, LocalStorage(local), FACTS)
        with pytest.raises(BundleError, match="incomplete"):
            bundle.verify(local)


class TestDamage:
    def test_a_whole_bundle_passes(self, local: Path) -> None:
        assert bundle.verify(local) == bundle.read_manifest(LocalStorage(local))
        assert bundle.fetch(LocalStorage(local)) == local

    def test_files_of_the_user_are_allowed(self, local: Path) -> None:
        (local / "notes.txt").write_text("the good one")
        assert "notes.txt" not in bundle.verify(local).files

    @pytest.mark.parametrize("name", [*FILES, "metrics.json"])
    def test_a_missing_file_is_named(self, local: Path, name: str) -> None:
        (local / name).unlink()
        with pytest.raises(BundleError, match=f"lacks {name}"):
            bundle.verify(local)

    @pytest.mark.parametrize("name", [*FILES, "metrics.json"])
    def test_a_changed_file_is_named(self, local: Path, name: str) -> None:
        data = bytearray((local / name).read_bytes())
        data[-1] ^= 1
        (local / name).write_bytes(data)
        with pytest.raises(BundleError, match=f"^{name} of the bundle .*local has changed"):
            bundle.fetch(LocalStorage(local))

    def test_without_its_manifest_it_is_incomplete(self, made: Path) -> None:
        with pytest.raises(BundleError, match=r"made is incomplete: it has no manifest\.json"):
            bundle.verify(made)

    @BOTH
    def test_nothing_at_all(self, store: Storage) -> None:
        with pytest.raises(BundleError, match=r"there is no bundle at .*runs/<run\.name>/bundle"):
            bundle.read_manifest(store)

    @BOTH
    def test_a_folder_of_anything_else_is_no_bundle(self, store: Storage) -> None:
        store.write("images/P1-0.png", b"a slice")
        with pytest.raises(BundleError) as caught:
            bundle.read_manifest(store)
        message = str(caught.value)
        assert message.startswith(
            f"{store.url} is not a bundle (a trained network with a manifest.json): "
        )
        assert "a training wrote (<storage.root>/runs/<run.name>/bundle)" in message

    @BOTH
    def test_a_run_is_reported_from_its_bundle(self, made: Path, store: Storage) -> None:
        bundle.write_bundle(made, store.child("bundle"), FACTS)
        with pytest.raises(BundleError, match=r"is a run, not a bundle: give .*/bundle\.$"):
            bundle.read_manifest(store)

    def test_a_file_is_not_a_bundle(self, tmp_path: Path) -> None:
        (tmp_path / "demo.toml").touch()
        with pytest.raises(
            BundleError, match=r"demo\.toml is a file, not a bundle: name the folder"
        ):
            bundle.read_manifest(LocalStorage(tmp_path / "demo.toml"))

    def test_a_truncated_manifest(self, local: Path) -> None:
        whole = (local / MANIFEST).read_bytes()
        for length in range(0, len(whole) - 1, 97):
            (local / MANIFEST).write_bytes(whole[:length])
            with pytest.raises(BundleError, match=r"manifest\.json is damaged"):
                bundle.verify(local)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda tree: tree.update(schema_version=3), "schema version 3, .* reads 2"),
            (lambda tree: tree.update(schema_version=0), "schema version 0, .* reads 2"),
            (lambda tree: tree.pop("schema_version"), "has no schema_version"),
            (lambda tree: tree.update(schema_version="2"), "has no schema_version"),
            (lambda tree: tree.pop("threshold"), "damaged .threshold: Field required"),
            (lambda tree: tree.update(files={"../../etc/passwd": "0"}), "is not a valid key"),
            (lambda tree: tree.update(files={"/etc/passwd": "0"}), "is not a valid key"),
        ],
    )
    def test_a_strange_manifest(
        self, local: Path, change: Callable[[dict[str, Any]], None], reason: str
    ) -> None:
        tree = json.loads((local / MANIFEST).read_text())
        change(tree)
        (local / MANIFEST).write_text(json.dumps(tree))
        with pytest.raises(BundleError, match=f"{MANIFEST} .*{reason}"):
            bundle.verify(local)

    def test_a_manifest_of_fewer_fields_has_the_defaults(self, local: Path) -> None:
        tree = json.loads((local / MANIFEST).read_text())
        for name in (
            "class_thresholds",
            "zooms",
            "shifts",
            "flips",
            "post_processing",
            "tried_settings",
            "members",
            "parents",
        ):
            del tree[name]
        (local / MANIFEST).write_text(json.dumps(tree))
        manifest = bundle.verify(local)
        assert (manifest.class_thresholds, manifest.zooms, manifest.shifts) == ({}, (1.0,), ())
        assert manifest.post_processing == PostProcessing("off", "off")
        assert (manifest.parents, manifest.tried_settings) == ((), ())
        assert manifest.seen_patients(["train"]) == {"P1", "P2"}

    def test_a_manifest_that_is_a_list(self, local: Path) -> None:
        (local / MANIFEST).write_text("[1]")
        with pytest.raises(BundleError, match="has no schema_version"):
            bundle.verify(local)


class TestFetching:
    @pytest.fixture
    def remote(self, made: Path, s3: str) -> Storage:
        """A whole bundle in S3."""
        store = open_storage(f"{s3}/runs/demo/bundle")
        bundle.write_bundle(made, store, FACTS)
        return store

    def test_a_copy_is_whole_and_made_once(self, remote: Storage, tmp_path: Path) -> None:
        remote.write("notes.txt", b"not listed")
        first = bundle.fetch(remote, tmp_path / "cache")
        stamp = (first / "weights.npz").stat().st_mtime_ns
        assert bundle.verify(first) == bundle.read_manifest(remote)
        assert not (first / "notes.txt").exists()
        assert bundle.fetch(remote, tmp_path / "cache") == first
        assert (first / "weights.npz").stat().st_mtime_ns == stamp
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]

    def test_a_damaged_copy_is_made_again(self, remote: Storage, tmp_path: Path) -> None:
        first = bundle.fetch(remote, tmp_path / "cache")
        (first / "weights.npz").write_text("garbage")
        assert bundle.fetch(remote, tmp_path / "cache") == first
        bundle.verify(first)

    def test_another_content_is_another_copy(
        self, made: Path, remote: Storage, tmp_path: Path
    ) -> None:
        first = bundle.fetch(remote, tmp_path / "cache")
        bundle.write_bundle(made, remote, FACTS.model_copy(update={"threshold": 0.4}))
        second = bundle.fetch(remote, tmp_path / "cache")
        assert (bundle.verify(first).threshold, bundle.verify(second).threshold) == (0.5, 0.4)

    def test_a_missing_object_is_named(self, remote: Storage, tmp_path: Path) -> None:
        remote.delete("weights.npz")
        with pytest.raises(BundleError, match=r"s3://.*/bundle lacks weights\.npz"):
            bundle.fetch(remote, tmp_path / "cache")

    def test_a_changed_object_is_named(self, remote: Storage, tmp_path: Path) -> None:
        remote.write("saved_model/variables/v", b"other")
        with pytest.raises(BundleError, match=r"^saved_model/variables/v of the bundle s3://"):
            bundle.fetch(remote, tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == []

    def test_processes_that_fetch_at_once_share_one_copy(
        self, remote: Storage, tmp_path: Path
    ) -> None:
        got: list[Path] = []
        threads = [
            threading.Thread(target=lambda: got.append(bundle.fetch(remote, tmp_path / "cache")))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 4
        assert len(set(got)) == 1
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [got[0].name]


def test_the_digest_stands_for_the_content(made: Path, store: Storage) -> None:
    bundle.write_bundle(made, store.child("a"), FACTS)
    bundle.write_bundle(made, store.child("b"), FACTS)
    bundle.write_bundle(made, store.child("c"), FACTS.model_copy(update={"threshold": 0.4}))
    a, b, c = (bundle.identify(store.child(name))[1] for name in "abc")
    assert a == b != c


def test_a_manifest_describes_itself() -> None:
    assert set(Manifest.model_fields) == {*BundleMetadata.model_fields, "schema_version", "files"}
