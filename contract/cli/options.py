"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from contract.cli.log_setup import enable_verbose
from contract.config import Storage

DEFAULT_STORAGE_ROOT = Storage().root

ConfigFile = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="The TOML file of settings (docs/settings.md), or a .config file "
        "(docs/from-antillia.md).",
    ),
]
Lenient = Annotated[
    bool,
    typer.Option(
        "--lenient", help="Take defaults for values of a .config file that cannot be read."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="Settings that replace those of CONFIG (docs/settings.md).",
    ),
]
BundleReference = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE",
        help="A bundle: its folder or s3:// address, NAME@STAGE, NAME@VERSION, or a run's name.",
    ),
]
StorageRoot = Annotated[
    str, typer.Option("--storage", help="Folder or s3:// address that contains the registry.")
]
ShowConfig = Annotated[
    bool, typer.Option("--show-config", help="Print all settings as TOML and do nothing else.")
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        callback=enable_verbose,
        is_eager=True,
        help="Show all log messages of segfleet and of the libraries.",
    ),
]
OnCluster = Annotated[
    bool,
    typer.Option("--cluster", help="Use all free CPUs or GPUs of a Ray cluster (RAY_ADDRESS)."),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Address of the Ray cluster; implies --cluster.")
]
