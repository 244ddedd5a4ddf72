"""The command `segfleet` has all commands of the packages."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from contract.cli import main

ROOT = Path(__file__).parents[3]
SOURCES = [source for commands in main.SECTIONS.values() for source in commands.values()]


def run(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(main.app, arguments)
    assert result.exit_code == exit_code, result.output
    return result.output


@pytest.mark.parametrize("package", ["trainer", "tuning", "inference", "cluster"])
def test_every_command_of_a_package_is_one_of_segfleet(package: str) -> None:
    app = import_module(f"{package}.__main__").app
    group = typer.main.get_group(app)
    sources = [*SOURCES, *main.MODEL_COMMANDS.values()]
    assert set(group.commands) == {each.name for each in sources if each.package == package}


def test_help_groups_the_commands() -> None:
    text = run("--help")
    positions = [text.index(f"{section}:\n") for section in main.SECTIONS]
    assert positions == sorted(positions)
    for commands in main.SECTIONS.values():
        for name, source in commands.items():
            summary = (source.load().help or "").split()[:4]
            assert f"  {name} " in text
            assert " ".join(summary) in text


def test_a_command_of_segfleet_has_the_arguments_of_its_package() -> None:
    assert " train [OPTIONS] {CONFIG}" in run("train", "--help")
    settings = run("train", str(ROOT / "configs/demo.toml"), "train.epochs=3", "--show-config")
    assert tomllib.loads(settings)["train"]["epochs"] == 3


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["trian"], "No such command 'trian'; did you mean train?"),
        (["register"], "No such command 'register'; did you mean models register?"),
        (["models", "promot"], "No such command 'promot'; did you mean promote?"),
        (["xyz"], "No such command 'xyz'."),
    ],
)
def test_an_unknown_command_suggests_the_closest_one(words: list[str], error: str) -> None:
    assert f"Error: {error}\n" in run(*words, exit_code=2)


@pytest.mark.parametrize("words", [["--help"], ["models", "--help"]])
def test_no_summary_is_cut_in_a_terminal_of_80_columns(words: list[str]) -> None:
    result = CliRunner().invoke(main.app, words, env={"COLUMNS": "80"}, terminal_width=80)
    assert result.exit_code == 0
    assert "..." not in result.output.partition("Options:")[2]
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_models_lists_an_empty_registry(tmp_path: Path) -> None:
    assert "no model is registered" in run("models", "list", "--storage", str(tmp_path))
    assert list(main.MODEL_COMMANDS) == [
        line.split()[0] for line in run("models", "--help").split("Commands:")[1].splitlines()[1:]
    ]


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version") == f"segfleet {project['version']}\n"
