"""docs/settings.md is the schema's own page."""

import subprocess
import sys
from pathlib import Path

from contract.config import ParameterSpec, sections
from contract.config.network import section_classes
from contract.config.reference import render_settings_reference

ROOT = Path(__file__).parents[3]


def test_the_page_is_current() -> None:
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == render_settings_reference(), (
        "run: python -m contract.config.reference > docs/settings.md"
    )


def test_every_setting_has_a_row() -> None:
    rows = [line for line in render_settings_reference().splitlines() if line.startswith("| `")]
    # The keys of a range stand there as well, and each network has a table of its own.
    count = sum(
        not section_classes(field.annotation)
        for _, section in sections()
        for field in section.model_fields.values()
    )
    assert len(rows) == count + len(ParameterSpec.model_fields)
    assert all(line.count(" | ") == 3 for line in rows)


def test_the_command_prints_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "contract.config.reference"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == render_settings_reference()
