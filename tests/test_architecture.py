"""The house keeps its floors: imports go down only, and importing does nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("contract", "cluster", "trainer", "inference", "tuning")
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
    if path.name != "__main__.py"
]


def test_imports_go_down_the_floors_only() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    told = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout


IMPORT = """
import importlib, json, logging, os, sys, threading
before = dict(os.environ)
for name in {names!r}:
    importlib.import_module(name)
ray = sys.modules.get("ray")
print(json.dumps({{
    "loaded": sorted({{name.split(".")[0] for name in sys.modules}}),
    "connected": bool(ray and ray.is_initialized()),
    "handlers": [
        name for name in {rooms!r} if logging.getLogger(name).handlers
    ],
    "set_by_us": sorted(
        name for name in os.environ if name not in before and name.startswith("SEGFLEET")
    ),
}}))
"""


def imported(names: list[str], folder: Path) -> dict[str, list[str]]:
    """What importing modules did, in a process of its own that started in an empty folder."""
    code = IMPORT.format(names=names, rooms=ROOMS)
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(told.stdout.splitlines()[-1])


def test_importing_everything_does_nothing(tmp_path: Path) -> None:
    facts = imported(MODULES, tmp_path)
    assert not facts["connected"]
    assert facts["handlers"] == []
    assert facts["set_by_us"] == []
    assert [
        path.name for path in tmp_path.iterdir() if path.name not in {".cache", ".config", ".keras"}
    ] == []


@pytest.mark.parametrize(
    ("rooms", "foreign"),
    [
        (("contract",), {"ray", "tensorflow", "tf_keras", "keras"}),
        (("contract", "cluster"), {"tensorflow", "tf_keras", "keras"}),
        (("inference",), {"tf_keras", "keras", "trainer", "tuning"}),
    ],
)
def test_a_room_loads_no_more_than_it_may(
    rooms: tuple[str, ...], foreign: set[str], tmp_path: Path
) -> None:
    modules = [name for name in MODULES if name.split(".")[0] in rooms]
    assert not foreign & set(imported(modules, tmp_path)["loaded"])


def test_the_driver_of_a_training_starts_without_tensorflow(tmp_path: Path) -> None:
    assert "tensorflow" not in imported(["trainer.training.launcher"], tmp_path)["loaded"]


def test_only_one_place_connects_to_ray() -> None:
    calls = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if "ray.init(" in path.read_text(encoding="utf-8")
    ]
    assert calls == ["cluster/connection.py"]


def test_no_module_has_a_name_that_says_nothing() -> None:
    nothing = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    assert not nothing & {part for name in MODULES for part in name.split(".")}


def test_every_shipped_configuration_is_valid() -> None:
    from contract.config.loader import load_config

    for path in sorted((ROOT / "configs").glob("*.toml")):
        load_config(path)


def test_every_page_a_page_links_to_exists() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"]
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
