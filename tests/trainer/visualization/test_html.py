import pytest
from jinja2 import UndefinedError

from trainer.visualization import html

VALUES = {"dataset": None}


def test_numbers_read_well():
    assert html.score(0.83449) == "0.834"
    assert html.score(0.99912, 4) == "0.9991"
    assert html.percent(0.01234) == "1.23 %"
    assert html.number(1234567) == "1\u202f234\u202f567"
    assert html.format_time("2026-01-31T12:34:56+00:00") == "2026-01-31 12:34 UTC"


def test_what_is_absent_is_a_dash():
    assert html.score(None) == "–"
    assert html.percent(None) == "–"


def test_a_picture_is_an_address_that_holds_it():
    assert html.data_uri(b"abc") == "data:image/png;base64,YWJj"


def test_a_value_that_a_template_lacks_is_a_bug():
    with pytest.raises(UndefinedError):
        html.render("report.html", VALUES)
