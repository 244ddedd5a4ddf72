import pytest
from jinja2 import UndefinedError

from trainer.visualization import html

VALUES = {"dataset": None}


def test_numbers_are_formatted():
    assert html.format_score(0.83449) == "0.834"
    assert html.format_score(0.99912, 4) == "0.9991"
    assert html.format_percent(0.01234) == "1.23 %"
    assert html.format_number(1234567) == "1\u202f234\u202f567"
    assert html.format_count(1, "patient") == "1 patient"
    assert html.format_count(1234, "patient") == "1\u202f234 patients"
    assert html.format_time("2026-01-31T12:34:56+00:00") == "2026-01-31 12:34 UTC"


def test_none_is_a_dash():
    assert html.format_score(None) == "–"
    assert html.format_percent(None) == "–"


def test_a_png_becomes_a_data_uri():
    assert html.data_uri(b"abc") == "data:image/png;base64,YWJj"


def test_a_value_that_a_template_lacks_is_a_bug():
    with pytest.raises(UndefinedError):
        html.render("report.html", VALUES)
