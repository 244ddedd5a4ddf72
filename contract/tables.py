"""CSV files."""

import csv
import io
from collections.abc import Iterable, Sequence


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    r"""A CSV file in UTF-8 with a header row and "\n" line ends.

    Args:
        columns: Names of the columns.
        rows: One sequence per row, in the order of the columns. None becomes an empty field.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def format_cell(value: object) -> object:
    """A float with six significant digits; any other value unchanged."""
    return f"{value:.6g}" if isinstance(value, float) else value
