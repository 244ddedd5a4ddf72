"""Writes the table of docs/from-antillia.md: `python -m contract.config.ini.reference`."""

import sys
from collections.abc import Iterator

from contract.config.ini.keys import ALIASES, KEYS, Key, KeyName, write_literal


def render_key_table() -> str:
    """The table of all keys in Markdown, one table per section."""
    sections = dict.fromkeys(section for section, _ in KEYS)
    return "\n".join(line for section in sections for line in _render_section(section))


def _render_section(section: str) -> Iterator[str]:
    yield f"### [{section}]"
    yield ""
    yield "| Key | Default there | Here |"
    yield "| --- | --- | --- |"
    for name, key in KEYS.items():
        if name[0] == section:
            yield f"| {_describe_names(name)} | {_describe_default(key)} | {_describe_key(key)} |"
    yield ""


def _describe_names(name: KeyName) -> str:
    """A key and its other names in the same section."""
    others = [alias for alias, known in ALIASES.items() if known == name and alias[0] == name[0]]
    return ", ".join(f"`{key}`" for _, key in [name, *others])


def _describe_default(key: Key) -> str:
    return "" if key.default is None else f"`{write_literal(key.default)}`"


def _describe_key(key: Key) -> str:
    text = key.becomes.replace("|", "\\|")
    return text if key.status == "translated" else f"{key.status}: {text}"


if __name__ == "__main__":
    sys.stdout.write(render_key_table())
