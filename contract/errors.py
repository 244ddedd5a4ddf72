"""The errors a user can cause and fix.

Each message is one or two plain sentences: which key, file or address, what is wrong with it,
what to do. A command prints the message alone and exits with 1; anything else that is raised is
a bug of ours and keeps its stack trace.
"""


class UserError(Exception):
    """An error that the user can correct; the message says what is wrong and how to correct it."""


class ConfigError(UserError):
    """A setting is unknown, out of its limits or at odds with another one."""


class DataError(UserError):
    """An image, mask, split or dataset is missing, damaged or inconsistent."""


class StorageError(UserError):
    """A folder or bucket cannot be reached, read or written."""


class NotFoundError(StorageError):
    """A store that can be reached holds no such object."""


class BundleError(UserError):
    """A bundle is missing, incomplete, damaged or of an unknown schema version."""


class RegistryError(UserError):
    """A model name, version or stage does not exist, or another promotion came first."""


class ClusterError(UserError):
    """The Ray cluster cannot be reached or cannot hold what the settings ask for."""


class TrainingError(UserError):
    """A run cannot start, continue or end as the settings ask."""


def as_sentence(text: str) -> str:
    """The text with a full stop, unless it is a question already."""
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
