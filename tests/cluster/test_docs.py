"""Every command and every setting that the pages of this room show is real."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

from contract.config import validated

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/cluster.md", ROOT / "docs/cloud.md"]
ROOMS = ("cluster", "trainer", "tuning", "inference")
COMMAND = re.compile(rf"(?:python -m|--) ({'|'.join(ROOMS)}) ([a-z][a-z-]+)")


def commands(room: str) -> set[str]:
    group = typer.main.get_command(import_module(f"{room}.__main__").app)
    return set(getattr(group, "commands"))  # noqa: B009  # a group has them, its type does not say


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    shown = set(COMMAND.findall(page.read_text()))
    assert shown
    assert [pair for pair in shown if pair[1] not in commands(pair[0])] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_settings_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for block in settings_shown(page):
        validated(tomllib.loads(block), page.name)


def settings_shown(page: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_settings_of_the_cloud_page_are_the_ones_that_are_shipped() -> None:
    assert settings_shown(ROOT / "docs/cloud.md") == [(ROOT / "configs/cloud.toml").read_text()]


HELP = re.compile(r"configs/[a-z]+\.toml")


@pytest.mark.parametrize("room", ROOMS)
def test_the_examples_of_every_help_name_files_that_exist(room: str) -> None:
    shown = set(HELP.findall((ROOT / room / "__main__.py").read_text()))
    assert [file for file in shown if not (ROOT / file).is_file()] == []
