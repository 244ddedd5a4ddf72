"""The syntax of an INI file whose values are Python literals.

Values are read with ast.literal_eval only: nothing of a file is executed.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# "\v" and other characters that str.splitlines accepts do not end a line.
_LINE_END = re.compile(r"\r\n|\r|\n")
_HEADER = re.compile(r"\s*\[\s*([^\[\]]*?)\s*\]\s*(?:[;#].*)?$")
_ENTRY = re.compile(r"(\s*[^\s=:\[][^=:]*?\s*[=:]\s*)(.*?)\s*$")
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


@dataclass(frozen=True)
class Entry:
    """A key with its value as text."""

    section: str
    key: str
    text: str
    """The value; an indented line continues it while a bracket is open."""
    line: int
    """The line of the key, from 1."""
    column: int
    """Where the value starts in this line, from 1."""
    lines: tuple[int, ...]
    """The number of each line of the value."""


class IniSyntaxError(Exception):
    """A place in the file that is not valid, and why."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.column, self.reason = line, column, reason


def parse_ini(text: str) -> tuple[list[Entry], list[IniSyntaxError]]:
    """The entries of a file in their order, and its lines that are neither a section nor an entry.

    Names of sections and keys are in lower case.
    """
    entries: list[Entry] = []
    faults: list[IniSyntaxError] = []
    section: str | None = None
    is_open = False
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if not line.strip() or line.lstrip()[0] in ";#":
            continue
        if is_open and line[0].isspace():
            entries[-1] = _continue_entry(entries[-1], number, line)
        elif header := _HEADER.match(line):
            section, is_open = header[1].lower(), False
            continue
        elif (entry := _ENTRY.match(line)) and section is not None:
            entries.append(_create_entry(section, number, entry))
        else:
            reason = "is a key before the first [section]" if entry else "is not key = value"
            faults.append(IniSyntaxError(number, len(line) - len(line.lstrip()) + 1, reason))
            is_open = False
            continue
        is_open = _has_open_bracket(entries[-1].text)
    return entries, faults


def read_literal(entry: Entry) -> Any:
    """The value of an entry; IniSyntaxError if it is not a Python literal.

    A comment may follow it after ";" or "#".
    """
    if not entry.text:
        raise IniSyntaxError(entry.line, entry.column, "has no value")
    fault: IniSyntaxError | None = None
    for text in _comment_candidates(entry.text):
        try:
            return _evaluate(text)
        except SyntaxError as error:
            fault = fault or _locate(entry, error)
        # A literal that is nested too deeply, too long a number, a list as a key, a name.
        except (ValueError, TypeError, MemoryError, RecursionError):
            reason = "is not a Python literal (text needs quotes)"
            fault = fault or IniSyntaxError(entry.line, entry.column, reason)
    assert fault, "there is always one candidate"
    raise fault


def _create_entry(section: str, number: int, match: re.Match[str]) -> Entry:
    key = match[1].strip().rstrip("=:").strip().lower()
    return Entry(section, key, match[2], number, len(match[1]) + 1, (number,))


def _continue_entry(entry: Entry, number: int, line: str) -> Entry:
    text, lines = f"{entry.text}\n{line}", (*entry.lines, number)
    return Entry(entry.section, entry.key, text, entry.line, entry.column, lines)


def _has_open_bracket(text: str) -> bool:
    """Whether a value continues on the next line: more brackets are opened than closed."""
    without_strings = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"|#.*", "", text)
    return sum(_BRACKETS.get(character, 0) for character in without_strings) > 0


def _comment_candidates(text: str) -> Iterator[str]:
    """The value as it is, and without what follows each ";" (literal_eval skips "#" itself)."""
    yield text
    for semicolon in re.finditer(r"\s*;", text):
        if semicolon.start():
            yield text[: semicolon.start()]


def _evaluate(text: str) -> Any:
    with warnings.catch_warnings():
        # The backslashes of a Windows path.
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def _locate(entry: Entry, error: SyntaxError) -> IniSyntaxError:
    index = min(max(error.lineno or 1, 1), len(entry.lines)) - 1
    column = max(error.offset or 1, 1) + (0 if index else entry.column - 1)
    detail = error.msg.split(" (")[0].strip().rstrip(".")
    return IniSyntaxError(entry.lines[index], column, f"is not a Python literal ({detail})")
