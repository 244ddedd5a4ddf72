"""Commands that describe networks."""

from pathlib import Path
from typing import Annotated

import typer

from contract.cli.app import example_epilog, load_settings
from contract.cli.options import Overrides, Verbose
from contract.config import (
    NETWORKS,
    Config,
    Network,
    closest_match,
    network_name,
    validate,
)
from contract.config.loader import parse_override
from contract.errors import ConfigError, as_sentence
from contract.storage import open_storage

app = typer.Typer(
    help="List the networks, and show the layers of one.",
    epilog=example_epilog("segfleet networks --image-size 512"),
    invoke_without_command=True,
    rich_markup_mode=None,
)

ImageSizeOption = Annotated[
    int, typer.Option("--image-size", help="Height and width of the slices, in pixels.")
]
NetworkOrConfig = Annotated[
    str, typer.Argument(metavar="NAME|CONFIG", help="A network with its defaults, or a TOML file.")
]
NetworkOutput = Annotated[
    str, typer.Option("--output", help="Folder or s3:// prefix for the files.")
]


@app.callback()
def list_networks(
    ctx: typer.Context, image_size: ImageSizeOption = 256, verbose: Verbose = False
) -> None:
    """List the networks with their sizes for one grey slice and default settings, or show one."""
    if ctx.invoked_subcommand:
        return
    from trainer.components.network_summary import format_count, measure_network
    from trainer.networks.registry import build_network

    typer.echo(f"{'name':22} {'parameters':>10} {'multiply-adds':>13}  paper and settings")
    for section in NETWORKS:
        settings = {"name": network_name(section), "image_size": image_size}
        network = validate({"network": settings}, origin="--image-size").network
        size = measure_network(build_network(network, 1, network.image_channels).inference_model)
        counts = f"{format_count(size.parameters):>10} {format_count(size.multiply_adds):>13}"
        typer.echo(f"{network.name:22} {counts}  {section.model_fields['name'].description}")
        typer.echo(f"{'':48}{', '.join(_own_settings(section))}")


@app.command(epilog=example_epilog("segfleet networks show unet network.num_layers=4"))
def show(
    network: NetworkOrConfig,
    overrides: Overrides = None,
    output: NetworkOutput = ".",
    verbose: Verbose = False,
) -> None:
    """Draw a network and write the table of its layers.

    Writes NAME.svg and NAME.txt; every run has the same two files of its network.
    """
    from trainer.components.network_summary import (
        draw_network,
        format_count,
        layer_table,
        measure_network,
    )
    from trainer.networks.registry import build_network

    config = _load_network(network, overrides or [])
    classes = len(config.data.segmentation_classes)
    built = build_network(config.network, classes, config.input_channels)
    model, size = built.training_model, measure_network(built.inference_model)
    destination = open_storage(output)
    destination.write(f"{model.name}.svg", draw_network(model).encode())
    destination.write(f"{model.name}.txt", layer_table(model).encode())
    typer.echo(f"input: {' x '.join(str(side) for side in model.input_shape[1:])}")
    typer.echo(f"trainable parameters: {size.parameters} ({format_count(size.parameters)})")
    typer.echo(f"multiply-adds of a slice: {format_count(size.multiply_adds)}")
    typer.echo(f"graph: {destination.url}/{model.name}.svg")
    typer.echo(f"layers: {destination.url}/{model.name}.txt")


def _own_settings(section: type[Network]) -> list[str]:
    return [name for name in section.model_fields if name not in Network.model_fields]


def _load_network(network: str, overrides: list[str]) -> Config:
    """The settings of a network by its name, or of a file."""
    names = [network_name(section) for section in NETWORKS]
    if network in names:
        defaults = validate({"network": {"name": network}}, origin="defaults")
        return defaults.with_values(dict(map(parse_override, overrides)))
    if not Path(network).exists():
        raise ConfigError(
            as_sentence(
                f"{network} is neither a file nor one of the networks {', '.join(names)}"
                f"{closest_match(network, names)}"
            )
        )
    return load_settings(Path(network), overrides)
