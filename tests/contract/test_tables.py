"""CSV files as every table of the project is written."""

from contract.tables import format_cell, to_csv


def test_rows_follow_the_header_and_none_is_an_empty_field() -> None:
    data = to_csv(["name", "dice"], [("a, b", 0.5), ("c", None)])
    assert data == b'name,dice\n"a, b",0.5\nc,\n'


def test_only_floats_are_formatted() -> None:
    assert [format_cell(each) for each in (1 / 3, 2.0, 1234567, "a", None)] == [
        "0.333333",
        "2",
        1234567,
        "a",
        None,
    ]
