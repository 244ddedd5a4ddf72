"""The commands that register models, and errors of commands that need no cluster."""

from pathlib import Path
from typing import Any

import pytest
import typer

from contract.errors import ClusterError, RegistryError
from contract.registry import Registry
from contract.storage import LocalStorage
from inference.commands.models import list_models, promote, register, rollback
from inference.commands.serving import deploy, shutdown


def test_a_model_is_registered_promoted_and_rolled_back(
    make_bundle: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path)
    first, second = make_bundle(0.5).url, make_bundle(0.2).url
    for url in (first, second):
        register("bright", url, storage=root)
    for version in (1, 2):
        promote("bright", version, "production", root)
    rollback("bright", "production", root)
    list_models(root)
    copies = [version.bundle for version in Registry(LocalStorage(tmp_path)).versions("bright")]
    assert all(copy.startswith(f"{tmp_path}/registry/bright/bundles/") for copy in copies)
    assert capsys.readouterr().out.splitlines() == [
        f"bright@1 is {copies[0]}",
        f"bright@2 is {copies[1]}",
        "bright@production is version 1",
        "bright@production is version 2",
        "bright@production is version 1 again",
        f"bright@1    production     {copies[0]}",
        f"bright@2    -              {copies[1]}",
    ]
    register("bright", first, reference=True, storage=root)
    assert capsys.readouterr().out == f"bright@3 is {first}\n"


def test_without_a_registered_model_the_commands_that_register_one_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, root = tmp_path / "demo.toml", tmp_path / "storage"
    config.write_text(f'[storage]\nroot = "{root}"\n')
    with pytest.raises(RegistryError) as error:
        deploy(config)
    message = str(error.value)
    assert message.startswith(
        "serve.model = 'demo@production' cannot be served, because there is no model"
    )
    for command in (f"register demo {root}/runs/RUN/bundle", "promote demo 1 production"):
        assert f"`segfleet models {command} --storage {root}`" in message
    list_models(str(root))
    output = capsys.readouterr().out
    assert output.startswith(f"no model is registered in {root}/registry: register a bundle with `")
    assert output.count("\n") == 1


def test_shutdown_needs_the_address_of_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = tmp_path / "demo.toml"
    config.write_text("")
    with pytest.raises(ClusterError, match=r"neither cluster\.address nor RAY_ADDRESS"):
        shutdown(config)


def test_a_manifest_for_kuberay_needs_a_file_to_be_written(tmp_path: Path) -> None:
    config = tmp_path / "demo.toml"
    config.write_text("")
    with pytest.raises(typer.BadParameter, match="needs --write FILE"):
        deploy(config, kubernetes=True)
