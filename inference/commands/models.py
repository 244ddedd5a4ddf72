"""Commands of the registry of models."""

from typing import Annotated

import typer

from contract.cli.app import create_command_group, example_epilog
from contract.cli.options import DEFAULT_STORAGE_ROOT, BundleReference, StorageRoot

app = create_command_group()

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
VersionNumber = Annotated[int, typer.Argument(metavar="VERSION", help="Number of a version.")]
Stage = Annotated[str, typer.Argument(metavar="STAGE", help="A stage, such as production.")]


@app.command(epilog=example_epilog("segfleet models register demo segfleet-data/runs/demo/bundle"))
def register(
    name: ModelName,
    bundle: BundleReference,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Refer to the bundle where it is, instead of copying it."),
    ] = False,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
) -> None:
    """Register a bundle as the next version of a model.

    Copies it into the registry.
    """
    from contract.registry import Registry, open_bundle
    from contract.storage import open_storage

    source = open_bundle(bundle, storage).url
    version = Registry(open_storage(storage)).register(name, source, copy=not reference)
    typer.echo(f"{version.name}@{version.version} is {version.bundle}")


@app.command(epilog=example_epilog("segfleet models promote demo 1 production"))
def promote(
    name: ModelName,
    version: VersionNumber,
    stage: Stage,
    storage: StorageRoot = DEFAULT_STORAGE_ROOT,
) -> None:
    """Point a stage to a version.

    A service that follows the stage changes within seconds.
    """
    from contract.registry import Registry
    from contract.storage import open_storage

    Registry(open_storage(storage)).promote(name, version, stage)
    typer.echo(f"{name}@{stage} is version {version}")


@app.command(epilog=example_epilog("segfleet models rollback demo production"))
def rollback(name: ModelName, stage: Stage, storage: StorageRoot = DEFAULT_STORAGE_ROOT) -> None:
    """Point a stage to the version before its last promotion."""
    from contract.registry import Registry
    from contract.storage import open_storage

    version = Registry(open_storage(storage)).rollback(name, stage)
    typer.echo(f"{name}@{stage} is version {version.version} again")


@app.command("models", epilog=example_epilog("segfleet models list --storage s3://bucket/segfleet"))
def list_models(storage: StorageRoot = DEFAULT_STORAGE_ROOT) -> None:
    """List the registered models, their versions and stages."""
    from contract.registry import Registry, registration_hint
    from contract.storage import open_storage

    root = open_storage(storage)
    registry = Registry(root)
    names = registry.names()
    if not names:
        typer.echo(f"no model is registered in {root.url}/registry: {registration_hint(root)}.")
    for name in names:
        stages = registry.stages(name)
        for version in registry.versions(name):
            pointing = [stage for stage, number in stages.items() if number == version.version]
            label = ", ".join(pointing) or "-"
            typer.echo(f"{name}@{version.version:<4} {label:14} {version.bundle}")
