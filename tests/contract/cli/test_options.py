"""The arguments and options that commands share arrive in a command as the right types."""

import pytest
from typer.testing import CliRunner

from contract.cli.app import create_app
from contract.cli.options import (
    DEFAULT_STORAGE_ROOT,
    BundleReference,
    ConfigFile,
    Overrides,
    ShowConfig,
    StorageRoot,
)

app = create_app("Print the arguments.")


@app.command()
def train(config: ConfigFile, overrides: Overrides = None, show_config: ShowConfig = False) -> None:
    """Print the arguments of a command that reads a configuration file."""
    print(repr((config.name, overrides, show_config)))  # noqa: T201


@app.command()
def evaluate(reference: BundleReference, storage: StorageRoot = DEFAULT_STORAGE_ROOT) -> None:
    """Print the arguments of a command that reads a bundle."""
    print(repr((reference, storage)))  # noqa: T201


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["train", "configs/a.toml"], ("a.toml", None, False)),
        (
            ["train", "a.toml", "train.epochs=3", "--show-config", "run.name=b"],
            ("a.toml", ["train.epochs=3", "run.name=b"], True),
        ),
        (["evaluate", "demo@production"], ("demo@production", "segfleet-data")),
        (
            ["evaluate", "--storage", "s3://bucket/prefix", "demo@1"],
            ("demo@1", "s3://bucket/prefix"),
        ),
    ],
)
def test_arguments_and_options_arrive(words: list[str], arguments: tuple[object, ...]) -> None:
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stdout) == (0, f"{arguments!r}\n")


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        ("train", ["CONFIG", "[SECTION.KEY=VALUE]", "--show-config", "docs/settings.md"]),
        ("evaluate", ["BUNDLE", "NAME@STAGE, NAME@VERSION", "--storage", "segfleet-data"]),
    ],
)
def test_the_help_names_their_form(command: str, texts: list[str]) -> None:
    shown = " ".join(CliRunner().invoke(app, [command, "--help"]).stdout.split())
    for text in texts:
        assert text in shown
