"""Errors that a user can cause and correct.

Each message is one or two sentences that name the key, file or address, what is wrong with it, and
the remedy. A command prints only the message and exits with 1; any other exception is a bug of
segfleet and keeps its stack trace.
"""


class UserError(Exception):
    """An error that the user can correct; the message says what is wrong and how to correct it."""


class ConfigError(UserError):
    """A setting is unknown, out of range or inconsistent with another one."""


class DataError(UserError):
    """An image, mask, split or dataset is missing, damaged or inconsistent."""


class StorageError(UserError):
    """A folder or bucket cannot be reached, read or written."""


class NotFoundError(StorageError):
    """The storage is reachable, but the object does not exist."""


class BundleError(UserError):
    """A bundle is missing, incomplete, damaged or of an unknown schema version."""


class RegistryError(UserError):
    """A model name, version or stage does not exist, or was changed concurrently."""


class ClusterError(UserError):
    """The Ray cluster cannot be reached or lacks the resources that the settings request."""


class TrainingError(UserError):
    """A run cannot start, resume or finish with these settings."""


def as_sentence(text: str) -> str:
    """The text with a full stop, unless it is a question."""
    return text if text.endswith("?") else f"{text}."


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message without its full stop; the error's type if empty."""
    return _line(error, 0)


def last_line(error: BaseException | str) -> str:
    """The last line of an error's message, where a stack trace names the cause; else its type."""
    return _line(error, -1)


def _line(error: BaseException | str, index: int) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[index].rstrip(".") if lines else type(error).__name__
