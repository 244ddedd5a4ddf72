"""The TOML file has the chosen settings, and loads as the same."""

from pathlib import Path

from cluster.resources import Node
from contract.config.loader import load_config
from tests.trainer.planning.fingerprints import PHOTOGRAPHS
from trainer.planning.decisions import Choice, choose_settings
from trainer.planning.settings_file import render_settings
from trainer.planning.sizing import Resources


def test_a_file_loads_as_the_settings_that_were_chosen(tmp_path: Path) -> None:
    given = {
        "run.name": "photographs",
        "data.source": "folder",
        "data.root": str(tmp_path),
        "train.class_weights": {"lesion": 2.0},
        "sweep.space": {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}},
    }
    plan = choose_settings(PHOTOGRAPHS, Resources((Node("machine", 2, 0),)), 15, given)
    file = tmp_path / "settings.toml"
    file.write_text(render_settings(plan.choices, ["Settings."]))
    config = load_config(file)
    assert config.data.classes == plan.value("data.classes")
    assert list(config.data.classes) == ["organ", "lesion", "bone"]
    assert config.network.image_shape == (plan.shape.height, plan.shape.width)
    assert config.train.class_weights == {"lesion": 2.0}
    assert config.train.epochs == plan.schedule.epochs
    assert list(config.sweep.space) == ["train.learning_rate"]
    assert f"\nimage_size = [{plan.shape.height}, {plan.shape.width}]\n" in file.read_text()
    for choice in plan.choices:
        assert choice.key.rpartition(".")[2] in file.read_text()


def test_reasons_are_above_their_settings_and_fit_the_line() -> None:
    reason = "because\nof a file named\x00 so " + "and " * 40
    text = render_settings(
        [Choice("train.epochs", 3, reason), Choice("run.name", "a", "first")], ["Heading."]
    )
    assert text.startswith('# Heading.\n\n[run]\n# first\nname = "a"\n\n[train]\n# because of')
    assert text.endswith("and\nepochs = 3\n")
    assert max(map(len, text.splitlines())) <= 100
