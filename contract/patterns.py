"""Regular expressions of users: data.patient_id_regex, and --patient-id-regex of commands."""

import re

from contract.errors import ConfigError


def compile_pattern(name: str, pattern: str) -> re.Pattern[str]:
    """Compile a user's regular expression; ConfigError if it is not valid.

    name: what precedes the value in the message, such as "--patient-id-regex".
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"{name} {pattern!r} is not a valid regular expression ({error}): correct it; an "
            "example is '^(PANCREAS_[0-9]+)'."
        ) from error
