"""Reads configuration files of the Antillia Tensorflow-Image-Segmentation projects.

A file such as train_eval_infer.config becomes the settings that do the same here, and a note for
each of its keys: what became of it. docs/from-antillia.md has the table of all keys.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.config.ini.augment_rules import translate_augmentation
from contract.config.ini.folder_rules import translate_folders, translate_masks
from contract.config.ini.keys import ALIASES, KEYS, KeyName, Status, describe_key, write_literal
from contract.config.ini.network_rules import translate_network
from contract.config.ini.outcome import Outcome, TranslationError, Values
from contract.config.ini.syntax import Entry, IniSyntaxError, parse_ini, read_literal
from contract.config.ini.training_rules import (
    translate_colors,
    translate_image,
    translate_prediction,
    translate_previews,
    translate_training,
)
from contract.config.root import closest_match
from contract.config.run import Run
from contract.errors import ConfigError

SUFFIXES = (".config", ".ini")
_MAX_FAULTS = 5
_MAX_LISTED = 8
# The name that most projects give the file: their folders have the name of the project.
_USUAL_STEM = "train_eval_infer"
_EXPECTED: tuple[Status, ...] = ("translated", "not applicable")
# What a user should know, with the words of the message.
_SURPRISES: Mapping[Status, str] = {
    "default": "not readable, so that the default is taken",
    "unknown": "unknown",
    "repeated": "repeated",
    "not supported": "not supported",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Note:
    """What became of a key, or a default of those projects that the file relies on."""

    source: str
    """Section and key: [train] epochs."""
    line: int | None
    """The line of the file; None if the key is absent."""
    status: Status
    settings: Mapping[str, Any]
    text: str


@dataclass(frozen=True)
class IniSettings:
    """The settings of a file, by section.key, and the notes about its keys."""

    settings: Mapping[str, Any]
    lines: Mapping[str, int]
    """The line that determines a setting."""
    notes: tuple[Note, ...]


@dataclass
class _Reading:
    """The entries of a file while they are read."""

    values: dict[KeyName, Any]
    entries: dict[KeyName, Entry]
    notes: list[Note]
    faults: list[str]


def is_ini(path: Path) -> bool:
    """Whether a settings file is in the INI dialect, by its suffix."""
    return path.suffix.lower() in SUFFIXES


def read_ini(
    text: str, path: Path, overrides: Mapping[str, Any] | None = None, lenient: bool = False
) -> IniSettings:
    """The settings of a file in the INI dialect.

    Args:
        text: Its content.
        path: Its path; the paths in it are relative to its folder.
        overrides: Settings that will replace those of the file; a missing value that one of them
            gives is not an error.
        lenient: Take the default of those projects for a value that cannot be read, as they do,
            and note it. Otherwise it is an error.

    Raises:
        ConfigError: A value cannot be read or has no translation; the message names its line.
    """
    reading = _read_values(text, lenient)
    if reading.faults:
        more = len(reading.faults) - _MAX_FAULTS
        faults = "; ".join(reading.faults[:_MAX_FAULTS]) + (f"; and {more} more" * (more > 0))
        raise ConfigError(
            f"{path}: {faults}: correct the file, or give --lenient to take the defaults of the "
            "projects that it is from."
        )
    try:
        outcomes = list(_translate(reading, path, overrides or {}))
    except TranslationError as error:
        raise ConfigError(_describe_translation_error(error, reading, path)) from error
    result = _collect(reading, outcomes)
    name = {"run.name": _run_name(path)}
    note = Note("the path of the file", None, "translated", name, "another name is another run")
    return IniSettings(name | dict(result.settings), result.lines, (note, *result.notes))


def _run_name(path: Path) -> str:
    """The name of a run: that of the file, or of its folder if the file has the usual name."""
    absolute = path.absolute()
    named = absolute.parent.name if absolute.stem == _USUAL_STEM else absolute.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", named).lstrip("_.-")[:80] or Run().name


def log_notes(path: Path, notes: Iterable[Note]) -> None:
    """Log in one message what became of the keys of a file; a warning if it may surprise."""
    by_status: dict[Status, list[Note]] = {}
    for note in notes:
        if note.line is not None:
            by_status.setdefault(note.status, []).append(note)
    translated, unused = (len(by_status.get(key, ())) for key in _EXPECTED)
    parts = [f"{translated} keys are translated, {unused} are not applicable"]
    parts += [
        f"{_SURPRISES[status]}: {_list_notes(by_status[status])}"
        for status in _SURPRISES
        if status in by_status
    ]
    _log.log(
        logging.WARNING if parts[1:] else logging.INFO,
        "%s: %s. segfleet convert lists every key",
        path,
        "; ".join(parts),
    )


def _list_notes(notes: list[Note]) -> str:
    names = [
        note.source + (f" ({note.text})" if note.status != "not supported" and note.text else "")
        for note in notes[:_MAX_LISTED]
    ]
    more = len(notes) - _MAX_LISTED
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _read_values(text: str, lenient: bool) -> _Reading:
    reading = _Reading({}, {}, [], [])
    entries, faults = parse_ini(text)
    for fault in faults:
        source = f"line {fault.line}"
        if lenient:
            reading.notes.append(Note(source, fault.line, "default", {}, fault.reason))
        else:
            reading.faults.append(f"{source}, column {fault.column} {fault.reason}")
    for entry in entries:
        _read_entry(reading, entry, lenient)
    return reading


def _read_entry(reading: _Reading, entry: Entry, lenient: bool) -> None:
    written = (entry.section, entry.key)
    name = ALIASES.get(written, written)
    if name not in KEYS:
        text = _suggest(name).removeprefix("; ")
        reading.notes.append(Note(describe_key(written), entry.line, "unknown", {}, text))
        return
    if previous := reading.entries.pop(name, None):
        text = f"line {entry.line} is used"
        reading.notes.append(Note(describe_key(name), previous.line, "repeated", {}, text))
        reading.values.pop(name, None)
    try:
        value = _read_value(name, entry)
    except IniSyntaxError as fault:
        key = describe_key(written)
        if lenient:
            text = f"{fault.reason}; {_describe_default(name)}"
            reading.notes.append(Note(key, entry.line, "default", {}, text))
            return
        text = re.sub(r"\s+", " ", entry.text)
        shown = f"= {text:.60} " if text else ""
        reading.faults.append(
            f"{key} (line {fault.line}, column {fault.column}) {shown}{fault.reason}"
            f" ({_describe_default(name)})"
        )
        return
    reading.entries[name] = entry
    if value is not None:
        reading.values[name] = value


def _read_value(name: KeyName, entry: Entry) -> Any:
    """The value of an entry in the form of its key; IniSyntaxError if it has another form."""
    value = read_literal(entry)
    if value is None:
        return None
    try:
        return KEYS[name].read(value)
    except ValueError as error:
        raise IniSyntaxError(entry.line, entry.column, str(error)) from error


def _describe_default(name: KeyName) -> str:
    default = KEYS[name].default
    return "no default" if default is None else f"default {write_literal(default)}"


def _suggest(name: KeyName) -> str:
    """'; did you mean [train] epochs?' for an unknown key, else ""."""
    section, key = name
    others = [known for known in (*KEYS, *ALIASES) if known[1] == key]
    if others and all(known != section for known, _ in KEYS):
        return f"; did you mean {describe_key(others[0])}?"
    in_section = [known for other, known in (*KEYS, *ALIASES) if other == section]
    if match := closest_match(key, in_section):
        return match.replace("mean ", f"mean [{section}] ")
    if others:
        return f"; did you mean {describe_key(others[0])}?"
    return closest_match(describe_key(name), map(describe_key, KEYS))


def _translate(reading: _Reading, path: Path, overrides: Mapping[str, Any]) -> Iterator[Outcome]:
    """What becomes of each key; keys that no rule names have one setting, or a reason."""
    values = Values(reading.values)
    named: set[KeyName] = set()
    rules: tuple[Callable[[], Iterator[Outcome]], ...] = (
        lambda: translate_network(values, overrides),
        lambda: translate_folders(values, path.absolute().parent, overrides),
        lambda: translate_masks(values, overrides),
        lambda: translate_training(values),
        lambda: translate_augmentation(values),
        lambda: translate_previews(values, path.absolute().parent),
        lambda: translate_prediction(values, overrides),
        lambda: translate_colors(values, overrides),
        lambda: translate_image(values, overrides),
    )
    for rule in rules:
        for outcome in rule():
            named.add(outcome.name)
            yield outcome
    for name, value in reading.values.items():
        if name not in named:
            yield _translate_alone(name, value)


def _translate_alone(name: KeyName, value: Any) -> Outcome:
    key = KEYS[name]
    if key.setting:
        return Outcome(name, {key.setting: value})
    if key.status == "not supported" and value is False:
        return Outcome(name, status="not applicable", text="is off")
    return Outcome(name, status=key.status, text=key.becomes)


def _collect(reading: _Reading, outcomes: Iterable[Outcome]) -> IniSettings:
    settings: dict[str, Any] = {}
    lines: dict[str, int] = {}
    notes = list(reading.notes)
    for outcome in outcomes:
        is_given = outcome.name in reading.values
        entry = reading.entries.get(outcome.name)
        settings |= outcome.settings
        if entry:
            lines |= dict.fromkeys(outcome.settings, entry.line)
        if is_given or outcome.settings:
            line = entry.line if entry and is_given else None
            source = describe_key(outcome.name)
            notes.append(Note(source, line, outcome.status, outcome.settings, outcome.text))
    for name, entry in reading.entries.items():
        if name not in reading.values:
            notes.append(Note(describe_key(name), entry.line, "not applicable", {}, "None"))
    return IniSettings(settings, lines, tuple(notes))


def _describe_translation_error(error: TranslationError, reading: _Reading, path: Path) -> str:
    entry = reading.entries.get(error.name)
    line = f" (line {entry.line})" if entry else ""
    return f"{path}: {describe_key(error.name)}{line} {error.reason}."
