"""Writes docs/settings.md from the schema: `python -m contract.config.reference`."""

import json
import sys
from collections.abc import Iterator
from typing import Any

from contract.config import Network, ParameterSpec, Section, network_name, sections

_INTRODUCTION = """\
# Settings

One TOML file contains all settings; every setting has a default, so a file needs only the settings
that differ. On the command line, `section.key=value` after the file overrides a setting:

    segfleet train configs/pancreas.toml train.epochs=3 data.root=/slices

`section.key=` without a value makes a setting absent. `--show-config` prints all settings after the
overrides. Unknown keys and values outside their limits are errors. Relative folders are relative to
the current folder.

This page is generated: `python -m contract.config.reference > docs/settings.md`.
"""

_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "maxLength": "at most {} characters",
    "pattern": "matching `{}`",
}
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "absent",
}


def render_settings_reference() -> str:
    """The page in Markdown: one chapter per section, and one row of its table per setting."""
    chapters = [_render_section(_heading(key, section), section) for key, section in sections()]
    space = [section_key for section_key, _ in sections()].index("sweep") + 1
    chapters.insert(space, _render_section('[sweep.space."section.key"]', ParameterSpec))
    return "\n".join([_INTRODUCTION, *chapters])


def _heading(section_key: str, section: type[Section]) -> str:
    """The heading of a section; each network has one of its own."""
    if issubclass(section, Network):
        return f'[{section_key}] with name = "{network_name(section)}"'
    return f"[{section_key}]"


def _render_section(heading: str, section: type[Section]) -> str:
    """Heading, meaning and table of one section."""
    table = [
        "| Setting | Values | Default | Meaning |",
        "| --- | --- | --- | --- |",
        *_render_rows(section),
    ]
    meaning = " ".join((section.__doc__ or "").split())
    return "\n".join([f"## {heading}", "", meaning, "", *table, ""])


def _render_rows(section: type[Section]) -> Iterator[str]:
    """A row of the table for each setting; nested sections have a table of their own."""
    schema = section.model_json_schema()
    # A range has no default as a whole: one of its keys must be given.
    plain = {} if section is ParameterSpec else section().model_dump(mode="json")
    for name, entry in schema["properties"].items():
        if "$ref" not in entry:
            cells = (
                f"`{name}`",
                _describe_values(entry),
                _format_value(plain.get(name)),
                entry["description"],
            )
            yield "| " + " | ".join(_escape_cell(text) for text in cells) + " |"


def _describe_values(entry: dict[str, Any]) -> str:
    """What a setting may be, in words, from its JSON schema."""
    if "anyOf" in entry:
        return ", or ".join(_describe_values(choice) for choice in entry["anyOf"])
    if "enum" in entry:
        return ", ".join(_format_value(choice) for choice in entry["enum"])
    if entry["type"] == "array":
        return entry.get("title", "[low, high]") if "prefixItems" in entry else "[value, …]"
    if entry["type"] == "object":
        return "a table"
    limits = [text.format(entry[key]) for key, text in _LIMITS.items() if key in entry]
    return ", ".join([_TYPES[entry["type"]], *limits])


def _escape_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _format_value(value: Any) -> str:
    return "absent" if value is None else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(render_settings_reference())
