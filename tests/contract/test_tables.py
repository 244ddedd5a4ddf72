"""CSV files as every table of the project is written."""

from contract.tables import to_csv


def test_rows_follow_the_header_and_none_is_an_empty_field() -> None:
    data = to_csv(["name", "dice"], [("a, b", 0.5), ("c", None)])
    assert data == b'name,dice\n"a, b",0.5\nc,\n'
