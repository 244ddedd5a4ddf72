"""Arguments that commands of several modules have."""

from typing import Annotated

import typer

BundleOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="Settings that replace those of the bundle: data.* that are not part of its graph, "
        "storage.*, predict.batch_size.",
    ),
]
