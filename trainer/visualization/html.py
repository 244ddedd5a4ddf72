"""HTML pages of results: one file each, which opens offline and loads nothing.

Style and images are inside the file, and a content security policy forbids everything else.
"""

import base64
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from contract.plurals import pluralize

_TEMPLATES = Path(__file__).parent / "templates"
_MISSING = "–"


def render(template: str, values: Mapping[str, object]) -> str:
    """A template of trainer/visualization/templates as HTML, every value escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": format_score,
        "percent": format_percent,
        "number": format_number,
        "count": format_count,
        "data_uri": data_uri,
        "format_time": format_time,
    }
    return environment.get_template(template).render(values)


def data_uri(png: bytes) -> str:
    """A PNG as a data: URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def format_score(value: float | None, digits: int = 3) -> str:
    """0.8342 as "0.834"; a dash for None."""
    return _MISSING if value is None else f"{value:.{digits}f}"


def format_percent(fraction: float | None, digits: int = 2) -> str:
    """0.0123 as "1.23 %"; a dash for None."""
    return _MISSING if fraction is None else f"{100 * fraction:.{digits}f} %"


def format_number(value: int) -> str:
    """1234567 as "1 234 567", with narrow spaces that do not break."""
    return f"{value:,}".replace(",", "\u202f")


def format_count(value: int, noun: str) -> str:
    """1 and "patient" as "1 patient", 1234 as "1 234 patients", with the number's spaces."""
    return pluralize(value, noun).replace(str(value), format_number(value))


def format_time(iso: str) -> str:
    """2026-01-31T12:34:56+00:00 as "2026-01-31 12:34 UTC"."""
    return f"{iso[:10]} {iso[11:16]} UTC"
