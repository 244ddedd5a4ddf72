"""`segfleet networks`: the list, and the files of one network."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from contract.config import NETWORKS, network_name
from contract.errors import ConfigError
from trainer.__main__ import app

RUNNER = CliRunner()


def test_the_list_has_every_network() -> None:
    done = RUNNER.invoke(app, ["networks", "--image-size", "64"], catch_exceptions=False)
    assert done.exit_code == 0
    names = [line.split()[0] for line in done.stdout.splitlines()[1:] if not line.startswith(" ")]
    assert names == [network_name(section) for section in NETWORKS]


def test_a_network_is_drawn_and_its_layers_are_listed(tmp_path: Path) -> None:
    command = ["networks", "show", "unet", "network.num_layers=3", "--output", str(tmp_path)]
    done = RUNNER.invoke(app, command, catch_exceptions=False)
    assert "input: 128 x 128 x 1" in done.stdout
    assert "trainable parameters: 117073 (117.1 k)" in done.stdout
    assert "encoder_2_conv_2" in (tmp_path / "unet.txt").read_text()
    assert (tmp_path / "unet.svg").read_text().startswith("<svg")


def test_a_file_of_settings_is_a_network_too(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('network = { name = "sharp_unet", image_size = 64 }')
    command = ["networks", "show", str(tmp_path / "a.toml"), "--output", str(tmp_path)]
    done = RUNNER.invoke(app, command, catch_exceptions=False)
    assert "input: 64 x 64 x 1" in done.stdout
    assert (tmp_path / "sharp_unet.svg").exists()


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unett is neither a file nor .* did you mean unet\?"):
        RUNNER.invoke(app, ["networks", "show", "unett"], catch_exceptions=False)
