"""The commands of training: from volumes and slices to a bundle that is evaluated by patient."""

from contract.cli.app import create_app, run_app
from trainer.commands import bundles, datasets, evaluation, networks, settings, training

app = create_app("Import volumes, train a network on Ray, and evaluate it by patient.")
app.add_typer(datasets.app)
app.add_typer(settings.app)
app.add_typer(networks.app, name="networks")
app.add_typer(training.app)
app.add_typer(evaluation.app)
app.add_typer(bundles.app)

if __name__ == "__main__":
    run_app(app)
