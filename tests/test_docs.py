"""Every command and every setting that the pages of docs/ show is real."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from contract.cli import main
from contract.config import validate
from contract.config.loader import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / f"docs/{name}.md" for name in ("cluster", "cloud", "data", "from-antillia")]
# Code blocks that are indented by four spaces, and code in a line.
CODE = re.compile(r"^    .*$|`[^`\n]+`", re.MULTILINE)
ROOMS = ("cluster", "trainer", "tuning", "inference")
COMMAND = re.compile(r"^[ `$]*segfleet ((?:models )?[a-z][a-z-]*)", re.MULTILINE)
JOB_COMMAND = re.compile(rf"-- ({'|'.join(ROOMS)}) ([a-z][a-z-]+)")


def application(room: str) -> typer.Typer:
    return import_module(f"{room}.__main__").app


def commands(room: str) -> set[str]:
    return set(typer.main.get_group(application(room)).commands)


def segfleet_commands() -> dict[str, main.LazyCommand]:
    """The commands of `segfleet` and where they are defined."""
    names = {name: source for section in main.SECTIONS.values() for name, source in section.items()}
    return names | {f"models {name}": source for name, source in main.MODEL_COMMANDS.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    shown = set(COMMAND.findall("\n".join(CODE.findall(text))))
    assert shown
    assert shown <= segfleet_commands().keys()
    assert [pair for pair in JOB_COMMAND.findall(text) if pair[1] not in commands(pair[0])] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_settings_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for block in settings_shown(page):
        validate(tomllib.loads(block), page.name)


def settings_shown(page: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_settings_of_the_cloud_page_are_the_ones_that_are_shipped() -> None:
    assert settings_shown(ROOT / "docs/cloud.md") == [(ROOT / "configs/cloud.toml").read_text()]


HELP = re.compile(r"configs/[a-z]+\.toml")


@pytest.mark.parametrize("room", ROOMS)
def test_the_examples_of_every_help_name_files_that_exist(room: str) -> None:
    shown = set(HELP.findall((ROOT / room / "__main__.py").read_text()))
    assert [file for file in shown if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("command", segfleet_commands())
def test_the_example_of_every_help_can_be_pasted(command: str) -> None:
    source = segfleet_commands()[command]
    shown = help_of(source.package, source.name)
    (line,) = re.findall(rf"^  Example: segfleet {command} (.*)$", shown, re.MULTILINE)
    assert shown.endswith(f"{line}\n"), shown
    words = line.split()
    if words[0].endswith(".toml"):
        settings = words[1 : words.index("--")] if "--" in words else words[1:]
        load_config(ROOT / words[0], [word for word in settings if "=" in word])


@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("trainer", "evaluate"),
        ("inference", "deploy"),
        ("inference", "service"),
        ("cluster", "down"),
    ],
)
def test_no_help_suggests_a_setting_that_the_command_does_not_heed(room: str, name: str) -> None:
    assert "train.epochs" not in help_of(room, name)


def help_of(room: str, name: str) -> str:
    return CliRunner().invoke(application(room), [name, "--help"]).stdout


def test_a_job_is_submitted_in_one_way() -> None:
    files = [ROOT / "README.md", *PAGES, *(ROOT / room / "__main__.py" for room in ROOMS)]
    shown = "\n".join(file.read_text() for file in files)
    behind = re.findall(r"-- (?:trainer train|tuning sweep) +(\S+)", shown)
    assert [word for word in behind if word in ("...", "CONFIG") or word.endswith(".toml")] == []
