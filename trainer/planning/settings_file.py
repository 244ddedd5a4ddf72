"""The chosen settings as TOML, with the reason above each of them."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tomli_w

from contract.config import sections
from trainer.planning.decisions import Choice

_WIDTH = 98


def render_settings(choices: Iterable[Choice], heading: Sequence[str]) -> str:
    """A TOML file with these settings, in the order of the sections.

    Args:
        choices: The settings.
        heading: The sentences at the top of the file.
    """
    by_section: dict[str, list[Choice]] = {}
    for choice in choices:
        by_section.setdefault(choice.key.rpartition(".")[0], []).append(choice)
    lines = [line for sentence in heading for line in _comment(sentence)]
    for section in dict.fromkeys(name for name, _ in sections()):
        if section in by_section:
            lines += ["", *_render_section(section, by_section[section])]
    return "\n".join(lines) + "\n"


def _render_section(section: str, choices: Sequence[Choice]) -> Iterator[str]:
    """The plain settings of a section, each reason once, then those that are tables."""
    tables = [choice for choice in choices if isinstance(choice.value, Mapping)]
    plain = [choice for choice in choices if not isinstance(choice.value, Mapping)]
    if plain:
        yield f"[{section}]"
    reason = ""
    for choice in plain:
        if choice.reason != reason:
            yield from _comment(choice.reason)
        reason = choice.reason
        yield _render_setting(choice.key.rpartition(".")[2], choice.value)
    for choice in tables:
        if choice is not choices[0]:
            yield ""
        yield from _comment(choice.reason)
        yield _render_table(choice.key, choice.value)


def _render_setting(name: str, value: Any) -> str:
    """A setting; a list of numbers, such as a height and a width, in one line."""
    if isinstance(value, list | tuple) and all(type(each) in (int, float) for each in value):
        return f"{name} = {list(value)}"
    return tomli_w.dumps({name: value}).rstrip()


def _render_table(key: str, value: Mapping[str, Any]) -> str:
    section, _, name = key.rpartition(".")
    tree: dict[str, Any] = {name: value}
    for part in reversed(section.split(".")):
        tree = {part: tree}
    return tomli_w.dumps(tree).rstrip()


def _comment(text: str) -> list[str]:
    """A text as lines of comments; control characters of file names would end them."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return [f"# {line}" for line in textwrap.wrap(printable, _WIDTH - 2, break_on_hyphens=False)]
