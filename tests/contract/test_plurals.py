"""Messages count in English."""

from contract.plurals import pluralize


def test_only_one_is_singular() -> None:
    assert [pluralize(count, "patient") for count in (0, 1, 2)] == [
        "0 patients",
        "1 patient",
        "2 patients",
    ]
