"""Commands that write settings: for a dataset, and from files of the Antillia projects."""

from pathlib import Path
from typing import Annotated

import typer

import trainer
from contract.cli.app import create_command_group, example_epilog
from contract.cli.options import Lenient, Overrides, Verbose
from contract.errors import ConfigError
from contract.storage import open_storage

app = create_command_group()

DatasetAddress = Annotated[
    str, typer.Argument(metavar="DATA", help="Folder or s3:// address of the slices.")
]
PlanOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings that are kept as they are given."),
]
BaseFile = Annotated[
    Path | None, typer.Option("--base", help="A TOML file whose settings are kept.")
]
Minutes = Annotated[
    float,
    typer.Option("--minutes", min=1.0, help="The time for `segfleet train`, all of it included."),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure/--no-measure",
        help="Time some training steps on this machine, or only estimate them; those of a cluster "
        "are always estimated.",
    ),
]
PlanOutput = Annotated[
    Path | None,
    typer.Option(
        "--output", help="The TOML file to write, which must not exist yet; absent: print it."
    ),
]
OriginalFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="The .config file (docs/from-antillia.md).")
]


@app.command(epilog=example_epilog("segfleet plan slices --minutes 30 --output my.toml"))
def plan(
    data: DatasetAddress,
    overrides: PlanOverrides = None,
    base: BaseFile = None,
    minutes: Minutes = 15.0,
    measure: Measure = True,
    output: PlanOutput = None,
    verbose: Verbose = False,
) -> None:
    """Choose settings for a dataset, and print them as TOML.

    They depend on a fingerprint of the slices and masks, on the machines that will train, and on
    the time. A comment gives the reason for each. The machines are those of the cluster that
    cluster.address or RAY_ADDRESS names, else this one.
    """
    destination = open_storage(str(output.absolute().parent)) if output else None
    if destination and output and destination.exists(output.name):
        raise ConfigError(_existing_file(output))
    text = trainer.plan(data, overrides or (), base=base, minutes=minutes, measure=measure).text
    if destination is None or output is None:
        typer.echo(text, nl=False)
        return
    if not destination.create(output.name, text.encode()):
        raise ConfigError(_existing_file(output))
    typer.echo(f"settings: {output}")


@app.command(epilog=example_epilog("segfleet convert train_eval_infer.config"))
def convert(
    file: OriginalFile,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Print a .config file as TOML.

    Each of its keys has a comment that says what becomes of it.

    Files with the suffixes .config and .ini are those of the Antillia
    Tensorflow-Image-Segmentation projects (docs/from-antillia.md).
    """
    from contract.config.ini.toml_page import convert_to_toml

    typer.echo(convert_to_toml(file, overrides or (), lenient=lenient), nl=False)


def _existing_file(file: Path) -> str:
    return f"{file} exists already: name another file, or delete it."
