"""Versions and stages: logs that two may write at once, and neither loses silently."""

import json
import threading
from pathlib import Path

import pytest

from contract import bundle
from contract.bundle import BundleMetadata
from contract.config.start_from import add_digest
from contract.errors import BundleError, RegistryError
from contract.imaging.intensity_scaling import IntensityScaling
from contract.imaging.segmentation_class import single_foreground
from contract.registry import (
    Registry,
    StageTransition,
    open_bundle,
    parse_reference,
    rollback_targets,
)
from contract.storage import Storage, open_storage
from contract.timestamps import utc_now

BOTH = pytest.mark.parametrize("store", ["folder", "s3"], indirect=True)


def write_bundle(store: Storage, tmp_path: Path, name: str, dice: float = 0.8) -> str:
    """A bundle at runs/<name>/bundle of a store; its address."""
    folder = tmp_path / "made" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.npz").write_text(name)
    metadata = BundleMetadata(
        created=utc_now(),
        name=name,
        commit=None,
        machine="a CPU",
        fingerprint="0123456789ab",
        dataset="0123456789abcdef",
        patients={},
        image_size=(128, 128),
        image_channels=1,
        neighbours=0,
        classes=single_foreground(),
        intensity_scaling=IntensityScaling.from_window(0.0, 255.0),
        class_tolerance=None,
        other_values_are_background=False,
        threshold=0.5,
        metrics={"val_dice_coef": dice},
    )
    destination = store.child(f"runs/{name}/bundle")
    bundle.write_bundle(folder, destination, metadata)
    return destination.url


@pytest.fixture
def registry(store: Storage, tmp_path: Path) -> Registry:
    """Three versions of one model, and no stage."""
    registry = Registry(store)
    for number in (1, 2, 3):
        registry.register("pancreas", write_bundle(store, tmp_path, f"run-{number}", number / 10))
    return registry


class TestVersions:
    @BOTH
    def test_they_count_from_one(self, registry: Registry) -> None:
        versions = registry.versions("pancreas")
        assert [version.version for version in versions] == [1, 2, 3]
        assert [version.metrics["val_dice_coef"] for version in versions] == [0.1, 0.2, 0.3]
        assert registry.names() == ["pancreas"]
        assert registry.resolve("pancreas@2") == versions[1]

    def test_a_bundle_is_registered_once(self, registry: Registry) -> None:
        first = registry.versions("pancreas")[0]
        assert registry.register("pancreas", first.bundle) == first
        assert len(registry.versions("pancreas")) == 3

    def test_a_bundle_that_was_replaced_is_a_new_version(
        self, registry: Registry, store: Storage, tmp_path: Path
    ) -> None:
        address = write_bundle(store, tmp_path, "run-1", dice=0.9)
        assert registry.register("pancreas", address).version == 4

    @BOTH
    def test_a_version_owns_a_copy_of_its_bundle(self, registry: Registry, store: Storage) -> None:
        version = registry.versions("pancreas")[0]
        for entry in store.list_objects("runs/run-1"):
            store.delete(entry.key)
        assert version.bundle.startswith(f"{store.url}/registry/pancreas/bundles/")
        assert bundle.verify(bundle.fetch(open_bundle("pancreas@1", store.url))).name == "run-1"

    @BOTH
    def test_a_bundle_with_a_changed_file_is_rejected(
        self, registry: Registry, store: Storage, tmp_path: Path
    ) -> None:
        address = write_bundle(store, tmp_path, "changed")
        store.write("runs/changed/bundle/weights.npz", b"other weights")
        with pytest.raises(BundleError, match=r"weights\.npz .* has changed"):
            registry.register("pancreas", address)
        assert len(registry.versions("pancreas")) == 3

    def test_what_is_no_bundle_is_rejected(self, registry: Registry, store: Storage) -> None:
        with pytest.raises(BundleError, match="there is no bundle at"):
            registry.register("pancreas", store.child("nothing").url)

    @BOTH
    def test_many_may_register_at_once(
        self, registry: Registry, store: Storage, tmp_path: Path
    ) -> None:
        addresses = [write_bundle(store, tmp_path, f"more-{i}") for i in range(4)]
        threads = [
            threading.Thread(target=registry.register, args=("pancreas", address))
            for address in addresses
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        versions = registry.versions("pancreas")
        assert [version.version for version in versions] == list(range(1, 8))
        expected = {bundle.identify(open_storage(address))[1] for address in addresses}
        assert {version.digest for version in versions[3:]} == expected

    @pytest.mark.parametrize("name", ["", "../up", "a/b", "a@b", "-a", "a" * 81])
    def test_a_name_is_a_word(self, registry: Registry, name: str) -> None:
        with pytest.raises(RegistryError, match="is not a valid name"):
            registry.register(name, "anything")


class TestStages:
    def test_a_stage_points_at_the_last_promotion(self, registry: Registry) -> None:
        registry.promote("pancreas", 1, "production")
        registry.promote("pancreas", 3, "staging")
        registry.promote("pancreas", 2, "production")
        assert registry.resolve("pancreas@production").version == 2
        assert registry.stages("pancreas") == {"production": 2, "staging": 3}

    def test_history_keeps_all_moves(self, registry: Registry) -> None:
        registry.promote("pancreas", 1, "production")
        registry.promote("pancreas", 2, "production")
        registry.promote("pancreas", 2, "production")
        registry.rollback("pancreas", "production")
        moves = registry.history("pancreas", "production")
        assert [(move.number, move.version, move.action) for move in moves] == [
            (1, 1, "promote"),
            (2, 2, "promote"),
            (3, 1, "rollback"),
        ]

    def test_rolling_back_twice_goes_back_two(self, registry: Registry) -> None:
        for version in (1, 2, 3):
            registry.promote("pancreas", version, "production")
        assert registry.rollback("pancreas", "production").version == 2
        assert registry.rollback("pancreas", "production").version == 1
        with pytest.raises(
            RegistryError, match="version 1, the first one: there is no earlier version"
        ):
            registry.rollback("pancreas", "production")
        registry.promote("pancreas", 3, "production")
        assert registry.rollback("pancreas", "production").version == 1

    @BOTH
    def test_of_two_promotions_at_once_none_is_lost_silently(self, registry: Registry) -> None:
        registry.promote("pancreas", 1, "production")
        for _ in range(5):
            before = registry.history("pancreas", "production")
            others = [version for version in (1, 2, 3) if version != before[-1].version]
            failed = promote_at_once(registry, others)
            moves = registry.history("pancreas", "production")[len(before) :]
            # Each has made its move, in an order all can read, or was told that it has not.
            assert len(moves) + len(failed) == 2
            assert registry.resolve("pancreas@production").version == moves[-1].version

    @BOTH
    def test_the_later_one_of_a_race_is_reported(self, registry: Registry, store: Storage) -> None:
        registry.promote("pancreas", 1, "production")
        seen = registry.history("pancreas", "production")[-1]
        registry.promote("pancreas", 2, "production")
        with pytest.raises(RegistryError, match="pancreas@production was changed concurrently"):
            registry._add_transition("pancreas", "production", seen, 3, "promote")
        assert registry.resolve("pancreas@production").version == 2

    @pytest.mark.parametrize("stage", ["", "1", "a/b", "7th"])
    def test_a_stage_is_a_word_and_not_a_number(self, registry: Registry, stage: str) -> None:
        with pytest.raises(RegistryError, match="is not a valid stage"):
            registry.promote("pancreas", 1, stage)


class TestMistakes:
    @BOTH
    def test_nothing_registered(self, store: Storage) -> None:
        registry = Registry(store)
        assert registry.names() == []
        with pytest.raises(RegistryError, match=r"no model 'pancreas' .*nothing is registered yet"):
            registry.resolve("pancreas@production")

    @pytest.mark.parametrize(
        ("reference", "reason"),
        [
            ("pancras@production", "no model 'pancras' .*did you mean pancreas"),
            ("pancreas@producton", r"no stage 'producton': .*did you mean production\?$"),
            ("pancreas@live", "it has production; promote a version to it with `segfleet models"),
            ("pancreas@9", "has no version 9: it has 1 to 3"),
            ("pancreas", "must read NAME@STAGE"),
            ("pancreas@", "must read NAME@STAGE"),
            ("a/b@production", "must read NAME@STAGE"),
        ],
    )
    def test_a_reference_to_nothing(self, registry: Registry, reference: str, reason: str) -> None:
        registry.promote("pancreas", 1, "production")
        with pytest.raises(RegistryError, match=reason):
            registry.resolve(reference)

    def test_promoting_what_is_not_there(self, registry: Registry) -> None:
        with pytest.raises(RegistryError, match="has no version 4"):
            registry.promote("pancreas", 4, "production")
        with pytest.raises(RegistryError, match="promote pancreas VERSION production --storage"):
            registry.rollback("pancreas", "production")
        with pytest.raises(RegistryError, match="no model 'liver'"):
            registry.stages("liver")

    def test_a_damaged_record_is_named(self, registry: Registry, store: Storage) -> None:
        store.write("registry/pancreas/versions/000002.json", b"{")
        with pytest.raises(RegistryError, match=r"versions/000002\.json is damaged"):
            registry.resolve("pancreas@2")
        assert registry.resolve("pancreas@3").version == 3


class TestOpening:
    @BOTH
    def test_a_user_names_a_bundle_in_each_way(self, registry: Registry, store: Storage) -> None:
        registry.promote("pancreas", 2, "production")
        second = open_storage(registry.versions("pancreas")[1].bundle)
        for reference in ("pancreas@production", "pancreas@2", second.url):
            assert open_bundle(reference, store.url) == second

    @BOTH
    def test_a_run_is_its_bundle(self, registry: Registry, store: Storage) -> None:
        own = store.child("runs/run-1/bundle")
        for reference in ("run-1", store.child("runs/run-1").url, own.url):
            assert open_bundle(reference, store.url) == own

    def test_a_digest_means_one_bundle(
        self, registry: Registry, store: Storage, tmp_path: Path
    ) -> None:
        registry.promote("pancreas", 2, "production")
        second = registry.versions("pancreas")[1]
        pinned = add_digest("pancreas@production", second.digest)
        registry.promote("pancreas", 3, "production")
        assert open_bundle(pinned, store.url).url == second.bundle
        with pytest.raises(RegistryError, match="pancreas has no version with SHA-256 0000"):
            open_bundle(add_digest("pancreas@production", "0" * 64), store.url)
        run = add_digest("run-2", second.digest)
        assert open_bundle(run, store.url) == store.child("runs/run-2/bundle")
        write_bundle(store, tmp_path, "run-2", dice=0.9)
        with pytest.raises(RegistryError, match=r"run-2/bundle was replaced \(SHA-256"):
            open_bundle(run, store.url)

    def test_a_bundle_that_was_replaced_is_not_the_version(
        self, registry: Registry, store: Storage, tmp_path: Path
    ) -> None:
        address = write_bundle(store, tmp_path, "run-8")
        assert registry.register("pancreas", address, copy=False).bundle == address
        write_bundle(store, tmp_path, "run-8", dice=0.9)
        for use in (
            lambda: open_bundle("pancreas@4", store.url),
            lambda: registry.promote("pancreas", 4, "production"),
        ):
            with pytest.raises(RegistryError, match="is no longer version 4 of pancreas"):
                use()

    @BOTH
    def test_a_bundle_that_is_gone(self, registry: Registry, store: Storage) -> None:
        for entry in store.list_objects("registry/pancreas/bundles"):
            store.delete(entry.key)
        with pytest.raises(RegistryError, match="version 1 of pancreas is missing or damaged"):
            open_bundle("pancreas@1", store.url)

    def test_a_version_with_a_changed_file_cannot_be_promoted(
        self, registry: Registry, store: Storage
    ) -> None:
        for entry in store.list_objects("registry/pancreas/bundles"):
            if entry.key.endswith("weights.npz"):
                store.write(entry.key, b"other weights")
        with pytest.raises(RegistryError, match=r"pancreas@1 cannot be promoted: weights\.npz"):
            registry.promote("pancreas", 1, "production")
        with pytest.raises(RegistryError, match="has no stage"):
            registry.resolve("pancreas@production")

    def test_a_store_may_move_with_its_bundles(
        self, registry: Registry, store: Storage, tmp_path: Path
    ) -> None:
        for entry in store.list_objects():
            store.download_file(entry.key, tmp_path / "moved" / entry.key)
        moved = Registry(open_storage(str(tmp_path / "moved")))
        address = moved.resolve("pancreas@1").bundle
        assert Path(address).is_relative_to(tmp_path / "moved/registry/pancreas/bundles")
        assert bundle.verify(Path(address)).name == "run-1"

    def test_a_bundle_elsewhere_keeps_its_address(self, registry: Registry, tmp_path: Path) -> None:
        elsewhere = write_bundle(open_storage(str(tmp_path / "elsewhere")), tmp_path, "run-9")
        assert registry.register("pancreas", elsewhere, copy=False).bundle == elsewhere
        assert registry.resolve("pancreas@4").bundle == elsewhere

    def test_references_are_reported_from_addresses(self, tmp_path: Path) -> None:
        assert parse_reference("pancreas@production") == ("pancreas", "production")
        assert open_bundle(f"{tmp_path}/a@b", "nowhere").url == f"{tmp_path}/a@b"


def test_records_are_plain_json(registry: Registry, store: Storage) -> None:
    registry.promote("pancreas", 1, "production")
    move = json.loads(store.read("registry/pancreas/stages/production/000001.json"))
    assert (move["version"], move["action"]) == (1, "promote")
    version = json.loads(store.read("registry/pancreas/versions/000001.json"))
    digest = version["digest"][:16]
    assert version["bundle"] == f"registry/pancreas/bundles/{digest}/bundle"


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ("p1", [1]),
        ("p1 p2 p3", [1, 2, 3]),
        ("p1 p2 p3 r2", [1, 2]),
        ("p1 p2 p3 r2 p1 r2", [1, 2]),
        ("p1 p2 r1 p2", [1, 2]),
        # The oldest moves were removed by hand.
        ("r2 p3", [2, 3]),
        ("p3 r2 r1", [1]),
    ],
)
def test_standing_is_what_roll_back_goes_through(moves: str, expected: list[int]) -> None:
    actions = {"p": "promote", "r": "rollback"}
    given = [
        StageTransition.model_validate(
            {"number": n, "version": int(word[1:]), "action": actions[word[0]], "created": ""}
        )
        for n, word in enumerate(moves.split(), start=1)
    ]
    assert rollback_targets(given) == expected


def promote_at_once(registry: Registry, versions: list[int]) -> list[RegistryError]:
    """Promote each version in a thread of its own, in the same moment; the errors."""
    barrier, failed = threading.Barrier(len(versions)), []

    def promote(version: int) -> None:
        barrier.wait()
        try:
            registry.promote("pancreas", version, "production")
        except RegistryError as error:
            failed.append(error)

    threads = [threading.Thread(target=promote, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed
