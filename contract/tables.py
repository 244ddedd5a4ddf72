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
