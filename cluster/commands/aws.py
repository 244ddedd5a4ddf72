"""Commands that start and end a cluster on AWS."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.jobs import follow_up_arguments
from contract.cli.app import create_command_group, example_epilog, load_settings
from contract.cli.options import ConfigFile, Lenient, Overrides, Verbose
from contract.config import Config
from contract.errors import ClusterError

app = create_command_group()

ClusterFile = Annotated[
    Path | None,
    typer.Option("--file", help="The cluster file; default: ./ray_cluster.yaml."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


@app.command(epilog=example_epilog("segfleet up configs/cloud.toml cluster.cloud.max_workers=2"))
def up(
    path: ConfigFile,
    overrides: Overrides = None,
    file: ClusterFile = None,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be created, and its price.")
    ] = False,
    write_only: Annotated[
        bool,
        typer.Option(
            "--write-only",
            help="Create bucket, roles and security group and write the cluster file, but start no "
            "node.",
        ),
    ] = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Start the cluster of [cluster.cloud] on AWS.

    Shows its price and asks for confirmation first.
    """
    from cluster.aws import instances, launcher, resources

    config = load_settings(path, overrides, lenient=lenient)
    cloud, source = config.cluster.cloud, file or launcher.CLUSTER_FILE
    launcher.check_ready(config, source)
    if not dry_run:
        resources.check_credentials(cloud.region)
    price, note = _spot_price(config)
    plan = launcher.create_plan(config, resources.find_buckets(config), price)
    table = instances.load_table()
    for line in plan.lines:
        typer.echo(line)
    typer.echo(
        f"price           {plan.idle_usd:.2f} USD an hour when idle, at most "
        f"{plan.max_usd:.2f} with all workers on demand\n"
        f"                (prices of {table.date} in {table.region}, without tax and traffic; "
        f"current prices: {table.look_up})"
    )
    if note:
        typer.echo(f"note: {note}", err=True)
    if dry_run:
        return
    if not yes:
        typer.confirm("Create these resources, at this cost?", abort=True)
    if write_only:
        written = launcher.create_cluster_file(config, source)
        typer.echo(f"written: {written}; start the cluster with `ray up {written}`")
        return
    written = launcher.up(config, source)
    typer.echo(
        f"cluster {launcher.cluster_name(cloud)} is running. In a second terminal, run:\n"
        f"  ray dashboard {written}\n"
        "then, in this one:\n"
        "  export RAY_AUTH_MODE=token\n"
        f"  segfleet submit {follow_up_arguments(path, (), lenient)} -- train\n"
        f"and when finished: segfleet down {follow_up_arguments(path, (), lenient)}"
    )


@app.command(epilog=example_epilog("segfleet down configs/cloud.toml"))
def down(
    path: ConfigFile,
    overrides: Overrides = None,
    yes: Yes = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Terminate all nodes, and check that none is left."""
    from cluster.aws import launcher, resources

    config = load_settings(path, overrides, lenient=lenient)
    cloud = config.cluster.cloud
    name = launcher.cluster_name(cloud)
    nodes = resources.list_instances(name, cloud.region)
    typer.echo(f"cluster {name} in {cloud.region} has {len(nodes)} nodes")
    if nodes and not yes:
        typer.confirm("Terminate them, with every job on them?", abort=True)
    launcher.down(config)
    typer.echo(
        f"no node of cluster {name} is left. The bucket, roles and security group remain; only "
        "the content of the bucket costs money."
    )


def _spot_price(config: Config) -> tuple[float | None, str]:
    """The current price of a spot worker, or None and why it is not known."""
    from cluster.aws import resources

    cloud = config.cluster.cloud
    if not cloud.spot:
        return None, ""
    try:
        return resources.find_spot_price(cloud.worker_type, cloud.region), ""
    except ClusterError as error:
        return None, f"the spot price is not known: {error}"
