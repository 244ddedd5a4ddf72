"""The Python code of docs/python.md and the notebook of docs/ run as they are."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.waiting import HANG_TIMEOUT_S

ROOT = Path(__file__).parents[2]
SERVICE_BLOCK = "inference.connect("
"""The block that needs a running service; tests/inference/serving/test_app.py runs it."""


def code_blocks() -> list[str]:
    text = (ROOT / "docs/python.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration file that the pages use."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "configs").mkdir()
    (folder / "configs/demo.toml").write_bytes((ROOT / "configs/demo.toml").read_bytes())
    return folder


def test_the_code_of_the_page_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = "\n".join(block for block in code_blocks() if SERVICE_BLOCK not in block)
    completed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
    )
    assert completed.returncode == 0, completed.stderr
    assert "first@1" in completed.stdout
    assert (project / "segfleet-data/runs/first/evaluation/test/report.html").is_file()


def test_the_notebook_runs_and_shows_progress_tables_and_an_image(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that the page has trained is used again."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=HANG_TIMEOUT_S, resources={"metadata": {"path": str(project)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output.data for output in outputs if "data" in output]
    assert any("<progress" in str(each.get("text/html")) for each in data)
    assert any("val_dice_coef" in str(each.get("text/html")) for each in data)
    assert any("PHANTOM_" in str(each.get("text/html")) for each in data)
    assert any("image/png" in each for each in data)
    errors = [output.text for output in outputs if output.get("name") == "stderr"]
    # Ray and tqdm recommend ipywidgets, which Jupyter installs itself.
    assert [text for text in errors if "ipywidgets" not in text] == []
