"""What a rule of the translation receives and returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.config.ini.keys import KEYS, KeyName, Status


@dataclass(frozen=True)
class Values:
    """The values of a file, by section and key."""

    given: Mapping[KeyName, Any]
    """Those that the file has and that can be read; None is as good as absent."""

    def has(self, section: str, key: str) -> bool:
        """Whether the file has a value for a key."""
        return self.given.get((section, key)) is not None

    def get(self, section: str, key: str) -> Any:
        """The value of a key, or the one that the projects use if it is absent."""
        value = self.given.get((section, key))
        return KEYS[section, key].default if value is None else value


@dataclass(frozen=True)
class Outcome:
    """What becomes of a key."""

    name: KeyName
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings that it determines."""
    status: Status = "translated"
    text: str = ""
    """The reason, or what to know about the settings."""


class TranslationError(Exception):
    """A value has no translation, and training without it would be another training."""

    def __init__(self, name: KeyName, reason: str) -> None:
        super().__init__(reason)
        self.name, self.reason = name, reason
