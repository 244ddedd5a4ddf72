"""What the commands of the trainer print, and what they leave."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import trainer
from contract.config import NETWORKS, Config, network_name, validate
from contract.config.loader import to_toml
from contract.errors import ConfigError, DataError
from contract.storage import open_storage
from tests.histories import history
from tests.small import FEW_SLICES, NETWORK
from tests.trainer.conftest import Prepared
from trainer.__main__ import app
from trainer.commands.evaluation import format_table
from trainer.networks import registry
from trainer.training import checkpoints
from trainer.training.run_store import run_storage


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A small run on the phantom."""
    return Config.model_validate(
        {
            "run": {"name": "demo"},
            "storage": {"root": str(tmp_path / "storage")},
            "data": {"phantom": FEW_SLICES},
            "network": NETWORK,
            "train": {"epochs": 20},
        }
    )


@pytest.fixture
def settings(config: Config, tmp_path: Path) -> Path:
    """The file of these settings."""
    path = tmp_path / "demo.toml"
    path.write_text(to_toml(config))
    return path


def test_the_prepared_slices_are_counted_by_split(settings: Path, config: Config) -> None:
    result = CliRunner().invoke(app, ["prepare", str(settings)])
    assert result.exit_code == 0, result.output
    *splits, last = result.stdout.splitlines()
    assert splits == [
        "train      2 patients      8 slices",
        "valid       1 patient      4 slices",
        "test        1 patient      4 slices",
    ]
    root = last.removeprefix("slices: ")
    assert root.startswith(f"{config.storage.root}/datasets/phantom-")
    assert len(open_storage(root).list_objects("train/images")) == 8


def test_the_training_foreground_is_printed_if_it_normalizes(settings: Path) -> None:
    result = CliRunner().invoke(app, ["prepare", str(settings), "data.normalize=foreground"])
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("training"))
    number = r"[\d.]+"
    assert re.fullmatch(
        f"training foreground: clipped to {number} to {number}, mean {number}, "
        f"standard deviation {number}",
        line,
    )


INI = """
[model]
image_width = 32
image_height = 32
num_layers = 3
generator = True
[train]
epochs = 2
image_datapath = "../slices/train/images/"
mask_datapath = "../slices/train/masks/"
[eval]
image_datapath = "../slices/valid/images/"
mask_datapath = "../slices/valid/masks/"
[augmentor]
angles = [90. 180]
"""


@pytest.fixture
def ini_file(tmp_path: Path) -> Path:
    """A file of the Antillia dialect with a value that cannot be read, in a project folder."""
    (tmp_path / "project").mkdir()
    path = tmp_path / "project/train_eval_infer.config"
    path.write_text(INI)
    return path


def test_a_config_file_of_another_project_is_prepared_from_any_folder(
    ini_file: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = CliRunner().invoke(app, ["prepare", str(settings)])
    phantom = prepared.stdout.splitlines()[-1].removeprefix("slices: ")
    (tmp_path / "slices").symlink_to(phantom)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    words = ["prepare", "../project/train_eval_infer.config", "train.batch_size=4"]
    strict = CliRunner().invoke(app, words)
    assert isinstance(strict.exception, ConfigError)
    assert "[augmentor] angles (line 15, column 11) = [90. 180]" in str(strict.exception)
    lenient = CliRunner().invoke(app, [*words, "--lenient"])
    assert lenient.exit_code == 0, lenient.output
    assert lenient.stdout.splitlines()[0] == "train      2 patients      8 slices"


def test_a_config_file_is_converted(ini_file: Path, tmp_path: Path) -> None:
    words = ["convert", str(ini_file), "train.epochs=3", "--lenient"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    settings = tomllib.loads(result.stdout)
    assert settings["train"]["epochs"] == 3
    assert settings["run"]["name"] == "project"
    assert "#   [augmentor] angles (line 15): is not a Python literal" in result.stdout


def test_slices_that_cannot_be_trained_on_are_an_error_of_preparing(settings: Path) -> None:
    result = CliRunner().invoke(app, ["prepare", str(settings), "predict.sliding_window=true"])
    assert isinstance(result.exception, DataError)
    assert "must have 32 x 32 (network.image_size)" in str(result.exception)


@pytest.mark.parametrize("command", ["prepare", "inspect", "train"])
def test_settings_are_shown_and_nothing_is_done(
    command: str, settings: Path, config: Config
) -> None:
    words = [command, str(settings), "train.epochs=3", "--show-config"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    expected = config.with_values({"train.epochs": 3}).model_dump(mode="json", exclude_none=True)
    assert (
        Config.model_validate(tomllib.loads(result.stdout)).model_dump(
            mode="json", exclude_none=True
        )
        == expected
    )
    assert not Path(config.storage.root).exists()


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        (0, "interrupted before the first epoch of run demo was finished."),
        (1, "interrupted: 1 finished epoch of 20 are kept in "),
        (2, "interrupted: 2 finished epochs of 20 are kept in "),
    ],
)
def test_an_interrupted_training_says_what_it_has_kept(
    epochs: int, message: str, settings: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(config: Config) -> None:
        raise KeyboardInterrupt

    if epochs:
        storage = run_storage(config).child("checkpoints")
        checkpoints.save_checkpoint(storage, [np.zeros(1)], history(epochs))
    monkeypatch.setattr(trainer, "train", interrupt)
    result = CliRunner().invoke(app, ["train", str(settings)])
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert ("the same command resumes the training" in result.stderr) == bool(epochs)


@pytest.mark.usefixtures("unchanged_process")
def test_a_bundle_is_evaluated_by_patient(
    thresholding: Path, prepared: Prepared, tmp_path: Path
) -> None:
    output = tmp_path / "evaluation"
    result = CliRunner().invoke(
        app,
        [
            "evaluate",
            str(thresholding),
            "data.source=folder",
            f"data.root={prepared.config.data.root}",
            f"storage.root={prepared.config.storage.root}",
            "--output",
            str(output),
            "--save-masks",
        ],
    )
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    headings = ["dice", "IoU", "prec.", "sens.", "spec.", "vol.diff.", "NSD", "HD95/px"]
    assert rows[0] == ["patient", "slices", *headings]
    assert max(map(len, result.stdout.splitlines()[:10])) <= 80
    assert rows[1][:3] == ["half", "2", "0.750"]
    assert rows[4][:5] == ["quiet", "1", "1.000", "1.000", "–"]
    assert [row[:3] for row in rows[6:10]] == [
        ["mean", "6", "0.550"],
        ["SD", "6", "0.512"],
        ["min", "6", "0.000"],
        ["max", "6", "1.000"],
    ]
    assert "HD95 is undefined for 2 of 5 patients: ground truth empty 1, prediction empty 1" in (
        result.stdout
    )
    assert rows[-1] == ["report:", f"{output}/report.html"]
    assert (output / "report.html").is_file()
    assert len(list((output / "masks").iterdir())) == 6


@pytest.mark.usefixtures("unchanged_process")
def test_the_columns_of_the_table_are_aligned(
    thresholding: Path, prepared: Prepared, tmp_path: Path
) -> None:
    evaluation = trainer.evaluate(
        str(thresholding),
        split="valid",
        output=str(tmp_path),
        data={"source": "folder", "root": prepared.config.data.root},
        storage={"root": prepared.config.storage.root},
    )
    assert len({len(line) for line in format_table(evaluation).splitlines()}) == 1


def test_an_unknown_split_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["evaluate", "bundle", "--split", "holdout"])
    assert result.exit_code == 2
    assert "must be one of train, valid, test" in result.stderr


def test_networks_are_listed_with_their_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Building all of them takes a minute.
    monkeypatch.setattr("trainer.commands.networks.NETWORKS", NETWORKS[:2])
    done = CliRunner().invoke(app, ["networks", "--image-size", "128"], catch_exceptions=False)
    assert done.exit_code == 0
    rows = [line.split()[:5] for line in done.stdout.splitlines()[1:] if not line.startswith(" ")]
    assert rows == [
        ["unet", "1.9", "M", "753.4", "M"],
        ["attention_unet", "2.0", "M", "782.8", "M"],
    ]


def test_every_network_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    small = validate({"network": {"num_layers": 2, "base_filters": 1}}, origin="test").network
    built = registry.build_network(small, 1, 1)
    # Building all of them takes a minute, and their sizes are those of the test above.
    monkeypatch.setattr(registry, "build_network", lambda *_: built)
    done = CliRunner().invoke(app, ["networks"], catch_exceptions=False)
    names = [line.split()[0] for line in done.stdout.splitlines()[1:] if not line.startswith(" ")]
    assert names == [network_name(section) for section in NETWORKS]


def test_a_network_is_drawn_and_its_layers_are_listed(tmp_path: Path) -> None:
    command = ["networks", "show", "unet", "network.num_layers=3", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "input: 128 x 128 x 1" in done.stdout
    assert "trainable parameters: 117073 (117.1 k)" in done.stdout
    assert "encoder_2_2_conv" in (tmp_path / "unet.txt").read_text()
    assert (tmp_path / "unet.svg").read_text().startswith("<svg")


def test_a_file_of_settings_is_a_network_too(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('network = { name = "sharp_unet", image_size = 64 }')
    command = ["networks", "show", str(tmp_path / "a.toml"), "--output", str(tmp_path)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "input: 64 x 64 x 1" in done.stdout
    assert (tmp_path / "sharp_unet.svg").exists()


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unett is neither a file nor .* did you mean unet\?"):
        CliRunner().invoke(app, ["networks", "show", "unett"], catch_exceptions=False)
