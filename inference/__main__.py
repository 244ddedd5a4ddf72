"""The commands of inference: from bundles to masks."""

from contract.cli.app import create_app, run_app
from inference.commands import models, prediction, serving

app = create_app("Predict the masks of slices: of files, or over HTTP with Ray Serve.")
app.add_typer(prediction.app)
app.add_typer(serving.app)
app.add_typer(models.app)

if __name__ == "__main__":
    run_app(app)
