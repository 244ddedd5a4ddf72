"""From a settings file and overrides to a Config, and back to TOML."""

import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from datetime import date, time
from pathlib import Path
from typing import Any

import tomli_w

from contract.config import Config, encoder_weights, set_value, setting_types, validate
from contract.config.ini_reader import IniSettings, is_ini, log_notes, read_ini
from contract.config.start_from import local_folder
from contract.errors import ConfigError

FindLine = Callable[[str], int | None]
"""The line of the settings file that sets a setting."""


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, lenient: bool = False, **settings: Any
) -> Config:
    """Load the settings of a TOML file, or of a .config or .ini file (docs/from-antillia.md).

    Relative paths are taken from the current folder and made absolute, because Ray's workers
    run elsewhere. Those of a .config or .ini file are taken from its own folder.

    Args:
        path: The settings file.
        overrides: Settings that replace those of the file, as on the command line:
            ["train.epochs=3"].
        lenient: Take defaults for values of a .config or .ini file that cannot be read.
        **settings: Settings that replace those of the file, as values: train={"epochs": 3}, or
            **{"train.epochs": 3}.

    Returns:
        The validated settings.

    Raises:
        ConfigError: There is an unknown key, an invalid value or invalid syntax; the message names
            file and line.

    Example:
        >>> config = load_config("configs/demo.toml", train={"epochs": 3, "batch_size": 4})
    """
    path, values = Path(path), parse_values(overrides, settings)
    if is_ini(path):
        ini = read_ini_file(path, values, lenient)
        log_notes(path, ini.notes)
        return create_config({**ini.settings, **values}, path, ini.lines.get, values)
    if lenient:
        raise ConfigError(
            f"{path} is a TOML file, which has no values to be lenient about: remove --lenient."
        )
    text = _read(path)
    tree = parse_toml(text, origin=str(path))
    return create_config(values, path, lambda key: find_line(key, text), values, tree)


def parse_values(overrides: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of load_config's overrides and settings, by section.key."""
    return dict(parse_override(override) for override in overrides) | flatten_settings(settings)


def read_ini_file(path: Path, overrides: Mapping[str, Any], lenient: bool) -> IniSettings:
    """The settings of a .config or .ini file; ConfigError if it cannot be read."""
    return read_ini(_read(path), path, overrides, lenient)


def create_config(
    values: Mapping[str, Any],
    path: Path,
    find: FindLine,
    overridden: Collection[str] = (),
    tree: dict[str, Any] | None = None,
) -> Config:
    """The validated settings of a file, with absolute folders.

    values: settings by section.key, which replace those of the tree; tree: the tables of the file;
    overridden: the settings whose value is not from the file. Raises ConfigError, whose message
    names file and line.
    """
    tree = {} if tree is None else tree
    for key, value in values.items():
        # A later value may be set inside this one.
        set_value(tree, key, deepcopy(value))
    try:
        config = validate(tree, origin=str(path))
    except ConfigError as error:
        raise ConfigError(add_line_numbers(str(error), find, overridden)) from error
    return _with_absolute_paths(config)


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """The tables of a TOML text; ConfigError with line and column where it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is not valid TOML: {error}.") from error


def parse_override(override: str) -> tuple[str, Any]:
    """("train.epochs", 3) from "train.epochs=3".

    The value is read as TOML where it is TOML and as plain text elsewhere, so that
    data.root=/slices needs no quotes. "none" has no TOML spelling: key= with nothing behind it
    is absent.
    """
    key, equals, value = override.partition("=")
    if not equals or "." not in key:
        named = [setting for setting in setting_types() if setting.endswith(f".{key.strip()}")]
        hint = f"; did you mean {' or '.join(named)}?" if named else "."
        raise ConfigError(f"override {override!r} must read section.key=value{hint}")
    if not value.strip():
        return key.strip(), None
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    # No setting is a date, but a run may be named by one.
    return key.strip(), value.strip() if isinstance(parsed, date | time) else parsed


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train.epochs": 3} from {"train": {"epochs": 3}}; the value of a setting may be a dict."""
    known, values = setting_types(), {}
    for name, value in settings.items():
        key = prefix + name
        if isinstance(value, Mapping) and key not in known:
            values |= flatten_settings(value, f"{key}.")
        else:
            values[key] = str(value) if isinstance(value, Path) else value
    return values


def to_toml(config: Config) -> str:
    """All settings as TOML, from which load_config makes the same Config."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def read_secret(setting: str, variable: str) -> str:
    """The value of the environment variable that a setting names, such as serve.api_key_env.

    Raises ConfigError where it is not set or empty; the value itself is never shown.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"{setting} names the environment variable {variable}: set it first.")
    return value


def find_line(key: str, text: str) -> int | None:
    """The line, from 1, on which a TOML text sets "section.key"; None where it does not."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = header[1].replace('"', "") + "."
            if header[1] == key:
                return number
        elif (name := re.match(r"\s*([\w.\"-]+)\s*=", line)) and table + name[1].replace(
            '"', ""
        ) == key:
            return number
    return None


def add_line_numbers(message: str, find: FindLine, overridden: Collection[str] = ()) -> str:
    """The message, each setting it names followed by its line in the file.

    overridden: the settings whose value is not from the file.
    """

    def add(key: re.Match[str]) -> str:
        if key[0] in overridden:
            return f"{key[0]} (override)"
        line = find(key[0])
        return f"{key[0]} (line {line})" if line else key[0]

    return re.sub(r"\b[a-z_]+(?:\.[a-z_]+)+\b", add, message)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        if "=" in path.name:
            raise ConfigError(
                f"{path} is a setting, not a file: pass the TOML file first, then the settings, "
                f"such as configs/demo.toml {path}."
            ) from error
        reason = error.strerror or error
        raise ConfigError(
            f"cannot read the settings file {path} ({reason}): pass the path of a readable TOML "
            "file, such as configs/demo.toml."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the settings file {path} is not text in UTF-8: {error}.") from error


def _with_absolute_paths(config: Config) -> Config:
    paths = {
        "storage.root": config.storage.root,
        "data.root": config.data.root,
        "network.encoder_weights": encoder_weights(config.network),
        "train.preview_source": config.train.preview_source,
        "train.start_from": local_folder(config.train.start_from),
    }
    return config.with_values(
        {
            key: str(Path(path).expanduser().absolute())
            for key, path in paths.items()
            if path is not None and "://" not in path
        }
    )
