"""Lines and literals of INI files as they are in the wild."""

from typing import Any

import pytest

from contract.config.ini.syntax import IniSyntaxError, parse_ini, read_literal


def values_of(text: str) -> dict[str, Any]:
    entries, errors = parse_ini(text)
    assert errors == []
    return {f"{entry.section}.{entry.key}": read_literal(entry) for entry in entries}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("a = 1", 1),
        ("A=1", 1),
        ("a : 1", 1),
        ("\ta\t=\t(256,256)\t", (256, 256)),
        ("   a = 'b'", "b"),
        ("a = [90, 180,]", [90, 180]),
        ("a = -0.3", -0.3),
        ('a = "../x:y=z/"', "../x:y=z/"),
        ('a = "x;y"', "x;y"),
        ("a = 512 ;768, not used", 512),
        ("a = (9,9) # comment [", (9, 9)),
        ("a = {(0,0,0):0, (0,255,0):1,}", {(0, 0, 0): 0, (0, 255, 0): 1}),
        ('a = "..\\data"', "..\\data"),
        ("a = None", None),
    ],
)
def test_values(line: str, value: Any) -> None:
    assert values_of(f"[s]\n{line}\n") == {"s.a": value}


def test_comments_and_blank_lines_are_skipped() -> None:
    assert values_of("; c\n\n[S] ; c\n# b = 2\n  ; c = 3\na = 1\n") == {"s.a": 1}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(end: str) -> None:
    entries, _ = parse_ini(end.join(["[s]", "a = 'x\x0cy'", "b = 2"]))
    assert [(entry.key, entry.line) for entry in entries] == [("a", 2), ("b", 3)]


def test_an_indented_line_continues_an_open_bracket_only() -> None:
    text = "[s]\na = [1, # one\n  ; nothing\n   2]\n  b = 3\nc = [4\nd = 5\n"
    entries, errors = parse_ini(text)
    assert errors == []
    assert [entry.key for entry in entries] == ["a", "b", "c", "d"]
    assert read_literal(entries[0]) == [1, 2]
    assert read_literal(entries[1]) == 3


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("[s]\nangles   = [90. 180, 270,]", 2, 13, "is not a Python literal (invalid syntax"),
        ("[s]\na = [1,\n  2 3]", 3, 3, "is not a Python literal (invalid syntax"),
        ("[s]\na = [1", 2, 5, "is not a Python literal ('[' was never closed"),
        ("[s]\na = b", 2, 5, "is not a Python literal (text needs quotes)"),
        ("[s]\na = open('x')", 2, 5, "is not a Python literal (text needs quotes)"),
        ("[s]\na =", 2, 4, "has no value"),
        ("[s]\na = {[]: 1}", 2, 5, "is not a Python literal (text needs quotes)"),
    ],
)
def test_what_is_not_a_literal(text: str, line: int, column: int, reason: str) -> None:
    (entry,), _ = parse_ini(text)
    with pytest.raises(IniSyntaxError) as caught:
        read_literal(entry)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("text", ["[" * 10_000, "-" * 50_000 + "1", "1" + "+1" * 50_000, "\0"])
def test_what_breaks_a_parser_is_not_a_literal(text: str) -> None:
    (entry,), _ = parse_ini(f"[s]\na = {text}")
    with pytest.raises(IniSyntaxError):
        read_literal(entry)


def test_other_lines_are_errors() -> None:
    entries, errors = parse_ini("a = 1\n[s]\n  nonsense\n[s\nb = 2\n= 3\n")
    assert [entry.key for entry in entries] == ["b"]
    assert [(error.line, error.column, error.reason) for error in errors] == [
        (1, 1, "is a key before the first [section]"),
        (3, 3, "is not key = value"),
        (4, 1, "is not key = value"),
        (6, 1, "is not key = value"),
    ]
