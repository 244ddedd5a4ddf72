"""The settings of an INI file as TOML, with a comment for each of its keys."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from contract.config.ini_reader import SUFFIXES, IniSettings, Note, is_ini
from contract.config.loader import create_config, parse_values, read_ini_file
from contract.config.root import sections, setting_types
from contract.errors import ConfigError

_WIDTH = 96
_HEADINGS = {
    "default": "Not readable; the default is taken:",
    "unknown": "Unknown keys:",
    "repeated": "Repeated keys:",
    "not supported": "Not supported:",
    "not applicable": "Not applicable:",
    "translated": "Without a setting of their own:",
}


def convert_to_toml(path: Path, overrides: Iterable[str] = (), *, lenient: bool = False) -> str:
    """The settings of a .config or .ini file as TOML that load_config reads as the same settings.

    Settings that neither the file nor an override determines are left out. Raises ConfigError as
    load_config does.
    """
    if not is_ini(path):
        raise ConfigError(f"{path} is not a {' or '.join(SUFFIXES)} file: TOML is read as it is.")
    values = parse_values(tuple(overrides), {})
    ini = read_ini_file(path, values, lenient)
    config = create_config({**ini.settings, **values}, path, ini.lines.get, values)
    tree = config.model_dump(mode="json", exclude_none=True)
    overridden = list(dict.fromkeys(_find_setting(key) for key in values))
    # The classes as the file is translated: colors as text, not as lists of numbers.
    chosen = {
        key: value if isinstance(value, Mapping) else _find_value(tree, key)
        for key, value in ini.settings.items()
    } | {key: _find_value(tree, key) for key in overridden}
    lines = [f"# The settings of {_comment(str(path))}, converted by segfleet.", ""]
    lines += _render_notes(ini)
    lines += _render_tables(chosen, ini.notes, overridden)
    return "\n".join(lines).rstrip() + "\n"


def _find_setting(key: str) -> str:
    """The setting of an override: sweep.space of sweep.space.train.epochs."""
    known = setting_types()
    while key not in known:
        key = key.rpartition(".")[0]
    return key


def _find_value(tree: Mapping[str, Any], key: str) -> Any:
    """A value of the validated settings; None if it is absent."""
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _render_notes(ini: IniSettings) -> Iterator[str]:
    """The keys that are no setting, as comments."""
    for status, heading in _HEADINGS.items():
        notes = [note for note in ini.notes if note.status == status and not note.settings]
        if notes:
            yield f"# {heading}"
            yield from (f"#   {_describe_note(note)}" for note in notes)
            yield ""


def _render_tables(
    chosen: Mapping[str, Any], notes: Iterable[Note], overridden: Iterable[str]
) -> Iterator[str]:
    """The tables in the order of the sections, the plain values of each before its subtables."""
    comments: dict[str, list[str]] = {}
    for note in notes:
        for key in note.settings:
            comments.setdefault(key, []).append(_describe_note(note))
    comments |= {key: ["given when the file was converted"] for key in overridden}
    for section in dict.fromkeys(name for name, _ in sections()):
        keys = [key for key in chosen if key.rpartition(".")[0] == section]
        keys = [key for key in keys if chosen[key] is not None]
        keys.sort(key=lambda key: isinstance(chosen[key], Mapping))
        if keys and not isinstance(chosen[keys[0]], Mapping):
            yield f"[{section}]"
        for key in keys:
            text = _render_value(section, key.rpartition(".")[2], chosen[key])
            yield _add_comment(text, ", ".join(comments.get(key, ())))
        if keys:
            yield ""


def _render_value(section: str, name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return tomli_w.dumps({section: {name: value}}).rstrip()
    return tomli_w.dumps({name: value}).rstrip()


def _add_comment(text: str, comment: str) -> str:
    """A setting with its comment behind it, or above it if both do not fit on a line."""
    if "\n" in text or len(text) + len(comment) > _WIDTH:
        return f"# {comment}\n{text}"
    return f"{text}  # {comment}"


def _describe_note(note: Note) -> str:
    line = f" (line {note.line})" if note.line else ", absent" * note.source.startswith("[")
    return _comment(f"{note.source}{line}" + f": {note.text}" * bool(note.text))


def _comment(text: str) -> str:
    """Text that a TOML comment may contain: no control characters, no line ends."""
    return "".join(each if each.isprintable() else " " for each in text)
