"""Settings: limits, cross-checks, did-you-means, changed copies and fingerprints."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.config import (
    Config,
    Data,
    Predict,
    Run,
    Train,
    UNet,
    closest_match,
    sections,
    setting_types,
    validate,
)
from contract.config.loader import load_config
from contract.errors import ConfigError


def rejected(tree: dict[str, Any]) -> str:
    """The message with which a tree of settings is rejected."""
    with pytest.raises(ConfigError) as caught:
        validate(tree, origin="a.toml")
    return str(caught.value)


class TestShape:
    def test_every_setting_has_a_meaning_and_a_default(self) -> None:
        Config()
        places = dict(sections())
        for section_key, section in places.items():
            assert section.__doc__, section_key
            for name, field in section.model_fields.items():
                assert field.description or f"{section_key}.{name}" in places, (
                    f"{section_key}.{name}"
                )

    def test_what_may_be_absent_is_absent_by_default(self) -> None:
        """TOML has no word for absent, so a file could not say so otherwise."""
        for section_key, section in sections():
            for name, field in section.model_fields.items():
                if type(None) in getattr(field.annotation, "__args__", ()):
                    assert field.default is None, f"{section_key}.{name}"

    def test_sections_come_in_the_order_of_the_file(self) -> None:
        places = [section_key for section_key, _ in sections()]
        assert places[:2] == ["run", "storage"]
        assert places.index("data.augment") > places.index("data")
        assert "train.epochs" in setting_types()
        assert "data.augment" not in setting_types()


class TestFaults:
    @pytest.mark.parametrize(
        ("tree", "message"),
        [
            (
                {"train": {"epoch": 3}},
                "there is no setting train.epoch; did you mean train.epochs?",
            ),
            ({"trian": {}}, "there is no setting trian; did you mean train?"),
            ({"xyz": 1}, "there is no setting xyz."),
            ({"train": {"epochs": 0}}, "train.epochs = 0 must be greater than or equal to 1."),
            ({"train": 3}, "train = 3 must be "),
            (
                {"network": {"image_size": 30, "num_layers": 6}},
                "network.image_size must be at least 32 pixels (2^(num_layers-1) with "
                "network.num_layers = 6), not 30.",
            ),
            (
                {"network": {"name": "attention"}},
                "network.name = 'attention' is not one of the networks unet, attention_unet, ",
            ),
            (
                {"network": {"name": "sharp_unet", "windows": 7}},
                "there is no setting network.windows",
            ),
            ({"network": {"base_kernels": 4}}, "network.base_kernels = 4 must be odd"),
            (
                {
                    "network": {"image_size": 50, "num_layers": 2},
                    "predict": {"sliding_window": True, "overlap": 0.75},
                },
                "network.image_size = 50 must be divisible by 4 for",
            ),
            (
                {
                    "network": {"image_size": [48, 50], "num_layers": 2},
                    "predict": {"sliding_window": True, "overlap": 0.75},
                },
                "network.image_size = [48, 50]: the width 50 must be divisible by 4 for",
            ),
            (
                {"predict": {"sliding_window": True, "window_size": 50, "overlap": 0.75}},
                "predict.window_size = 50 must be divisible by 4 for sliding windows with "
                "predict.overlap = 0.75: use 48 or 52.",
            ),
            (
                {"data": {"crop_rows": [0.2, 1.0]}, "predict": {"sliding_window": True}},
                "sliding windows show complete slices: remove data.crop_rows and",
            ),
            (
                {
                    "data": {"source": "folder", "root": "x", "classes": {"a": 1, "b": 2}},
                    "predict": {"intersect_resized": True},
                },
                "predict.intersect_resized = true has no effect with several classes",
            ),
            (
                {"train": {"preview_windows": True}},
                "train.preview_windows = true needs train.preview_source",
            ),
            (
                {
                    "train": {"start_from": "demo"},
                    "network": {"name": "efficient_unet", "encoder_weights": "b0.h5"},
                },
                "train.start_from and network.encoder_weights both name the initial weights",
            ),
            (
                {
                    "train": {"freeze_encoder_epochs": 2},
                    "network": {"name": "efficient_unet", "trainable_encoder_layers": 0},
                },
                "no effect with network.trainable_encoder_layers = 0",
            ),
            (
                {"train": {"antillia_weights": "raw"}},
                "train.antillia_weights = 'raw' needs network.normalization = \"none\", as the "
                'Antillia projects have it: set train.antillia_weights = "none"',
            ),
            (
                {
                    "train": {"antillia_weights": "raw"},
                    "network": {"normalization": "none"},
                    "data": {"intensity_high": 100.0},
                },
                "train.antillia_weights = 'raw' needs data.intensity_high = 255.0, as the",
            ),
            (
                {"data": {"color_space": "hsv"}},
                "data.color_space = 'hsv' needs network.image_channels = 3, ",
            ),
            (
                {"data": {"gamma": 2.0, "normalize": "foreground"}},
                'data.sharpening need data.normalize = "window"',
            ),
            ({"data": {"neighbours": 8}}, "data.neighbours = 8 must be less than or equal to 7."),
            (
                {"data": {"neighbours": 1}, "network": {"image_channels": 3}},
                "data.neighbours = 1 requires network.image_channels = 1, not 3: neighbouring",
            ),
        ],
    )
    def test_a_fault_is_one_sentence(self, tree: dict[str, Any], message: str) -> None:
        text = rejected(tree)
        assert text.startswith("a.toml: ")
        assert message in text
        assert text[-1] in ".?"
        assert "\n" not in text

    def test_a_searched_network_has_to_exist(self) -> None:
        space = {"network.name": {"choice": ["unet", "unett"]}}
        assert "network.name = 'unett' must be " in rejected({"sweep": {"space": space}})

    def test_without_tiles_their_steps_do_not_matter(self) -> None:
        network = {"image_size": 50, "num_layers": 2}
        validate({"network": network, "predict": {"overlap": 0.75}}, origin="a.toml")

    def test_all_faults_are_reported_at_once(self) -> None:
        text = rejected({"train": {"epochs": 0}, "network": {"base_kernels": 4}, "xyz": 1})
        assert "train.epochs" in text
        assert "network.base_kernels" in text
        assert "xyz" in text

    def test_nearest_is_silent_without_a_likely_word(self) -> None:
        assert (
            closest_match("epochs", ["train.epochs", "serve.port"])
            == "; did you mean train.epochs?"
        )
        assert closest_match("zzz", ["train.epochs"]) == ""


class TestSweepSpace:
    def space(self, **ranges: Any) -> dict[str, Any]:
        return {"sweep": {"space": {key.replace("__", "."): r for key, r in ranges.items()}}}

    def test_each_kind_of_range(self) -> None:
        config = validate(
            self.space(
                train__learning_rate={"loguniform": [1e-4, 1e-2]},
                network__dropout_rate={"uniform": [0, 0.5]},
                network__num_layers={"int": [3, 5]},
                train__loss={"choice": ["dice_loss", "bce_dice_loss"]},
                data__augment__noise={"choice": [0, 0.1]},
            ),
            origin="a.toml",
        )
        space = config.sweep.space
        assert space["network.num_layers"].integer == (3, 5)
        assert space["network.num_layers"].examples() == (3, 5)
        assert space["train.loss"].choice == ("dice_loss", "bce_dice_loss")
        assert Config.model_validate(config.model_dump(mode="json")) == config

    @pytest.mark.parametrize(
        ("key", "given", "message"),
        [
            ("train__lerning_rate", {"uniform": [0.1, 0.2]}, "did you mean train.learning_rate?"),
            ("train", {"uniform": [0.1, 0.2]}, "sweep.space names 'train', which is not a setting"),
            ("serve__port", {"int": [1, 2]}, "serve.port does not change a trial"),
            (
                "train__epochs",
                {"choice": ["many"]},
                "train.epochs = 'many' must be a valid integer",
            ),
            ("train__epochs", {"uniform": [1, 5]}, "train.epochs = 1.0 must"),
            ("network__num_layers", {"int": [3, 50]}, "network.num_layers = 50 must"),
            ("data__augment__noise", {"choice": [2.0]}, "data.augment.noise = 2.0 must"),
            ("train__epochs", {"integer": [1, 2]}, "there is no setting"),
        ],
    )
    def test_a_range_that_cannot_be(self, key: str, given: Any, message: str) -> None:
        assert message in rejected(self.space(**{key: given}))

    def test_a_value_at_odds_with_another_setting_is_left_to_the_trial(self) -> None:
        validate(self.space(network__num_layers={"choice": [5, 9]}), origin="a.toml")


class TestWithValues:
    def test_a_copy_changes_only_what_is_named(self) -> None:
        config = Config()
        changed = config.with_values({"train.epochs": 3, "data.augment.noise": 0.1})
        assert (changed.train.epochs, changed.data.augment.noise) == (3, 0.1)
        assert config.train.epochs != 3
        assert changed.with_values({}) == changed

    def test_a_range_may_be_added(self) -> None:
        config = Config().with_values({"sweep.space.train.epochs": {"int": [1, 3]}})
        assert config.sweep.space["train.epochs"].integer == (1, 3)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("train.epoch", 3, r"there is no setting 'train.epoch'; did you mean train.epochs\?$"),
            ("train", {}, "there is no setting 'train'"),
            ("train.epochs", 0, "train.epochs = 0"),
        ],
    )
    def test_the_whole_is_checked_again(self, key: str, value: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            Config().with_values({key: value})


class TestFingerprint:
    def test_it_is_twelve_hex_digits_and_stays(self) -> None:
        assert Config().fingerprint() == Config().fingerprint()
        assert int(Config().fingerprint(), 16) < 16**12

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("run.name", "other"),
            ("storage.root", "s3://bucket/x"),
            ("cluster.cpus", 4),
            ("train.num_workers", 4),
            ("train.max_failures", 0),
            ("serve.port", 9000),
            ("sweep.num_samples", 3),
        ],
    )
    def test_place_and_spread_do_not_count(self, key: str, value: Any) -> None:
        assert Config().with_values({key: value}).fingerprint() == Config().fingerprint()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("run.seed", 1),
            ("train.learning_rate", 1e-3),
            ("train.batch_size", 4),
            ("network.num_layers", 4),
            ("predict.threshold", 0.4),
            ("data.augment.noise", 0.0),
            ("data.neighbours", 1),
        ],
    )
    def test_what_decides_the_network_counts(self, key: str, value: Any) -> None:
        assert Config().with_values({key: value}).fingerprint() != Config().fingerprint()

    @pytest.mark.parametrize(("neighbours", "channels"), [(0, 1), (1, 3), (7, 15)])
    def test_neighbours_are_channels_of_the_input(self, neighbours: int, channels: int) -> None:
        config = Config().with_values({"data.neighbours": neighbours})
        assert config.input_channels == config.data.stack_size == channels
        assert Config().with_values({"network.image_channels": 3}).input_channels == 3

    def test_the_folder_of_the_slices_does_not_count(self) -> None:
        here, there = (
            Config(data=Data(source="folder", root=root)) for root in ("/slices", "s3://b/slices")
        )
        assert here.fingerprint() == there.fingerprint()


@given(
    st.builds(
        lambda seed, epochs, rate, layers, threshold: Config(
            run=Run(seed=seed),
            train=Train(epochs=epochs, learning_rate=rate),
            network=UNet(num_layers=layers),
            predict=Predict(threshold=threshold),
        ),
        st.integers(0, 2**31 - 1),
        st.integers(1, 10**6),
        st.floats(1e-9, 10.0),
        st.integers(2, 8),
        st.floats(1e-6, 0.999999),
    )
)
def test_settings_survive_plain_values(config: Config) -> None:
    again = Config.model_validate(config.model_dump(mode="json"))
    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_every_shipped_file_is_good() -> None:
    files = sorted((Path(__file__).parents[3] / "configs").glob("*.toml"))
    assert files
    for file in files:
        load_config(file)


FOLDER = {"source": "folder", "root": "/slices"}


def test_the_order_of_classes_is_part_of_the_training_settings() -> None:
    first, second = (
        Config.model_validate({"data": {**FOLDER, "classes": classes}})
        for classes in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    )
    assert first.training_settings() != second.training_settings()
    assert first.fingerprint() != second.fingerprint()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"class_weights": {"c": 2.0}}}, "c is not a class: the names are a, b, back"),
        ({"predict": {"threshold": 0.4}}, r"predict\.threshold = 0\.4 has no effect with several"),
        ({"predict": {"class_thresholds": {"c": 0.4}}}, "class_thresholds.c is not a class"),
        ({"predict": {"flips": ["vertical"]}}, r"data\.augment\.flip_vertical = 0"),
        (
            {"sweep": {"space": {"predict.threshold": {"uniform": [0.2, 0.8]}}}},
            r"sweep\.space: predict\.threshold has no effect with several classes",
        ),
    ],
)
def test_settings_without_effect_on_several_classes_are_rejected(
    values: dict[str, Any], message: str
) -> None:
    data = {**FOLDER, "classes": {"a": 1, "b": 2}}
    with pytest.raises(ConfigError, match=message):
        validate({"data": data, **values}, "x.toml")
