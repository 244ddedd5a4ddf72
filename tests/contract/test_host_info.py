import json
import shutil
import subprocess
import sys
from pathlib import Path

from contract.host_info import (
    cpu_model,
    git_commit,
    gpu_memory_gb,
    host_info,
    package_version,
)

ROOT = Path(__file__).parents[2]


def git(folder: Path, *words: str) -> str:
    name = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *name, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def checkout(folder: Path) -> str:
    """A checkout with one commit, whose hash is returned."""
    git(folder, "init", "--quiet")
    (folder / "file").write_text("one")
    git(folder, "add", "file")
    git(folder, "commit", "--quiet", "--message", "one")
    return git(folder, "rev-parse", "HEAD")


def test_the_environment_fits_into_json():
    info = host_info()
    assert json.loads(json.dumps(info)) == info
    assert info["cores"] >= 1
    assert info["cpu"] in info["machine"]
    assert info["python"].startswith("3.")


def test_the_commit_of_a_checkout(tmp_path):
    expected = checkout(tmp_path)
    assert git_commit(tmp_path) == expected


def test_changed_files_are_reported(tmp_path):
    expected = checkout(tmp_path)
    (tmp_path / "file").write_text("two")
    assert git_commit(tmp_path) == f"{expected}-dirty"


def test_a_tag_does_not_replace_the_commit(tmp_path):
    expected = checkout(tmp_path)
    git(tmp_path, "tag", "--annotate", "v1", "--message", "one")
    assert git_commit(tmp_path) == expected


def test_a_folder_inside_another_checkout_has_no_commit(tmp_path):
    checkout(tmp_path)
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert git_commit(inside) is None


def test_code_that_was_shipped_knows_its_commit(tmp_path):
    shutil.copytree(ROOT / "contract", tmp_path / "contract")
    command = "from contract.host_info import code_commit; print(code_commit())"

    def read_commit() -> str:
        run = [sys.executable, "-c", command]
        return subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert read_commit() == "None\n"
    (tmp_path / "contract/commit.txt").write_text("0a1b\n")
    assert read_commit() == "0a1b\n"


def test_a_package_that_is_not_installed_has_no_version():
    assert package_version("no-such-package-of-anyone") is None
    assert package_version("numpy") is not None


def test_the_processor_is_read_from_the_system(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n")
    assert cpu_model(file) == "Some CPU @ 3 GHz"
    assert cpu_model(tmp_path / "absent") != ""


def test_the_memory_of_gpus_is_that_of_the_smallest(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory_gb() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 40960\necho 24576\n")
    program.chmod(0o755)
    assert gpu_memory_gb() == 24.0
