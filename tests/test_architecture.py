"""The layers hold: imports go down only, and importing a module has no side effects."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("contract", "cluster", "trainer", "inference", "tuning")
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__main__.py"
]


def test_imports_go_down_the_layers_only() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    completed = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout


IMPORT_SCRIPT = """
import importlib, json, logging, os, sys, threading
before = dict(os.environ)
for name in {modules!r}:
    importlib.import_module(name)
ray = sys.modules.get("ray")
print(json.dumps({{
    "loaded": sorted({{name.split(".")[0] for name in sys.modules}}),
    "connected": bool(ray and ray.is_initialized()),
    "log_handlers": [
        name for name in {packages!r} if logging.getLogger(name).handlers
    ],
    "environment": sorted(
        name for name in os.environ if name not in before and name.startswith("SEGFLEET")
    ),
}}))
"""


def import_modules(modules: list[str], folder: Path) -> dict[str, list[str]]:
    """The side effects of importing modules in a new process that starts in an empty folder."""
    completed = subprocess.run(
        [sys.executable, "-c", IMPORT_SCRIPT.format(modules=modules, packages=PACKAGES)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(completed.stdout.splitlines()[-1])


def test_importing_every_module_has_no_side_effects(tmp_path: Path) -> None:
    effects = import_modules(MODULES, tmp_path)
    assert not effects["connected"]
    assert effects["log_handlers"] == []
    assert effects["environment"] == []
    assert [
        path.name for path in tmp_path.iterdir() if path.name not in {".cache", ".config", ".keras"}
    ] == []


@pytest.mark.parametrize(
    ("packages", "forbidden"),
    [
        (("contract",), {"ray", "tensorflow", "tf_keras", "keras"}),
        (("contract", "cluster"), {"tensorflow", "tf_keras", "keras"}),
        (("inference",), {"tf_keras", "keras", "trainer", "tuning"}),
    ],
)
def test_a_package_loads_only_what_it_may(
    packages: tuple[str, ...], forbidden: set[str], tmp_path: Path
) -> None:
    modules = [name for name in MODULES if name.split(".")[0] in packages]
    assert not forbidden & set(import_modules(modules, tmp_path)["loaded"])


def test_processes_start_without_what_they_may_not_need(tmp_path: Path) -> None:
    """Those of a driver, a trial and a prediction: each import would delay all of them."""
    starts = ["trainer.training.launcher", "tuning.trainable", "inference.predictor"]
    loaded = set(import_modules(starts, tmp_path)["loaded"])
    assert not {"tensorflow", "matplotlib", "scipy"} & loaded


def test_only_one_module_connects_to_ray() -> None:
    calls = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "ray.init(" in path.read_text(encoding="utf-8")
    ]
    assert calls == ["cluster/connection.py"]


def test_only_one_module_uses_private_names_of_ray_and_keras() -> None:
    private = re.compile(r"ray\._private|ray\.train\.v2\._internal|serve\.context|tf_keras\.src")
    users = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if private.search(path.read_text(encoding="utf-8"))
    ]
    assert users == ["cluster/ray_internals.py"]


def test_no_module_has_a_meaningless_name() -> None:
    meaningless = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    assert not meaningless & {part for name in MODULES for part in name.split(".")}


def test_the_top_level_of_the_trainer_holds_packages_only() -> None:
    files = {path.name for path in (ROOT / "trainer").iterdir() if path.is_file()}
    assert files - {"py.typed"} == {"__init__.py", "__main__.py"}


def test_every_package_describes_itself() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
        if not path.read_text(encoding="utf-8").startswith('"""')
    ]
    assert silent == []


def test_every_test_file_is_at_the_path_of_its_module() -> None:
    misplaced = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / "tests" / package).rglob("test_*.py"))
        # A folder of that name holds the files of the pages that test_web checks.
        if not (
            module := (ROOT / path.relative_to(ROOT / "tests")).with_name(path.name[5:])
        ).is_file()
        and not module.with_suffix("").is_dir()
    ]
    assert misplaced == []


def test_the_tree_of_the_readme_names_existing_files() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("## Packages")[1].split("## Documentation")[0]
    package = ""
    for line in tree.splitlines():
        if not (match := re.match(r"    ( *)([\w.]+/?)  ?", line)):
            continue
        if not match[1]:
            package = match[2]
        path = package + match[2] if match[1] else package
        assert (ROOT / path).exists(), path


def test_every_shipped_configuration_is_valid() -> None:
    from contract.config.loader import load_config

    for path in sorted((ROOT / "configs").glob("*.toml")):
        load_config(path)


def test_links_between_pages_exist() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"]
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
