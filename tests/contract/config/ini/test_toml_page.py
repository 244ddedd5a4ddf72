"""TOML with a comment for each key of the INI file."""

import tomllib
from pathlib import Path

import pytest

from contract.config.ini.toml_page import convert_to_toml
from contract.config.ini_reader import read_ini
from contract.config.loader import load_config
from contract.errors import ConfigError

EVERY_KEY = Path(__file__).parents[1] / "every_key.config"
REAL_FILES = Path(__file__).parents[4] / "../shared/data/antillia-configs"


def check_round_trip(path: Path, folder: Path, overrides: tuple[str, ...] = ()) -> str:
    """The page of a file, which must have the same settings as the file."""
    text = convert_to_toml(path, overrides, lenient=True)
    (folder / "converted.toml").write_text(text, encoding="utf-8")
    assert load_config(folder / "converted.toml") == load_config(path, overrides, lenient=True)
    return text


def test_the_page_has_the_same_settings_and_every_key(tmp_path: Path) -> None:
    text = check_round_trip(EVERY_KEY, tmp_path)
    for note in read_ini(EVERY_KEY.read_text(encoding="utf-8"), EVERY_KEY).notes:
        assert f"{note.source}{f' (line {note.line})' if note.line else ''}" in text
    assert "num_layers = 4  # [model] num_layers (line 10)\n" in text
    assert "base_kernels = 7  # [model] base_kernels (line 11)\n" in text
    assert '[data.classes]\nclass_1 = "#00ff00"\n' in text
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("#"))


def test_overrides_are_part_of_the_page(tmp_path: Path) -> None:
    overrides = ("train.epochs=3", "train.patience=", "serve.port=9000", "data.augment.scale=1.5")
    overrides += ("sweep.space.train.epochs={int=[1,3]}", "data.classes.class_2=[255,128,0]")
    text = check_round_trip(EVERY_KEY, tmp_path, overrides)
    assert "epochs = 3  # given when the file was converted" in text
    assert tomllib.loads(text)["serve"] == {"port": 9000}
    assert "patience =" not in text.replace("plateau_patience =", "")


def test_other_files_are_read_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a \.config or \.ini file: TOML is read as it"):
        convert_to_toml(tmp_path / "a.toml")


def test_what_toml_does_not_allow_in_comments_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "b\na.config"
    path.write_text(EVERY_KEY.read_text(encoding="utf-8") + '[x]\n\x07 = "\x07"\n')
    check_round_trip(path, tmp_path)


@pytest.mark.skipif(not REAL_FILES.is_dir(), reason="the Antillia configuration files are not here")
@pytest.mark.parametrize("path", sorted(REAL_FILES.glob("*.config")), ids=lambda path: path.stem)
def test_real_files(path: Path, tmp_path: Path) -> None:
    try:
        check_round_trip(path, tmp_path)
    except ConfigError as error:
        assert "which this version does not have" in str(error)  # noqa: PT017 (either is right)
        check_round_trip(path, tmp_path, ("network.name=unet",))
