"""`python -m trainer …`: from a TOML file to a bundle and its figures."""

import typer

from contract import commands
from contract.commands import (
    ConfigFile,
    Overrides,
    ShowConfig,
    Verbose,
    application,
    example,
    progress,
    settings,
)

app = application("Prepare slices, train a network on Ray, and evaluate it by patient.")


@app.command(epilog=example("python -m trainer prepare configs/demo.toml"))
def prepare(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    verbose: Verbose = False,
) -> None:
    """Check every slice and mask, split by patient, and write the index that training reads."""
    from contract.storage import open_storage
    from trainer.data.cases import prepare as prepared

    chosen = settings(config, overrides, show_config)
    with progress("preparing slices") as advance:
        dataset = prepared(chosen.data, chosen.run.seed, open_storage(chosen.storage.root), advance)
    for split in ("train", "valid", "test"):
        cases = dataset.of(split)
        patients = len({case.patient for case in cases})
        typer.echo(f"{split:6} {patients:5} patients {len(cases):6} slices")
    typer.echo(f"slices in {dataset.root}")


if __name__ == "__main__":
    commands.run(app)
