"""From TOML and overrides to settings and back, with errors that name the line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.config import Config, encoder_weights, validate
from contract.config.loader import find_line, load_config, parse_override, parse_toml, to_toml
from contract.errors import ConfigError

TEXT = """\
[run]
name = "try"

[data.augment]
noise = 0.1

[train]
epochs = 3
num_workers = 2

[sweep.space]
"train.learning_rate" = { loguniform = [1e-4, 1e-2] }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of a few settings."""
    (tmp_path / "try.toml").write_text(TEXT, encoding="utf-8")
    return tmp_path / "try.toml"


class TestLoading:
    def test_a_file_names_only_what_differs(self, file: Path) -> None:
        config = load_config(file)
        assert (config.run.name, config.train.epochs, config.data.augment.noise) == ("try", 3, 0.1)
        assert config.serve == Config().serve

    def test_overrides_win_and_the_last_one_most(self, file: Path) -> None:
        config = load_config(file, ["train.epochs=4", "train.epochs=5", "train.batch_size=4"])
        assert (config.train.epochs, config.train.batch_size) == (5, 4)

    def test_an_override_may_make_a_setting_absent(self, file: Path) -> None:
        assert load_config(file, ["train.patience=3"]).train.patience == 3
        assert load_config(file, ["train.patience=3", "train.patience="]).train.patience is None

    def test_paths_become_absolute(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", "/home/me")
        config = load_config(
            file, ["storage.root=here", "data.source=folder", "data.root=~/slices"]
        )
        assert config.storage.root == str(tmp_path / "here")
        assert config.data.root == "/home/me/slices"
        assert load_config(file, ["storage.root=s3://b/p"]).storage.root == "s3://b/p"
        network = ["network.name=efficient_unet", "network.encoder_weights=b0.h5"]
        assert encoder_weights(load_config(file, network).network) == str(tmp_path / "b0.h5")

    @pytest.mark.parametrize("name", ["demo", "demo@production", "s3://b/runs/demo", "./demo"])
    def test_a_bundle_to_start_from_may_be_a_name(
        self, name: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        loaded = load_config(file, [f"train.start_from={name}"]).train.start_from
        assert loaded == (str(tmp_path / "demo") if name == "./demo" else name)

    def test_an_empty_file_is_all_defaults(self, tmp_path: Path) -> None:
        (tmp_path / "empty.toml").touch()
        assert load_config(tmp_path / "empty.toml").train == Config().train


def test_values_of_python_replace_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[train]\nepochs = 3\nbatch_size = 4\n", encoding="utf-8")
    space = {"train.learning_rate": {"choice": [1e-3, 1e-2]}}
    config = load_config(
        path, train={"epochs": 5}, data={"augment": {"rotation": 0.0}}, sweep={"space": space}
    )
    assert (config.train.epochs, config.train.batch_size) == (5, 4)
    assert config.data.augment.rotation == 0.0
    assert config.sweep.space["train.learning_rate"].choice == (1e-3, 1e-2)
    by_key: dict[str, Any] = {"train.epochs": 6}
    assert load_config(path, [], **by_key).train.epochs == 6
    with pytest.raises(ConfigError, match=r"train\.epochs \(override\) = 'x'"):
        load_config(path, train={"epochs": "x"})
    with pytest.raises(ConfigError, match=r"no setting 'train\.epoch'; did you mean train\.epochs"):
        load_config(path, train={"epoch": 1})


class TestMistakes:
    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["train.epoch=3"], "there is no setting 'train.epoch'; did you mean train.epochs?"),
            (
                ["epochs=3"],
                "override 'epochs=3' must read section.key=value; did you mean train.epochs?",
            ),
            (["epocs=3"], "override 'epocs=3' must read section.key=value."),
            (["train.epochs"], "override 'train.epochs' must read section.key=value."),
            (["train.epochs=x"], "train.epochs (override) = 'x' must be a valid integer"),
            (
                ["train.batch_size=7"],
                "(override) = 7 must be divisible by train.num_workers (line 9)",
            ),
            (["train.epochs="], "train.epochs (override) = None must be a valid integer"),
            (["sweep.space.train.epochs=3"], "sweep.space.train.epochs"),
            (["run.name=7"], "run.name (override) = 7 must be a valid string"),
        ],
    )
    def test_in_overrides(self, file: Path, overrides: list[str], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load_config(file, overrides)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("epochs = 3", "epochs = 0", "try.toml: train.epochs (line 8) = 0 must be "),
            (
                "epochs = 3",
                "epoch = 3",
                "no setting train.epoch (line 8); did you mean train.epochs?",
            ),
            ("noise = 0.1", "noise = 7", "data.augment.noise (line 5) = 7 must be "),
            ("[train]", "[trian]", "there is no setting trian; did you mean train?"),
            ("learning_rate", "lerning_rate", "did you mean train.learning_rate?"),
            ("epochs = 3", "epochs = ", "is not valid TOML: Invalid value (at line 8"),
            ("epochs = 3", "epochs = 3\nepochs = 4", "is not valid TOML: "),
        ],
    )
    def test_in_the_file(self, file: Path, old: str, new: str, message: str) -> None:
        file.write_text(TEXT.replace(old, new), encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        assert message in str(caught.value)

    def test_a_section_that_is_a_value(self, file: Path) -> None:
        file.write_text("train = 3", encoding="utf-8")
        with pytest.raises(ConfigError, match="train is a section of settings, not a value"):
            load_config(file, ["train.epochs=3"])

    def test_a_byte_order_mark_is_accepted(self, tmp_path: Path) -> None:
        path = tmp_path / "windows.toml"
        path.write_bytes(b"\xef\xbb\xbf[train]\r\nepochs = 3\r\n")
        assert load_config(path).train.epochs == 3

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"toml \(No such file .*\): pass the path"):
            load_config(tmp_path / "nowhere.toml")
        with pytest.raises(ConfigError, match=r"\(Is a directory\): pass the path"):
            load_config(tmp_path)
        with pytest.raises(ConfigError, match=r"^train\.epochs=3 is a setting, not a file: pass"):
            load_config(Path("train.epochs=3"))
        (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="is not text in UTF-8"):
            load_config(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs=3", ("train.epochs", 3)),
        ("train.learning_rate=1e-3", ("train.learning_rate", 1e-3)),
        ("data.root=/slices", ("data.root", "/slices")),
        ("data.root=s3://b/a=b", ("data.root", "s3://b/a=b")),
        ("predict.sliding_window=true", ("predict.sliding_window", True)),
        ('run.name="7"', ("run.name", "7")),
        ("run.name=2024-05-01", ("run.name", "2024-05-01")),
        ("sweep.space.train.epochs={int=[1,3]}", ("sweep.space.train.epochs", {"int": [1, 3]})),
        (" train.clip_norm = ", ("train.clip_norm", None)),
    ],
)
def test_override_values_are_toml_or_plain_text(override: str, expected: tuple[str, Any]) -> None:
    assert parse_override(override) == expected


class TestDumping:
    def test_what_is_dumped_loads_the_same(self, file: Path, tmp_path: Path) -> None:
        config = load_config(
            file, ["train.clip_norm=1.5", "sweep.space.network.num_layers={int=[3,5]}"]
        )
        (tmp_path / "again.toml").write_text(to_toml(config), encoding="utf-8")
        again = load_config(tmp_path / "again.toml")
        assert again == config
        assert again.fingerprint() == config.fingerprint()

    @given(
        st.fixed_dictionaries(
            {
                "run": st.fixed_dictionaries(
                    {"name": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,20}\Z")}
                ),
                "data": st.fixed_dictionaries(
                    {"patient_id_regex": st.sampled_from([r"^\d+", '"', "'''", "[\\s\"']", "ü|\t"])}
                ),
                "storage": st.fixed_dictionaries(
                    {"root": st.text(st.characters(exclude_categories=["Cs"]), max_size=20)}
                ),
            }
        )
    )
    def test_any_text_survives(self, tree: dict[str, Any]) -> None:
        config = validate(tree, origin="given")
        assert validate(parse_toml(to_toml(config), origin="dumped"), origin="dumped") == config


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("run.name", 2),
        ("data.augment.noise", 5),
        ("data.augment", 4),
        ("train.num_workers", 9),
        ("train.batch_size", None),
        ("sweep.space.train.learning_rate", 12),
    ],
)
def test_line_of(key: str, line: int | None) -> None:
    assert find_line(key, TEXT) == line
