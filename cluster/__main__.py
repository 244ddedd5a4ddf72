"""The commands of cluster: clusters, jobs, and nodes in the cloud."""

from cluster.commands import aws, jobs, preparation
from contract.cli.app import create_app, run_app

app = create_app("Ray clusters, jobs, and nodes in the cloud.")
app.add_typer(preparation.app)
app.add_typer(jobs.app)
app.add_typer(aws.app)

if __name__ == "__main__":
    run_app(app)
