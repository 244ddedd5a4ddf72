"""Regular expressions of users."""

import pytest

from contract.errors import ConfigError
from contract.patterns import compile_pattern


def test_a_pattern_that_is_not_valid_is_named_with_its_option() -> None:
    assert compile_pattern("--patient-id-regex", "^P").search("P1")
    with pytest.raises(ConfigError, match=r"^--patient-id-regex '\(' is not a valid regular"):
        compile_pattern("--patient-id-regex", "(")
