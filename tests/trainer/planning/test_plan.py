"""`segfleet plan`: from a folder of slices to a TOML file."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import trainer
from contract.config import Config
from contract.config.loader import load_config
from contract.errors import ConfigError, DataError
from contract.storage import open_storage
from tests.slice_folders import put_splits
from tests.trainer.planning.fingerprints import CT
from trainer.__main__ import app
from trainer.planning import plan as plan_module
from trainer.planning.step_time import NetworkShape


@pytest.fixture
def slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / "my slices"
    put_splits(open_storage(str(folder)))
    return folder


def run(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, ["plan", *arguments, "--no-measure"])
    assert result.exit_code == exit_code, result.output
    return result.stdout


def test_the_file_is_valid_and_never_replaced(slices: Path, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    assert run(str(slices), "--output", str(file)) == f"settings: {file}\n"
    config = load_config(file)
    assert config.run.name == "my-slices"
    assert config.data.root == str(slices)
    assert load_config(file, train={"epochs": 1}).train.epochs == 1
    assert config.network.image_shape == (24, 24)
    dataset = trainer.prepare(config.with_values({"storage.root": str(tmp_path / "home")}))
    assert len(dataset.select("train")) == 4
    before = file.read_bytes()
    result = CliRunner().invoke(app, ["plan", str(slices), "--output", str(file)])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == f"{file} exists already: name another file, or delete it."
    assert file.read_bytes() == before


def test_settings_of_a_file_and_overrides_are_kept(slices: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.toml"
    base.write_text(
        '[data]\nsource = "phantom"\nroot = "elsewhere"\n[run]\nname = "kept"\n'
        "[train]\nbatch_size = 3\n"
    )
    text = run(str(slices), "train.batch_size=2", "network.image_size=16", "--base", str(base))
    file = tmp_path / "printed.toml"
    file.write_text(text)
    config = load_config(file)
    assert config.run.name == "kept"
    assert config.data.root == str(slices)
    assert config.train.batch_size == 2
    assert config.network.image_shape == (16, 16)
    assert "# given\nbatch_size = 2\n" in text


def test_the_python_interface_returns_settings_with_reasons(slices: Path) -> None:
    planned = trainer.plan(slices, measure=False, minutes=5, cluster={"cpus": 1})
    assert planned.config.train.cpus_per_worker == 1
    assert planned.fingerprint.patients["train"] == 2
    assert planned.plan.value("network.image_size") == 24


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epoch=3"], r"there is no setting 'train\.epoch'; did you mean"),
        (["network.name=u2_net"], r"remove network\.name"),
        (["train.batch_size=3", "train.num_workers=2"], "divisible"),
        (["network.image_size=big"], r"network\.image_size"),
        (["data.root=/other"], r"data\.root = '/other' contradicts DATA = '.*': name"),
        (["data.source=phantom"], r"'phantom' contradicts DATA = '.*': remove data\.source"),
    ],
)
def test_settings_that_do_not_fit_are_errors(
    slices: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer.plan(slices, overrides, measure=False)


def test_a_base_that_is_not_toml_is_an_error(slices: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="convert it with `segfleet convert`"):
        trainer.plan(slices, base=tmp_path / "train.config", measure=False)
    with pytest.raises(ConfigError, match="cannot read the settings file"):
        trainer.plan(slices, base=tmp_path / "absent.toml", measure=False)
    with pytest.raises(ConfigError, match=r"minutes = 0\.5 is too short"):
        trainer.plan(slices, minutes=0.5, measure=False)


def test_the_network_that_a_measurement_leads_to_is_timed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    timed: list[NetworkShape] = []

    def measure_slowly(config: Config, shape: NetworkShape) -> float:
        timed.append(shape)
        return 2e9

    monkeypatch.setattr(plan_module, "measure_fingerprint", lambda *args: CT)
    monkeypatch.setattr(plan_module, "measure_speed", measure_slowly)
    given = {"data.source": "folder", "data.root": str(tmp_path), "train.gpus_per_worker": 0}
    planned = plan_module.create_plan(str(tmp_path), given, 15)
    assert len(timed) == 2
    assert timed[1] == planned.plan.shape
    assert timed[0].height > timed[1].height


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "nowhere")])
    assert isinstance(done.exception, DataError)
    assert str(done.exception).startswith(f"there is no folder {tmp_path}/nowhere: name the folder")
