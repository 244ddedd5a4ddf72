"""A light client works without the packages of the extras [train] and [serve]."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.waiting import HANG_TIMEOUT_S

ROOT = Path(__file__).parents[1]
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""
# Names of modules that differ from those of their packages.
MODULES = {
    "opencv-python-headless": "cv2",
    "tf-keras": "tf_keras",
    "grpcio-reflection": "grpc_reflection",
    "prometheus-client": "prometheus_client",
    "pyjpegls": "jpeg_ls",
    "pylibjpeg-openjpeg": "openjpeg",
    "python-multipart": "python_multipart",
    "uvicorn[standard]": "uvicorn",
}


def run_light(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which the packages of the extras are not importable."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    packages = [name for name in extras["train"] + extras["serve"] if not name.startswith("ray")]
    names = {MODULES.get(name, name) for name in packages}
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(names=names) + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
        check=False,
    )


def test_clusters_jobs_and_requests_need_no_extra() -> None:
    completed = run_light(
        "import cluster.__main__, cluster.jobs.client, cluster.jobs.job_package, cluster.upload\n"
        "import cluster.aws.launcher, cluster.capacity_check, contract.cli.main\n"
        "import contract.registry, inference\n"
        "print(inference.connect('http://127.0.0.1:8000/').url)\n"
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == "http://127.0.0.1:8000\n"


@pytest.mark.parametrize("command", ["train configs/demo.toml", "predict a.png b.png masks"])
def test_a_command_that_needs_an_extra_names_it(command: str) -> None:
    arguments = ["segfleet", *command.split()]
    completed = run_light(
        f"import sys; sys.argv = {arguments}\nfrom contract.cli.main import main\nmain()\n"
    )
    assert completed.returncode == 1
    assert "which is not installed: pip install 'segfleet[all]'." in completed.stderr
    assert "Traceback" not in completed.stderr
