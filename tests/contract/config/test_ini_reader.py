"""Configuration files of other projects: what they become here, and what is said about it."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contract.config.ini.keys import ALIASES, KEYS
from contract.config.ini.network_keys import NETWORK_NAMES
from contract.config.ini_reader import IniSettings, Note, is_ini, read_ini
from contract.config.loader import load_config
from contract.config.network import NETWORKS, network_name
from contract.errors import ConfigError

FILE = Path("/projects/Pancreas/train_eval_infer.config")
EVERY_KEY = Path(__file__).with_name("every_key.config")
REAL_FILES = Path(__file__).parents[3] / "../shared/data/antillia-configs"
FOLDERS = """
[train]
image_datapath = "../data/train/images/"
mask_datapath = "../data/train/masks/"
[eval]
image_datapath = "../data/valid/images/"
mask_datapath = "../data/valid/masks/"
"""


def read(text: str, lenient: bool = False, **overrides: Any) -> IniSettings:
    """The settings of a text that has the folders of the slices in front of it."""
    return read_ini(FOLDERS + text, FILE, overrides, lenient)


def notes_of(text: str, status: str, lenient: bool = False) -> list[Note]:
    return [note for note in read(text, lenient).notes if note.status == status]


def error_of(text: str, lenient: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, lenient)
    message = str(caught.value)
    assert message.startswith(f"{FILE}: ")
    assert message.endswith(".")
    return message


class TestEveryKey:
    def test_the_settings(self) -> None:
        settings = read_ini(
            EVERY_KEY.read_text(), Path("/home/u/project/every_key.config")
        ).settings
        # One slice, 1 flip, 2 right angles, 2 angles, 2 sizes, 1 shear and its flip, and so on.
        share = 1 / 18
        expected: dict[str, Any] = {
            "run.name": "every_key",
            "network.name": "unet",
            "network.image_size": [128, 256],
            "network.image_channels": 3,
            "network.base_filters": 8,
            "network.num_layers": 4,
            "network.base_kernels": 7,
            "network.dilation": 2,
            "network.dropout_rate": 0.1,
            "network.normalization": "batch",
            "network.activation": "mish",
            "train.learning_rate": 0.0002,
            "train.clip_value": 0.3,
            "train.optimizer": "adamw",
            "train.weight_decay": 0.004,
            "train.loss": "binary_crossentropy",
            "train.epochs": 7,
            "train.batch_size": 3,
            "train.num_workers": 1,
            "train.steps_per_epoch": 50,
            "train.validation_steps": 20,
            "train.monitor": "val_loss",
            "train.patience": 5,
            "train.lr_schedule": "plateau",
            "train.plateau_factor": 0.3,
            "train.plateau_patience": 2,
            "train.preview_images": 4,
            "data.source": "folder",
            "data.root": "/home/u/data",
            "data.train_dir": "train",
            "data.valid_dir": "valid",
            "data.test_dir": "test",
            "data.images_dir": "images",
            "data.masks_dir": "masks",
            "data.classes": {"class_1": "#00ff00", "class_2": "#ff0000"},
            "data.sharpening": 1.0,
            "data.augment.shift_probability": 0.0,
            "data.augment.gamma_probability": 0.0,
            "data.augment.noise_probability": 0.0,
            "data.augment.flip_horizontal": share,
            "data.augment.right_angles": 2 * share,
            "data.augment.rotation_probability": 2 * share,
            "data.augment.rotation": 10.0,
            "data.augment.scale_probability": 2 * share,
            "data.augment.scale": 2.0,
            "data.augment.shear_probability": 2 * share,
            "data.augment.shear": 5.7106,
            "data.augment.elastic_probability": share,
            "data.augment.elastic": 0.0137,
            "data.augment.grid_distortion_probability": 2 * share,
            "data.augment.grid_distortion": 0.15,
            "data.augment.barrel_probability": 2 * share,
            "data.augment.barrel": 0.4,
            "data.augment.pincushion_probability": share,
            "data.augment.pincushion": 0.25,
            "data.augment.sharpen_probability": share,
            "data.augment.sharpen": 0.9,
            "data.augment.brightness_probability": share,
            "data.augment.brightness": 0.3,
            "predict.overlap": 0.5,
        }
        assert settings.keys() == expected.keys()
        for key, value in expected.items():
            assert settings[key] == (
                pytest.approx(value, abs=5e-5) if isinstance(value, float) else value
            ), key

    def test_they_are_valid(self) -> None:
        config = load_config(EVERY_KEY)
        assert config.train.num_workers == 1
        assert [each.name for each in config.data.segmentation_classes] == ["class_1", "class_2"]

    def test_every_key_has_a_note_with_its_line(self) -> None:
        lines = EVERY_KEY.read_text().splitlines()
        notes = [note for note in read_ini(EVERY_KEY.read_text(), EVERY_KEY).notes if note.line]
        assert {note.line for note in notes} == {
            number
            for number, line in enumerate(lines, start=1)
            if "=" in line and not line.startswith(";")
        }
        status = {note.source: note.status for note in notes}
        assert status["[train] validation_steps"] == "translated"
        assert status["[mask] blur"] == "not supported"
        assert status["[image] sharpening"] == "translated"
        assert status["[mask] threshold"] == "not applicable"
        assert status["[eval] image_datapath"] == "not applicable"
        assert status["[infer] threshold"] == "not applicable"
        assert status["[model] window_size"] == "not applicable"
        assert "unknown" not in status.values()

    def test_the_table_is_complete(self) -> None:
        assert all(name in KEYS for name in ALIASES.values())
        assert not KEYS.keys() & ALIASES.keys()


class TestUnreadableValues:
    def test_a_value_that_is_no_literal_names_line_and_column(self) -> None:
        text = '[augmentor]\nangles   = [90. 180, 270,]\n[train]\nmodel_dir = "a" "b" c\n'
        message = error_of(text)
        assert "[augmentor] angles (line 9, column 13) = [90. 180, 270,] is not a Pyt" in message
        assert "(default [90, 180, 270]); [train] model_dir (line 11, column 21) = " in message
        assert "or give --lenient" in message

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("epochs = 1.5", "= 1.5 must be a whole number (no default)"),
            ("epochs = ten", "= ten is not a Python literal (text needs quotes)"),
            ("epochs =", "has no value (no default)"),
            ("patience = '5'", "= '5' must be a whole number (default 10)"),
            ("epochs = __import__('os').getpid()", "is not a Python literal"),
            ("epochs = 2**9999", "is not a Python literal"),
            ("batch_size = " + "[" * 5000, "is not a Python literal"),
            ("image_datapath = 3", "must be a path in quotes"),
            ("epochs 3", "line 9, column 1 is not key = value"),
        ],
    )
    def test_other_forms(self, line: str, expected: str) -> None:
        assert expected in error_of(f"[train]\n{line}\n")

    def test_a_key_without_a_section(self) -> None:
        with pytest.raises(ConfigError, match="line 1, column 3 is a key before the first"):
            read_ini("  epochs = 3\n" + FOLDERS, FILE)

    def test_many_are_counted(self) -> None:
        assert "; and 4 more: correct the file" in error_of("[mask]\n" + "nonsense\n" * 9)

    def test_lenient_takes_the_default_and_notes_it(self) -> None:
        text = "[model]\ngenerator = True\n[augmentor]\nangles = [90. 180, 270,]\nnonsense\n"
        (note, line) = notes_of(text, "default", lenient=True)[::-1]
        assert (note.source, note.line) == ("[augmentor] angles", 11)
        assert note.text.endswith("; default [90, 180, 270]")
        assert (line.source, line.line) == ("line 12", 12)
        settings = read(text, lenient=True).settings
        assert settings["data.augment.right_angles"] == pytest.approx(3 / 7, abs=1e-4)

    def test_a_value_out_of_range_names_its_line(self, tmp_path: Path) -> None:
        path = tmp_path / "a.config"
        path.write_text(FOLDERS + "[model]\ndropout_rate = 1.5\n")
        with pytest.raises(ConfigError, match=r"network\.dropout_rate \(line 9\) = 1\.5 must be"):
            load_config(path, lenient=True)


class TestNotes:
    @pytest.mark.parametrize(
        ("text", "source", "hint"),
        [
            ("[train]\nepoch = 3\n", "[train] epoch", "did you mean [train] epochs?"),
            ("[model]\nepochs = 3\n", "[model] epochs", "did you mean [train] epochs?"),
            ("[modell]\nnum_layers = 3\n", "[modell] num_layers", "did you mean [model] num_lay"),
            ("[train]\nxyz = (((\n", "[train] xyz", ""),
        ],
    )
    def test_an_unknown_key_is_reported(self, text: str, source: str, hint: str) -> None:
        (note,) = notes_of(text, "unknown")
        assert note.source == source
        assert note.text.startswith(hint)

    def test_the_last_of_repeated_keys_counts(self) -> None:
        result = read("[train]\nepochs = 3\nEpochs = 4\n")
        assert result.settings["train.epochs"] == 4
        (note,) = [note for note in result.notes if note.status == "repeated"]
        assert (note.source, note.line, note.text) == ("[train] epochs", 9, "line 10 is used")

    def test_the_misspelling_counts_as_alpha(self) -> None:
        switched_on = "[model]\ngenerator = True\n[augmentor]\ndeformation = True\n[deformation]\n"
        by_alpah = read(switched_on + "alpah = 4000").settings
        assert by_alpah == read(switched_on + "alpha = 4000").settings
        assert (
            by_alpah["data.augment.elastic"] != read(switched_on).settings["data.augment.elastic"]
        )

    def test_one_message_is_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "a.config"
        path.write_text(FOLDERS + "[train]\nepoch = 3\n[mask]\nblur = True\n")
        with caplog.at_level(logging.INFO):
            load_config(path)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage() == (
            f"{path}: 4 keys are translated, 0 are not applicable; unknown: [train] epoch (did you "
            "mean [train] epochs?); not supported: [mask] blur. segfleet convert "
            "lists every key"
        )


class TestDefaults:
    def test_an_empty_file_has_those_of_the_projects(self) -> None:
        settings = read("").settings
        assert settings["network.normalization"] == "none"
        assert settings["train.optimizer"] == "adam"
        assert settings["train.clip_value"] == 0.2
        assert settings["train.patience"] == 10
        assert settings["train.lr_schedule"] == "constant"
        assert settings["train.monitor"] == "val_loss"
        assert settings["data.augment.noise_probability"] == 0.0

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/a/My project/train_eval_infer.config", "My-project"),
            ("/a/My project/augmented.config", "augmented"),
            ("/train_eval_infer.config", "run"),
            ("/a/_ü_/train_eval_infer.ini", "run"),
        ],
    )
    def test_the_run_has_the_name_of_the_project(self, path: str, name: str) -> None:
        assert read_ini(FOLDERS, Path(path)).settings["run.name"] == name


class TestLoading:
    def test_files_are_recognized_by_their_suffix(self) -> None:
        assert is_ini(Path("a.config"))
        assert is_ini(Path("a.INI"))
        assert not is_ini(Path("a.toml"))

    def test_overrides_replace_and_folders_are_those_of_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "projects").mkdir()
        (tmp_path / "elsewhere").mkdir()
        path = tmp_path / "projects/a.config"
        path.write_bytes(
            b"\xef\xbb\xbf"
            + FOLDERS.replace("\n", "\r\n").encode()
            + b"[train]\r\nepochs\t=\t9\r\n"
        )
        monkeypatch.chdir(tmp_path / "elsewhere")
        config = load_config("../projects/a.config", ["train.batch_size=4"], train={"patience": 2})
        assert config.data.root == str(tmp_path / "data")
        assert (config.train.epochs, config.train.batch_size, config.train.patience) == (9, 4, 2)
        assert config.storage.root == str(tmp_path / "elsewhere/segfleet-data")

    def test_lenient_is_for_these_files_only(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").touch()
        with pytest.raises(ConfigError, match="remove --lenient"):
            load_config(tmp_path / "a.toml", lenient=True)


# -- real files --------------------------------------------------------------------------------

AVAILABLE = {network_name(each) for each in NETWORKS}


@pytest.mark.skipif(not REAL_FILES.is_dir(), reason="the Antillia configuration files are not here")
class TestRealFiles:
    def test_there_are_nine(self) -> None:
        assert len(list(REAL_FILES.glob("*.config"))) == 9

    @pytest.mark.parametrize(
        "path", sorted(REAL_FILES.glob("*.config")), ids=lambda path: path.stem
    )
    def test_each_is_read_and_every_key_is_known(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        (model,) = (name for name in NETWORK_NAMES if f'"{name}"' in text)
        network = NETWORK_NAMES[model]
        # A network that this version does not have is an error, and another one a choice.
        overrides = [] if network in AVAILABLE else ["network.name=unet"]
        if overrides:
            with pytest.raises(ConfigError, match=f"is the network {network}, which this version"):
                load_config(path, lenient=True)
        config = load_config(path, overrides, lenient=True)
        assert config.network.name == (network if network in AVAILABLE else "unet")
        assert config.data.source == "folder"
        assert config.train.monitor == "val_loss"
        notes = read_ini(text, path, {"network.name": config.network.name}, lenient=True).notes
        assert not [note for note in notes if note.status in ("unknown", "repeated")]
        keys = sum("=" in line and line[0] not in ";#" for line in text.splitlines() if line)
        assert len({note.line for note in notes} - {None}) == keys
        assert all(note.settings or note.text for note in notes if note.status != "translated")

    def test_the_pancreas_file(self) -> None:
        path = REAL_FILES / "Cropped-Pancreas.config"
        with pytest.raises(ConfigError, match=r"angles \(line 99, column 13\) = \[90\. 180, 270,"):
            load_config(path)
        config = load_config(path, lenient=True)
        network, train = config.network.model_dump(), config.train
        assert network == {
            "name": "unet",
            "image_size": 512,
            "image_channels": 3,
            "base_filters": 16,
            "max_filters": None,
            "base_kernels": 9,
            "num_layers": 8,
            "dilation": 3,
            "dropout_rate": 0.05,
            "normalization": "none",
            "activation": "relu",
            "deep_supervision": False,
        }
        assert (train.optimizer, train.learning_rate, train.clip_value) == ("adam", 7e-5, 0.5)
        assert (train.loss, train.batch_size, train.epochs) == ("bce_dice_loss", 2, 100)
        assert (train.lr_schedule, train.plateau_factor, train.plateau_patience) == (
            "plateau",
            0.4,
            4,
        )
        assert (train.patience, train.preview_images, train.steps_per_epoch) == (10, 6, None)
        assert config.data.mask_threshold is None
        probabilities = config.data.augment.model_dump()
        assert not any(v for k, v in probabilities.items() if k.endswith("probability"))


# -- any text ----------------------------------------------------------------------------------

VALUES = st.one_of(
    st.sampled_from(
        ["True", "None", "0", "-1", "3", "(3,3)", "[]", "{}", "[0]", '"a"', '"./a"', "1e999"]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=12),
    st.recursive(st.integers() | st.text(max_size=3), lambda each: st.lists(each)).map(repr),
)
LINES = st.one_of(
    st.sampled_from(sorted({section for section, _ in KEYS})).map(lambda name: f"[{name}]"),
    st.tuples(st.sampled_from(sorted(KEYS)), VALUES).map(lambda pair: f"{pair[0][1]} = {pair[1]}"),
    st.tuples(st.sampled_from(sorted(KEYS)), VALUES).map(
        lambda pair: f"[{pair[0][0]}]\n{pair[0][1]} = {pair[1]}"
    ),
    st.text(max_size=20),
)


def error_or_nothing(path: Path, lenient: bool) -> str | None:
    """The sentence with which a file is rejected."""
    try:
        load_config(path, lenient=lenient)
    except ConfigError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "train_eval_infer.config"


@given(st.lists(LINES, max_size=12), st.booleans(), st.booleans())
@example(['image_datapath = "~x/a"'], True, True)
@example(["[model]", "image_width = " + "-" * 20_000 + "1"], True, True)
@example(["[model]", "image_width = 0x" + "f" * 5000], False, True)
def test_any_text_is_a_config_or_one_sentence(
    file: Path, lines: list[str], lenient: bool, has_folders: bool
) -> None:
    text = "\n".join(lines) + FOLDERS * has_folders
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert (error_or_nothing(file, lenient) or ".").endswith((".", "?"))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_config_or_one_sentence(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert (error_or_nothing(file, lenient=True) or ".").endswith((".", "?"))
