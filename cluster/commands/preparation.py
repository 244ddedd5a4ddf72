"""Commands before the first job: check a cluster, and copy slices to its storage."""

from pathlib import Path
from typing import Annotated

import typer

from contract.cli.app import create_command_group, example_epilog, load_settings
from contract.cli.options import ConfigFile, Lenient, Overrides, Verbose
from contract.cli.progress_bar import progress_bar
from contract.plurals import pluralize

app = create_command_group()


@app.command(epilog=example_epilog("segfleet check configs/demo.toml train.num_workers=4"))
def check(
    path: ConfigFile,
    overrides: Overrides = None,
    cloud: Annotated[
        bool,
        typer.Option(
            "--cloud", help="Check the cluster that `up` would create, at its maximum size."
        ),
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Check the cluster of a cluster file, at its maximum size."),
    ] = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Check whether the cluster has the resources of CONFIG.

    Checks training, sweep and service on the cluster of CONFIG or RAY_ADDRESS; without one, on this
    machine.
    """
    from cluster import capacity_check
    from cluster.aws import launcher
    from cluster.connection import has_address

    config, initial_nodes = load_settings(path, overrides, lenient=lenient), None
    if cloud:
        tree = launcher.read_cluster_file(file or launcher.CLUSTER_FILE)
        filled = launcher.fill_cluster_file(tree, config.cluster.cloud, launcher.PLACEHOLDER)
        nodes, name = capacity_check.nodes_of_tree(filled), "the cluster of [cluster.cloud]"
        initial_nodes = capacity_check.nodes_of_tree(filled, "min_workers")
    elif file:
        nodes, name = capacity_check.nodes_of_file(file), str(file)
        initial_nodes = capacity_check.nodes_of_file(file, "min_workers")
    elif has_address(config.cluster):
        nodes, name = capacity_check.nodes_of_cluster(config.cluster), "the cluster"
    else:
        nodes, name = (
            capacity_check.nodes_of_machine(config.cluster),
            "a local cluster on this machine",
        )
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    typer.echo(f"{name}: nodes {len(nodes)}, CPUs {cpus:g}, GPUs {gpus:g}")
    findings = capacity_check.check_capacity(config, nodes, initial_nodes)
    for finding in findings:
        typer.echo(f"{finding.purpose:9} {'no ' if finding.errors else 'yes'} {finding.text}")
        for reason in finding.errors:
            typer.echo(f"{'':13} {reason}")
    if any(finding.errors for finding in findings):
        raise typer.Exit(1)


@app.command(epilog=example_epilog("segfleet upload ~/slices s3://my-bucket/slices"))
def upload(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to copy.")],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="An s3:// URL or a folder.")
    ],
    verbose: Verbose = False,
) -> None:
    """Copy a folder to storage, except unchanged files."""
    from cluster import upload as uploading
    from contract.storage import open_storage

    storage = open_storage(destination)
    files = uploading.find_changed_files(folder, storage)
    with progress_bar("uploading", len(files)) as bar:
        uploading.upload_files(folder, files, storage, lambda name: bar.update(1, name))
    typer.echo(f"uploaded {pluralize(len(files), 'file')} to {storage.url}")
